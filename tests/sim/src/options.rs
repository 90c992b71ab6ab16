//! What is simulated, and the command line that says so.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use swarm_protocol::architecture::Sizes;
use swarm_protocol::genesis::Genesis;

/// What a peer with bad intentions does, besides taking part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// Signs two deltas for a round and gives one to half of its neighbours, the other to the rest.
    Equivocate,
    /// Sends bytes that are no message, broken deltas under its own good signature, and damaged answers.
    Garbage,
    /// Sends once more what it has heard before, signed by others and valid once.
    Replay,
    /// Signs two deltas for a round and lets go of the second when the round is about to settle.
    LateEquivocate,
    /// Lets go of its delta only when the round is about to settle.
    Withhold,
    /// Claims in its statuses to be far ahead and to know deltas that it does not know.
    Lie,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Equivocate, Self::Garbage, Self::Replay, Self::LateEquivocate, Self::Withhold, Self::Lie];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Equivocate => "equivocate",
            Self::Garbage => "garbage",
            Self::Replay => "replay",
            Self::LateEquivocate => "late-equivocate",
            Self::Withhold => "withhold",
            Self::Lie => "lie",
        }
    }

    /// The attack of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|attack| attack.name() == name)
    }
}

/// What is simulated. `Display` writes the command line that replays it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Options {
    /// Number of peers; all train.
    pub peers: usize,
    /// Rounds that every peer does.
    pub rounds: u64,
    /// Decides everything that happens by chance.
    pub seed: u64,
    /// Probability that a message is lost on its way to one neighbour; a lost question or answer is
    /// noticed only by its timeout.
    pub loss: f64,
    /// Probability that a gossip message arrives twice.
    pub duplicate: f64,
    /// Probability that a message takes up to ten times as long, so that later ones overtake it.
    pub reorder: f64,
    /// Share of the peers that leave in each round; others come back.
    pub churn: f64,
    /// Share of those coming back that have lost everything: new key, no history.
    pub newcomers: f64,
    /// For so long the peers are split in two halves that do not hear from each other, a third into the run.
    pub partition: Option<Duration>,
    /// Median one-way latency of a link.
    pub latency: Duration,
    /// Standard deviation of the logarithm of the links' latencies.
    pub spread: f64,
    /// Upload of a peer in bytes a second; 0 for unlimited.
    pub bandwidth: u64,
    /// Clocks are off by up to this much.
    pub skew: Duration,
    /// Clocks run fast or slow by up to this share.
    pub drift: f64,
    /// Share of peers that are slow.
    pub slow: f64,
    /// How many times longer a slow peer trains.
    pub slowness: f64,
    /// Share of peers with bad intentions.
    pub byzantine: f64,
    /// What they do: each one of these, in turn.
    pub attacks: Vec<Attack>,
    /// Neighbours that a peer looks for.
    pub degree: usize,
    /// Time that a round's training takes, typically.
    pub round: Duration,
    /// Open rounds.
    pub window: u32,
    /// Most authors of a round.
    pub publishers: u32,
    /// Nothing is remembered across peers and every peer has a residual: slow, for up to a hundred peers.
    pub full: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            peers: 100,
            rounds: 100,
            seed: 1,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.02,
            churn: 0.0,
            newcomers: 0.3,
            partition: None,
            latency: Duration::from_millis(60),
            spread: 0.6,
            bandwidth: 1_250_000,
            skew: Duration::from_secs(60),
            drift: 0.0001,
            slow: 0.1,
            slowness: 4.0,
            byzantine: 0.0,
            attacks: vec![Attack::Equivocate, Attack::Garbage, Attack::Replay],
            degree: 6,
            round: Duration::from_secs(5),
            window: 20,
            publishers: 8,
            full: false,
        }
    }
}

impl Options {
    /// Checks every value.
    ///
    /// # Errors
    /// The first that is out of its range, by its name on the command line.
    pub fn validate(&self) -> Result<(), String> {
        let shares = [
            ("loss", self.loss),
            ("duplicate", self.duplicate),
            ("reorder", self.reorder),
            ("churn", self.churn),
            ("newcomers", self.newcomers),
            ("slow", self.slow),
            ("byzantine", self.byzantine),
        ];
        for (name, share) in shares {
            within(name, share, 0.0, 1.0)?;
        }
        within("peers", self.peers as f64, 2.0, 100_000.0)?;
        within("rounds", self.rounds as f64, 1.0, 1e6)?;
        within("spread", self.spread, 0.0, 3.0)?;
        within("drift", self.drift, 0.0, 0.1)?;
        within("slowness", self.slowness, 1.0, 1000.0)?;
        within("degree", self.degree as f64, 1.0, 64.0)?;
        within("round", self.round.as_secs_f64(), 0.1, 3600.0)?;
        within("latency", self.latency.as_secs_f64(), 0.0, 60.0)?;
        within("skew", self.skew.as_secs_f64(), 0.0, 1e7)?;
        if self.byzantine > 0.0 && self.attacks.is_empty() {
            return Err("attack: must name at least one".into());
        }
        self.genesis().validate()
    }

    /// The swarm: a tiny model, and rounds as the options say.
    pub fn genesis(&self) -> Genesis {
        let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
        let mut genesis = Genesis::new("simulated", model, self.seed >> 1);
        let milliseconds = u32::try_from(self.round.as_millis()).unwrap_or(u32::MAX);
        genesis.rule.tile = 8;
        genesis.rule.k = 4;
        genesis.rule.publishers = self.publishers;
        genesis.rounds.window = self.window;
        genesis.rounds.retention = self.window.saturating_mul(4);
        genesis.rounds.checkpoint_every = (self.window / 4).max(1);
        genesis.rounds.round_ms = milliseconds.saturating_mul(2);
        genesis.rounds.min_round_ms = (milliseconds / 10).max(1);
        genesis.rounds.grace_ms = milliseconds / 4;
        genesis
    }
}

fn within(name: &str, value: f64, low: f64, high: f64) -> Result<(), String> {
    if value >= low && value <= high {
        Ok(())
    } else {
        Err(format!("{name} = {value}: must be between {low} and {high}"))
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::default();
        write!(f, "swarm sim --peers {} --rounds {} --seed {}", self.peers, self.rounds, self.seed)?;
        let numbers = [
            ("loss", self.loss, usual.loss),
            ("duplicate", self.duplicate, usual.duplicate),
            ("reorder", self.reorder, usual.reorder),
            ("churn", self.churn, usual.churn),
            ("newcomers", self.newcomers, usual.newcomers),
            ("spread", self.spread, usual.spread),
            ("bandwidth", self.bandwidth as f64, usual.bandwidth as f64),
            ("drift", self.drift, usual.drift),
            ("slow", self.slow, usual.slow),
            ("slowness", self.slowness, usual.slowness),
            ("byzantine", self.byzantine, usual.byzantine),
            ("degree", self.degree as f64, usual.degree as f64),
            ("window", self.window.into(), usual.window.into()),
            ("publishers", self.publishers.into(), usual.publishers.into()),
        ];
        for (name, value, usual) in numbers {
            if value != usual {
                write!(f, " --{name} {value}")?;
            }
        }
        let times = [
            ("partition", self.partition.unwrap_or_default(), usual.partition.unwrap_or_default()),
            ("latency", self.latency, usual.latency),
            ("skew", self.skew, usual.skew),
            ("round", self.round, usual.round),
        ];
        for (name, value, usual) in times {
            if value != usual {
                write!(f, " --{name} {value:?}")?;
            }
        }
        if self.attacks != usual.attacks {
            let names: Vec<&str> = self.attacks.iter().map(|attack| attack.name()).collect();
            write!(f, " --attack {}", names.join(","))?;
        }
        if self.full { f.write_str(" --full") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_what_is_not_usual() {
        assert_eq!(Options::default().to_string(), "swarm sim --peers 100 --rounds 100 --seed 1");
        let options = Options {
            loss: 0.2,
            partition: Some(Duration::from_secs(60)),
            latency: Duration::from_millis(150),
            byzantine: 0.05,
            attacks: vec![Attack::Replay, Attack::Lie],
            full: true,
            ..Options::default()
        };
        assert_eq!(
            options.to_string(),
            "swarm sim --peers 100 --rounds 100 --seed 1 --loss 0.2 --byzantine 0.05 --partition 60s \
             --latency 150ms --attack replay,lie --full"
        );
    }

    #[test]
    fn values_out_of_range_are_named() {
        Options::default().validate().unwrap();
        let error = |options: Options| options.validate().unwrap_err();
        assert!(error(Options { loss: 1.5, ..Options::default() }).starts_with("loss = 1.5"));
        assert!(error(Options { peers: 1, ..Options::default() }).starts_with("peers"));
        assert!(error(Options { window: 1, ..Options::default() }).starts_with("rounds.window"));
        let nothing = Options { byzantine: 0.1, attacks: Vec::new(), ..Options::default() };
        assert!(error(nothing).starts_with("attack"));
        assert!(error(Options { drift: f64::NAN, ..Options::default() }).starts_with("drift"));
    }

    #[test]
    fn attacks_have_names() {
        for attack in Attack::ALL {
            assert_eq!(Attack::named(attack.name()), Some(attack));
        }
        assert_eq!(Attack::named("sing"), None);
    }
}
