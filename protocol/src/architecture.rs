//! The shape of the model that a swarm trains.
//!
//! The genesis states the architecture in numbers, and everything else about the shared parameters
//! follows from them: their names, shapes and order (the layout), and the distribution from which the
//! swarm's common starting point is drawn. Nothing here knows how to *run* the model: a node
//! without libtorch must still know what it replicates.
//!
//! In a genesis each family has a table of its own, such as `[model.llama]`.

mod images;
mod llama;
mod lora;
mod module;
mod resnet;

use serde::{Deserialize, Serialize};

pub use images::Images;
pub use llama::{LlamaConfig, Sizes};
pub use lora::{Adapter, LORA_TARGETS, LoraConfig};
pub use module::{Inputs, Loss, ModuleConfig, ModuleParameter};
pub use resnet::ResnetConfig;

/// Bytes have 256 values; a byte-level model needs no tokenizer.
pub const BYTE_VOCABULARY: u32 = 256;

/// Most parameters (scalars) of any model.
const MAX_PARAMETERS: u64 = 1 << 34;

/// A model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// A llama-style transformer, for text.
    Llama(LlamaConfig),
    /// A residual network, for pictures.
    Resnet(ResnetConfig),
    /// A TorchScript module, for anything.
    Module(ModuleConfig),
    /// Adapters for a frozen llama-style transformer.
    Lora(LoraConfig),
}

/// What a model learns from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExamplesOf<'a> {
    /// Windows of a text.
    Text {
        /// Number of token values.
        vocabulary: u32,
        /// Tokens of a window.
        context: u32,
    },
    /// Pictures with labels.
    Images(&'a Images),
    /// Rows of numbers.
    Vectors(Vectors),
}

/// Rows of numbers, and what belongs to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors {
    /// Numbers that go into the model.
    pub inputs: u32,
    /// Numbers that come out.
    pub outputs: u32,
    /// A row's target is one of `outputs` classes; otherwise it is `outputs` numbers.
    pub classes: bool,
}

/// How a parameter's starting values are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// Every value is 0 (biases).
    Zeros,
    /// Every value is 1 (the gains of a normalisation).
    Ones,
    /// Independent, zero mean, with this standard deviation in millionths.
    Normal {
        /// Standard deviation x 10^6; an integer, so that every platform draws the same numbers.
        std_millionths: u32,
    },
}

/// One shared parameter tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name, as in Hugging Face's checkpoints where the family has such.
    pub name: String,
    /// Its shape, `[n]` or `[rows, columns]`.
    pub shape: Vec<usize>,
    /// Its starting values.
    pub init: Init,
    /// It is a matrix between hidden activations: what Muon is meant for.
    pub hidden: bool,
}

impl From<LlamaConfig> for Architecture {
    fn from(config: LlamaConfig) -> Self {
        Self::Llama(config)
    }
}

impl From<Sizes> for Architecture {
    fn from(sizes: Sizes) -> Self {
        Self::Llama(sizes.into())
    }
}

impl Architecture {
    /// The named presets: [`LlamaConfig::PRESETS`] for text, [`ResnetConfig::PRESETS`] for pictures.
    pub const PRESETS: [&'static str; 6] = ["nano", "micro", "small", "digits", "mnist", "cifar"];

    /// The preset called `name`, or `None`.
    pub fn preset(name: &str) -> Option<Self> {
        LlamaConfig::preset(name).map(Self::Llama).or_else(|| ResnetConfig::preset(name).map(Self::Resnet))
    }

    /// The name of the preset with these sizes, if there is one.
    pub fn preset_name(&self) -> Option<&'static str> {
        Self::PRESETS.into_iter().find(|name| Self::preset(name).as_ref() == Some(self))
    }

    /// The name of the preset, or that of the family.
    pub fn label(&self) -> &'static str {
        self.preset_name().unwrap_or(match self {
            Self::Llama(_) => "llama",
            Self::Resnet(_) => "resnet",
            Self::Module(_) => "module",
            Self::Lora(_) => "lora",
        })
    }

    /// The sizes of a llama-style transformer, if it is one.
    pub fn llama(&self) -> Option<&LlamaConfig> {
        match self {
            Self::Llama(config) => Some(config),
            Self::Resnet(_) | Self::Module(_) | Self::Lora(_) => None,
        }
    }

    /// What the model learns from.
    pub fn examples(&self) -> ExamplesOf<'_> {
        match self {
            Self::Llama(LlamaConfig { vocabulary, context, .. })
            | Self::Lora(LoraConfig { llama: LlamaConfig { vocabulary, context, .. }, .. }) => {
                ExamplesOf::Text { vocabulary: *vocabulary, context: *context }
            }
            Self::Resnet(config) => ExamplesOf::Images(&config.images),
            Self::Module(config) => match &config.inputs {
                Inputs::Tokens { vocabulary, context } => {
                    ExamplesOf::Text { vocabulary: *vocabulary, context: *context }
                }
                Inputs::Images(images) => ExamplesOf::Images(images),
                Inputs::Vectors { inputs, outputs } => ExamplesOf::Vectors(Vectors {
                    inputs: *inputs,
                    outputs: *outputs,
                    classes: config.loss == Loss::CrossEntropy,
                }),
            },
        }
    }

    /// Number of token values, if the model reads text.
    pub fn vocabulary(&self) -> Option<u32> {
        match self.examples() {
            ExamplesOf::Text { vocabulary, .. } => Some(vocabulary),
            ExamplesOf::Images(_) | ExamplesOf::Vectors(_) => None,
        }
    }

    /// Checks every size; the error names the offending key of the genesis' `[model]` table.
    ///
    /// # Errors
    /// The first value out of its range.
    pub fn validate(&self) -> Result<(), String> {
        match self {
            Self::Llama(config) => config.validate()?,
            Self::Resnet(config) => config.validate()?,
            Self::Module(config) => config.validate()?,
            Self::Lora(config) => config.validate()?,
        }
        let base = if let Self::Lora(config) = self { config.llama.parameter_count() } else { 0 };
        let count = self.parameter_count().max(base);
        if count > MAX_PARAMETERS {
            return Err(format!("model: {count} parameters; at most {MAX_PARAMETERS} are supported"));
        }
        Ok(())
    }

    /// Number of parameters (scalars).
    pub fn parameter_count(&self) -> u64 {
        match self {
            Self::Llama(config) => config.parameter_count(),
            Self::Resnet(config) => count(&config.parameters()),
            Self::Module(config) => count(&config.parameters()),
            Self::Lora(config) => count(&config.parameters()),
        }
    }

    /// All parameters in layout order: the order of the flat parameter vector everywhere.
    pub fn parameters(&self) -> Vec<Parameter> {
        match self {
            Self::Llama(config) => config.parameters(),
            Self::Resnet(config) => config.parameters(),
            Self::Module(config) => config.parameters(),
            Self::Lora(config) => config.parameters(),
        }
    }

    /// The table as TOML.
    pub fn to_toml(&self) -> String {
        match self {
            Self::Llama(config) => config.to_toml(),
            Self::Resnet(config) => config.to_toml(),
            Self::Module(config) => config.to_toml(),
            Self::Lora(config) => config.to_toml(),
        }
    }
}

/// Number of scalars in all of them.
fn count(parameters: &[Parameter]) -> u64 {
    let one =
        |parameter: &Parameter| parameter.shape.iter().map(|side| *side as u64).fold(1, u64::saturating_mul);
    parameters.iter().map(one).fold(0, u64::saturating_add)
}

/// A whole number of `[model]` in its range.
fn within(key: &str, value: u32, low: u32, high: u32) -> Result<(), String> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(format!("model.{key} = {value}: must be between {low} and {high}"))
    }
}

/// A number of `[model]` in its range.
fn real(key: &str, value: f64, low: f64, high: f64) -> Result<(), String> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(format!("model.{key} = {value}: must be between {low:e} and {high:e}"))
    }
}
