//! The ledger: what became of everything that this device has sent.
//!
//! A delta leaves the residual when it is signed. From then on it is in exactly one place:
//!
//! ```text
//!   signed ──> open ──┬──> settled     it is part of C for good
//!                     ├──> returned    its round settled without it, or the others of the round left it out
//!                     │                (optimizer's `panel`): it goes back to the residual, once
//!                     └──> forfeited   void by equivocation, or nobody is left who knows
//!   settled ──> given up ──┬──> settled    it is in the other history too
//!                          └──> kept       it is not: a share of what C lost and gained goes to the residual
//! ```
//!
//! A delta that was returned and turns out to be in the other history leaves the residual again. So at any
//! time, what was sent is what is settled, open, returned and forfeited together. Given up counts as open:
//! it is decided when the other history is here. Kept counts as returned.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_optimizer::sparse::SparseDelta;

use crate::digest::Digest;

/// How much was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mass {
    /// Number of deltas.
    pub deltas: u64,
    /// Number of coefficients.
    pub coefficients: u64,
    /// Sum of their magnitudes, in units of 2^-20 of a coefficient.
    pub magnitude: u64,
}

impl Mass {
    /// The mass of one delta.
    pub fn of(delta: &SparseDelta) -> Self {
        let mut mass = Self { deltas: 1, ..Self::default() };
        for (_, step, entries) in delta.tiles() {
            mass.coefficients += entries.len() as u64;
            let levels: u64 = entries.iter().map(|entry| u64::from(entry.level.unsigned_abs())).sum();
            mass.magnitude = mass.magnitude.wrapping_add(levels * u64::from(step.units().unsigned_abs()));
        }
        mass
    }
}

impl AddAssign for Mass {
    fn add_assign(&mut self, other: Self) {
        self.deltas += other.deltas;
        self.coefficients += other.coefficients;
        self.magnitude = self.magnitude.wrapping_add(other.magnitude);
    }
}

/// Everything that was sent, by what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    /// All of it.
    pub sent: Mass,
    /// Part of C for good.
    pub settled: Mass,
    /// In rounds that are open, or given up and not decided again yet.
    pub open: Mass,
    /// Back in the residual.
    pub returned: Mass,
    /// Lost: void, or of a round whose set nobody knows any more.
    pub forfeited: Mass,
}

impl Accounts {
    /// Whether all that was sent is somewhere, and only there.
    pub fn balance(&self) -> bool {
        let mut parts = self.settled;
        parts += self.open;
        parts += self.returned;
        parts += self.forfeited;
        parts == self.sent
    }
}

/// What became of one delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// Its round is open.
    Open,
    /// It was settled or open in a history that has been given up.
    GivenUp,
    /// It is part of C.
    Settled,
    /// It went back to the residual.
    Returned,
    /// The residual took up a share of what parts a history that had it from one that need not have it.
    Kept,
    /// It is lost.
    Forfeited,
}

/// What shall happen to the residual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// This body goes back to it.
    Return(Arc<[u8]>),
    /// What went back before leaves it again.
    Take,
}

/// What a round that has settled says about one's own delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It is in the set, with this id.
    Counts(Digest),
    /// The author signed two.
    Void,
    /// It is not there, or does not count.
    Absent,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Own {
    id: Digest,
    mass: Mass,
    fate: Fate,
    body_hash: Digest,
    #[serde(skip)]
    body: Option<Arc<[u8]>>,
}

/// The deltas of one author, by round; those that can no longer change are only counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    own: BTreeMap<u64, Own>,
    /// Of rounds that are forgotten.
    closed: Accounts,
    sent: Mass,
}

impl Ledger {
    /// A delta of `round` has been signed. Signing a round twice is not possible; the second is ignored.
    pub fn signed(&mut self, round: u64, id: Digest, body_hash: Digest, body: Arc<[u8]>, mass: Mass) {
        if self.own.contains_key(&round) {
            return;
        }
        self.sent += mass;
        self.own.insert(round, Own { id, mass, fate: Fate::Open, body_hash, body: Some(body) });
    }

    /// Whether a delta of `round` is on the books.
    pub fn knows(&self, round: u64) -> bool {
        self.own.contains_key(&round)
    }

    /// After a restart: looks for the bodies of what is open.
    pub fn find_bodies(&mut self, find: impl Fn(&Digest) -> Option<Arc<[u8]>>) {
        for own in self.own.values_mut().filter(|own| own.fate == Fate::Open && own.body.is_none()) {
            own.body = find(&own.body_hash);
        }
    }

    /// `round` has settled: what that means for the residual.
    pub fn settle(&mut self, round: u64, part: Part) -> Option<Entry> {
        let own = self.own.get_mut(&round)?;
        let body = own.body.take();
        let was = own.fate;
        own.fate = match (was, part) {
            (_, Part::Counts(id)) if id == own.id => Fate::Settled,
            (Fate::Open, Part::Absent) if body.is_some() => Fate::Returned,
            // What was given up goes back with the difference of the histories.
            (Fate::GivenUp, Part::Absent) => Fate::Kept,
            (Fate::Returned | Fate::Kept, _) => was,
            // Void, or another delta with this author's signature: the identity is in use elsewhere.
            _ => Fate::Forfeited,
        };
        match (was, own.fate) {
            (Fate::Open, Fate::Returned) => body.map(Entry::Return),
            (Fate::Returned, Fate::Settled) => Some(Entry::Take),
            _ => None,
        }
    }

    /// The history that holds this delta has been given up.
    pub fn give_up(&mut self, round: u64, id: Digest) {
        if let Some(own) = self.own.get_mut(&round).filter(|own| own.id == id)
            && matches!(own.fate, Fate::Settled | Fate::Open)
        {
            own.fate = Fate::GivenUp;
        }
    }

    /// The sets of the rounds below `settled` will never be known here: what was given up is returned with
    /// the difference of the histories, anything else that is undecided is lost. (It may well be in C.)
    pub fn skip(&mut self, settled: u64) {
        for own in self.own.range_mut(..settled).map(|(_, own)| own) {
            own.fate = match own.fate {
                Fate::Open => Fate::Forfeited,
                Fate::GivenUp => Fate::Kept,
                decided => decided,
            };
            own.body = None;
        }
    }

    /// Rounds below `oldest` can no longer change: they are only counted from now on.
    pub fn forget(&mut self, oldest: u64) {
        let kept = self.own.split_off(&oldest);
        for own in std::mem::replace(&mut self.own, kept).into_values() {
            add(&mut self.closed, &own);
        }
    }

    /// All that was sent, by what became of it.
    pub fn accounts(&self) -> Accounts {
        let mut accounts = Accounts { sent: self.sent, ..self.closed };
        self.own.values().for_each(|own| add(&mut accounts, own));
        accounts
    }

    /// Round, id and fate of every delta that is not forgotten.
    pub fn fates(&self) -> impl Iterator<Item = (u64, Digest, Fate)> {
        self.own.iter().map(|(round, own)| (*round, own.id, own.fate))
    }
}

fn add(accounts: &mut Accounts, own: &Own) {
    let account = match own.fate {
        Fate::Open | Fate::GivenUp => &mut accounts.open,
        Fate::Settled => &mut accounts.settled,
        Fate::Returned | Fate::Kept => &mut accounts.returned,
        Fate::Forfeited => &mut accounts.forfeited,
    };
    *account += own.mass;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u64) -> Digest {
        Digest::of_bytes(&n.to_le_bytes())
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for round in 0..6 {
            let mass = Mass { deltas: 1, coefficients: 10, magnitude: 1 << round };
            ledger.signed(round, digest(round), digest(100 + round), vec![round as u8].into(), mass);
        }
        ledger
    }

    fn of(ledger: &Ledger) -> Vec<Fate> {
        assert!(ledger.accounts().balance(), "{:?}", ledger.accounts());
        ledger.fates().map(|(.., fate)| fate).collect()
    }

    fn body(n: u8) -> Option<Entry> {
        Some(Entry::Return(vec![n].into()))
    }

    #[test]
    fn every_delta_is_in_one_place() {
        use Fate::*;
        let mut ledger = ledger();
        assert_eq!(ledger.settle(0, Part::Counts(digest(0))), None);
        assert_eq!(ledger.settle(1, Part::Absent), body(1));
        assert_eq!(ledger.settle(2, Part::Void), None);
        assert_eq!(ledger.settle(3, Part::Counts(digest(77))), None);
        assert_eq!(of(&ledger), [Settled, Returned, Forfeited, Forfeited, Open, Open]);
        let accounts = ledger.accounts();
        assert_eq!((accounts.settled.magnitude, accounts.returned.magnitude), (1, 2));
        assert_eq!((accounts.forfeited.magnitude, accounts.open.magnitude), (4 + 8, 16 + 32));
        // Only once; and if it is in another history after all, it leaves the residual again.
        assert_eq!(ledger.settle(1, Part::Absent), None);
        assert_eq!(ledger.settle(1, Part::Counts(digest(1))), Some(Entry::Take));
        assert_eq!(ledger.settle(1, Part::Counts(digest(1))), None);
        assert_eq!(of(&ledger)[1], Settled);
    }

    #[test]
    fn what_is_given_up_comes_back_without_its_body() {
        use Fate::*;
        let mut ledger = ledger();
        for round in 0..3 {
            ledger.settle(round, Part::Counts(digest(round)));
            ledger.give_up(round, digest(round));
        }
        ledger.give_up(3, digest(99));
        assert_eq!(ledger.settle(0, Part::Counts(digest(0))), None);
        assert_eq!(ledger.settle(1, Part::Absent), None);
        assert_eq!(of(&ledger), [Settled, Kept, GivenUp, Open, Open, Open]);
        ledger.skip(4);
        assert_eq!(of(&ledger), [Settled, Kept, Kept, Forfeited, Open, Open]);
    }

    #[test]
    fn forgetting_and_restarting_change_no_account() {
        let mut ledger = ledger();
        ledger.settle(0, Part::Counts(digest(0)));
        ledger.settle(1, Part::Absent);
        let before = ledger.accounts();
        ledger.forget(2);
        assert_eq!((ledger.accounts(), of(&ledger).len()), (before, 4));
        let mut restored: Ledger = crate::codec::decode(&crate::codec::encode(&ledger)).unwrap();
        assert_eq!(restored.accounts(), before);
        restored.find_bodies(|hash| (*hash == digest(102)).then(|| vec![2].into()));
        assert_eq!(restored.settle(2, Part::Absent), body(2));
        // A body that is nowhere cannot go back.
        assert_eq!(restored.settle(3, Part::Absent), None);
        assert_eq!(of(&restored)[..2], [Fate::Returned, Fate::Forfeited]);
    }
}
