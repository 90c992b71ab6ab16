//! Talking with neighbours: statuses once a second, rounds when something is missing.

use std::time::Duration;

use crate::Time;
use crate::anti_entropy::{Pending, STATUS_INTERVAL};
use crate::delta::SignedHeader;
use crate::identity::PeerKey;
use crate::rates::Kind;
use crate::round_log::Entry;
use crate::wire::{MAX_BODIES, MAX_HEADERS, Refusal, Request, Response, Role, Status};

use super::catch_up::History;
use super::{Action, Peer, Phase, Report};

impl Peer {
    /// `peer` asks something; the answer comes as [`Action::Respond`] with the same `token`.
    pub fn handle_request(&mut self, now: Time, peer: PeerKey, token: u64, bytes: &[u8]) {
        let response = match Request::decode(bytes) {
            Ok(Request::Bodies(hashes)) if hashes.len() > MAX_BODIES => {
                self.strike(now, "question for too many bodies", peer);
                Response::Refused(Refusal::TooMuch)
            }
            Ok(request) if !self.has_share(now, peer, &request) => Response::Refused(Refusal::TooMuch),
            Ok(Request::Access(shown)) => self.access_response(now, peer, &shown),
            Ok(request) if !self.may_ask(&peer, &request) => Response::Refused(Refusal::NotAdmitted),
            Ok(Request::Status(status)) => {
                let mine = self.status_for(&peer);
                self.handle_status(now, peer, status);
                Response::Status(mine)
            }
            Ok(Request::Round(round)) => self.round_response(round),
            Ok(Request::Blob { hash, offset, length }) => self.blob_response(&hash, offset, length),
            Ok(Request::Bodies(hashes)) => self.bodies_response(&hashes),
            Ok(Request::History) => self.history_response(),
            Err(_) => {
                self.strike(now, "malformed request", peer);
                Response::Refused(Refusal::NotHeld)
            }
        };
        let bytes = response.encode();
        self.rates.charge(now, peer, Kind::Byte, bytes.len() as u64);
        self.actions.push_back(Action::Respond { token, bytes });
        self.continue_phase(now);
    }

    /// Whether what `peer` asks is within its share; see [`crate::rates`].
    fn has_share(&mut self, now: Time, peer: PeerKey, request: &Request) -> bool {
        let (kind, tokens) = match request {
            Request::Status(_) => return self.within_rate(now, peer, Kind::Status, 1),
            Request::Round(_) | Request::History | Request::Access(_) => (Kind::Round, 1),
            Request::Blob { .. } => (Kind::Piece, 1),
            Request::Bodies(hashes) => (Kind::Piece, hashes.len() as u64),
        };
        // How many bytes it takes is known when they are there: some must be left.
        self.within_rate(now, peer, kind, tokens) && self.within_rate(now, peer, Kind::Byte, 1)
    }

    /// `peer` answered the request `id`, or (`None`) could not be asked.
    pub fn handle_response(&mut self, now: Time, peer: PeerKey, id: u64, answer: Option<&[u8]>) {
        if self.access_answered(now, peer, id, answer) {
            self.continue_phase(now);
            return;
        }
        let Some(pending) = self.neighbours.answered(now, &peer, id) else { return };
        let Some(bytes) = answer else {
            self.unanswered(now, peer, pending, false);
            self.continue_phase(now);
            return;
        };
        let answer = Response::decode(bytes);
        if let (Pending::Round(round), Ok(Response::Round(headers, _))) = (&pending, &answer) {
            self.settle_claim(&peer, *round, headers);
        }
        match (pending, answer) {
            (Pending::Status, Ok(Response::Status(status))) => self.handle_status(now, peer, status),
            (pending @ Pending::Round(round), Ok(Response::Round(headers, proofs))) => {
                let expected = |header: &crate::delta::Header| header.round == round;
                let most = self.genesis.rule.publishers as usize;
                let fits = headers.len() + proofs.len() <= most.min(MAX_HEADERS);
                let mut all = headers.iter().chain(proofs.iter().map(|proof| &proof.0));
                if !fits || !all.all(|signed| expected(&signed.header)) {
                    self.strike(now, "round response about something else", peer);
                    self.unanswered(now, peer, pending, false);
                } else if !self.may_say(&peer, round) {
                    // Asked before the join that is under way.
                } else {
                    self.join_headers(now, peer, round, &headers);
                    for proof in &proofs {
                        self.admit_proof(now, proof, peer);
                    }
                    // Before the offers: one whose body cannot even be asked for now takes this back.
                    self.join_round_listed(round);
                    for signed in headers {
                        self.offer(now, peer, signed);
                    }
                }
            }
            (Pending::Blob(hash), Ok(Response::Blob { total, bytes })) => {
                self.piece_arrived(now, peer, hash, total, &bytes);
            }
            (Pending::Bodies(hashes), Ok(Response::Bodies(bodies))) => {
                self.bodies_arrived(now, peer, &hashes, bodies);
            }
            (Pending::History, Ok(Response::History { first, held_from, digests })) => {
                let rounds = &self.genesis.rounds;
                let most = u64::from(rounds.retention) + 2 * u64::from(rounds.window) + 1;
                if digests.is_empty() || digests.len() as u64 > most || first > u64::MAX / 2 {
                    self.strike(now, "impossible history", peer);
                    self.unanswered(now, peer, Pending::History, false);
                } else {
                    self.history_arrived(now, peer, History { first, held_from, digests });
                }
            }
            (pending, Ok(Response::Refused(_))) => self.unanswered(now, peer, pending, false),
            (pending, _) => {
                self.strike(now, "malformed response", peer);
                self.unanswered(now, peer, pending, false);
            }
        }
        self.continue_phase(now);
    }

    /// A question was refused, failed, timed out (`silent`), or its peer is gone.
    pub(super) fn unanswered(&mut self, now: Time, peer: PeerKey, pending: Pending, silent: bool) {
        if matches!(pending, Pending::Blob(_) | Pending::Bodies(_)) {
            self.neighbours.slow_down(&peer);
            self.release_chunks(&peer);
        }
        match pending {
            Pending::Status => {}
            Pending::Round(round) => {
                self.settle_claim(&peer, round, &[]);
                self.join_failed(now, peer, silent);
            }
            Pending::History => self.join_failed(now, peer, silent),
            Pending::Blob(hash) => self.piece_failed(now, peer, hash),
            Pending::Bodies(hashes) => {
                hashes.iter().for_each(|hash| self.piece_failed(now, peer, *hash));
            }
        }
    }

    /// `peer` has told what it knows of a round: deltas with our own signature are never signed again.
    fn settle_claim(&mut self, peer: &PeerKey, round: u64, headers: &[SignedHeader]) {
        if self.claims.get(peer) != Some(&round) {
            return;
        }
        self.claims.remove(peer);
        for signed in headers {
            let header = &signed.header;
            let ours = header.author == self.me && header.swarm == self.swarm && header.round == round;
            if ours && self.checks.is_signed(signed) {
                self.next_to_sign = self.next_to_sign.max(round + 1);
            }
        }
    }

    /// Asks `peer`, unless it is gone or has too many questions to answer.
    pub(super) fn ask(&mut self, now: Time, peer: PeerKey, pending: Pending, request: &Request) -> bool {
        let Some(id) = self.neighbours.ask(now, peer, pending) else { return false };
        self.actions.push_back(Action::Request { peer, id, bytes: request.encode() });
        true
    }

    pub(super) fn ask_round(&mut self, now: Time, peer: PeerKey, round: u64) -> bool {
        self.neighbours.is_pending(&peer, &Pending::Round(round))
            || self.ask(now, peer, Pending::Round(round), &Request::Round(round))
    }

    pub(super) fn send_status(&mut self, now: Time, peer: PeerKey) {
        let request = Request::Status(self.status_for(&peer));
        self.ask(now, peer, Pending::Status, &request);
    }

    fn status_for(&self, peer: &PeerKey) -> Status {
        let seeking = matches!(self.phase, Phase::Seeking { .. });
        Status {
            round: self.round,
            your_next_round: self.membership.latest(peer).map_or(0, |round| round + 1),
            settled: self.log.settled(),
            log_digest: self.log.log_digest(),
            open: if seeking { Vec::new() } else { self.log.set_digests(self.log.settled()) },
            checkpoint: self.checkpoints.newest().map(|held| held.checkpoint),
            role: self.role(),
            access: self.gate.digest(),
        }
    }

    fn round_response(&self, round: u64) -> Response {
        if round < self.log.held_from() {
            return Response::Refused(Refusal::NotHeld);
        }
        let (mut headers, mut proofs) = (Vec::new(), Vec::new());
        for entry in self.log.entries(round) {
            match entry {
                Entry::Delta(delta) => headers.push(delta.signed),
                Entry::Void(proof) => proofs.push(**proof),
            }
        }
        Response::Round(headers, proofs)
    }

    /// Whether a peer that keeps to the rules could be there: what is said further than that would only be
    /// kept, or reckoned with.
    fn is_possible(&self, status: &Status) -> bool {
        let rounds = &self.genesis.rounds;
        // Who takes back what it has settled holds these open for a while.
        let open = rounds.retention as usize + 3 * rounds.window as usize;
        status.round <= u64::MAX / 2
            && status.settled <= status.round
            && status.checkpoint.is_none_or(|checkpoint| checkpoint.settled <= status.settled)
            && status.open.len() <= open
    }

    fn handle_status(&mut self, now: Time, peer: PeerKey, status: Status) {
        if !self.is_possible(&status) {
            self.strike(now, "impossible status", peer);
            return;
        }
        self.met_others = true;
        self.compare_access(now, peer, status.access);
        let claimed = status.your_next_round;
        let settled = self.log.settled();
        // Rounds whose gossip is still in the air settle by themselves; when nothing new comes, or
        // something is being caught up with, there is no reason to be patient.
        let patience = match self.phase {
            Phase::Training | Phase::Waiting { .. } | Phase::Extracting(_) | Phase::Persisting(_) => {
                STATUS_INTERVAL
            }
            _ => Duration::ZERO,
        };
        let rounds = settled..=self.newest();
        let known = self.log.digest_after(status.settled);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        let differing =
            neighbour.differing(now, &status, rounds, |round| self.log.set_digest(round), patience);
        let diverged = known.is_some_and(|digest| digest != status.log_digest) && !neighbour.diverged;
        neighbour.diverged |= diverged;
        neighbour.heard += 1;
        let outside = matches!(self.phase, Phase::Seeking { .. } | Phase::Joining(_));
        let unheard =
            outside && claimed > self.next_to_sign && !std::mem::replace(&mut neighbour.claim_heard, true);
        let joining = status.role == Role::Joining;
        // Rounds that are open here and settled there are not among its open sets; its history tells whether
        // we lack something of them.
        let behind = self.log.settled()..status.settled.min(self.round);
        let digest = Some(status.log_digest);
        let lacking = behind.end == status.settled && self.log.expected_digest(status.settled) != digest;
        let settled = status.settled;
        let theirs = status.checkpoint;
        neighbour.status = Some((status, now));
        if diverged && !joining {
            self.report(Report::Diverged { peer, settled });
        }
        if !joining && matches!(self.phase, Phase::Finishing { .. }) && self.differing().next().is_some() {
            // No more rounds will settle here, but everybody has the headers of the last one.
            self.count_bases(self.round.saturating_sub(1));
            self.seek_majority(now);
        }
        if outside {
            // A folder that was restored from an old backup: nothing is signed before this is known. Each
            // neighbour is asked once, so nobody can hold it up for long.
            if unheard {
                self.ask_round(now, peer, claimed - 1);
                self.claims.insert(peer, claimed - 1);
            }
            return;
        }
        if matches!(self.phase, Phase::Training | Phase::Waiting { .. }) && self.is_left_behind() {
            // Our open rounds and theirs no longer overlap: join again. What was learned stays in the
            // residual.
            self.phase = Phase::Seeking { since: now };
            return;
        }
        if let Some(checkpoint) = theirs {
            self.compare_state(now, peer, &checkpoint);
        }
        if claimed > self.next_to_sign {
            // A claim alone proves nothing; a delta with our signature does.
            self.ask_round(now, peer, claimed - 1);
        }
        for round in behind.filter(|_| lacking).chain(differing) {
            self.ask_round(now, peer, round);
        }
    }
}
