//! `swarm bench wire`: what a delta costs on the wire, and how fast it is packed and unpacked.
//!
//! The bound is what the positions and signs of k of a tile's coefficients are worth if every choice is as likely:
//! log2 C(area, k) / k + 1 bits each. Steps and levels come on top. Speeds are in MB of the f32 that the delta stands
//! for, 4 bytes a parameter, beside a copy of those bytes.

use std::fmt;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use swarm_optimizer::kernels::Kernels;
use swarm_optimizer::layout::Layout;
use swarm_optimizer::residual::Residual;
use swarm_optimizer::sparse::SparseDelta;
use swarm_protocol::genesis::Rule;
use swarm_protocol::packing::{self, Packer};
use swarm_protocol::peer::snapshot::own_deltas;

use super::delta::{layout, noise};
use super::{Progress, median, print};
use crate::store;

/// Measure the packing of deltas: bits a coefficient beside the bound, and speed beside a copy; on a llama of 29.9 M
/// parameters whose residual is normally distributed, or on a node's own last deltas.
#[derive(Args)]
pub(super) struct Wire {
    /// Coefficients a full tile.
    #[arg(long, value_delimiter = ',', default_value = "8,32,128,1024")]
    k: Vec<u32>,

    /// Measure what the node of this folder has signed last, with its swarm's k, instead.
    #[arg(long, value_name = "DIR", conflicts_with = "k")]
    dir: Option<PathBuf>,

    /// Times that each is measured; the median counts.
    #[arg(long, default_value_t = 7)]
    turns: usize,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    k: u32,
    coefficients: usize,
    bits_per_coefficient: f64,
    /// Of the positions and signs.
    bound: f64,
    /// MB of the model, not of the body, a second.
    encode_mb_s: f64,
    decode_mb_s: f64,
    /// The baseline.
    copy_mb_s: f64,
    encode_ns_per_coefficient: f64,
    decode_ns_per_coefficient: f64,
}

#[derive(Debug, Serialize)]
struct Report(Vec<Line>);

impl Wire {
    pub(super) fn execute(self) -> Result<()> {
        ensure!(self.turns >= 1, "--turns 0: at least one is needed");
        let progress = Progress::new()?;
        if let Some(dir) = &self.dir {
            let line = self.recorded(dir, &progress)?;
            return print(&Report(vec![line]), self.json);
        }
        let layout = layout(64)?;
        let learned = noise(1, layout.len(), 0.01);
        let mut lines = Vec::new();
        for &k in &self.k {
            progress.say(lines.len(), self.k.len(), &format!("k {k}"))?;
            lines.push(self.measure(&layout, k, &learned, &progress)?);
        }
        print(&Report(lines), self.json)
    }

    fn measure(&self, layout: &Layout, k: u32, learned: &[f32], progress: &Progress) -> Result<Line> {
        let rule = Rule { tile: layout.side() as u32, k, max_exponent: 18, publishers: 64 };
        let mut r = Residual::from_values(layout, learned.to_vec()).context("noise")?;
        let delta = r.extract(layout, &mut Kernels::single(layout), k as usize, rule.max_exponent);
        self.pack(layout, &rule, &[delta], progress)
    }

    /// The deltas that the node in `dir` keeps because their rounds are open still, or were when it stopped.
    fn recorded(&self, dir: &std::path::Path, progress: &Progress) -> Result<Line> {
        let (genesis, _, _, outbox) = store::read_only(dir)?;
        let layout = genesis.layout()?;
        let mut deltas = Vec::new();
        for (signed, body) in own_deltas(&outbox) {
            let delta = packing::decode(&layout, &genesis.rule, &body);
            deltas.push(delta.with_context(|| format!("the own delta of round {}", signed.header.round))?);
        }
        ensure!(
            !deltas.is_empty(),
            "{} holds no deltas: let swarm run finish a round there first",
            dir.display()
        );
        self.pack(&layout, &genesis.rule, &deltas, progress)
    }

    fn pack(
        &self,
        layout: &Layout,
        rule: &Rule,
        deltas: &[SparseDelta],
        progress: &Progress,
    ) -> Result<Line> {
        let k = rule.k;
        let (mut packer, mut back) = (Packer::default(), SparseDelta::default());
        let mut bodies = vec![Vec::new(); deltas.len()];
        let source = vec![1.0f32; layout.len()];
        let mut copy = vec![0.0f32; layout.len()];
        let mut times: [Vec<f64>; 3] = Default::default();
        for turn in 0..=self.turns {
            progress.check()?;
            let mut clock = Instant::now();
            let mut lap = |what: usize| {
                // The first turn grows the buffers.
                if turn > 0 {
                    times[what].push(clock.elapsed().as_secs_f64());
                }
                clock = Instant::now();
            };
            copy.copy_from_slice(&source);
            black_box(&mut copy);
            lap(0);
            for (delta, body) in deltas.iter().zip(&mut bodies) {
                packer.encode_into(layout, rule, k, delta, body).context("--k")?;
            }
            lap(1);
            for body in &bodies {
                packer.decode_into(layout, rule, body, &mut back)?;
            }
            lap(2);
            ensure!(
                Some(&back) == deltas.last(),
                "a body does not decode to what was encoded: please report this"
            );
        }
        let [copy, encode, decode] = times.map(|seconds| median(&seconds));
        let megabytes = 4e-6 * layout.len() as f64;
        let coefficients: usize = deltas.iter().map(SparseDelta::len).sum();
        let (count, times) = (coefficients as f64, deltas.len() as f64);
        let bits = deltas.iter().map(|delta| bound(delta, layout) * delta.len() as f64).sum::<f64>();
        Ok(Line {
            k,
            coefficients,
            bits_per_coefficient: 8.0 * bodies.iter().map(Vec::len).sum::<usize>() as f64 / count,
            bound: bits / count,
            encode_mb_s: times * megabytes / encode,
            decode_mb_s: times * megabytes / decode,
            copy_mb_s: megabytes / copy,
            encode_ns_per_coefficient: 1e9 * encode / count,
            decode_ns_per_coefficient: 1e9 * decode / count,
        })
    }
}

/// Bits a coefficient that its position and sign are worth, over all tiles of `delta`.
fn bound(delta: &SparseDelta, layout: &Layout) -> f64 {
    let all = delta
        .tiles()
        .map(|(tile, _, entries)| packing::uniform_bits(layout.tiles()[tile].area(), entries.len()));
    all.sum::<f64>() / delta.len().max(1) as f64
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "    k  bits a coefficient  bound   encode            decode            copy")?;
        for line in &self.0 {
            write!(
                f,
                "\n{:5}  {:18.3}  {:6.3}  {:6.0} MB/s {:4.1} ns  {:6.0} MB/s {:4.1} ns  {:6.0} MB/s",
                line.k,
                line.bits_per_coefficient,
                line.bound,
                line.encode_mb_s,
                line.encode_ns_per_coefficient,
                line.decode_mb_s,
                line.decode_ns_per_coefficient,
                line.copy_mb_s
            )?;
        }
        write!(f, "\nMB of f32 that the delta stands for; ns a coefficient")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_optimizer::sparse::{Entry, Step};

    #[test]
    fn the_bound_is_the_number_of_choices() {
        let layout = Layout::new([("v", vec![8])], 8).unwrap();
        let mut delta = SparseDelta::default();
        delta.push(0, Step::nearest(8.0), [1, 4].map(|position| Entry { position, level: 1 }));
        // C(8, 2) = 28, and two signs.
        assert!((bound(&delta, &layout) - (28f64.log2() + 2.0) / 2.0).abs() < 1e-12);
    }
}
