//! `swarm sim`: many peers in one process, in virtual time.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::Args;
use swarm_sim::{Attack, Options, Progress, run};

use crate::store::write_atomically;

/// Time between two lines of progress.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Simulate many peers under any weather, in virtual time: the protocol is the real one, training is made
/// up. Checks all the time that peers with equal sets of deltas hold equal models, and in the end that all
/// hold the same. What goes wrong is named, with the command that replays it, event for event.
#[derive(Args)]
pub(super) struct Sim {
    /// Number of peers; all train.
    #[arg(long, default_value_t = 100)]
    peers: usize,

    /// Rounds that every peer does.
    #[arg(long, default_value_t = 100)]
    rounds: u64,

    /// Decides everything that happens by chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Probability that a message is lost on its way to one neighbour.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    loss: f64,

    /// Probability that a gossip message arrives twice.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    duplicate: f64,

    /// Probability that a message takes up to ten times as long, so that later ones overtake it.
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    reorder: f64,

    /// Share of the peers that leave in each round; others come back.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    churn: f64,

    /// Share of those coming back that have lost everything: new key, no history.
    #[arg(long, value_name = "SHARE", default_value_t = 0.3)]
    newcomers: f64,

    /// For so long (such as 60s) the peers are split in two that do not hear from each other.
    #[arg(long, value_name = "TIME", value_parser = time)]
    partition: Option<Duration>,

    /// Median one-way latency of a link.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "60ms")]
    latency: Duration,

    /// Standard deviation of the logarithm of the links' latencies.
    #[arg(long, default_value_t = 0.6)]
    spread: f64,

    /// Upload of a peer in bytes a second; 0 for unlimited.
    #[arg(long, value_name = "BYTES", default_value_t = 1_250_000)]
    bandwidth: u64,

    /// Clocks are off by up to this much.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "60s")]
    skew: Duration,

    /// Clocks run fast or slow by up to this share.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0001)]
    drift: f64,

    /// Share of peers that are slow.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    slow: f64,

    /// How many times longer a slow peer trains.
    #[arg(long, value_name = "FACTOR", default_value_t = 4.0)]
    slowness: f64,

    /// Share of peers with bad intentions.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    byzantine: f64,

    /// What they do, each one of these in turn.
    #[arg(long, value_delimiter = ',', value_parser = Attack::ALL.map(Attack::name),
          default_value = "equivocate,garbage,replay")]
    attack: Vec<String>,

    /// Neighbours that a peer looks for.
    #[arg(long, default_value_t = 6)]
    degree: usize,

    /// Time that a round's training takes, typically.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "5s")]
    round: Duration,

    /// Open rounds.
    #[arg(long, default_value_t = 20)]
    window: u32,

    /// Most authors of a round.
    #[arg(long, default_value_t = 8)]
    publishers: u32,

    /// Every peer checks every signature and holds a residual: slow, for up to a hundred peers.
    #[arg(long)]
    full: bool,

    /// Also write the summary as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

impl Sim {
    /// Runs it; an error if anything went wrong that must not.
    pub(super) fn execute(self) -> Result<()> {
        let options = self.options();
        let stop = super::stop_flag()?;
        let began = Instant::now();
        let mut said = began;
        let summary = run(&options, |Progress { round, rounds, present, events, .. }| {
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                let percent = 100 * round / rounds.max(1);
                eprintln!("{percent:3} %  round {round} of {rounds}, {present} peers, {events} events");
            }
            if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });

        let summary = summary.map_err(|error| anyhow!("{error}"))?;
        print!("{summary}");
        println!("{:<24} {:.1} s", "time taken", began.elapsed().as_secs_f64());
        if let Some(path) = &self.json {
            let bytes = serde_json::to_vec_pretty(&summary)?;
            write_atomically(path, &bytes)?;
        }
        Ok(())
    }

    fn options(&self) -> Options {
        Options {
            peers: self.peers,
            rounds: self.rounds,
            seed: self.seed,
            loss: self.loss,
            duplicate: self.duplicate,
            reorder: self.reorder,
            churn: self.churn,
            newcomers: self.newcomers,
            partition: self.partition,
            latency: self.latency,
            spread: self.spread,
            bandwidth: self.bandwidth,
            skew: self.skew,
            drift: self.drift,
            slow: self.slow,
            slowness: self.slowness,
            byzantine: self.byzantine,
            attacks: self.attack.iter().filter_map(|name| Attack::named(name)).collect(),
            degree: self.degree,
            round: self.round,
            window: self.window,
            publishers: self.publishers,
            full: self.full,
        }
    }
}

/// `500ms`, `1.5s` or `90` (seconds).
fn time(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = digits.parse::<f64>().map_err(|_| "not a time such as 60s or 500ms".to_owned())?;
    Duration::try_from_secs_f64(seconds * unit).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sim: Sim,
    }

    #[test]
    fn what_a_violation_prints_is_understood() {
        let usual = Line::parse_from(["swarm sim"]).sim.options();
        assert_eq!(usual, Options::default());
        let other = Options {
            peers: 7,
            loss: 0.25,
            partition: Some(Duration::from_millis(90_500)),
            latency: Duration::from_millis(5),
            attacks: vec![Attack::Lie, Attack::LateEquivocate],
            full: true,
            ..usual
        };
        let line = other.to_string();
        let words = line.strip_prefix("swarm ").unwrap().split(' ');
        assert_eq!(Line::parse_from(words).sim.options(), other);
    }
}
