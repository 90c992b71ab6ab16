//! The gate of a closed swarm: who is let in, and whose deltas count (see [`crate::access`]).
//!
//! A peer that connects is a stranger until it has shown, or others have told, that it is admitted. Both ends ask each
//! other at once (`Request::Access`, which carries the asker's own certificates); nothing else is answered to a
//! stranger but the genesis and the tokenizer it names, which are no secrets, and no state is fetched from one. A stranger that cannot show
//! anything within [`GRACE`] is disconnected. Somebody who has been revoked is a stranger again at once, and
//! disconnected as soon as it has had the time to hear why.
//!
//! What is known about who may take part spreads by gossip, and since gossip promises nothing, every status has the
//! digest of all of it: neighbours whose digests stay different ask each other. Whose delta comes before its
//! certificate has to wait: the delta is dropped, the certificate is asked for where the delta came from, and
//! anti-entropy brings the delta again.
//!
//! In an open swarm everybody is let in, and none of this is ever said.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Time;
use crate::access::{AccessError, Added, MAX_TOLD, Register, Statements};
use crate::anti_entropy::{MAX_NEIGHBOURS, QUESTION_TIMEOUT};
use crate::delta::Header;
use crate::digest::Digest;
use crate::genesis::Genesis;
use crate::identity::PeerKey;
use crate::wire::{Gossip, Request, Response};

use super::{Action, Peer, Phase, Report, Verdict};

/// How long a stranger has to show that it is admitted.
const GRACE: Duration = Duration::from_secs(5);
/// How long one that could not is not talked with: it may be admitted any time.
const TURNED_AWAY: Duration = Duration::from_secs(30);
/// How long somebody who has been revoked stays connected, as a stranger, so that it hears of it.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long it is not talked with after that.
const CAST_OUT: Duration = Duration::from_secs(600);
/// How soon a peer that had nothing new is asked again; twice as long after each time.
const ASK_AGAIN: Duration = Duration::from_secs(2);
const SELDOM: Duration = Duration::from_secs(64);
/// How long a source of a join may list deltas of authors whose certificates it does not have.
const LACKING: Duration = Duration::from_secs(10);

/// What is known of one connected peer.
struct Contact {
    /// When it is disconnected as a stranger; `None` for one that was let in.
    stranger: Option<Time>,
    ask_next: Time,
    pause: Duration,
    /// Its digest and ours, when they differed in its last status.
    differed: Option<(Digest, Digest)>,
}

/// Who is let in, and who is waiting at the gate.
pub(super) struct Gate {
    pub(super) register: Register,
    contacts: BTreeMap<PeerKey, Contact>,
    /// Questions under way.
    asked: BTreeMap<u64, (PeerKey, Time)>,
    /// Whether the user knows that this device is not admitted.
    told: bool,
    /// Since when a join has lacked certificates.
    lacking: Option<Time>,
}

impl Gate {
    pub(super) fn new(genesis: &Genesis) -> Self {
        Self {
            register: Register::new(genesis),
            contacts: BTreeMap::new(),
            asked: BTreeMap::new(),
            told: false,
            lacking: None,
        }
    }

    /// When the gate next has something to do.
    pub(super) fn next_event(&self) -> Option<Time> {
        let strangers = self.contacts.values().filter_map(|contact| contact.stranger);
        let asked = self.asked.values().map(|(_, sent)| *sent + QUESTION_TIMEOUT);
        strangers.chain(asked).min()
    }

    /// What statuses say about it.
    pub(super) fn digest(&self) -> Option<Digest> {
        (!self.register.is_open()).then(|| self.register.digest())
    }
}

impl Peer {
    /// All that is known about who may take part.
    pub fn register(&self) -> &Register {
        &self.gate.register
    }

    /// Whether this device may take part, as far as is known here.
    pub fn is_admitted(&self) -> bool {
        self.is_let_in(&self.me)
    }

    /// Certificates or revocations that its user gave this device: they are taken up and told to the swarm.
    ///
    /// # Errors
    /// Why not all of them could be taken up; those that could have been.
    pub fn handle_statements(&mut self, now: Time, statements: &Statements) -> Result<(), AccessError> {
        let Added { news, refused } = self.gate.register.add(statements);
        self.tell(&news);
        self.access_changed(now, &news);
        self.continue_phase(now);
        refused.map_or(Ok(()), Err)
    }

    /// Takes up what was kept on disk. Call before anything else.
    ///
    /// # Errors
    /// Why not all of it holds; what does has been taken up.
    pub fn restore_access(&mut self, statements: &Statements) -> Result<(), AccessError> {
        self.gate.register.add(statements).refused.map_or(Ok(()), Err)
    }

    /// Whether `peer` is talked with.
    pub(super) fn is_let_in(&self, peer: &PeerKey) -> bool {
        self.gate.register.trusts(peer, self.round)
    }

    /// Whether `request` is answered to `peer`.
    pub(super) fn may_ask(&self, peer: &PeerKey, request: &Request) -> bool {
        // The tokenizer belongs to the genesis, and is fetched with it.
        let genesis =
            matches!(request, Request::Blob { hash, .. } if *hash == self.swarm || self.is_tokenizer(hash));
        genesis || self.is_let_in(peer)
    }

    /// Whether a delta with this header counts. In rounds that others have settled that is theirs to say, as far as
    /// revocations go: those came too late for them.
    pub(super) fn is_admissible(&self, header: &Header) -> bool {
        let register = &self.gate.register;
        match self.is_closed(header.round) {
            true => register.has_admitted(&header.author, header.round),
            false => register.admits(&header.author, header.round),
        }
    }

    /// Whether what the author says about the swarm's history counts.
    pub(super) fn has_a_say(&self, header: &Header) -> bool {
        self.gate.register.has_admitted(&header.author, header.round)
    }

    /// Whether this device's own delta for `round` would count.
    pub(super) fn may_publish(&self, round: u64) -> bool {
        self.gate.register.admits(&self.me, round)
    }

    /// `source` passed on a delta whose author is not admitted here: its certificate may be there.
    pub(super) fn seek_certificate(&mut self, now: Time, source: PeerKey, header: &Header) {
        self.ask_access(now, source);
        if !matches!(self.phase, Phase::Joining(_)) || self.has_a_say(header) {
            return;
        }
        // The round is not complete without it.
        self.join_body_failed(header.round);
        if now >= *self.gate.lacking.get_or_insert(now) + LACKING {
            self.gate.lacking = None;
            self.join_cannot_use("the neighbour lists deltas of authors who are not admitted");
        }
    }

    /// `peer` is connected. Returns whether it is let in at once.
    pub(super) fn meet(&mut self, now: Time, peer: PeerKey) -> bool {
        if self.gate.register.is_open() {
            return true;
        }
        let let_in = self.is_let_in(&peer);
        if self.gate.contacts.len() < 2 * MAX_NEIGHBOURS {
            let stranger = (!let_in).then_some(now + GRACE);
            let contact = Contact { stranger, ask_next: now, pause: ASK_AGAIN, differed: None };
            self.gate.contacts.insert(peer, contact);
            self.ask_access(now, peer);
        }
        let_in
    }

    /// `peer` is gone.
    pub(super) fn forget_contact(&mut self, peer: &PeerKey) {
        self.gate.contacts.remove(peer);
        self.gate.asked.retain(|_, (asked, _)| asked != peer);
    }

    fn ask_access(&mut self, now: Time, peer: PeerKey) {
        let under_way = self.gate.asked.values().any(|(asked, _)| *asked == peer);
        let Some(contact) = self.gate.contacts.get_mut(&peer) else { return };
        if under_way || now < contact.ask_next {
            return;
        }
        contact.ask_next = now + contact.pause;
        contact.pause = (2 * contact.pause).min(SELDOM);
        let id = self.neighbours.next_id();
        self.gate.asked.insert(id, (peer, now));
        let bytes = Request::Access(self.introduction(&peer)).encode();
        self.actions.push_back(Action::Request { peer, id, bytes });
    }

    /// What anybody is told: with whom it talks, and whether it has been revoked.
    fn introduction(&self, peer: &PeerKey) -> Statements {
        Statements {
            certificates: self.gate.register.chain(&self.me),
            revocations: self.gate.register.revocations_of(peer),
        }
    }

    /// `peer` shows by what it is admitted, and asks what is known here.
    pub(super) fn access_response(&mut self, now: Time, peer: PeerKey, shown: &Statements) -> Response {
        if self.gate.register.is_open() || shown.len() > MAX_TOLD {
            self.strike(now, "malformed request", peer);
            return Response::Access {
                admitted: self.gate.register.is_open(),
                statements: Statements::default(),
            };
        }
        let news = self.take_up(now, peer, shown).news;
        // Nobody else may have heard of it yet.
        self.tell(&news);
        let admitted = self.is_let_in(&peer);
        let statements = if admitted { self.gate.register.statements() } else { self.introduction(&peer) };
        self.access_changed(now, &news);
        Response::Access { admitted, statements }
    }

    /// An answer to a question of the gate's. Returns whether it was one.
    pub(super) fn access_answered(
        &mut self,
        now: Time,
        peer: PeerKey,
        id: u64,
        answer: Option<&[u8]>,
    ) -> bool {
        if self.gate.asked.get(&id).is_none_or(|(asked, _)| *asked != peer) {
            return false;
        }
        self.gate.asked.remove(&id);
        match answer.map(Response::decode) {
            Some(Ok(Response::Access { admitted, statements })) => {
                let news = self.take_up(now, peer, &statements).news;
                if let Some(contact) = self.gate.contacts.get_mut(&peer).filter(|_| !news.is_empty()) {
                    (contact.pause, contact.ask_next) = (ASK_AGAIN, now);
                }
                self.access_changed(now, &news);
                if !admitted && self.is_let_in(&peer) && !std::mem::replace(&mut self.gate.told, true) {
                    self.report(Report::NotAdmitted);
                }
            }
            Some(Ok(Response::Refused(_))) | None => {}
            Some(_) => self.strike(now, "malformed response", peer),
        }
        true
    }

    /// Gossip about who may take part.
    pub(super) fn access_heard(&mut self, now: Time, source: PeerKey, statements: &Statements) -> Verdict {
        if statements.len() > MAX_TOLD {
            self.strike(now, "malformed gossip message", source);
            return Verdict::Reject;
        }
        let Added { news, refused } = self.take_up(now, source, statements);
        self.access_changed(now, &news);
        match refused {
            Some(error) if error.is_fault() => Verdict::Reject,
            _ if news.is_empty() => Verdict::Ignore,
            _ => Verdict::Accept,
        }
    }

    /// `peer`'s status has this digest of what it knows about who may take part.
    pub(super) fn compare_access(&mut self, now: Time, peer: PeerKey, theirs: Option<Digest>) {
        let (Some(theirs), Some(ours)) = (theirs, self.gate.digest()) else { return };
        let Some(contact) = self.gate.contacts.get_mut(&peer) else { return };
        let differ = (theirs != ours).then_some((theirs, ours));
        // What is still in the air settles by itself.
        if std::mem::replace(&mut contact.differed, differ) == differ && differ.is_some() {
            self.ask_access(now, peer);
        }
        if differ.is_none()
            && let Some(contact) = self.gate.contacts.get_mut(&peer)
        {
            contact.pause = ASK_AGAIN;
        }
    }

    /// Time has passed at the gate.
    pub(super) fn watch_gate(&mut self, now: Time) {
        if self.gate.register.is_open() {
            return;
        }
        self.gate.asked.retain(|_, (_, sent)| now < *sent + QUESTION_TIMEOUT);
        let contacts: Vec<(PeerKey, Option<Time>)> =
            self.gate.contacts.iter().map(|(peer, contact)| (*peer, contact.stranger)).collect();
        for (peer, stranger) in contacts {
            match stranger {
                Some(until) if now >= until => self.cast_out(peer),
                Some(_) => self.ask_access(now, peer),
                // Its certificate has ended.
                None if !self.is_let_in(&peer) => self.estrange(now, peer),
                None => {}
            }
        }
    }

    /// Adds to the register what `source` told.
    fn take_up(&mut self, now: Time, source: PeerKey, statements: &Statements) -> Added {
        let added = self.gate.register.add(statements);
        match added.refused {
            Some(error) if error.is_fault() => {
                self.strike(now, "certificate or revocation that does not hold", source)
            }
            Some(_) => {
                self.refuse("certificate or revocation of somebody who is not known to admit others", source)
            }
            None => {}
        }
        added
    }

    /// Tells the swarm, if it is news, and this device is part of it.
    fn tell(&mut self, news: &Statements) {
        if self.is_admitted() && (1..=MAX_TOLD).contains(&news.len()) {
            self.actions.push_back(Action::Publish(Gossip::Access(news.clone()).encode()));
        }
    }

    /// Acts on what has just become known.
    fn access_changed(&mut self, now: Time, news: &Statements) {
        if news.is_empty() {
            return;
        }
        (self.gate.told, self.gate.lacking) = (false, None);
        for signed in &news.revocations {
            let (subject, from_round) = (signed.said.subject, signed.said.from_round);
            // A newcomer hears of all that ever were; only those whom it has met are news to its user.
            let met = self.gate.contacts.contains_key(&subject) || self.membership.latest(&subject).is_some();
            if met || subject == self.me {
                self.report(Report::Revoked { subject, from_round });
            }
        }
        let contacts: Vec<PeerKey> = self.gate.contacts.keys().copied().collect();
        for peer in contacts {
            let let_in = self.is_let_in(&peer);
            let Some(contact) = self.gate.contacts.get_mut(&peer) else { continue };
            if let_in && contact.stranger.take().is_some() {
                self.neighbours.connected(now, peer);
            } else if !let_in && contact.stranger.is_none() {
                self.estrange(now, peer);
            }
        }
        self.forget_revoked(now);
    }

    /// Makes a stranger of a neighbour: nothing is asked of it or answered to it any more but why.
    fn estrange(&mut self, now: Time, peer: PeerKey) {
        self.left(now, peer);
        let contact =
            Contact { stranger: Some(now + FAREWELL), ask_next: now, pause: ASK_AGAIN, differed: None };
        self.gate.contacts.insert(peer, contact);
        self.ask_access(now, peer);
    }

    /// Disconnects a stranger.
    fn cast_out(&mut self, peer: PeerKey) {
        self.forget_contact(&peer);
        self.refuse("connection of a peer that is not admitted", peer);
        let (duration, reason) = match self.gate.register.revocations_of(&peer).is_empty() {
            true => (TURNED_AWAY, "it is not admitted to this swarm"),
            false => (CAST_OUT, "it has been revoked"),
        };
        self.actions.push_back(Action::Ban { peer, duration, reason });
    }

    /// Takes out of the open rounds what does not count. Of an author without any certificate nothing is taken out:
    /// it was verified once, so the certificates have been lost here, and come again.
    pub(super) fn forget_revoked(&mut self, now: Time) {
        if self.gate.register.is_open() {
            return;
        }
        let closed = match &self.phase {
            Phase::Joining(join) => join.closed_below(),
            _ => 0,
        };
        let mut gone = Vec::new();
        for round in self.log.settled().max(closed)..=self.newest() {
            let authors = self.log.entries(round).map(|entry| entry.author());
            let register = &self.gate.register;
            let out = |author: &PeerKey| !register.admits(author, round) && register.is_known(author);
            gone.extend(authors.filter(out).map(|author| (round, author)));
        }
        let mut folded = false;
        for (round, author) in gone {
            folded |= self.log.remove(round, &author) && round < self.round;
        }
        if folded {
            self.fold(now);
        }
    }
}
