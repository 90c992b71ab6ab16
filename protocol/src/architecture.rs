//! The shape of the model that a swarm trains: a byte-level, llama-style transformer.
//!
//! The genesis states the architecture in numbers, and everything else about the shared parameters
//! follows from them: their names, shapes and order (the layout), and the distribution from which the
//! swarm's common starting point is drawn. Nothing here knows how to *run* the model: a node
//! without libtorch must still know what it replicates.
//!
//! The block is the usual one (Touvron et al., arXiv 2302.13971): RMSNorm, rotary position
//! embeddings, causal attention, SwiGLU; untied input and output embeddings; no biases. Parameter
//! names are those of Hugging Face's `LlamaForCausalLM`.

use serde::{Deserialize, Serialize};

/// Bytes have 256 values; a byte-level model needs no tokenizer.
pub const BYTE_VOCABULARY: u32 = 256;

/// The sizes of a llama-style transformer. Every linear weight has shape `[out, in]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Number of token values; 256 for bytes.
    pub vocabulary: u32,
    /// Width of the residual stream.
    pub dim: u32,
    /// Number of transformer blocks.
    pub layers: u32,
    /// Attention heads; each has `dim / heads` channels, an even number.
    pub heads: u32,
    /// Width of the SwiGLU feed-forward layer.
    pub ffn: u32,
    /// Longest sequence in tokens.
    pub context: u32,
}

/// How a parameter's starting values are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
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
    /// Its name, as in Hugging Face's llama checkpoints.
    pub name: String,
    /// Its shape, `[n]` or `[rows, columns]`.
    pub shape: Vec<usize>,
    /// Its starting values.
    pub init: Init,
}

/// Upper limits: what a genesis may ask a device to allocate.
const MAX_DIM: u32 = 16_384;
const MAX_LAYERS: u32 = 256;
const MAX_VOCABULARY: u32 = 1 << 20;
const MAX_CONTEXT: u32 = 1 << 20;
const MAX_PARAMETERS: u64 = 1 << 34;

impl Architecture {
    /// The named presets: `nano` (about 1 M parameters), `micro` (about 10 M), `small` (about 100 M).
    pub const PRESETS: [&'static str; 3] = ["nano", "micro", "small"];

    /// The preset called `name`, or `None`.
    pub fn preset(name: &str) -> Option<Self> {
        let (dim, layers, heads, ffn, context) = match name {
            "nano" => (128, 4, 4, 352, 128),
            "micro" => (320, 8, 5, 864, 256),
            "small" => (768, 14, 12, 2048, 512),
            _ => return None,
        };
        Some(Self { vocabulary: BYTE_VOCABULARY, dim, layers, heads, ffn, context })
    }

    /// The name of the preset with these sizes, if there is one.
    pub fn preset_name(&self) -> Option<&'static str> {
        Self::PRESETS.into_iter().find(|name| Self::preset(name).as_ref() == Some(self))
    }

    /// Checks every size; the error names the offending key of the genesis' `[model]` table.
    pub fn validate(&self) -> Result<(), String> {
        let within = |key: &str, value: u32, low: u32, high: u32| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(format!("model.{key} = {value}: must be between {low} and {high}"))
            }
        };
        within("vocabulary", self.vocabulary, 2, MAX_VOCABULARY)?;
        within("dim", self.dim, 2, MAX_DIM)?;
        within("layers", self.layers, 1, MAX_LAYERS)?;
        within("heads", self.heads, 1, self.dim)?;
        within("ffn", self.ffn, 1, 8 * MAX_DIM)?;
        within("context", self.context, 2, MAX_CONTEXT)?;
        if !self.dim.is_multiple_of(self.heads) || !(self.dim / self.heads).is_multiple_of(2) {
            return Err(format!(
                "model.heads = {}: model.dim / model.heads must be an even whole number (dim is {})",
                self.heads, self.dim
            ));
        }
        let count = self.parameter_count();
        if count > MAX_PARAMETERS {
            return Err(format!("model: {count} parameters; at most {MAX_PARAMETERS} are supported"));
        }
        Ok(())
    }

    /// Number of shared parameters (scalars).
    pub fn parameter_count(&self) -> u64 {
        let (v, d, l, f) =
            (u64::from(self.vocabulary), u64::from(self.dim), u64::from(self.layers), u64::from(self.ffn));
        2 * v * d + l * (4 * d * d + 3 * d * f + 2 * d) + d
    }

    /// All shared parameters in layout order: the order of the flat parameter vector everywhere.
    ///
    /// Starting values follow GPT-2 (Radford et al. 2019, section 2.3): standard deviation 0.02,
    /// divided by sqrt(2 x layers) for the projections that write into the residual stream.
    pub fn parameters(&self) -> Vec<Parameter> {
        const STD: u32 = 20_000;
        let (v, d, f) = (self.vocabulary as usize, self.dim as usize, self.ffn as usize);
        let scaled = u64::from(STD) * u64::from(STD) / (2 * u64::from(self.layers.max(1)));
        let scaled_std = u32::try_from(scaled.isqrt()).unwrap_or(STD);
        let mut all = Vec::new();
        let mut add =
            |name: String, shape: &[usize], init| all.push(Parameter { name, shape: shape.to_vec(), init });
        let normal = Init::Normal { std_millionths: STD };
        let output = Init::Normal { std_millionths: scaled_std };
        add("model.embed_tokens.weight".into(), &[v, d], normal);
        for layer in 0..self.layers {
            let p = |rest: &str| format!("model.layers.{layer}.{rest}.weight");
            add(p("input_layernorm"), &[d], Init::Ones);
            add(p("self_attn.q_proj"), &[d, d], normal);
            add(p("self_attn.k_proj"), &[d, d], normal);
            add(p("self_attn.v_proj"), &[d, d], normal);
            add(p("self_attn.o_proj"), &[d, d], output);
            add(p("post_attention_layernorm"), &[d], Init::Ones);
            add(p("mlp.gate_proj"), &[f, d], normal);
            add(p("mlp.up_proj"), &[f, d], normal);
            add(p("mlp.down_proj"), &[d, f], output);
        }
        add("model.norm.weight".into(), &[d], Init::Ones);
        add("lm_head.weight".into(), &[v, d], normal);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_sizes_they_promise() {
        for (name, low, high) in [
            ("nano", 800_000, 1_200_000),
            ("micro", 9_000_000, 11_000_000),
            ("small", 95_000_000, 105_000_000),
        ] {
            let architecture = Architecture::preset(name).unwrap();
            architecture.validate().unwrap();
            let total: usize =
                architecture.parameters().iter().map(|p| p.shape.iter().product::<usize>()).sum();
            assert_eq!(total as u64, architecture.parameter_count());
            assert!((low..high).contains(&total), "{name} has {total} parameters");
        }
    }

    #[test]
    fn errors_name_the_key() {
        let nano = Architecture::preset("nano").unwrap();
        assert!(Architecture { dim: 0, ..nano }.validate().unwrap_err().starts_with("model.dim"));
        assert!(Architecture { heads: 3, ..nano }.validate().unwrap_err().starts_with("model.heads"));
        assert!(Architecture { context: 1, ..nano }.validate().unwrap_err().starts_with("model.context"));
    }
}
