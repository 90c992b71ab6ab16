//! Models of any architecture: TorchScript modules, which PyTorch exports.
//!
//! A module is a program. No peer ever sends it: the genesis names its file by hash, everybody who trains brings
//! the file (which they got from somebody they trust), and the swarm shares the parameters in it. What the genesis
//! tells about them is enough to replicate them without the file, and without libtorch.
//!
//! The starting point is the module's own parameters, so a swarm of a module has a `[parent]` that names them.

use serde::{Deserialize, Serialize};

use super::images::Images;
use super::{Init, Parameter, within};
use crate::digest::Digest;

/// Upper limits: what a genesis may ask a device to allocate.
const MAX_PARAMETERS: usize = 512;
const MAX_NAME: usize = 128;
const MAX_DIMENSIONS: usize = 8;
const MAX_SIDE: u32 = 1 << 28;
const MAX_VOCABULARY: u32 = 1 << 20;
const MAX_CONTEXT: u32 = 1 << 20;

/// A TorchScript module, and how it is trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleConfig {
    /// BLAKE3 of the module's file.
    pub file: Digest,
    /// What is minimised.
    pub loss: Loss,
    /// What goes in and what comes out.
    pub inputs: Inputs,
    /// Its trainable parameters, in the module's order.
    pub parameters: Vec<ModuleParameter>,
}

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Cross entropy of unnormalised log probabilities, in nats.
    CrossEntropy,
    /// Mean square of the difference.
    Mse,
}

/// What goes into the module's `forward`, and what comes out. B is the number of examples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Inputs {
    /// i64 `[B, context]`; out come logits f32 `[B, context, vocabulary]` of each next token.
    Tokens {
        /// Number of token values; 256 for bytes.
        vocabulary: u32,
        /// Tokens of an example.
        context: u32,
    },
    /// f32 `[B, channels, height, width]` from -1 to 1; out come logits f32 `[B, classes]`.
    Images(Images),
    /// f32 `[B, inputs]`; out comes f32 `[B, outputs]`.
    Vectors {
        /// Numbers that go in.
        inputs: u32,
        /// Numbers that come out: with cross entropy, logits of so many classes.
        outputs: u32,
    },
}

/// One trainable parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleParameter {
    /// Its name in the module.
    pub name: String,
    /// Its shape there.
    pub shape: Vec<u32>,
}

impl ModuleParameter {
    /// The shape in which it is shared: what has three dimensions or more becomes a matrix with as many rows.
    pub fn shared_shape(&self) -> Vec<usize> {
        match &self.shape[..] {
            [] => vec![1],
            [length] => vec![*length as usize],
            [rows, rest @ ..] => {
                vec![*rows as usize, rest.iter().map(|side| *side as usize).fold(1, usize::saturating_mul)]
            }
        }
    }
}

impl Loss {
    /// Its name in the genesis.
    pub fn name(self) -> &'static str {
        match self {
            Self::CrossEntropy => "cross_entropy",
            Self::Mse => "mse",
        }
    }
}

impl ModuleConfig {
    /// Checks what does not need the parameters; the error names the key below `model.module`.
    ///
    /// # Errors
    /// The first value out of its range.
    pub fn validate_inputs(inputs: &Inputs, loss: Loss) -> Result<(), String> {
        match inputs {
            Inputs::Tokens { vocabulary, context } => {
                within("module.inputs.tokens.vocabulary", *vocabulary, 2, MAX_VOCABULARY)?;
                within("module.inputs.tokens.context", *context, 1, MAX_CONTEXT)?;
            }
            Inputs::Images(images) => images.validate("module.inputs.images")?,
            Inputs::Vectors { inputs, outputs } => {
                within("module.inputs.vectors.inputs", *inputs, 1, MAX_SIDE)?;
                within("module.inputs.vectors.outputs", *outputs, 1, MAX_SIDE)?;
                if loss == Loss::CrossEntropy && *outputs < 2 {
                    return Err(format!(
                        "model.module.inputs.vectors.outputs = {outputs}: cross entropy needs at least two classes"
                    ));
                }
            }
        }
        if loss == Loss::Mse && !matches!(inputs, Inputs::Vectors { .. }) {
            return Err("model.module.loss = \"mse\": tokens and images have classes, so it must be \
                        \"cross_entropy\""
                .into());
        }
        Ok(())
    }

    /// Checks every value; the error names the offending key.
    pub(super) fn validate(&self) -> Result<(), String> {
        Self::validate_inputs(&self.inputs, self.loss)?;
        let count = self.parameters.len();
        if !(1..=MAX_PARAMETERS).contains(&count) {
            return Err(format!(
                "model.module.parameters: {count} of them; there must be 1 to {MAX_PARAMETERS}"
            ));
        }
        for ModuleParameter { name, shape } in &self.parameters {
            if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
                return Err(format!(
                    "model.module.parameters: {name:?} is no name: 1 to {MAX_NAME} bytes without control characters"
                ));
            }
            let numbers = shape.iter().try_fold(1u64, |product, side| product.checked_mul((*side).into()));
            if shape.len() > MAX_DIMENSIONS
                || shape.iter().any(|side| !(1..=MAX_SIDE).contains(side))
                || numbers.is_none_or(|numbers| numbers > super::MAX_PARAMETERS)
            {
                return Err(format!(
                    "model.module.parameters: {name} has the shape {shape:?}; at most {MAX_DIMENSIONS} sides of 1 to \
                     {MAX_SIDE} are supported"
                ));
            }
        }
        Ok(())
    }

    /// All parameters in layout order. None is drawn: they come from the module's file.
    pub fn parameters(&self) -> Vec<Parameter> {
        let parameter = |parameter: &ModuleParameter| Parameter {
            name: parameter.name.clone(),
            shape: parameter.shared_shape(),
            init: Init::Zeros,
            // Nothing is known about what it is for; AdamW suits all.
            hidden: false,
        };
        self.parameters.iter().map(parameter).collect()
    }

    /// The table as TOML, with what people need to know.
    pub(super) fn to_toml(&self) -> String {
        let Self { file, loss, inputs, parameters } = self;
        let count = super::count(&self.parameters());
        let rows: String = parameters
            .iter()
            .map(|ModuleParameter { name, shape }| {
                format!("    {{ name = {}, shape = {shape:?} }},\n", toml::Value::String(name.clone()))
            })
            .collect();
        let inputs = match inputs {
            Inputs::Tokens { vocabulary, context } => {
                format!("[model.module.inputs.tokens]\nvocabulary = {vocabulary}\ncontext = {context}\n")
            }
            Inputs::Images(images) => images.to_toml("module.inputs.images"),
            Inputs::Vectors { inputs, outputs } => {
                format!("[model.module.inputs.vectors]\ninputs = {inputs}\noutputs = {outputs}\n")
            }
        };
        format!(
            "# A TorchScript module, {count} parameters. Whoever trains needs its file, which is a program: take it\n\
             # from somebody you trust. Peers never send it.\n\
             [model.module]\n\
             # BLAKE3 of the file\n\
             file = \"{file}\"\n\
             loss = \"{}\"\n\
             parameters = [\n{rows}]\n\n{inputs}",
            loss.name()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use crate::genesis::{Genesis, Parent};

    fn config() -> ModuleConfig {
        let parameter =
            |name: &str, shape: &[u32]| ModuleParameter { name: name.into(), shape: shape.to_vec() };
        ModuleConfig {
            file: Digest::of_bytes(b"module"),
            loss: Loss::CrossEntropy,
            inputs: Inputs::Tokens { vocabulary: 256, context: 32 },
            parameters: vec![
                parameter("0.weight", &[8, 3, 3, 2]),
                parameter("0.\"bias\"", &[8]),
                parameter("scale", &[]),
            ],
        }
    }

    fn genesis(config: ModuleConfig) -> Genesis {
        let parent = Parent { swarm: None, settled: 0, state: Digest::of_bytes(b"start") };
        Genesis { parent: Some(parent), ..Genesis::new("module", Architecture::Module(config), 1) }
    }

    #[test]
    fn every_kind_of_module_reads_back() {
        let images = Images { channels: 1, height: 8, width: 8, classes: 10, class_names: Vec::new() };
        for (inputs, loss) in [
            (config().inputs, Loss::CrossEntropy),
            (Inputs::Images(images), Loss::CrossEntropy),
            (Inputs::Vectors { inputs: 4, outputs: 1 }, Loss::Mse),
        ] {
            let genesis = genesis(ModuleConfig { inputs, loss, ..config() });
            let text = genesis.to_toml();
            let read = Genesis::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!((&read, read.swarm_id()), (&genesis, genesis.swarm_id()));
            assert_eq!(Genesis::from_canonical_bytes(&genesis.canonical_bytes()).unwrap(), genesis);
        }
    }

    #[test]
    fn what_has_many_dimensions_is_shared_as_a_matrix() {
        let shapes: Vec<_> = config().parameters().into_iter().map(|p| p.shape).collect();
        assert_eq!(shapes, [vec![8, 18], vec![8], vec![1]]);
        assert_eq!(Architecture::Module(config()).parameter_count(), 8 * 18 + 8 + 1);
    }

    #[test]
    fn a_module_starts_with_its_own_parameters() {
        let genesis = Genesis { parent: None, ..genesis(config()) };
        let error = genesis.validate().unwrap_err();
        assert!(error.contains("[parent]") && error.contains("swarm new"), "{error}");
    }

    #[test]
    fn errors_name_the_key() {
        let shaped = |shape: &[u32]| vec![ModuleParameter { name: "w".into(), shape: shape.to_vec() }];
        let tokens = |vocabulary, context| Inputs::Tokens { vocabulary, context };
        for (config, words) in [
            (ModuleConfig { inputs: tokens(1, 32), ..config() }, "model.module.inputs.tokens.vocabulary = 1"),
            (ModuleConfig { inputs: tokens(256, 0), ..config() }, "model.module.inputs.tokens.context = 0"),
            (ModuleConfig { loss: Loss::Mse, ..config() }, "model.module.loss"),
            (
                ModuleConfig { inputs: Inputs::Vectors { inputs: 3, outputs: 1 }, ..config() },
                "at least two classes",
            ),
            (ModuleConfig { parameters: vec![], ..config() }, "model.module.parameters: 0 of them"),
            (ModuleConfig { parameters: shaped(&[3, 0]), ..config() }, "w has the shape [3, 0]"),
            (ModuleConfig { parameters: shaped(&[1 << 28; 8]), ..config() }, "w has the shape"),
            (ModuleConfig { parameters: shaped(&[1; 9]), ..config() }, "w has the shape"),
        ] {
            let error = Architecture::Module(config).validate().unwrap_err();
            assert!(error.contains(words), "{words}: {error}");
        }
        let mut twice = config();
        twice.parameters.push(twice.parameters[0].clone());
        assert!(genesis(twice).validate().unwrap_err().contains("0.weight"));
    }
}
