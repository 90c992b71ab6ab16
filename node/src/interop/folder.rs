//! A model written as a Hugging Face folder, which `transformers` opens.
//!
//! The parameters of a swarm have the names that `transformers` gives them, so each is written as it is. `model.safetensors`
//! is written tensor by tensor; what is in memory is the model and one tensor's bytes.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Value, json};

use super::export::Model;
use super::numbers::Number;
use super::{config, vocabulary};
use crate::store::{self, write_atomically, write_streamed};

/// Writes `model` into the new folder `folder`; `config.json`, by which a folder is known, comes last.
///
/// # Errors
/// A folder that is not empty, a number format that safetensors does not have, a disk that does not take it.
pub(crate) fn write(folder: &Path, model: &Model<'_>, number: Number) -> Result<()> {
    let (dtype, name) = match number {
        Number::F32 => (Dtype::F32, "float32"),
        Number::F16 => (Dtype::F16, "float16"),
        Number::Bf16 => (Dtype::BF16, "bfloat16"),
        Number::Q8_0 | Number::Q4_0 => anyhow::bail!(
            "--quantize {}: safetensors has no such numbers; use --format gguf, or f32, f16 or bf16",
            number.name()
        ),
    };
    let config = model.config;
    ensure!(
        config.dim.is_multiple_of(config.heads),
        "transformers opens no model whose width ({}) is not a multiple of its heads ({}): use --format gguf",
        config.dim,
        config.heads
    );
    store::ensure_empty(folder)?;
    store::make_folder(folder)?;
    let header = header(model, dtype, number)?;
    let mut bytes = Vec::new();
    write_streamed(&folder.join("model.safetensors"), |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for (_, values) in model.tensors() {
            // A part at a time, so that a large tensor is not in memory twice.
            for part in values.chunks(1 << 20) {
                bytes.clear();
                number.encode(part, &mut bytes);
                out.write_all(&bytes)?;
            }
        }
        Ok(())
    })?;
    let file = |name: &str, value: &Value| {
        let text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
        write_atomically(&folder.join(name), text.as_bytes())
    };
    match model.tokenizer {
        Some(tokenizer) => write_atomically(&folder.join("tokenizer.json"), tokenizer)?,
        None => file("tokenizer.json", &vocabulary::tokenizer_json())?,
    }
    file("tokenizer_config.json", &vocabulary::tokenizer_config(config.context))?;
    file(
        "generation_config.json",
        &json!({ "bos_token_id": null, "eos_token_id": null, "do_sample": true }),
    )?;
    file("config.json", &config::write(config, name))
}

/// The header of `model.safetensors`, padded as the format recommends.
fn header(model: &Model<'_>, dtype: Dtype, number: Number) -> Result<Vec<u8>> {
    let mut end = 0;
    let tensors = model
        .tensors()
        .map(|(parameter, values)| {
            let start = end;
            end += number.bytes(values.len());
            let info = TensorInfo { dtype, shape: parameter.shape.clone(), data_offsets: (start, end) };
            (parameter.name.clone(), info)
        })
        .collect();
    // `transformers` wants to know whose tensors they are.
    let mut said = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    said.extend(model.provenance.iter().map(|(key, value)| (format!("swarm.{key}"), value.clone())));
    let metadata = Metadata::new(Some(said), tensors).context("the model has no safetensors header")?;
    let mut header = serde_json::to_vec(&metadata).context("cannot write the header")?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}
