//! Dense transformers of the llama family, Qwen2's among them.
//!
//! The block is the usual one (Touvron et al., arXiv 2302.13971): RMSNorm, rotary position embeddings, causal
//! attention, SwiGLU. Heads of queries may share keys and values (grouped-query attention, Ainslie et al., arXiv
//! 2305.13245), the output layer may be the embedding (tied), and the projections of attention may have biases
//! (Qwen2, arXiv 2407.10671). Parameter names are those of Hugging Face's `LlamaForCausalLM` and
//! `Qwen2ForCausalLM`.

use serde::{Deserialize, Serialize};

use super::{Init, Parameter, real, within};

/// Upper limits: what a genesis may ask a device to allocate.
const MAX_DIM: u32 = 16_384;
const MAX_LAYERS: u32 = 256;
const MAX_VOCABULARY: u32 = 1 << 20;
const MAX_CONTEXT: u32 = 1 << 20;
/// Base of the rotary frequencies where none is named (Hugging Face's default).
const ROPE_THETA: f64 = 10_000.0;
/// Added to the mean square in a normalisation where nothing is named.
const NORM_EPS: f64 = 1e-5;

/// The sizes of a llama-style transformer. Every linear weight has shape `[out, in]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Table", into = "Table")]
pub struct LlamaConfig {
    /// Number of token values; 256 for bytes.
    pub vocabulary: u32,
    /// Width of the residual stream.
    pub dim: u32,
    /// Number of transformer blocks.
    pub layers: u32,
    /// Attention heads (of queries).
    pub heads: u32,
    /// Heads of keys and values; a divisor of `heads`.
    pub kv_heads: u32,
    /// Channels of a head, an even number.
    pub head_dim: u32,
    /// Width of the SwiGLU feed-forward layer.
    pub ffn: u32,
    /// Longest sequence in tokens.
    pub context: u32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square before the root of a normalisation.
    pub norm_eps: f64,
    /// The output layer is the embedding.
    pub tied: bool,
    /// The projections to queries, keys and values have biases.
    pub qkv_bias: bool,
}

/// The sizes that make a plain model: as many heads of keys as of queries, nothing tied, no biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Number of token values.
    pub vocabulary: u32,
    /// Width of the residual stream.
    pub dim: u32,
    /// Number of transformer blocks.
    pub layers: u32,
    /// Attention heads; each has `dim / heads` channels.
    pub heads: u32,
    /// Width of the feed-forward layer.
    pub ffn: u32,
    /// Longest sequence in tokens.
    pub context: u32,
}

/// The table as people write it: what is left out is as in a plain model.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    vocabulary: u32,
    dim: u32,
    layers: u32,
    heads: u32,
    ffn: u32,
    context: u32,
    kv_heads: Option<u32>,
    head_dim: Option<u32>,
    rope_theta: Option<f64>,
    norm_eps: Option<f64>,
    tied: Option<bool>,
    qkv_bias: Option<bool>,
}

impl From<Sizes> for LlamaConfig {
    fn from(sizes: Sizes) -> Self {
        let Sizes { vocabulary, dim, layers, heads, ffn, context } = sizes;
        Self {
            vocabulary,
            dim,
            layers,
            heads,
            kv_heads: heads,
            // 0 is refused later, with a reason.
            head_dim: if heads > 0 && dim.is_multiple_of(heads) { dim / heads } else { 0 },
            ffn,
            context,
            rope_theta: ROPE_THETA,
            norm_eps: NORM_EPS,
            tied: false,
            qkv_bias: false,
        }
    }
}

impl From<Table> for LlamaConfig {
    fn from(table: Table) -> Self {
        let Table { vocabulary, dim, layers, heads, ffn, context, .. } = table;
        let plain = Self::from(Sizes { vocabulary, dim, layers, heads, ffn, context });
        Self {
            kv_heads: table.kv_heads.unwrap_or(plain.kv_heads),
            head_dim: table.head_dim.unwrap_or(plain.head_dim),
            rope_theta: table.rope_theta.unwrap_or(plain.rope_theta),
            norm_eps: table.norm_eps.unwrap_or(plain.norm_eps),
            tied: table.tied.unwrap_or(plain.tied),
            qkv_bias: table.qkv_bias.unwrap_or(plain.qkv_bias),
            ..plain
        }
    }
}

impl From<LlamaConfig> for Table {
    fn from(config: LlamaConfig) -> Self {
        let LlamaConfig { vocabulary, dim, layers, heads, kv_heads, head_dim, ffn, context, .. } = config;
        Self {
            vocabulary,
            dim,
            layers,
            heads,
            ffn,
            context,
            kv_heads: Some(kv_heads),
            head_dim: Some(head_dim),
            rope_theta: Some(config.rope_theta),
            norm_eps: Some(config.norm_eps),
            tied: Some(config.tied),
            qkv_bias: Some(config.qkv_bias),
        }
    }
}

impl LlamaConfig {
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
        let vocabulary = super::BYTE_VOCABULARY;
        Some(Sizes { vocabulary, dim, layers, heads, ffn, context }.into())
    }

    /// Rows of the query projection.
    pub fn query_rows(&self) -> u32 {
        self.heads * self.head_dim
    }

    /// Rows of the key projection, and of the value projection.
    pub fn key_rows(&self) -> u32 {
        self.kv_heads * self.head_dim
    }

    /// Checks every size; the error names the offending key.
    pub(super) fn validate(&self) -> Result<(), String> {
        let check = |key: &str, value, low, high| within(&format!("llama.{key}"), value, low, high);
        check("vocabulary", self.vocabulary, 2, MAX_VOCABULARY)?;
        check("dim", self.dim, 2, MAX_DIM)?;
        check("layers", self.layers, 1, MAX_LAYERS)?;
        check("heads", self.heads, 1, self.dim)?;
        check("kv_heads", self.kv_heads, 1, self.heads)?;
        check("ffn", self.ffn, 1, 8 * MAX_DIM)?;
        check("context", self.context, 2, MAX_CONTEXT)?;
        real("llama.rope_theta", self.rope_theta, 1.0, 1e12)?;
        real("llama.norm_eps", self.norm_eps, 1e-12, 1.0)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!(
                "model.llama.kv_heads = {}: must divide model.llama.heads ({})",
                self.kv_heads, self.heads
            ));
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) {
            return Err(format!(
                "model.llama.heads = {}: model.llama.head_dim (if it is not given: dim / heads, dim is {}) must be an \
                 even whole number",
                self.heads, self.dim
            ));
        }
        check("head_dim", self.head_dim, 2, MAX_DIM / self.heads)?;
        Ok(())
    }

    /// Number of parameters (scalars).
    pub fn parameter_count(&self) -> u64 {
        let (v, d, l, f) =
            (u64::from(self.vocabulary), u64::from(self.dim), u64::from(self.layers), u64::from(self.ffn));
        let (q, kv) = (u64::from(self.query_rows()), u64::from(self.key_rows()));
        let biases = if self.qkv_bias { q + 2 * kv } else { 0 };
        let outside = if self.tied { v * d } else { 2 * v * d };
        outside + l * (2 * (q + kv) * d + biases + 3 * d * f + 2 * d) + d
    }

    /// All parameters in layout order.
    ///
    /// Starting values follow GPT-2 (Radford et al. 2019, section 2.3): standard deviation 0.02,
    /// divided by sqrt(2 x layers) for the projections that write into the residual stream.
    pub fn parameters(&self) -> Vec<Parameter> {
        const STD: u32 = 20_000;
        let (v, d, f) = (self.vocabulary as usize, self.dim as usize, self.ffn as usize);
        let (q, kv) = (self.query_rows() as usize, self.key_rows() as usize);
        let scaled = u64::from(STD) * u64::from(STD) / (2 * u64::from(self.layers.max(1)));
        let scaled_std = u32::try_from(scaled.isqrt()).unwrap_or(STD);
        let mut all = Vec::new();
        let mut add = |name: String, shape: &[usize], init| {
            let hidden = shape.len() == 2 && name.starts_with("model.layers.");
            all.push(Parameter { name, shape: shape.to_vec(), init, hidden });
        };
        let normal = Init::Normal { std_millionths: STD };
        let output = Init::Normal { std_millionths: scaled_std };
        add("model.embed_tokens.weight".into(), &[v, d], normal);
        for layer in 0..self.layers {
            let p = |rest: &str| format!("model.layers.{layer}.{rest}");
            add(p("input_layernorm.weight"), &[d], Init::Ones);
            add(p("self_attn.q_proj.weight"), &[q, d], normal);
            add(p("self_attn.k_proj.weight"), &[kv, d], normal);
            add(p("self_attn.v_proj.weight"), &[kv, d], normal);
            if self.qkv_bias {
                add(p("self_attn.q_proj.bias"), &[q], Init::Zeros);
                add(p("self_attn.k_proj.bias"), &[kv], Init::Zeros);
                add(p("self_attn.v_proj.bias"), &[kv], Init::Zeros);
            }
            add(p("self_attn.o_proj.weight"), &[d, q], output);
            add(p("post_attention_layernorm.weight"), &[d], Init::Ones);
            add(p("mlp.gate_proj.weight"), &[f, d], normal);
            add(p("mlp.up_proj.weight"), &[f, d], normal);
            add(p("mlp.down_proj.weight"), &[d, f], output);
        }
        add("model.norm.weight".into(), &[d], Init::Ones);
        if !self.tied {
            add("lm_head.weight".into(), &[v, d], normal);
        }
        all
    }

    /// The table as TOML, with what people need to know.
    pub(super) fn to_toml(self) -> String {
        let Self { vocabulary, dim, layers, heads, kv_heads, head_dim, ffn, context, .. } = self;
        let Self { rope_theta, norm_eps, tied, qkv_bias, .. } = self;
        format!(
            "[model.llama]           # {count} parameters\n\
             vocabulary = {vocabulary}\ndim = {dim}\nlayers = {layers}\nheads = {heads}\nkv_heads = {kv_heads}\n\
             head_dim = {head_dim}\nffn = {ffn}\ncontext = {context}\nrope_theta = {rope_theta:?}\n\
             norm_eps = {norm_eps:?}\ntied = {tied}            # the output layer is the embedding\n\
             qkv_bias = {qkv_bias}\n",
            count = self.parameter_count(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;

    #[test]
    fn presets_have_the_sizes_they_promise() {
        for (name, low, high) in [
            ("nano", 800_000, 1_200_000),
            ("micro", 9_000_000, 11_000_000),
            ("small", 95_000_000, 105_000_000),
        ] {
            let architecture = LlamaConfig::preset(name).unwrap();
            architecture.validate().unwrap();
            assert!((low..high).contains(&architecture.parameter_count()), "{name}");
        }
    }

    #[test]
    fn the_count_is_that_of_the_parameters() {
        let plain = LlamaConfig::preset("nano").unwrap();
        let qwen2 = LlamaConfig { kv_heads: 2, head_dim: 48, tied: true, qkv_bias: true, ..plain };
        for config in [plain, qwen2, LlamaConfig { tied: true, ..plain }] {
            config.validate().unwrap();
            let total: usize = config.parameters().iter().map(|p| p.shape.iter().product::<usize>()).sum();
            assert_eq!(total as u64, config.parameter_count());
        }
    }

    #[test]
    fn what_a_table_leaves_out_is_as_in_a_plain_model() {
        let short = "[llama]\nvocabulary = 256\ndim = 128\nlayers = 4\nheads = 4\nffn = 352\ncontext = 128\n";
        let read: Architecture = toml::from_str(short).unwrap();
        assert_eq!(read, Architecture::preset("nano").unwrap());
        let long = format!("{short}kv_heads = 2\ntied = true\n");
        let read: Architecture = toml::from_str(&long).unwrap();
        let nano = LlamaConfig::preset("nano").unwrap();
        assert_eq!(read, LlamaConfig { kv_heads: 2, tied: true, ..nano }.into());
        assert!(toml::from_str::<Architecture>(&format!("{short}colour = 1\n")).is_err());
    }

    #[test]
    fn errors_name_the_key() {
        let nano = LlamaConfig::preset("nano").unwrap();
        for (config, key) in [
            (LlamaConfig { dim: 0, ..nano }, "model.llama.dim"),
            (
                Sizes { vocabulary: 256, dim: 128, layers: 4, heads: 3, ffn: 8, context: 8 }.into(),
                "model.llama.heads",
            ),
            (LlamaConfig { context: 1, ..nano }, "model.llama.context"),
            (LlamaConfig { kv_heads: 3, ..nano }, "model.llama.kv_heads"),
            (LlamaConfig { rope_theta: f64::NAN, ..nano }, "model.llama.rope_theta"),
            (LlamaConfig { norm_eps: 0.0, ..nano }, "model.llama.norm_eps"),
        ] {
            let error = config.validate().unwrap_err();
            assert!(error.starts_with(key), "{key}: {error}");
        }
    }
}
