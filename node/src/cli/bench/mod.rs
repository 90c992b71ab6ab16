//! `swarm bench`: how fast the parts are, each beside something well known in the same run.
//!
//! A number alone says little about a program on a machine that does other things too. So every benchmark here
//! alternates between what is measured and a baseline that does the same work (A B A B ...), takes medians, and
//! reports the ratio. A further benchmark is a file with a struct that has `execute`, and two lines below.

mod delta;
#[cfg(feature = "train")]
mod generate;
mod network;
mod optimizer;
#[cfg(feature = "train")]
mod train;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

/// Measure how fast this program is on this device, beside a baseline in the same run. Close what else runs, or
/// look at the ratios alone. Nothing is sent anywhere; Ctrl-C ends it.
#[derive(Args)]
pub(super) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    #[cfg(feature = "train")]
    Train(train::Train),
    #[cfg(feature = "train")]
    Generate(generate::Generate),
    Network(network::Network),
    Optimizer(optimizer::Optimizer),
    Wire(wire::Wire),
}

impl Bench {
    pub(super) fn execute(self) -> Result<()> {
        match self.what {
            #[cfg(feature = "train")]
            What::Train(bench) => bench.execute(),
            #[cfg(feature = "train")]
            What::Generate(bench) => bench.execute(),
            What::Network(bench) => bench.execute(),
            What::Optimizer(bench) => bench.execute(),
            What::Wire(bench) => bench.execute(),
        }
    }
}

/// The middle one of `values`, or the mean of the two in the middle; NaN if there are none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (count, middle) if count % 2 == 1 => sorted[middle],
        (_, middle) => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// Seconds that this process' threads have computed so far; NaN where the system does not tell. On a machine that
/// others use too, this repeats far better than the time on the clock.
#[cfg(feature = "train")]
fn cpu_seconds() -> f64 {
    #[cfg(unix)]
    if let Ok(usage) = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF) {
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 * 1e-6;
        return seconds(usage.user_time()) + seconds(usage.system_time());
    }
    f64::NAN
}

/// What a benchmark says on the way, on stderr, and whether somebody wants it to end.
struct Progress {
    stop: Arc<AtomicBool>,
}

impl Progress {
    fn new() -> Result<Self> {
        Ok(Self { stop: super::stop_flag()? })
    }

    /// Nothing, unless somebody wants it to end.
    ///
    /// # Errors
    /// Ctrl-C was pressed.
    fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            bail!("stopped before there was a result");
        }
        Ok(())
    }

    /// Says `what` is next, as the `step`th (from 0) of `steps`.
    ///
    /// # Errors
    /// Ctrl-C was pressed.
    fn say(&self, step: usize, steps: usize, what: &str) -> Result<()> {
        self.check()?;
        eprintln!("{:3} %  {what}", 100 * step / steps.max(1));
        Ok(())
    }
}

/// Prints a result, as JSON or in words.
fn print(result: &(impl Serialize + std::fmt::Display), json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(result)?);
    } else {
        println!("{result}");
    }
    Ok(())
}

/// Takes `--threads` for what follows: starts the program once more if OpenMP needs it (so call this first), and
/// sets libtorch's number. Default: one, which is what repeats best.
#[cfg(feature = "train")]
fn use_threads(given: Option<usize>) -> Result<usize> {
    let threads = super::training_threads(Some(given.unwrap_or(1)))?;
    super::with_passive_openmp(threads)?;
    crate::train::set_threads(threads)?;
    Ok(threads)
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), 3.0);
    }
}
