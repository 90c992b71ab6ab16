//! Getting to where the swarm is, from nothing or from an old snapshot.
//!
//! 1. A status says where a neighbour is. If our own history reaches into what it retains, both are
//!    compared (see `branch`), and only the rounds that differ or are missing are fetched (step 4).
//! 2. Otherwise a checkpoint is the target. It is believed only if signed headers vouch for it: those of the
//!    last round, as several neighbours list them. The manifest that most of their authors name counts. The
//!    manifest names all the rest, so nothing else has to be believed. (Headers of the round in which the
//!    checkpoint was new would do as well, if nobody ever took up another history later.)
//!    Who was invited to a certain checkpoint takes that one and asks nobody.
//! 3. The coefficients are fetched by their digest, piece by piece, and verified against it.
//! 4. Every round since is fetched in order, folded and settled as if it had been lived through.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Time;
use crate::anti_entropy::{Pending, QUESTION_TIMEOUT};
use crate::checkpoint::{Checkpoints, Held, Name};
use crate::delta::SignedHeader;
use crate::identity::PeerKey;
use crate::replica::Replica;
use crate::round_log::RoundLog;
use crate::wire::{Request, Role, Status};

use super::branch::{Majority, weighing};
use super::catch_up::History;
use super::{Peer, Phase, Report};

/// Rounds that the source may refuse in a row before another one is looked for. It may be silent a few times:
/// whatever times out together counts as one silence, for a link that is busy stops all questions at once.
/// What is said where nobody has the checkpoint of the invite.
const NO_PIN: &str = "no neighbour has the checkpoint that the invite pins: it may be too old by now. Ask for a new \
                      invite, or join with one that pins none";
const MAX_UNANSWERED: u32 = 16;
const SILENCE: u32 = MAX_UNANSWERED / 4;

/// The same for a question that is asked alone.
const MAX_TRIES: u32 = 4;

/// How long a peer that was part of the swarm looks for somebody to join.
const GO_ON: Duration = Duration::from_secs(10);

/// How many neighbours a peer wants to hear before it chooses whom to join, and for how long it waits for them.
const HEAR: usize = 4;
const HEAR_FOR: Duration = Duration::from_secs(3);

/// A join under way.
pub(super) struct Join {
    source: PeerKey,
    /// The source's round.
    target: u64,
    pub(super) stage: Stage,
    /// Questions in a row without an answer.
    pub(super) unanswered: u32,
    /// When questions last timed out.
    silent: Option<Time>,
    /// How often the swarm had gone on when all was here.
    pub(super) chases: u32,
    /// Why it cannot go on.
    failed: Option<&'static str>,
}

pub(super) enum Stage {
    /// Asking for the log digests of the source, which shall have the history of the majority, if that is
    /// given; these neighbours have been asked.
    Comparing { majority: Option<Majority>, tried: BTreeSet<PeerKey> },
    /// Asking for the headers that tell whether most authors have this history of the source; these neighbours
    /// have been asked.
    Weighing { history: History, tried: BTreeSet<PeerKey> },
    /// Asking these neighbours for the headers of `round`, to see which checkpoint their authors name.
    Vouching { round: u64, asked: BTreeSet<PeerKey>, named: BTreeMap<PeerKey, Name> },
    /// Fetching the coefficients of this checkpoint.
    Fetching(Name),
    /// Fetching the rounds since; these have been listed by the source. Where the source has settled,
    /// nobody else has a say, and its digests must come out.
    CatchingUp { listed: BTreeSet<u64>, history: History },
}

impl Join {
    /// Whether it is `peer` that is asked.
    pub(super) fn is_source(&self, peer: &PeerKey) -> bool {
        self.source == *peer
    }

    /// Rounds below are taken from the source alone.
    pub(super) fn closed_below(&self) -> u64 {
        match &self.stage {
            Stage::CatchingUp { history, .. } => history.settled(),
            _ => 0,
        }
    }

    /// The history that was to be weighed, and who has been asked.
    pub(super) fn take_weighed(&mut self) -> Option<(History, BTreeSet<PeerKey>)> {
        match &mut self.stage {
            Stage::Weighing { history, tried } => Some((std::mem::take(history), std::mem::take(tried))),
            _ => None,
        }
    }

    /// Goes on to the next stage.
    pub(super) fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.unanswered = 0;
    }

    /// Whose digests are awaited, if they are `source`'s.
    pub(super) fn comparing_with(&self, source: &PeerKey) -> Option<(Option<Majority>, BTreeSet<PeerKey>)> {
        match &self.stage {
            Stage::Comparing { majority, tried } if self.source == *source => {
                Some((*majority, tried.clone()))
            }
            _ => None,
        }
    }
}

impl Peer {
    /// The neighbour to join at, and its status.
    pub(super) fn somebody_to_join(&self) -> Option<(PeerKey, Status)> {
        self.best_source(|status| !self.is_behind(status))
    }

    /// Whether somebody there says nothing about where the swarm is: it may have begun alone. Who has no way to
    /// begin follows anybody.
    pub(super) fn is_behind(&self, status: &Status) -> bool {
        let slack = if self.member { self.longest_jump() } else { 0 };
        self.gives_up_seeking().is_some() && status.round + slack < self.round
    }

    /// Whether enough neighbours have said where they are to choose among them.
    fn has_heard_enough(&self, now: Time, since: Time) -> bool {
        let heard = self.neighbours.iter().filter(|(_, neighbour)| neighbour.status.is_some()).count();
        heard >= self.neighbours.len().min(HEAR) || now >= since + HEAR_FOR
    }

    /// Of the neighbours that suit and have failed us least, the one in the middle: who says that it is far
    /// ahead of all others is believed last.
    fn best_source(&self, suits: impl Fn(&Status) -> bool) -> Option<(PeerKey, Status)> {
        let fit = self.neighbours.iter().filter_map(|(peer, neighbour)| {
            let (status, _) = neighbour.status.as_ref()?;
            let fit = status.role != Role::Joining && suits(status);
            fit.then_some((neighbour.failed_joins, status.round, *peer, status))
        });
        let mut all: Vec<_> = fit.collect();
        let least = all.iter().map(|(failed, ..)| *failed).min()?;
        all.retain(|(failed, ..)| *failed == least);
        all.sort_unstable_by_key(|(_, round, peer, _)| (*round, *peer));
        let (_, _, peer, status) = all.get((all.len() - 1) / 2)?;
        Some((*peer, (*status).clone()))
    }

    /// The lower median of what those neighbours who have failed us least say of themselves. `None` without
    /// any.
    pub(super) fn neighbours_at(&self, what: impl Fn(&Status) -> u64) -> Option<u64> {
        let says = self.neighbours.iter().filter_map(|(_, neighbour)| {
            let (status, _) = neighbour.status.as_ref()?;
            (status.role != Role::Joining).then(|| (neighbour.failed_joins, what(status)))
        });
        let mut all: Vec<(u32, u64)> = says.collect();
        let least = all.iter().map(|(failed, _)| *failed).min()?;
        all.retain(|(failed, _)| *failed == least);
        all.sort_unstable();
        all.get((all.len() - 1) / 2).map(|(_, what)| *what)
    }

    /// Whether most neighbours are so far ahead that going after them would settle rounds that may be
    /// incomplete here.
    pub(super) fn is_left_behind(&self) -> bool {
        self.neighbours_at(|status| status.round)
            .is_some_and(|round| round > self.round + self.longest_jump())
    }

    /// How many rounds a peer may go on at once. What settles by that has been open here for as long again, so
    /// anti-entropy has completed it; what is further goes through a join. So does anything that happened while
    /// this peer was not there.
    pub(super) fn longest_jump(&self) -> u64 {
        if self.in_touch { u64::from(self.genesis.rounds.window / 2).max(1) } else { 1 }
    }

    pub(super) fn continue_seeking(&mut self, now: Time, since: Time) {
        let Some((source, status)) = self.somebody_to_join() else {
            if self.gives_up_seeking().is_some_and(|after| now >= since + after) {
                // Who has met others goes on alone, without publishing; see `handle_trained`.
                if !self.met_others {
                    self.report(Report::Founded);
                }
                self.begin_round(now);
            }
            return;
        };
        if !self.has_heard_enough(now, since) {
            return;
        }
        if self.member && self.given_up.is_none() && !self.is_left_behind() {
            // Who said that the swarm is far ahead could not show it.
            self.begin_round(now);
            return;
        }
        let retained = self.log.retains(self.log.settled(), status.settled);
        let has_any = self.pinned().is_none()
            && self.has_state
            && (self.round >= status.round || retained && self.has_history(status.settled));
        if has_any {
            self.compare(now, None, &BTreeSet::new());
            return;
        }
        self.take_checkpoint(now, source);
    }

    /// Starts from this checkpoint and from no other, whatever authors vouch for, unless this peer has settled as
    /// many rounds already. What comes after it is taken from the swarm as ever.
    pub fn pin(&mut self, name: Name) {
        self.pin = Some(name);
    }

    /// The checkpoint that this peer has still to start from.
    fn pinned(&self) -> Option<Name> {
        self.pin.filter(|pin| !self.member && pin.settled > self.log.settled())
    }

    /// How long to look for somebody to join before going on alone. Who has been part of the swarm does so even
    /// if it was not to found one: all of its neighbours may be waiting like itself.
    pub(super) fn gives_up_seeking(&self) -> Option<Duration> {
        if !self.has_state || self.pinned().is_some() || !self.is_admitted() {
            return None;
        }
        if self.member { Some(GO_ON) } else { self.part.found_after }
    }

    pub(super) fn join_from(&mut self, source: PeerKey, target: u64, stage: Stage) {
        // Nobody is followed further than most are.
        let target = self.neighbours_at(|status| status.round).map_or(target, |most| target.min(most));
        let chases = match &self.phase {
            Phase::Joining(join) => join.chases,
            _ => 0,
        };
        self.phase =
            Phase::Joining(Join { source, target, stage, unanswered: 0, silent: None, chases, failed: None });
    }

    /// Starts to join at the newest checkpoint of `source` or of another neighbour, for want of a history in
    /// common.
    pub(super) fn take_checkpoint(&mut self, now: Time, source: PeerKey) {
        if let Some(pin) = self.pinned() {
            let target = self.neighbours_at(|status| status.round).unwrap_or(0);
            self.report(Report::JoiningAt(pin));
            self.join_from(source, target, Stage::Fetching(pin));
            self.continue_joining(now);
            return;
        }
        // One without a checkpoint, as after a restart, is no help: then another one will do.
        let any = self.given_up.is_some() || !self.has_state;
        let fits = |status: &Status| {
            status.checkpoint.is_some_and(|checkpoint| any || checkpoint.settled > self.log.settled())
        };
        let asked = self.neighbours.iter().find(|(peer, _)| **peer == source);
        let asked =
            asked.and_then(|(_, neighbour)| neighbour.status.as_ref()).map(|(status, _)| status.clone());
        let found = asked.filter(fits).map(|status| (source, status)).or_else(|| self.best_source(fits));
        let Some((source, Status { round: target, checkpoint: Some(checkpoint), .. })) = found else {
            self.blame(&source);
            self.phase = Phase::Seeking { since: now };
            return;
        };
        if self.take_start(now, source, target, checkpoint.name()) {
            return;
        }
        // The last round that is complete there; others have it too, or had it when they were there.
        let round = target.saturating_sub(1);
        let mut asked: BTreeSet<PeerKey> = self.neighbours.others(&source, HEAR - 1).into_iter().collect();
        asked.insert(source);
        asked.retain(|peer| self.ask_round(now, *peer, round));
        if asked.is_empty() {
            self.phase = Phase::Seeking { since: now };
        } else {
            self.join_from(source, target, Stage::Vouching { round, asked, named: BTreeMap::new() });
        }
    }

    /// Whether going on from our own log makes sense: a newcomer to a swarm with a long history takes a
    /// checkpoint, not every delta since the beginning.
    fn has_history(&self, their_settled: u64) -> bool {
        self.log.settled() > 0 || their_settled <= u64::from(self.genesis.rounds.window)
    }

    /// Gives up the join under way; the next status starts a new one.
    pub(super) fn seek_again(&mut self, now: Time, why: &'static str) {
        self.pause_transfer();
        if let Phase::Joining(join) = &self.phase {
            let source = join.source;
            self.blame(&source);
        }
        self.report(Report::CannotJoin(why));
        self.phase = Phase::Seeking { since: now };
        // A status that led nowhere is not tried twice.
        let peers: Vec<PeerKey> = self.neighbours.iter().map(|(peer, _)| *peer).collect();
        for peer in peers {
            if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                neighbour.status = None;
            }
        }
    }

    /// Headers of `round` arrived: if they are the ones awaited, count what they vouch for.
    pub(super) fn join_headers(&mut self, now: Time, source: PeerKey, round: u64, headers: &[SignedHeader]) {
        let Phase::Joining(join) = &self.phase else { return };
        if let Stage::Weighing { history, .. } = &join.stage
            && join.source == source
            && weighing(history, self.genesis.rounds.window.into()) == Some(round)
        {
            self.weigh(now, source, headers);
            return;
        }
        let Phase::Joining(Join { stage: Stage::Vouching { round: awaited, asked, named }, .. }) =
            &mut self.phase
        else {
            return;
        };
        if round != *awaited || !asked.remove(&source) {
            return;
        }
        for signed in headers {
            let header = &signed.header;
            // No author has settled more than its round says: what is beyond is not even counted.
            let possible = (1..=self.log.settled_at(round)).contains(&header.checkpoint_round);
            let about = header.swarm == self.swarm && possible && header.author != self.me;
            let admitted = self.gate.register.has_admitted(&header.author, header.round);
            if about && admitted && !named.contains_key(&header.author) && self.checks.is_signed(signed) {
                let name = Name { settled: header.checkpoint_round, manifest: header.checkpoint_digest };
                named.insert(header.author, name);
            }
        }
        if asked.is_empty() {
            self.choose_checkpoint();
        }
    }

    /// Everybody who was asked has told, or will not: the checkpoint that most authors name is the one.
    fn choose_checkpoint(&mut self) {
        let Phase::Joining(Join { stage: Stage::Vouching { named, .. }, .. }) = &self.phase else { return };
        let any = self.given_up.is_some() || !self.has_state;
        let mut votes: BTreeMap<Name, usize> = BTreeMap::new();
        for name in named.values().filter(|name| any || name.settled > self.log.settled()) {
            *votes.entry(*name).or_default() += 1;
        }
        // A tie: the newer one, then the smallest digest, the same for everybody.
        let order =
            |(name, authors): &(Name, usize)| (*authors, name.settled, std::cmp::Reverse(name.manifest));
        match votes.into_iter().max_by_key(order) {
            Some((name, _)) => {
                self.report(Report::JoiningAt(name));
                if let Phase::Joining(join) = &mut self.phase {
                    join.enter(Stage::Fetching(name));
                }
            }
            None => self.join_cannot_use("no author vouches for a checkpoint"),
        }
    }

    /// `peer`, if it is the source, does not answer what it knows of a round, or its history. It is asked
    /// again a few times: what it has listed is lost with the join, and a network that loses one question in
    /// five would never let anybody in.
    pub(super) fn join_failed(&mut self, now: Time, peer: PeerKey, silent: bool) {
        let Phase::Joining(join) = &mut self.phase else { return };
        if let Stage::Vouching { asked, named, .. } = &mut join.stage
            && (asked.len() > 1 || !named.is_empty())
        {
            if asked.remove(&peer) && asked.is_empty() {
                self.choose_checkpoint();
            }
            return;
        }
        // Of those who were to vouch, the last one stands for all.
        let last = matches!(&join.stage, Stage::Vouching { asked, .. } if asked.contains(&peer));
        if join.source != peer && !last || matches!(join.stage, Stage::Fetching(_)) {
            return;
        }
        let catching_up = matches!(join.stage, Stage::CatchingUp { .. });
        if catching_up && silent {
            if join.silent.is_some_and(|then| now < then + QUESTION_TIMEOUT) {
                return;
            }
            join.silent = Some(now);
        }
        join.unanswered += if catching_up && silent { SILENCE } else { 1 };
        let window = u64::from(self.genesis.rounds.window);
        let asked = match &join.stage {
            Stage::CatchingUp { .. } => join.unanswered < MAX_UNANSWERED,
            _ if join.unanswered >= MAX_TRIES => false,
            Stage::Comparing { .. } => self.ask(now, peer, Pending::History, &Request::History),
            Stage::Weighing { history, .. } => {
                let round = weighing(history, window);
                round.is_some_and(|round| self.ask_round(now, peer, round))
            }
            Stage::Vouching { round, .. } => {
                let round = *round;
                self.ask_round(now, peer, round)
            }
            Stage::Fetching(_) => true,
        };
        if let (false, Phase::Joining(join)) = (asked, &mut self.phase) {
            join.failed = Some("the neighbour that was asked does not answer");
        }
    }

    /// A join at `source` has led nowhere: it is asked last from now on.
    fn blame(&mut self, source: &PeerKey) {
        if let Some(neighbour) = self.neighbours.get_mut(source) {
            neighbour.failed_joins = neighbour.failed_joins.saturating_add(1);
        }
    }

    /// Whom the join under way asks.
    pub(super) fn join_source(&self) -> Option<PeerKey> {
        match &self.phase {
            Phase::Joining(join) => Some(join.source),
            _ => None,
        }
    }

    /// What was fetched is of no use.
    pub(super) fn join_cannot_use(&mut self, why: &'static str) {
        if let Phase::Joining(join) = &mut self.phase {
            join.failed = Some(why);
        }
    }

    /// The checkpoint that was fetched is whole: this peer stands there now.
    pub(super) fn checkpoint_arrived(&mut self, now: Time, held: Held) {
        let Phase::Joining(join) = &mut self.phase else { return };
        let checkpoint = held.checkpoint;
        if !matches!(join.stage, Stage::Fetching(name) if name == checkpoint.name()) {
            return;
        }
        let (source, target) = (join.source, join.target);
        let digests = &held.manifest.digests;
        if self.given_up.is_none() && self.parted_from(checkpoint.settled + 1 - digests.len() as u64, digests)
        {
            self.give_up_everything();
        }
        self.log = RoundLog::at(&self.genesis, checkpoint.settled, &held.manifest.digests);
        self.replica =
            Replica::new(self.layout.clone(), self.genesis.rule, held.state.clone(), self.checks.clone());
        self.checkpoints = Checkpoints::default();
        self.checkpoints.push(held);
        self.actions.push_back(super::Action::Checkpoint(checkpoint.settled));
        self.bodies.clear();
        self.ledger.skip(checkpoint.settled);
        self.has_state = true;
        self.round = match checkpoint.settled {
            // The swarm may be younger than a window.
            0 => 0,
            settled => settled + u64::from(self.genesis.rounds.window) - 1,
        };
        self.actions.push_back(super::Action::Folded);
        self.pacer.start(now);
        // What others have settled since is theirs to say: one of those whose history this is.
        let history = Majority { settled: checkpoint.settled, digest: checkpoint.log_digest };
        if !self.compare(now, Some(history), &BTreeSet::new()) {
            self.join_from(
                source,
                target,
                Stage::CatchingUp { listed: BTreeSet::new(), history: History::default() },
            );
        }
    }

    pub(super) fn continue_joining(&mut self, now: Time) {
        let Phase::Joining(join) = &self.phase else { return };
        let (source, target) = (join.source, join.target);
        let connected = self.neighbours.iter().any(|(peer, _)| *peer == source);
        let several = matches!(join.stage, Stage::Fetching(_) | Stage::Vouching { .. });
        let gone = !connected && !several;
        if let Some(why) = join.failed.or(gone.then_some("the neighbour that was asked is gone")) {
            self.seek_again(now, why);
            return;
        }
        match &join.stage {
            Stage::Comparing { .. } | Stage::Weighing { .. } | Stage::Vouching { .. } => {}
            Stage::Fetching(name) => {
                let name = *name;
                if let Err(why) = self.continue_transfer(now, name) {
                    let pinned = self.pinned() == Some(name);
                    self.seek_again(now, if pinned { NO_PIN } else { why });
                }
            }
            Stage::CatchingUp { .. } => self.continue_catching_up(now, source, target),
        }
    }
}
