//! The swarm's constitution: everything that all peers must agree on before the first byte.
//!
//! It is a TOML file. Its values in canonical form (comments and layout of the file do not matter)
//! hash to the **swarm id**; peers of different swarm ids never mix. A peer's own choices (threads,
//! addresses, data) are not in it.

mod access;
mod parent;
mod private;
#[cfg(test)]
mod tests;
mod tokenizer;

pub use access::{Access, MAX_KEYS};
pub use parent::Parent;
pub use private::Private;
pub use tokenizer::{MAX_TOKENIZER, Tokenizer};

use serde::{Deserialize, Serialize};
use swarm_optimizer::layout::Layout;
use thiserror::Error;

use crate::architecture::Architecture;
use crate::codec;
use crate::digest::Digest;

/// The only version of the rules that this build knows.
pub const VERSION: u32 = 1;
/// What the canonical bytes begin with.
const DOMAIN: &[u8] = b"swarm genesis 1\n";

/// A genesis that cannot be used. The text names the key and what it must be.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum GenesisError {
    /// Not TOML, a missing or unknown key, or a value of the wrong type; the text has the line.
    #[error("the genesis cannot be read: {0}")]
    Syntax(String),
    /// A value outside its range.
    #[error("the genesis is not usable: {0}")]
    Value(String),
    /// Coefficients that are not this swarm's starting point.
    #[error("{0}")]
    Start(String),
}

/// All rules of a swarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// Version of the rules.
    pub version: u32,
    /// A name for people; it is part of the swarm id.
    pub name: String,
    /// From which the common starting point C0 is drawn, unless there is a parent.
    pub seed: u64,
    /// The model.
    pub model: Architecture,
    /// Patterns of the names of parameters that nobody shares; see [`Private`].
    #[serde(default)]
    pub private: Vec<String>,
    /// How deltas are formed and folded.
    pub rule: Rule,
    /// How a device trains between two deltas.
    pub training: Training,
    /// How time is cut into rounds.
    pub rounds: Rounds,
    /// Who may take part.
    #[serde(default)]
    pub access: Access,
    /// The swarm whose model is the starting point.
    #[serde(default)]
    pub parent: Option<Parent>,
    /// How text becomes tokens; without it, tokens are bytes.
    #[serde(default)]
    pub tokenizer: Option<Tokenizer>,
}

/// How deltas are formed and folded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Side of a DCT tile, in scalars.
    pub tile: u32,
    /// Coefficients sent of a full tile, at most; smaller tiles send at the same density.
    pub k: u32,
    /// Largest magnitude of a sent coefficient, as a power of two of units of 2^-20; 18 is 0.25.
    pub max_exponent: u8,
    /// Most authors that one round may have.
    pub publishers: u32,
}

/// How a device trains between two deltas.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The rule of an inner step.
    pub optimizer: InnerOptimizer,
    /// Inner steps a round, at most (H).
    pub steps: u32,
    /// Sequences a step.
    pub batch: u32,
    /// Learning rate after the warm-up and before the decay.
    pub learning_rate: f64,
    /// Inner steps over which the learning rate rises to its value.
    pub warmup_steps: u32,
    /// The round at which the learning rate has come down to `final_rate`; 0 for a swarm without an end,
    /// whose rate stays as it is.
    pub horizon: u32,
    /// Share of the horizon, at its end, over which the rate falls linearly.
    pub decay: f64,
    /// What the rate falls to, as a share of `learning_rate`; it stays there beyond the horizon.
    pub final_rate: f64,
    /// Decoupled weight decay, on matrices.
    pub weight_decay: f64,
    /// Largest norm of a gradient before it is scaled down.
    pub clip: f64,
}

/// The rule that turns a gradient into a local step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InnerOptimizer {
    /// AdamW for all parameters (Loshchilov and Hutter, arXiv 1711.05101).
    Adamw,
    /// Muon for the matrices between hidden activations (Jordan et al. 2024; Liu et al., arXiv
    /// 2502.16982), AdamW for the rest.
    Muon,
}

impl InnerOptimizer {
    /// Its name in the genesis.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adamw => "adamw",
            Self::Muon => "muon",
        }
    }

    /// The optimizer of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Adamw, Self::Muon].into_iter().find(|optimizer| optimizer.name() == name)
    }

    /// The learning rate that suits it, found in the laboratory with the smallest preset.
    pub fn learning_rate(self) -> f64 {
        match self {
            Self::Adamw => 0.003,
            Self::Muon => 0.016,
        }
    }
}

impl Training {
    /// The learning rate of round `round` as a share of `learning_rate`, warm-up apart: 1, then falling
    /// linearly over the last `decay` of the horizon, then `final_rate`.
    pub fn rate(&self, round: u64) -> f64 {
        if self.horizon == 0 { 1.0 } else { self.rate_at(round as f64 / f64::from(self.horizon)) }
    }

    /// The same when `progress` (0 at the start, 1 at the horizon) is known instead of the round.
    pub fn rate_at(&self, progress: f64) -> f64 {
        let left = (1.0 - progress).max(0.0);
        if left >= self.decay { 1.0 } else { self.final_rate + (1.0 - self.final_rate) * left / self.decay }
    }
}

/// How time is cut into rounds. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rounds {
    /// Number of open rounds (h): how late a delta may come.
    pub window: u32,
    /// Number of settled rounds whose deltas are kept for peers that come back.
    pub retention: u32,
    /// A checkpoint every so many rounds.
    pub checkpoint_every: u32,
    /// A device that cannot do all steps in this time sends what it has.
    pub round_ms: u32,
    /// No round is shorter.
    pub min_round_ms: u32,
    /// Longest wait for the other authors at the end of a round; also at most a tenth of the round.
    pub grace_ms: u32,
}

impl Genesis {
    /// The default rules for `model`, called `name`.
    pub fn new(name: &str, model: impl Into<Architecture>, seed: u64) -> Self {
        Self {
            version: VERSION,
            name: name.to_owned(),
            seed,
            model: model.into(),
            private: Vec::new(),
            rule: Rule { tile: 64, k: 1024, max_exponent: 18, publishers: 64 },
            training: Training {
                optimizer: InnerOptimizer::Muon,
                steps: 4,
                batch: 16,
                learning_rate: InnerOptimizer::Muon.learning_rate(),
                warmup_steps: 20,
                horizon: 0,
                decay: 1.0,
                final_rate: 0.01,
                weight_decay: 0.1,
                clip: 1.0,
            },
            rounds: Rounds {
                window: 16,
                retention: 64,
                checkpoint_every: 8,
                round_ms: 60_000,
                min_round_ms: 500,
                grace_ms: 10_000,
            },
            access: Access::default(),
            parent: None,
            tokenizer: None,
        }
    }

    /// Reads a genesis from TOML and checks every value.
    ///
    /// # Errors
    /// [`GenesisError`], naming the key.
    pub fn parse(text: &str) -> Result<Self, GenesisError> {
        let genesis: Self =
            toml::from_str(text).map_err(|error| GenesisError::Syntax(shortened(&error.to_string())))?;
        genesis.validate().map_err(GenesisError::Value)?;
        Ok(genesis)
    }

    /// The genesis as TOML with a comment for every key.
    pub fn to_toml(&self) -> String {
        let Self { version, seed, rule: r, training: t, rounds, .. } = self;
        let name = toml::Value::String(self.name.clone());
        format!(
            "# A swarm's constitution. Every peer needs the very same values; they hash to the swarm id:\n\
             # {id}\n\n\
             version = {version}\nname = {name}\n# The common starting point is drawn from this.\nseed = {seed}\n\
             # Patterns of names of parameters that everybody trains for themselves and nobody shares.\n\
             private = {private}\n\n\
             {model}\n\
             [rule]\n\
             tile = {tile}               # side of a DCT tile\n\
             k = {k}                # coefficients sent of a full tile, at most\n\
             max_exponent = {max_exponent}       # largest coefficient, 2^this units of 2^-20\n\
             publishers = {publishers}         # most authors of one round\n\n\
             [training]\n\
             optimizer = \"{optimizer}\"     # of the inner steps: \"adamw\" or \"muon\"\n\
             steps = {steps}               # inner steps a round, at most\n\
             batch = {batch}              # sequences a step\n\
             learning_rate = {lr:?}\n\
             warmup_steps = {warmup_steps}\n\
             horizon = {horizon}             # round at which the rate has fallen; 0: it never falls\n\
             decay = {decay:?}             # share of the horizon over which it falls\n\
             final_rate = {final_rate:?}       # what it falls to, as a share\n\
             weight_decay = {weight_decay:?}\n\
             clip = {clip:?}              # largest gradient norm\n\n\
             [rounds]\n\
             window = {window}             # open rounds: how late a delta may come\n\
             retention = {retention}          # settled rounds kept for peers that come back\n\
             checkpoint_every = {checkpoint_every}    # rounds\n\
             round_ms = {round_ms}        # a slow device sends what it has after this\n\
             min_round_ms = {min_round_ms}      # no round is shorter\n\
             grace_ms = {grace_ms}        # longest wait for the others, at most a tenth of the round\n\
             {access}{parent}{tokenizer}",
            id = self.swarm_id(),
            model = self.model.to_toml(),
            private = toml::Value::from(self.private.clone()),
            tile = r.tile,
            k = r.k,
            max_exponent = r.max_exponent,
            publishers = r.publishers,
            optimizer = t.optimizer.name(),
            steps = t.steps,
            batch = t.batch,
            lr = t.learning_rate,
            warmup_steps = t.warmup_steps,
            horizon = t.horizon,
            decay = t.decay,
            final_rate = t.final_rate,
            weight_decay = t.weight_decay,
            clip = t.clip,
            window = rounds.window,
            retention = rounds.retention,
            checkpoint_every = rounds.checkpoint_every,
            round_ms = rounds.round_ms,
            min_round_ms = rounds.min_round_ms,
            grace_ms = rounds.grace_ms,
            access = self.access.to_toml(),
            parent = self.parent.map(Parent::to_toml).unwrap_or_default(),
            tokenizer = self.tokenizer.map(Tokenizer::to_toml).unwrap_or_default(),
        )
    }

    /// The canonical bytes: a domain line, then bincode with fixed-width little-endian integers,
    /// floats by their bits.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = DOMAIN.to_vec();
        bytes.extend(codec::encode(self));
        bytes
    }

    /// The genesis whose canonical bytes these are.
    ///
    /// # Errors
    /// [`GenesisError`]; bytes that hash to a swarm id that was asked for are of a build whose formats differ.
    pub fn from_canonical_bytes(bytes: &[u8]) -> Result<Self, GenesisError> {
        let read = bytes.strip_prefix(DOMAIN).and_then(codec::decode::<Self>);
        let genesis = read.ok_or_else(|| {
            GenesisError::Syntax("these are not the bytes of a genesis that this build of swarm knows".into())
        })?;
        genesis.validate().map_err(GenesisError::Value)?;
        if genesis.canonical_bytes() != bytes {
            return Err(GenesisError::Syntax("these bytes of a genesis are not its canonical ones".into()));
        }
        Ok(genesis)
    }

    /// The swarm id: BLAKE3 of the canonical bytes.
    pub fn swarm_id(&self) -> Digest {
        Digest::of_bytes(&self.canonical_bytes())
    }

    /// The tiling of the shared parameters.
    ///
    /// # Errors
    /// None for a genesis that was parsed or passed `validate`.
    pub fn layout(&self) -> Result<Layout, GenesisError> {
        let parameters = self.model.parameters().into_iter().map(|p| (p.name, p.shape));
        let layout = Layout::new(parameters, self.rule.tile as usize)
            .map_err(|error| GenesisError::Value(error.to_string()))?;
        let private = Private::new(&self.private, &self.model.parameters()).map_err(GenesisError::Value)?;
        Ok(if private.is_empty() { layout } else { layout.with_private(|name| private.picks(name)) })
    }

    /// Checks every value; the error names the key.
    ///
    /// # Errors
    /// The first value out of its range.
    pub fn validate(&self) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!(
                "version = {}: this build of swarm knows version {VERSION} only; use a build that matches",
                self.version
            ));
        }
        if self.name.is_empty() || self.name.len() > 64 || self.name.chars().any(char::is_control) {
            return Err("name: must be 1 to 64 bytes of text without control characters".into());
        }
        // TOML's integers end at 2^63 - 1.
        if i64::try_from(self.seed).is_err() {
            return Err(format!("seed = {}: must be below 2^63", self.seed));
        }
        self.model.validate()?;
        Private::new(&self.private, &self.model.parameters()).map_err(|why| format!("private: {why}"))?;
        let (r, t, w) = (&self.rule, &self.training, &self.rounds);
        if !Layout::SIDES.contains(&(r.tile as usize)) {
            return Err(format!("rule.tile = {}: must be one of 8, 16, 32, 64, 128", r.tile));
        }
        range("rule.k", r.k, 1, r.tile * r.tile)?;
        range("rule.max_exponent", u32::from(r.max_exponent), 0, 24)?;
        range("rule.publishers", r.publishers, 1, 4096)?;
        if u64::from(r.publishers) << r.max_exponent >= 1 << 31 {
            return Err(format!(
                "rule.publishers = {}: times 2^rule.max_exponent (2^{}) must stay below 2^31",
                r.publishers, r.max_exponent
            ));
        }
        range("training.steps", t.steps, 1, 100_000)?;
        range("training.batch", t.batch, 1, 65_536)?;
        range("training.warmup_steps", t.warmup_steps, 0, 10_000_000)?;
        real("training.learning_rate", t.learning_rate, f64::MIN_POSITIVE, 10.0)?;
        range("training.horizon", t.horizon, 0, u32::MAX)?;
        real("training.decay", t.decay, 0.0, 1.0)?;
        real("training.final_rate", t.final_rate, 1e-6, 1.0)?;
        real("training.weight_decay", t.weight_decay, 0.0, 10.0)?;
        real("training.clip", t.clip, f64::MIN_POSITIVE, 1e9)?;
        range("rounds.window", w.window, 2, 256)?;
        range("rounds.retention", w.retention, 4 * w.window, 4096)?;
        range("rounds.checkpoint_every", w.checkpoint_every, 1, w.window)?;
        range("rounds.min_round_ms", w.min_round_ms, 1, 86_400_000)?;
        range("rounds.round_ms", w.round_ms, w.min_round_ms, 86_400_000)?;
        range("rounds.grace_ms", w.grace_ms, 0, w.round_ms)?;
        self.access.validate()?;
        self.parent.as_ref().map_or(Ok(()), Parent::validate)?;
        if let Some(tokenizer) = &self.tokenizer {
            let Some(vocabulary) = self.model.vocabulary() else {
                return Err("tokenizer: the model does not read text; leave the table out".into());
            };
            tokenizer.validate(vocabulary)?;
        }
        if self.parent.is_none() && matches!(self.model, Architecture::Module(_)) {
            return Err("[parent] is missing: a module starts with its own parameters; let swarm new write the genesis"
                .into());
        }
        self.layout().map(drop).map_err(|error| error.to_string())
    }
}

/// An error of the TOML reader, which quotes the whole line: a file that is no genesis may be one long line.
fn shortened(error: &str) -> String {
    const LONGEST: usize = 160;
    let lines = error.trim().lines().map(|line| line.chars().take(LONGEST).collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
}

fn range(key: &str, value: u32, low: u32, high: u32) -> Result<(), String> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(format!("{key} = {value}: must be between {low} and {high}"))
    }
}

fn real(key: &str, value: f64, low: f64, high: f64) -> Result<(), String> {
    // Negative zero equals zero but would hash to another swarm id.
    if value >= low && value <= high && !(value == 0.0 && value.is_sign_negative()) {
        Ok(())
    } else {
        Err(format!("{key} = {value:?}: must be between {low:?} and {high:?}"))
    }
}
