//! The replica: C as a pure function of the round log.
//!
//! The replica remembers which set of each unsettled round it has folded. When the log's set differs
//! (a late delta, a voided author), the old fold comes out and the new one goes in: integers, so
//! nothing of the detour remains. A settled round's fold is part of C for good.
//!
//! Which deltas of a set count, and for how much, they say of each other ([`panel`]); the same body sent by several
//! authors counts once.
//!
//! Of the rounds that change most, the newest, it keeps the sum of the deltas ([`Tally`]), so that a late one is
//! unpacked alone, with those whose weight it changes. The round that is under way is summed up as its deltas come:
//! each has just been unpacked to be verified.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_optimizer::coefficients::{Coefficients, Direction};
use swarm_optimizer::layout::Layout;
use swarm_optimizer::panel::{self, Tally};
use swarm_optimizer::sparse::SparseDelta;

use crate::checks::Checks;
use crate::delta::Delta;
use crate::digest::Digest;
use crate::genesis::Rule;
use crate::identity::PeerKey;
use crate::round_log::RoundLog;

/// Rounds whose sums are kept, 4 bytes a parameter each and a quarter of a byte for each author: the one under way,
/// and the one before.
pub const SUMS: usize = 2;

/// An unsettled round.
#[derive(Clone, Default)]
struct Open {
    /// What of it is in C.
    folded: Vec<Arc<Delta>>,
    /// The sum of that; or, as long as it is nothing, of what has come.
    gathered: Option<Tally<Arc<Delta>>>,
    /// Hashes of the bodies in `folded` that do not count.
    left_out: BTreeSet<Digest>,
}

/// C, and what has been folded into it.
#[derive(Clone)]
pub struct Replica {
    layout: Arc<Layout>,
    rule: Rule,
    checks: Arc<dyn Checks>,
    coefficients: Coefficients,
    open: BTreeMap<u64, Open>,
    /// What the last late delta says, if it has not been folded yet.
    late: Option<(Digest, Arc<SparseDelta>)>,
    /// Memory of a sum that is not kept any more.
    spare: Option<Tally<Arc<Delta>>>,
    touched: Vec<bool>,
    deltas_folded: u64,
    late_deltas: u64,
}

/// Folds what `log` holds of `round` into `state`.
pub fn fold_round(
    layout: &Layout,
    rule: &Rule,
    checks: &dyn Checks,
    log: &RoundLog,
    round: u64,
    state: &mut Coefficients,
) {
    let deltas: Vec<Arc<Delta>> = log.deltas(round).cloned().collect();
    let counted = counted(layout, rule, checks, &deltas);
    let set: Vec<&SparseDelta> = counted.iter().map(Arc::as_ref).collect();
    state.fold(layout, &set, Direction::In, &mut []);
}

/// What is folded of a set of deltas: C is a function of this, and this of the set.
fn counted(
    layout: &Layout,
    rule: &Rule,
    checks: &dyn Checks,
    deltas: &[Arc<Delta>],
) -> Vec<Arc<SparseDelta>> {
    let each = once(deltas).into_iter().map(|delta| unpack(layout, rule, checks, delta));
    panel::counted(layout, &each.collect::<Vec<_>>())
}

/// The deltas without those whose body another one of them has, too: which of these stays makes no difference.
fn once(deltas: &[Arc<Delta>]) -> Vec<&Arc<Delta>> {
    let mut seen = BTreeSet::new();
    deltas.iter().filter(|delta| seen.insert(delta.header().body_hash)).collect()
}

/// What an admitted delta says.
fn unpack(layout: &Layout, rule: &Rule, checks: &dyn Checks, delta: &Delta) -> Arc<SparseDelta> {
    // It was unpacked on admission, so the fallback never happens; if it did, it would be the same on every peer.
    checks.unpack(layout, rule, &delta.header().body_hash, &delta.body).unwrap_or_default()
}

impl Replica {
    /// A replica whose C is `settled`, the coefficients after all rounds that the log calls settled.
    pub fn new(layout: Arc<Layout>, rule: Rule, settled: Coefficients, checks: Arc<dyn Checks>) -> Self {
        let touched = vec![true; layout.tiles().len()];
        Self {
            layout,
            rule,
            checks,
            coefficients: settled,
            open: BTreeMap::new(),
            late: None,
            spare: None,
            touched,
            deltas_folded: 0,
            late_deltas: 0,
        }
    }

    /// Folds every unsettled round below `round` as the log has it now. Returns whether C changed.
    pub fn fold(&mut self, log: &RoundLog, round: u64) -> bool {
        let mut changed = false;
        for at in log.settled()..round {
            let held = self.open.get(&at).map(|open| &open.folded[..]).unwrap_or_default();
            let same = held.len() == log.deltas(at).count()
                && held.iter().zip(log.deltas(at)).all(|(ours, theirs)| ours.id == theirs.id);
            if same {
                continue;
            }
            let new: Vec<Arc<Delta>> = log.deltas(at).cloned().collect();
            let fresh = new.iter().filter(|delta| held.iter().all(|old| old.id != delta.id)).count() as u64;
            self.deltas_folded += fresh;
            if !held.is_empty() {
                self.late_deltas += fresh;
            }
            self.refold(at, new);
            changed = true;
        }
        self.late = None;
        changed
    }

    /// A delta has just entered `log`, and `sparse` is what it says; `round` is under way. Whoever does not say so
    /// makes [`Replica::fold`] unpack it again.
    pub fn note(&mut self, log: &RoundLog, round: u64, delta: &Arc<Delta>, sparse: Arc<SparseDelta>) {
        let at = delta.header().round;
        let folded = self.open.get(&at).is_some_and(|open| !open.folded.is_empty());
        if at < round || folded {
            self.late = Some((delta.id, sparse));
        } else if at == round {
            let mut open = self.take(at);
            // A log that catches up drops a round and gets it again, and another author may have sent the same body:
            // nothing is added twice.
            if let Some(tally) = &mut open.gathered
                && tally.keys().all(|other| other.header().body_hash != delta.header().body_hash)
            {
                tally.add(&self.layout, delta.clone(), sparse);
            }
            // In a full round deltas make room for others, and may come back. Once more have come than there are, the
            // sum is begun anew when it is needed, so that nothing is kept of what nobody counts.
            let held = log.deltas(at).count();
            if let Some(more) = open.gathered.take_if(|tally| tally.len() > held) {
                self.spare = Some(more);
            }
            self.open.insert(at, open);
        }
    }

    /// Puts `new` in the place of what is in C of the round.
    fn refold(&mut self, round: u64, new: Vec<Arc<Delta>>) {
        let mut open = self.take(round);
        if let Some(tally) = &mut open.gathered {
            let late = self.late.as_ref();
            let unpack = |delta: &Arc<Delta>| match late {
                Some((id, sparse)) if *id == delta.id => sparse.clone(),
                _ => unpack(&self.layout, &self.rule, self.checks.as_ref(), delta),
            };
            let set = once(&new);
            tally.retain(&self.layout, |held| set.iter().any(|delta| delta.id == held.id), unpack);
            for fresh in set {
                if tally.keys().any(|held| held.id == fresh.id) {
                    continue;
                }
                tally.add(&self.layout, fresh.clone(), unpack(fresh));
                if tally.is_full() {
                    self.coefficients.fold_waiting(&self.layout, tally, &mut self.touched);
                }
            }
            self.coefficients.fold_tally(&self.layout, tally, unpack, &mut self.touched);
            open.left_out = tally.left_out().map(|delta| delta.header().body_hash).collect();
        }
        open.folded = new;
        self.open.insert(round, open);
    }

    /// Takes a round out, with the sum of what is in C of it; other rounds lose theirs for that, the oldest first.
    fn take(&mut self, round: u64) -> Open {
        let mut open = self.open.remove(&round).unwrap_or_default();
        if open.gathered.is_none() {
            let kept = self.open.values_mut().filter(|other| other.gathered.is_some());
            let mut kept: Vec<&mut Open> = kept.collect();
            if kept.len() >= SUMS
                && let Some(oldest) = kept.first_mut()
            {
                self.spare = oldest.gathered.take();
            }
            let mut tally = match self.spare.take() {
                Some(mut tally) => {
                    tally.clear();
                    tally
                }
                None => Tally::empty(&self.layout),
            };
            let unpack = |delta: &Arc<Delta>| unpack(&self.layout, &self.rule, self.checks.as_ref(), delta);
            for delta in once(&open.folded) {
                tally.add(&self.layout, delta.clone(), unpack(delta));
            }
            if !open.folded.is_empty() {
                tally.assume_folded(&self.layout, unpack);
            }
            open.gathered = Some(tally);
        }
        open
    }

    /// Drops rounds; the memory of a sum stays.
    fn forget(&mut self, rounds: BTreeMap<u64, Open>) {
        let mut gathered = rounds.into_values().filter_map(|open| open.gathered);
        self.spare = gathered.next_back().or(self.spare.take());
    }

    fn apply(&mut self, deltas: &[Arc<Delta>], direction: Direction) {
        let counted = self.counted(deltas);
        let set: Vec<&SparseDelta> = counted.iter().map(Arc::as_ref).collect();
        self.coefficients.fold(&self.layout, &set, direction, &mut self.touched);
    }

    /// Takes over the counts of a replica that this one replaces.
    pub fn take_counts(&mut self, other: &Self) {
        (self.deltas_folded, self.late_deltas) = other.folded_counts();
    }

    /// Flips one bit of a coefficient, as a faulty memory would.
    pub(crate) fn flip_bit(&mut self, index: usize, bit: u32) {
        let mut values = self.coefficients.values().to_vec();
        if let Some(value) = values.get_mut(index) {
            *value ^= 1i32.wrapping_shl(bit);
        }
        self.coefficients = Coefficients::new(values);
    }

    fn counted(&self, deltas: &[Arc<Delta>]) -> Vec<Arc<SparseDelta>> {
        counted(&self.layout, &self.rule, self.checks.as_ref(), deltas)
    }

    /// Asks `checks` from now on.
    pub fn set_checks(&mut self, checks: Arc<dyn Checks>) {
        self.checks = checks;
    }

    /// Whether the others of its round leave `delta` out, as far as is known: of an unsettled round that was folded.
    pub fn leaves_out(&self, delta: &Delta) -> bool {
        let open = self.open.get(&delta.header().round);
        open.is_some_and(|open| open.left_out.contains(&delta.header().body_hash))
    }

    /// How much each parameter moved in `round`, as [`Tally::movement`]; `None` if its sum is not kept any more.
    pub fn movement(&self, round: u64) -> Option<Vec<f64>> {
        let tally = self.open.get(&round)?.gathered.as_ref()?;
        Some(tally.movement(&self.layout))
    }

    /// Makes the folds of rounds below `settled` permanent. The log must have frozen these rounds, and
    /// `fold` must have run since they last changed.
    pub fn settle(&mut self, settled: u64) {
        let open = self.open.split_off(&settled);
        let settled = std::mem::replace(&mut self.open, open);
        self.forget(settled);
    }

    /// Takes the folds of the rounds from `settled` on that `log` has settled out of C again, and of those
    /// from `round` on that are open. The log must still hold the sets of the former.
    pub fn rewind(&mut self, log: &RoundLog, settled: u64, round: u64) {
        for round in settled..log.settled() {
            let deltas: Vec<Arc<Delta>> = log.deltas(round).cloned().collect();
            self.apply(&deltas, Direction::Out);
            self.deltas_folded = self.deltas_folded.saturating_sub(deltas.len() as u64);
        }
        let given_up = self.open.split_off(&round.max(settled));
        for open in given_up.values() {
            self.apply(&open.folded, Direction::Out);
            self.deltas_folded = self.deltas_folded.saturating_sub(open.folded.len() as u64);
        }
        self.forget(given_up);
    }

    /// Whether a delta of anybody but `me` is in C, of a round that is not settled yet.
    pub fn has_folded_others(&self, me: &PeerKey) -> bool {
        let mut open = self.open.values().flat_map(|open| &open.folded);
        open.any(|delta| delta.header().author != *me)
    }

    /// C, with everything folded so far.
    pub fn coefficients(&self) -> &Coefficients {
        &self.coefficients
    }

    /// C after the settled rounds alone.
    pub fn settled_coefficients(&self) -> Coefficients {
        let mut settled = self.coefficients.clone();
        let mut touched = Vec::new();
        for open in self.open.values() {
            let counted = self.counted(&open.folded);
            let set: Vec<&SparseDelta> = counted.iter().map(Arc::as_ref).collect();
            settled.fold(&self.layout, &set, Direction::Out, &mut touched);
        }
        settled
    }

    /// The state digest of C as it is now.
    pub fn state_digest(&self) -> Digest {
        Digest::of_state(self.coefficients.values())
    }

    /// Which tiles have changed since the last call (all, the first time): one flag a tile.
    pub fn take_touched(&mut self) -> Vec<bool> {
        let clear = vec![false; self.touched.len()];
        std::mem::replace(&mut self.touched, clear)
    }

    /// How many deltas have been folded, and how many of them after their round's first fold.
    pub fn folded_counts(&self) -> (u64, u64) {
        (self.deltas_folded, self.late_deltas)
    }
}

#[cfg(test)]
mod tests;
