//! All statements that are known, and what follows from them.
//!
//! The set only grows, and what follows is a function of the set: of the certificates of one issuer for one subject
//! the one that ends last counts, of its revocations the one that begins first. So peers that have heard the same
//! judge alike, whatever came first. How long somebody is admitted is the width of the widest chain: a chain ends
//! with the first of its certificates, and of all chains the one that ends last counts.
//!
//! Bounded: at most [`MAX_CERTIFICATES`] and [`MAX_REVOCATIONS`]. Beyond that those that are furthest from the
//! genesis give way, and of those that end soonest; what keys of the genesis have signed themselves is the last to
//! go, so nobody whom they let admit others can crowd it out.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::{
    AccessError, Certificate, MAX_CHAIN, MAX_TOLD, NEVER, Revocation, Signed, Statement, Statements,
};
use crate::codec;
use crate::digest::Digest;
use crate::genesis::Genesis;
use crate::identity::PeerKey;

/// Most certificates that are kept.
pub const MAX_CERTIFICATES: usize = 4096;
/// Most revocations that are kept.
pub const MAX_REVOCATIONS: usize = 2048;

/// By subject, issuer, and whether it may admit others.
type Certificates = BTreeMap<(PeerKey, PeerKey, bool), Signed<Certificate>>;
/// By subject and issuer.
type Revocations = BTreeMap<(PeerKey, PeerKey), Signed<Revocation>>;

/// Up to which round somebody is admitted: the first round that it is not admitted to, 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reach {
    /// By certificates alone.
    certified: u64,
    /// The same with revocations from their rounds on.
    counted: u64,
    /// The same with revocations at once.
    trusted: u64,
}

impl Reach {
    const ALWAYS: Self = Self { certified: NEVER, counted: NEVER, trusted: NEVER };
}

/// What became of statements that were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Those that changed something.
    pub news: Statements,
    /// Why others were not taken up: the worst reason. Those that were known are no reason.
    pub refused: Option<AccessError>,
}

/// All statements that are known about who may take part.
#[derive(Clone, Debug)]
pub struct Register {
    swarm: Digest,
    keys: Vec<PeerKey>,
    certificates: Certificates,
    revocations: Revocations,
    /// What follows for everybody who has a certificate.
    reach: BTreeMap<PeerKey, Reach>,
    /// Number of certificates between the genesis and those who may admit others, at least.
    depth: BTreeMap<PeerKey, usize>,
    digest: Digest,
    changes: u64,
}

impl Register {
    /// Nobody is admitted yet, apart from the keys of the genesis.
    pub fn new(genesis: &Genesis) -> Self {
        let mut register = Self {
            swarm: genesis.swarm_id(),
            keys: genesis.access.keys().to_vec(),
            certificates: Certificates::new(),
            revocations: Revocations::new(),
            reach: BTreeMap::new(),
            depth: BTreeMap::new(),
            digest: Digest::default(),
            changes: 0,
        };
        register.judge();
        register
    }

    /// Whether everybody may take part.
    pub fn is_open(&self) -> bool {
        self.keys.is_empty()
    }

    /// How often anything has changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Equal digests mean equal statements.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Everything that is known.
    pub fn statements(&self) -> Statements {
        Statements {
            certificates: self.certificates.values().copied().collect(),
            revocations: self.revocations.values().copied().collect(),
        }
    }

    fn reach(&self, who: &PeerKey) -> Reach {
        if self.is_open() || self.is_key(who) {
            return Reach::ALWAYS;
        }
        self.reach.get(who).copied().unwrap_or_default()
    }

    /// Whether a delta of `author` for `round` counts.
    pub fn admits(&self, author: &PeerKey, round: u64) -> bool {
        self.reach(author).counted > round
    }

    /// The same as if nobody had ever been revoked: what others have settled before they heard of that has settled.
    pub fn has_admitted(&self, author: &PeerKey, round: u64) -> bool {
        self.reach(author).certified > round
    }

    /// Whether to talk with `peer` at all in `round`: whoever has been revoked is cut off at once.
    pub fn trusts(&self, peer: &PeerKey, round: u64) -> bool {
        self.reach(peer).trusted > round
    }

    /// The first round that `who` may not publish for: 0 for somebody who is not admitted at all, [`NEVER`] for
    /// somebody to whose admission there is no end.
    pub fn admitted_until(&self, who: &PeerKey) -> u64 {
        self.reach(who).counted
    }

    /// Whether there is a certificate for `who`, whatever became of it.
    pub fn is_known(&self, who: &PeerKey) -> bool {
        self.is_key(who) || self.reach.contains_key(who)
    }

    /// Whether `who` may admit others.
    pub fn may_admit(&self, who: &PeerKey) -> bool {
        self.depth.get(who).is_some_and(|depth| *depth < MAX_CHAIN)
    }

    /// The certificates, from a key of the genesis on, by which `who` is admitted for longest. None for a key of the
    /// genesis, and for somebody who is not admitted.
    pub fn chain(&self, who: &PeerKey) -> Vec<Signed<Certificate>> {
        let limits = self.limits();
        let ways = Ways::new(&self.keys, &limits, |reach| reach.trusted);
        let mine = limits.iter().filter(|(signed, _)| signed.said.subject == *who);
        let ends = mine.flat_map(|(signed, reach)| {
            ways.to(signed, reach.trusted).map(move |(width, length)| (width, Reverse(length), *signed))
        });
        let best = ends.max_by_key(|(width, length, signed)| (*width, *length, Reverse(signed.said.issuer)));
        let Some((_, Reverse(length), last)) = best else { return Vec::new() };
        let mut chain = vec![*last];
        for step in ways.steps[1..=length].iter().rev() {
            let issuer = chain.last().map(|signed| signed.said.issuer);
            let Some((_, Some(before))) = issuer.and_then(|issuer| step.get(&issuer)) else {
                return Vec::new();
            };
            chain.push(**before);
        }
        chain.reverse();
        chain
    }

    /// The revocations of `who`, as many as may be told together with a chain.
    pub fn revocations_of(&self, who: &PeerKey) -> Vec<Signed<Revocation>> {
        let revocations = self.revocations.range((*who, FIRST)..=(*who, LAST));
        revocations.take(MAX_TOLD - MAX_CHAIN).map(|(_, signed)| *signed).collect()
    }

    /// Takes up what is new of `statements` and holds; certificates of those who are admitted by others among them
    /// may come in any order.
    pub fn add(&mut self, statements: &Statements) -> Added {
        let mut added = Added::default();
        let mut waiting: Vec<&Signed<Certificate>> = statements.certificates.iter().collect();
        // Each turn can found the certificates that the next one takes up.
        for _ in 0..MAX_CHAIN {
            let (mut news, mut unfounded) = (false, Vec::new());
            for signed in std::mem::take(&mut waiting) {
                match self.add_certificate(signed) {
                    Ok(true) => {
                        news = true;
                        added.news.certificates.push(*signed);
                    }
                    Ok(false) => {}
                    Err(AccessError::Unfounded(_)) => unfounded.push(signed),
                    Err(error) => added.refuse(error),
                }
            }
            waiting = unfounded;
            if !news {
                break;
            }
            self.judge();
        }
        waiting.into_iter().for_each(|signed| added.refuse(AccessError::Unfounded(signed.said.issuer)));
        for signed in &statements.revocations {
            match self.add_revocation(signed) {
                Ok(true) => added.news.revocations.push(*signed),
                Ok(false) => {}
                Err(error) => added.refuse(error),
            }
        }
        if !added.news.is_empty() {
            self.make_room();
            self.judge();
            self.changes += 1;
            // What has given way again is no news, or two peers could tell each other of it for ever.
            let Self { certificates, revocations, .. } = self;
            added.news.certificates.retain(|signed| certificates.get(&place(&signed.said)) == Some(signed));
            added
                .news
                .revocations
                .retain(|signed| revocations.get(&(signed.said.subject, signed.said.issuer)) == Some(signed));
            if added.news.is_empty() {
                added.refuse(AccessError::Full);
            }
        }
        added
    }

    /// What can be said of any statement before its signature is looked at.
    fn check(&self, statement: &impl Statement) -> Result<(), AccessError> {
        if self.is_open() {
            return Err(AccessError::Open);
        }
        if statement.swarm() != self.swarm {
            return Err(AccessError::OtherSwarm(statement.swarm()));
        }
        if self.is_key(&statement.subject()) {
            return Err(AccessError::Founder);
        }
        Ok(())
    }

    /// Returns whether it changes anything.
    fn add_certificate(&mut self, signed: &Signed<Certificate>) -> Result<bool, AccessError> {
        let said = &signed.said;
        self.check(said)?;
        let place = place(said);
        if self.certificates.get(&place).is_some_and(|held| held.said.last_round >= said.last_round) {
            return Ok(false);
        }
        if !self.may_admit(&said.issuer) {
            return Err(AccessError::Unfounded(said.issuer));
        }
        if !signed.verify() {
            return Err(AccessError::Signature);
        }
        self.certificates.insert(place, *signed);
        Ok(true)
    }

    /// Returns whether it changes anything.
    fn add_revocation(&mut self, signed: &Signed<Revocation>) -> Result<bool, AccessError> {
        let Revocation { subject, issuer, from_round, .. } = signed.said;
        self.check(&signed.said)?;
        let held = self.revocations.get(&(subject, issuer));
        if held.is_some_and(|held| held.said.from_round <= from_round) {
            return Ok(false);
        }
        if !self.is_key(&issuer) && self.certificates.range(by(&subject, &issuer)).next().is_none() {
            return Err(AccessError::NotTheirs(issuer));
        }
        if !signed.verify() {
            return Err(AccessError::Signature);
        }
        self.revocations.insert((subject, issuer), *signed);
        Ok(true)
    }

    fn is_key(&self, who: &PeerKey) -> bool {
        self.keys.binary_search(who).is_ok()
    }

    /// Drops what is beyond the bounds, and what was founded on that.
    fn make_room(&mut self) {
        let mut excess = self.certificates.len().saturating_sub(MAX_CERTIFICATES);
        let mut dropped = excess > 0;
        if dropped {
            let rank = |signed: &Signed<Certificate>| {
                let depth = self.depth.get(&signed.said.issuer).copied();
                (depth, Reverse(signed.said.last_round), Digest::of_bytes(&codec::encode(&signed.said)))
            };
            let mut all: Vec<_> = self.certificates.iter().map(|(at, signed)| (rank(signed), *at)).collect();
            all.sort_unstable();
            while let (1.., Some((_, last))) = (excess, all.pop()) {
                self.certificates.remove(&last);
                excess -= 1;
            }
        }
        while dropped {
            self.judge();
            let (before, depth) = (self.certificates.len(), &self.depth);
            self.certificates.retain(|(_, issuer, _), _| depth.contains_key(issuer));
            dropped = self.certificates.len() < before;
        }
        let excess = self.revocations.len().saturating_sub(MAX_REVOCATIONS);
        if excess > 0 {
            let rank = |signed: &Signed<Revocation>| {
                (!self.is_key(&signed.said.issuer), Digest::of_bytes(&codec::encode(&signed.said)))
            };
            let mut all: Vec<_> = self.revocations.iter().map(|(at, signed)| (rank(signed), *at)).collect();
            all.sort_unstable();
            for (_, last) in all.iter().rev().take(excess) {
                self.revocations.remove(last);
            }
        }
    }

    /// All certificates, and how long each holds by itself, its issuer's own admission apart.
    fn limits(&self) -> Vec<(&Signed<Certificate>, Reach)> {
        let mut by_keys: BTreeMap<&PeerKey, u64> = BTreeMap::new();
        for signed in self.revocations.values().filter(|signed| self.is_key(&signed.said.issuer)) {
            let from = by_keys.entry(&signed.said.subject).or_insert(NEVER);
            *from = signed.said.from_round.min(*from);
        }
        let limit = |signed: &Signed<Certificate>| {
            let Certificate { subject, issuer, last_round, .. } = signed.said;
            let certified = last_round.saturating_add(1);
            let by_issuer = self.revocations.get(&(subject, issuer)).map(|signed| signed.said.from_round);
            match by_keys.get(&subject).copied().into_iter().chain(by_issuer).min() {
                Some(from) => Reach { certified, counted: certified.min(from), trusted: 0 },
                None => Reach { certified, counted: certified, trusted: certified },
            }
        };
        self.certificates.values().map(|signed| (signed, limit(signed))).collect()
    }

    /// Works out what follows from the statements.
    fn judge(&mut self) {
        let limits = self.limits();
        let certified = Ways::new(&self.keys, &limits, |reach| reach.certified);
        let counted = Ways::new(&self.keys, &limits, |reach| reach.counted);
        let trusted = Ways::new(&self.keys, &limits, |reach| reach.trusted);
        let mut depth = BTreeMap::new();
        for (length, step) in certified.steps.iter().enumerate() {
            for who in step.keys() {
                depth.entry(*who).or_insert(length);
            }
        }
        let mut reach: BTreeMap<PeerKey, Reach> = BTreeMap::new();
        for (signed, limit) in &limits {
            let held = reach.entry(signed.said.subject).or_default();
            let widest =
                |ways: &Ways<'_>, limit| ways.to(signed, limit).map(|(width, _)| width).max().unwrap_or(0);
            held.certified = held.certified.max(widest(&certified, limit.certified));
            held.counted = held.counted.max(widest(&counted, limit.counted));
            held.trusted = held.trusted.max(widest(&trusted, limit.trusted));
        }
        let statements = codec::encode(&self.statements());
        (self.depth, self.reach) = (depth, reach);
        self.digest = Digest::of("swarm access 1", &[&self.swarm.0, &statements]);
    }
}

impl Added {
    /// Keeps the worst reason.
    fn refuse(&mut self, error: AccessError) {
        if self.refused.is_none_or(|held| error.is_fault() && !held.is_fault()) {
            self.refused = Some(error);
        }
    }
}

const FIRST: PeerKey = PeerKey([0; 32]);
const LAST: PeerKey = PeerKey([255; 32]);

fn place(said: &Certificate) -> (PeerKey, PeerKey, bool) {
    (said.subject, said.issuer, said.may_admit)
}

/// All certificates of `issuer` for `subject`.
fn by(subject: &PeerKey, issuer: &PeerKey) -> RangeInclusive<(PeerKey, PeerKey, bool)> {
    (*subject, *issuer, false)..=(*subject, *issuer, true)
}

/// How wide a chain is, and its last certificate: none for a key of the genesis.
type Way<'a> = (u64, Option<&'a Signed<Certificate>>);

/// For every number of certificates below [`MAX_CHAIN`]: who may admit others by a chain of just so many, how wide the
/// widest of these is, and its last certificate.
struct Ways<'a> {
    steps: Vec<BTreeMap<PeerKey, Way<'a>>>,
}

impl<'a> Ways<'a> {
    /// `width` picks how wide a certificate is by itself.
    fn new(
        keys: &[PeerKey],
        limits: &[(&'a Signed<Certificate>, Reach)],
        width: impl Fn(&Reach) -> u64,
    ) -> Self {
        let mut steps = vec![keys.iter().map(|key| (*key, (NEVER, None))).collect::<BTreeMap<_, _>>()];
        for length in 1..MAX_CHAIN {
            let mut step = BTreeMap::new();
            for (signed, limit) in limits.iter().filter(|(signed, _)| signed.said.may_admit) {
                let Certificate { subject, issuer, .. } = signed.said;
                let Some((before, _)) = steps[length - 1].get(&issuer) else { continue };
                let width = width(limit).min(*before);
                let held = step.entry(subject).or_insert((width, Some(*signed)));
                if width > held.0 {
                    *held = (width, Some(*signed));
                }
            }
            steps.push(step);
        }
        Self { steps }
    }

    /// How wide the chains are that end with `signed`, which by itself is as wide as `limit`, and how many
    /// certificates come before it.
    fn to(&self, signed: &Signed<Certificate>, limit: u64) -> impl Iterator<Item = (u64, usize)> {
        let issuer = signed.said.issuer;
        let steps = self.steps.iter().enumerate();
        steps.filter_map(move |(length, step)| Some((step.get(&issuer)?.0.min(limit), length)))
    }
}

#[cfg(test)]
mod tests;
