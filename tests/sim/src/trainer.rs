//! A trainer that learns nothing but costs nothing: what a peer sends is made up from the seed.
//!
//! Usually a delta is a few levels in two tiles. In full mode a made-up displacement of the whole model
//! goes through the transform into a real residual, and the delta is extracted from it, as a node does.

use std::sync::Arc;

use swarm_optimizer::kernels::Kernels;
use swarm_optimizer::layout::Layout;
use swarm_optimizer::residual::Residual;
use swarm_optimizer::sparse::{Entry, SparseDelta, Step};
use swarm_protocol::genesis::Rule;
use swarm_protocol::packing;

use crate::random::Random;

/// Coefficients in a tile that a quick delta sends, at most.
const FEW: usize = 3;

/// Makes up every peer's deltas.
pub(crate) struct Trainer {
    seed: u64,
    layout: Arc<Layout>,
    rule: Rule,
    full: Option<Full>,
}

/// What full mode needs: a residual for every place, and the kernels that all share.
struct Full {
    residuals: Vec<Residual>,
    kernels: Kernels,
}

impl Trainer {
    pub(crate) fn new(seed: u64, layout: Arc<Layout>, rule: Rule, peers: usize, full: bool) -> Self {
        let full = full.then(|| Full {
            residuals: vec![Residual::zeros(&layout); peers],
            kernels: Kernels::single(&layout),
        });
        Self { seed, layout, rule, full }
    }

    /// A newcomer has the place `at`: its residual is empty.
    pub(crate) fn reset(&mut self, at: usize) {
        if let Some(full) = &mut self.full {
            full.residuals[at] = Residual::zeros(&self.layout);
        }
    }

    /// A delta goes back to the residual of the peer at `at`.
    pub(crate) fn give_back(&mut self, at: usize, body: &[u8]) {
        self.change(at, body, Residual::give_back);
    }

    /// A delta leaves the residual of the peer at `at` again.
    pub(crate) fn take_out(&mut self, at: usize, body: &[u8]) {
        self.change(at, body, Residual::take_out);
    }

    fn change(&mut self, at: usize, body: &[u8], how: impl Fn(&mut Residual, &Layout, &SparseDelta)) {
        if let (Some(full), Ok(delta)) = (&mut self.full, packing::decode(&self.layout, &self.rule, body)) {
            how(&mut full.residuals[at], &self.layout, &delta);
        }
    }

    /// The packed body of what the peer at `at` learned for its delta number `number`; empty if there is
    /// nothing to send.
    pub(crate) fn extract(&mut self, at: usize, number: u64, k: u32) -> Vec<u8> {
        let mut random = Random::new(self.seed ^ number.rotate_left(32), "learned", at as u64);
        let delta = match &mut self.full {
            None => quick(&self.layout, &self.rule, &mut random),
            Some(Full { residuals, kernels }) => {
                let before = vec![0.0; self.layout.len()];
                let after: Vec<f32> = before.iter().map(|_| 0.01 * random.normal() as f32).collect();
                let residual = &mut residuals[at];
                // What is drawn is finite, so this cannot fail; if it did, there would be less to send.
                let _ = residual.accumulate(&self.layout, kernels, &before, &after);
                residual.extract(&self.layout, kernels, k as usize, self.rule.max_exponent)
            }
        };
        packing::encode(&self.layout, &self.rule, k, &delta).unwrap_or_default()
    }
}

/// A few levels in two tiles.
pub(crate) fn quick(layout: &Layout, rule: &Rule, random: &mut Random) -> SparseDelta {
    let mut delta = SparseDelta::default();
    let mut tiles = [random.below(layout.tiles().len()), random.below(layout.tiles().len())];
    tiles.sort_unstable();
    let largest = (1u64 << rule.max_exponent) as f64;
    for index in tiles.into_iter().take(if tiles[0] == tiles[1] { 1 } else { 2 }) {
        let area = layout.tiles()[index].area();
        let count = layout.tile_k(area, rule.k as usize).min(FEW);
        let mut positions: Vec<u16> = (0..count).map(|_| random.below(area) as u16).collect();
        positions.sort_unstable();
        positions.dedup();
        let step = Step::nearest(largest / 4.0 * random.unit());
        let entries = positions.into_iter().map(|position| {
            let level = 1 + random.below(2) as i8;
            Entry { position, level: if random.chance(0.5) { level } else { -level } }
        });
        delta.push(index as u32, step, entries.collect::<Vec<_>>());
    }
    delta
}
