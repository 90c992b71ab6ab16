//! What hostile learners send in place of their deltas.
//!
//! They know all that there is to know: the last learners are the hostile ones, and they have heard what the honest
//! ones say in this round before they speak. Several deltas of one author for a round are no attack on the fold: the
//! protocol counts none of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_optimizer::layout::{Layout, Tile};
use swarm_optimizer::sparse::{Entry, MAX_LEVEL, SparseDelta, Step};

use crate::data::{Sampler, SamplerState};

/// What a hostile learner sends in place of its delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Attack {
    /// Its own delta with all signs turned.
    Flip,
    /// Random positions and signs at the largest scale allowed.
    Noise,
    /// The first learner's delta of the round before.
    Copy,
    /// The first learner's delta of the same round.
    Echo,
    /// All of them the same random positions and signs at the largest scale allowed, the same in every round.
    Collude,
    /// The opposite of what the honest learners of the round say together.
    Oppose,
    /// Against the honest learners where they are of one mind, with them where it matters little.
    Disguise,
    /// Nothing.
    Silence,
}

/// What a hostile learner knows when it speaks.
pub(crate) struct Scene<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) seed: u64,
    pub(crate) round: u64,
    pub(crate) author: usize,
    /// Coefficients of a full tile.
    pub(crate) k: usize,
    pub(crate) max_exponent: u8,
    /// The honest learners' deltas of the round.
    pub(crate) honest: &'a [Arc<SparseDelta>],
    /// The first learner's delta of the round before.
    pub(crate) before: Option<&'a SparseDelta>,
}

/// What it sends; `own` is what it would have sent.
pub(crate) fn attacked(attack: Attack, scene: &Scene<'_>, own: &SparseDelta) -> SparseDelta {
    match attack {
        Attack::Silence => SparseDelta::default(),
        Attack::Copy => scene.before.cloned().unwrap_or_default(),
        Attack::Echo => scene.honest.first().map(|first| first.as_ref().clone()).unwrap_or_default(),
        Attack::Flip => {
            let mut other = SparseDelta::default();
            for (tile, step, entries) in own.tiles() {
                other.push(tile as u32, step, entries.iter().map(|e| Entry { level: -e.level, ..*e }));
            }
            other
        }
        Attack::Noise => noise(scene, scene.seed ^ scene.author as u64, scene.round),
        // The same draw for all, whatever the round.
        Attack::Collude => noise(scene, scene.seed, 0),
        Attack::Oppose => against(scene, 1, 1),
        // As large as may be: the fold makes of it what it allows.
        Attack::Disguise => against(scene, 4, 3),
    }
}

fn noise(scene: &Scene<'_>, seed: u64, round: u64) -> SparseDelta {
    let mut other = SparseDelta::default();
    let drawn = round * scene.layout.len() as u64 * 2;
    let mut sampler = Sampler::restore(SamplerState { seed, drawn });
    for (index, tile) in scene.layout.tiles().iter().enumerate() {
        let (area, k) = (tile.area(), scene.layout.share(index, tile, scene.k));
        // Selection sampling: every set of k positions is equally likely.
        let mut left = k;
        let mut entries = Vec::with_capacity(k);
        for position in 0..area {
            if sampler.below((area - position) as u64) < left as u64 {
                let level = if sampler.below(2) == 0 { -1 } else { 1 };
                entries.push(Entry { position: position as u16, level });
                left -= 1;
            }
        }
        other.push(index as u32, Step::nearest(f64::from(1 << scene.max_exponent)), entries);
    }
    other
}

/// The k largest coefficients of what the honest say together: of `one_in` of them, the largest one, `level` times and
/// turned; the others as they are.
fn against(scene: &Scene<'_>, one_in: usize, level: i8) -> SparseDelta {
    let mut sums = vec![0i64; scene.layout.len()];
    for delta in scene.honest {
        delta.for_each(scene.layout, |at, units| sums[at] += i64::from(units));
    }
    let mut other = SparseDelta::default();
    let Some(first) = scene.honest.first() else { return other };
    for (index, step, _) in first.tiles() {
        let Some(tile) = scene.layout.tiles().get(index) else { continue };
        let mut ranked: Vec<usize> = (0..tile.area()).filter(|at| sums[tile.offset + at] != 0).collect();
        ranked.sort_by_key(|at| std::cmp::Reverse(sums[tile.offset + at].unsigned_abs()));
        ranked.truncate(scene.layout.share(index, tile, scene.k));
        let turned = ranked.len().div_ceil(one_in);
        let mut entries: Vec<Entry> = ranked
            .iter()
            .enumerate()
            .map(|(rank, &at)| entry(tile, &sums, at, rank < turned, level))
            .collect();
        entries.sort_unstable_by_key(|entry| entry.position);
        // Twice an honest step, or what the genesis allows.
        let most = (1 << scene.max_exponent) / i32::from(MAX_LEVEL);
        let units = if level > 1 { (2 * step.units()).min(most) } else { step.units() };
        other.push(index as u32, Step::nearest(f64::from(units)), entries);
    }
    other
}

fn entry(tile: &Tile, sums: &[i64], at: usize, turned: bool, level: i8) -> Entry {
    let sign = if sums[tile.offset + at] > 0 { 1 } else { -1 };
    Entry { position: at as u16, level: if turned { -sign * level } else { sign } }
}
