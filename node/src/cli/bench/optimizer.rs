//! `swarm bench optimizer`: the swarm's own work a round, in nanoseconds a parameter.
//!
//! * extract: from the parameters before and after training to the packed bytes of a delta (R takes up what moved,
//!   gives its largest away, and they are encoded);
//! * fold: from the packed bytes of a round's deltas to the new C and the device's own model;
//! * late: one more delta for a round whose sum is there: from its packed bytes to the new C.
//!
//! The baseline is a copy of the parameters' bytes in memory: what no arithmetic can be faster than, a few times
//! over (extraction reads 12 bytes a parameter and writes 4; folding reads and writes C, reads R, writes the model).

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use swarm_optimizer::coefficients::Coefficients;
use swarm_optimizer::kernels::{Kernels, Path};
use swarm_optimizer::layout::Layout;
use swarm_optimizer::panel::Tally;
use swarm_optimizer::residual::{Residual, model};
use swarm_optimizer::sparse::SparseDelta;
use swarm_protocol::genesis::Rule;
use swarm_protocol::packing::Packer;

use super::delta::{layout, noise};
use super::{Progress, median, print};

/// Measure what a round costs beside the training: extraction and folding in ns a parameter, on a llama of 29.9 M
/// parameters, beside a copy of its bytes.
#[derive(Args)]
pub(super) struct Optimizer {
    /// Coefficients a full tile.
    #[arg(long, value_delimiter = ',', default_value = "8,32,128,1024")]
    k: Vec<u32>,

    /// Deltas folded a round.
    #[arg(long, default_value_t = 8)]
    peers: usize,

    /// Threads.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    threads: Vec<usize>,

    /// Side of a tile: 8, 16, 32, 64 or 128.
    #[arg(long, default_value_t = 64)]
    tile: usize,

    /// Vector instructions to use instead of the fastest: portable, AVX2, AVX-512, NEON.
    #[arg(long, value_name = "NAME")]
    instructions: Option<String>,

    /// Times that each is measured; the median counts.
    #[arg(long, default_value_t = 7)]
    turns: usize,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Nanoseconds a parameter.
#[derive(Debug, Serialize)]
struct Line {
    parameters: usize,
    k: u32,
    threads: usize,
    peers: usize,
    instructions: &'static str,
    /// From a displacement to packed bytes.
    extract_ns: f64,
    /// From all peers' packed bytes to C and the model.
    fold_ns: f64,
    /// Both.
    whole_ns: f64,
    /// One late delta: from its packed bytes to C.
    late_ns: f64,
    /// A copy of as many f32, the baseline.
    copy_ns: f64,
    /// The part of extract that is coding.
    encode_ns: f64,
    /// The part of fold that is decoding.
    decode_ns: f64,
}

#[derive(Debug, Serialize)]
struct Report(Vec<Line>);

impl Optimizer {
    pub(super) fn execute(self) -> Result<()> {
        for (flag, value) in [("peers", self.peers), ("turns", self.turns)] {
            ensure!(value >= 1, "--{flag} 0: at least one is needed");
        }
        let progress = Progress::new()?;
        let layout = layout(self.tile).context("--tile")?;
        let path = self.path()?;
        let mut lines = Vec::new();
        let steps = self.threads.len() * self.k.len();
        for &threads in &self.threads {
            for &k in &self.k {
                let what = format!("k {k}, {threads} threads, {}", path.name());
                progress.say(lines.len(), steps, &what)?;
                lines.push(self.measure(&layout, k, threads, path, &progress)?);
            }
        }
        print(&Report(lines), self.json)
    }

    fn path(&self) -> Result<Path> {
        let Some(name) = &self.instructions else { return Ok(Path::best(self.tile)) };
        let all = Path::all();
        let names: Vec<_> = all.iter().map(|path| path.name()).collect();
        let found = all.iter().find(|path| path.name().eq_ignore_ascii_case(name));
        found
            .copied()
            .with_context(|| format!("--instructions {name}: this machine has {}", names.join(", ")))
    }

    fn measure(
        &self,
        layout: &Layout,
        k: u32,
        threads: usize,
        path: Path,
        progress: &Progress,
    ) -> Result<Line> {
        let n = layout.len();
        let rule = Rule { tile: self.tile as u32, k, max_exponent: 18, publishers: 64 };
        let mut kernels = Kernels::with_path(layout, threads, path)?;
        let mut packer = Packer::default();
        let (before, after) = (noise(1, n, 0.01), noise(2, n, 0.01));
        let (mut r, mut q) = (Residual::zeros(layout), vec![0.0f32; n]);
        let mut c = Coefficients::new(vec![0; n]);
        let mut touched = vec![false; layout.tiles().len()];
        let mut delta = SparseDelta::default();
        let unpack = |packer: &mut Packer, body: &[u8]| {
            let mut delta = SparseDelta::default();
            packer.decode_into(layout, &rule, body, &mut delta)?;
            anyhow::Ok(Arc::new(delta))
        };
        let mut tally = Tally::empty(layout);
        let mut bodies: Vec<Vec<u8>> = Vec::new();
        // Copy, extraction, coding, decoding and sum, decoding alone, fold of C, model, a late delta: seconds.
        let mut times: [Vec<f64>; 8] = Default::default();
        // As many rounds as there are peers come first, whose deltas are then folded.
        for turn in 0..self.peers + self.turns {
            progress.check()?;
            let mut clock = Instant::now();
            let mut lap = |what: usize| {
                if turn >= self.peers {
                    times[what].push(clock.elapsed().as_secs_f64());
                }
                clock = Instant::now();
            };
            q.copy_from_slice(&before);
            lap(0);
            let cap = rule.max_exponent;
            r.accumulate_and_extract(layout, &mut kernels, &before, &after, k as usize, cap, &mut delta)?;
            lap(1);
            let mut body = Vec::new();
            packer.encode_into(layout, &rule, k, &delta, &mut body).context("--k")?;
            lap(2);
            if bodies.len() < self.peers {
                bodies.push(body);
                continue;
            }
            tally.clear();
            for (key, body) in bodies.iter().enumerate() {
                tally.add(layout, key, unpack(&mut packer, body)?);
            }
            lap(3);
            for body in &bodies {
                unpack(&mut packer, body)?;
            }
            lap(4);
            touched.fill(false);
            // A body that was just packed can be unpacked.
            let mut again = |key: &usize| {
                bodies.get(*key).and_then(|body| unpack(&mut packer, body).ok()).unwrap_or_default()
            };
            c.fold_tally(layout, &mut tally, &mut again, &mut touched);
            lap(5);
            model(layout, &mut kernels, &c, Some(&r), Some(&touched), &mut q);
            lap(6);
            let Some(late) = bodies.first() else { continue };
            tally.add(layout, 0, unpack(&mut packer, late)?);
            let mut again = |key: &usize| {
                bodies.get(*key).and_then(|body| unpack(&mut packer, body).ok()).unwrap_or_default()
            };
            c.fold_tally(layout, &mut tally, &mut again, &mut touched);
            lap(7);
        }
        let [copy_ns, extract, encode_ns, summed, decode_ns, fold, model, late_ns] =
            times.map(|seconds| median(&seconds) * 1e9 / n as f64);
        let (extract_ns, fold_ns) = (extract + encode_ns, summed + fold + model);
        Ok(Line {
            parameters: n,
            k,
            threads: kernels.threads(),
            peers: self.peers,
            instructions: path.name(),
            extract_ns,
            fold_ns,
            whole_ns: extract_ns + fold_ns,
            late_ns,
            copy_ns,
            encode_ns,
            decode_ns,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.0.first() else { return Ok(()) };
        writeln!(
            f,
            "{} parameters, {} deltas a round, {}; ns a parameter (in brackets: the part that is coding)",
            first.parameters, first.peers, first.instructions
        )?;
        write!(f, "    k  threads  extract         fold            whole   late   copy")?;
        for line in &self.0 {
            write!(
                f,
                "\n{:5}  {:7}  {:5.2} ({:4.2})    {:5.2} ({:4.2})    {:5.2}  {:5.2}   {:4.2}",
                line.k,
                line.threads,
                line.extract_ns,
                line.encode_ns,
                line.fold_ns,
                line.decode_ns,
                line.whole_ns,
                line.late_ns,
                line.copy_ns
            )?;
        }
        Ok(())
    }
}
