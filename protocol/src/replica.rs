//! The replica: C as a pure function of the round log.
//!
//! The replica remembers which set of each unsettled round it has folded. When the log's set differs
//! (a late delta, a voided author), the old fold comes out and the new one goes in: integers, so
//! nothing of the detour remains. A settled round's fold is part of C for good.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_optimizer::coefficients::{Coefficients, Direction};
use swarm_optimizer::layout::Layout;
use swarm_optimizer::sparse::SparseDelta;

use crate::checks::Checks;
use crate::delta::Delta;
use crate::digest::Digest;
use crate::genesis::Rule;
use crate::round_log::RoundLog;

/// C, and what has been folded into it.
#[derive(Clone)]
pub struct Replica {
    layout: Arc<Layout>,
    rule: Rule,
    checks: Arc<dyn Checks>,
    coefficients: Coefficients,
    folded: BTreeMap<u64, Vec<Arc<Delta>>>,
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
    let unpack = |delta: &Arc<Delta>| checks.unpack(layout, rule, &delta.header().body_hash, &delta.body);
    let sparse: Vec<Arc<SparseDelta>> = log.deltas(round).map(unpack).collect();
    let set: Vec<&SparseDelta> = sparse.iter().map(Arc::as_ref).collect();
    state.fold(layout, &set, Direction::In, &mut []);
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
            folded: BTreeMap::new(),
            touched,
            deltas_folded: 0,
            late_deltas: 0,
        }
    }

    /// Folds every unsettled round below `round` as the log has it now. Returns whether C changed.
    pub fn fold(&mut self, log: &RoundLog, round: u64) -> bool {
        let mut changed = false;
        for at in log.settled()..round {
            let held = self.folded.get(&at).map(Vec::as_slice).unwrap_or_default();
            let same = held.len() == log.deltas(at).count()
                && held.iter().zip(log.deltas(at)).all(|(ours, theirs)| ours.id == theirs.id);
            if same {
                continue;
            }
            let new: Vec<Arc<Delta>> = log.deltas(at).cloned().collect();
            let fresh = new.iter().filter(|delta| held.iter().all(|old| old.id != delta.id)).count() as u64;
            self.deltas_folded += fresh;
            if let Some(old) = self.folded.insert(at, new.clone()) {
                self.late_deltas += fresh;
                self.apply(&old, Direction::Out);
            }
            self.apply(&new, Direction::In);
            changed = true;
        }
        changed
    }

    fn apply(&mut self, deltas: &[Arc<Delta>], direction: Direction) {
        let sparse = self.unpack(deltas);
        let set: Vec<&SparseDelta> = sparse.iter().map(Arc::as_ref).collect();
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

    fn unpack(&self, deltas: &[Arc<Delta>]) -> Vec<Arc<SparseDelta>> {
        let unpack = |delta: &Arc<Delta>| {
            self.checks.unpack(&self.layout, &self.rule, &delta.header().body_hash, &delta.body)
        };
        deltas.iter().map(unpack).collect()
    }

    /// Asks `checks` from now on.
    pub fn set_checks(&mut self, checks: Arc<dyn Checks>) {
        self.checks = checks;
    }

    /// Makes the folds of rounds below `settled` permanent. The log must have frozen these rounds, and
    /// `fold` must have run since they last changed.
    pub fn settle(&mut self, settled: u64) {
        self.folded = self.folded.split_off(&settled);
    }

    /// Takes the folds of the rounds from `settled` on that `log` has settled out of C again, and of those
    /// from `round` on that are open. The log must still hold the sets of the former.
    pub fn rewind(&mut self, log: &RoundLog, settled: u64, round: u64) {
        for round in settled..log.settled() {
            let deltas: Vec<Arc<Delta>> = log.deltas(round).cloned().collect();
            self.apply(&deltas, Direction::Out);
            self.deltas_folded = self.deltas_folded.saturating_sub(deltas.len() as u64);
        }
        for deltas in self.folded.split_off(&round.max(settled)).into_values() {
            self.apply(&deltas, Direction::Out);
            self.deltas_folded = self.deltas_folded.saturating_sub(deltas.len() as u64);
        }
    }

    /// C, with everything folded so far.
    pub fn coefficients(&self) -> &Coefficients {
        &self.coefficients
    }

    /// C after the settled rounds alone.
    pub fn settled_coefficients(&self) -> Coefficients {
        let mut settled = self.coefficients.clone();
        let mut touched = Vec::new();
        for deltas in self.folded.values() {
            let sparse = self.unpack(deltas);
            let set: Vec<&SparseDelta> = sparse.iter().map(Arc::as_ref).collect();
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
