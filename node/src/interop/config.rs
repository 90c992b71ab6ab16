//! The architecture as a Hugging Face folder's `config.json` says it.
//!
//! The keys are those of `LlamaConfig` and `Qwen2Config` in `transformers`, in the spelling of its versions 4 (rotary
//! base in `rope_theta`) and 5 (in `rope_parameters`). What the network of a swarm does not do is refused, never
//! ignored: a model that is nearly the same computes nonsense.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value, json};
use swarm_protocol::architecture::{Architecture, LlamaConfig};

use crate::store::read_limited;

/// A configuration is text of a few KiB.
const MAX_CONFIG: u64 = 1 << 20;
/// What `transformers` takes where a configuration says nothing.
const ROPE_THETA: f64 = 10_000.0;
const NORM_EPS: f64 = 1e-6;

/// The architecture that the `config.json` at `path` describes.
///
/// # Errors
/// A file that cannot be read, a family or a feature that is not supported; the text names the file and the key.
pub(crate) fn read(path: &Path) -> Result<LlamaConfig> {
    let bytes = read_limited(path, MAX_CONFIG)?;
    let value = serde_json::from_slice(&bytes)
        .map_err(|error| anyhow!("it is not JSON ({error}): fetch the model again"))
        .and_then(|value: Value| parse(&value));
    value.with_context(|| path.display().to_string())
}

/// One table of the configuration.
struct Table<'a>(&'a Map<String, Value>);

impl Table<'_> {
    /// A value that is there and not null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn size_or(&self, key: &str, otherwise: Option<u32>) -> Result<u32> {
        match (self.get(key), otherwise) {
            (Some(value), _) => {
                let size = value.as_u64().and_then(|value| u32::try_from(value).ok());
                size.with_context(|| format!("{key} = {value}: must be a whole number below 2^32"))
            }
            (None, Some(otherwise)) => Ok(otherwise),
            (None, None) => bail!("{key} is missing: is it the model's own config.json?"),
        }
    }

    fn size(&self, key: &str) -> Result<u32> {
        self.size_or(key, None)
    }

    fn real(&self, key: &str) -> Result<Option<f64>> {
        let read =
            |value: &Value| value.as_f64().with_context(|| format!("{key} = {value}: must be a number"));
        self.get(key).map(read).transpose()
    }

    fn flag(&self, key: &str) -> Result<bool> {
        let read = |value: &Value| {
            value.as_bool().with_context(|| format!("{key} = {value}: must be true or false"))
        };
        self.get(key).map_or(Ok(false), read)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

fn parse(value: &Value) -> Result<LlamaConfig> {
    let table = Table(value.as_object().context("it is no JSON object: is it the model's own config.json?")?);
    let qkv_bias = match table.text("model_type") {
        Some("llama") => false,
        Some("qwen2") => true,
        Some(other) => bail!(
            "model_type \"{}\" is not supported: use a dense model of type llama or qwen2",
            other.chars().take(40).collect::<String>()
        ),
        None => bail!("model_type is missing: it must be llama or qwen2"),
    };
    refuse_what_is_missing_here(&table)?;
    let (dim, heads) = (table.size("hidden_size")?, table.size("num_attention_heads")?);
    let config = LlamaConfig {
        vocabulary: table.size("vocab_size")?,
        dim,
        layers: table.size("num_hidden_layers")?,
        heads,
        kv_heads: table.size_or("num_key_value_heads", Some(heads))?,
        head_dim: table.size_or("head_dim", Some(dim.checked_div(heads).unwrap_or(0)))?,
        ffn: table.size("intermediate_size")?,
        context: table.size("max_position_embeddings")?,
        rope_theta: rope_theta(&table)?,
        norm_eps: table.real("rms_norm_eps")?.unwrap_or(NORM_EPS),
        tied: table.flag("tie_word_embeddings")?,
        qkv_bias,
    };
    Architecture::from(config).validate().map_err(|error| anyhow!("its sizes are not supported: {error}"))?;
    Ok(config)
}

/// Features that change what a model computes and that a swarm's network does not have.
fn refuse_what_is_missing_here(table: &Table<'_>) -> Result<()> {
    if table.get("quantization_config").is_some() {
        bail!(
            "quantization_config: quantised weights cannot be trained; use the model's f32, f16 or bf16 weights"
        );
    }
    for key in ["attention_bias", "mlp_bias"] {
        ensure!(!table.flag(key)?, "{key} = true is not supported: use a model without these biases");
    }
    ensure!(
        !table.flag("use_sliding_window")?,
        "use_sliding_window = true is not supported: use a model with full attention"
    );
    let layers = table.get("layer_types").and_then(Value::as_array);
    if let Some(other) = layers.into_iter().flatten().find(|kind| *kind != "full_attention") {
        bail!("layer_types has {other}, but only full_attention is supported");
    }
    if let Some(act) = table.get("hidden_act").filter(|act| *act != "silu") {
        bail!("hidden_act = {act} is not supported: only \"silu\" is");
    }
    if let Some(share) = table.real("partial_rotary_factor")?.filter(|share| *share != 1.0) {
        bail!("partial_rotary_factor = {share} is not supported: only 1 is");
    }
    Ok(())
}

/// The base of the rotary frequencies, which must be the plain ones.
fn rope_theta(table: &Table<'_>) -> Result<f64> {
    let mut theta = table.real("rope_theta")?;
    for key in ["rope_scaling", "rope_parameters"] {
        let Some(value) = table.get(key) else { continue };
        let rope = Table(value.as_object().with_context(|| format!("{key} = {value}: must be a table"))?);
        let kind = rope.text("rope_type").or_else(|| rope.text("type")).unwrap_or("default");
        ensure!(
            kind == "default",
            "{key} has the type \"{}\", which is not supported: use a model with plain rotary embeddings",
            kind.chars().take(40).collect::<String>()
        );
        theta = rope.real("rope_theta")?.or(theta);
    }
    Ok(theta.unwrap_or(ROPE_THETA))
}

/// What `transformers` calls this family.
pub(crate) fn family(config: &LlamaConfig) -> &'static str {
    if config.qkv_bias { "qwen2" } else { "llama" }
}

/// The `config.json` of this model, whose weights are of the type `dtype` (`"float32"` and so on).
pub(crate) fn write(config: &LlamaConfig, dtype: &str) -> Value {
    let class = if config.qkv_bias { "Qwen2ForCausalLM" } else { "LlamaForCausalLM" };
    let mut value = json!({
        "architectures": [class],
        "model_type": family(config),
        "vocab_size": config.vocabulary,
        "hidden_size": config.dim,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": { "rope_theta": config.rope_theta, "rope_type": "default" },
        "tie_word_embeddings": config.tied,
        // `transformers` has token 1 and 2 begin and end a text where nothing is said.
        "bos_token_id": null,
        "eos_token_id": null,
        "torch_dtype": dtype,
    });
    if let Value::Object(table) = &mut value {
        if config.qkv_bias {
            table.insert("use_sliding_window".into(), false.into());
        } else {
            table.insert("attention_bias".into(), false.into());
            table.insert("mlp_bias".into(), false.into());
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `transformers` 5.23 writes a small Qwen2, less what does not matter.
    fn qwen2() -> Value {
        json!({
            "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": null,
            "dtype": "float32", "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02,
            "intermediate_size": 96, "layer_types": ["full_attention", "full_attention"],
            "max_position_embeddings": 128, "max_window_layers": 28, "model_type": "qwen2",
            "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
            "rms_norm_eps": 1e-06, "rope_parameters": { "rope_theta": 50000.0, "rope_type": "default" },
            "sliding_window": null, "tie_word_embeddings": true, "use_cache": true,
            "use_sliding_window": false, "vocab_size": 256
        })
    }

    #[test]
    fn both_spellings_of_a_configuration_are_read() {
        let expected = LlamaConfig {
            vocabulary: 256,
            dim: 64,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            ffn: 96,
            context: 128,
            rope_theta: 50_000.0,
            norm_eps: 1e-6,
            tied: true,
            qkv_bias: true,
        };
        assert_eq!(parse(&qwen2()).unwrap(), expected);
        let llama = json!({
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 128, "rope_theta": 50000, "rope_scaling": null,
            "vocab_size": 256, "head_dim": 8, "pretraining_tp": 1
        });
        let expected = LlamaConfig { kv_heads: 4, head_dim: 8, tied: false, qkv_bias: false, ..expected };
        assert_eq!(parse(&llama).unwrap(), expected);
    }

    #[test]
    fn what_is_written_reads_back() {
        let plain = LlamaConfig { rope_theta: 123.5, norm_eps: 1e-4, ..LlamaConfig::preset("nano").unwrap() };
        for config in [plain, LlamaConfig { kv_heads: 2, head_dim: 6, tied: true, qkv_bias: true, ..plain }] {
            assert_eq!(parse(&write(&config, "float32")).unwrap(), config);
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (key, value, words) in [
            ("model_type", json!("gpt2"), &["\"gpt2\"", "llama or qwen2"][..]),
            ("model_type", Value::Null, &["model_type is missing"]),
            ("hidden_size", Value::Null, &["hidden_size is missing"]),
            ("hidden_size", json!("64"), &["hidden_size = \"64\"", "whole number"]),
            ("hidden_size", json!(1e20), &["hidden_size", "whole number"]),
            ("num_hidden_layers", json!(100_000), &["sizes", "layers"]),
            ("num_key_value_heads", json!(3), &["kv_heads"]),
            ("num_attention_heads", json!(0), &["heads"]),
            ("rope_scaling", json!({"rope_type": "yarn"}), &["rope_scaling", "\"yarn\""]),
            ("rope_scaling", json!({"type": "dynamic"}), &["\"dynamic\""]),
            ("rope_parameters", json!(7), &["rope_parameters = 7"]),
            ("use_sliding_window", json!(true), &["use_sliding_window"]),
            ("layer_types", json!(["full_attention", "sliding_attention"]), &["sliding_attention"]),
            ("attention_bias", json!(true), &["attention_bias"]),
            ("mlp_bias", json!(true), &["mlp_bias"]),
            ("mlp_bias", json!("no"), &["mlp_bias", "true or false"]),
            ("quantization_config", json!({"bits": 4}), &["quantised weights"]),
            ("hidden_act", json!("gelu"), &["hidden_act", "silu"]),
            ("partial_rotary_factor", json!(0.5), &["partial_rotary_factor"]),
            ("rms_norm_eps", json!(0), &["norm_eps"]),
        ] {
            let mut config = qwen2();
            config[key] = value;
            let error = parse(&config).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{key}: {error}");
        }
        assert!(parse(&json!([])).is_err());
    }

    #[test]
    fn a_bad_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        for (bytes, words) in [("{", "not JSON"), ("[1]", "no JSON object")] {
            std::fs::write(&path, bytes).unwrap();
            let error = format!("{:#}", read(&path).unwrap_err());
            assert!(error.contains("config.json") && error.contains(words), "{error}");
        }
    }
}
