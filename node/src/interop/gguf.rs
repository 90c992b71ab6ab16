//! A model written as a GGUF file, which llama.cpp opens.
//!
//! Format (version 3, `docs/gguf.md` of ggml): all little-endian, strings a u64 length and UTF-8,
//!
//! ```text
//! "GGUF" | 3: u32 | number of tensors: u64 | number of keys: u64
//! keys:     name | type u32 | value            (an array: element type u32, count u64, elements)
//! tensors:  name | dimensions u32 | each u64, the innermost first | type u32 | offset u64 in the data
//! padding to 32 bytes | data, each tensor padded to 32 bytes
//! ```
//!
//! llama.cpp's `llama` turns neighbouring channels of a head against each other where `transformers` (and a swarm)
//! turns channel `i` against `i + head_dim / 2`: the rows of the query and key projections are brought into its
//! order, as its own converter does. Its `qwen2` wants them as they are.
//!
//! Quantised formats are for matrices whose rows are whole blocks; gains, biases and other matrices stay f32 (f16).
//! With q4_0, the embedding and the output layer are q8_0: they suffer most.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use swarm_protocol::architecture::{BYTE_VOCABULARY, LlamaConfig};

use super::config::family;
use super::export::Model;
use super::numbers::{BLOCK, Number};
use super::vocabulary;
use crate::store::write_streamed;

const ALIGNMENT: usize = 32;
/// llama.cpp's types of tokens.
const NORMAL: i32 = 1;
const UNUSED: i32 = 5;

/// A value of a key.
enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
}

impl Value {
    /// The number of its type in the format, and its bytes.
    fn encode(&self) -> (u32, Vec<u8>) {
        match self {
            Self::U32(value) => (4, value.to_le_bytes().to_vec()),
            Self::F32(value) => (6, value.to_le_bytes().to_vec()),
            Self::Bool(value) => (7, vec![u8::from(*value)]),
            Self::Text(value) => (8, text(value)),
            Self::Texts(values) => (9, array(8, values.iter().map(|value| text(value)).collect())),
            Self::I32s(values) => {
                (9, array(5, values.iter().map(|value| value.to_le_bytes().to_vec()).collect()))
            }
        }
    }
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

fn array(kind: u32, elements: Vec<Vec<u8>>) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(elements.len() as u64).to_le_bytes(), &elements.concat()].concat()
}

/// One tensor as it is written.
struct Tensor<'a> {
    name: String,
    shape: &'a [usize],
    values: &'a [f32],
    number: Number,
    /// Channels of a head, if its rows change their order.
    mixed: Option<usize>,
}

impl Tensor<'_> {
    fn bytes(&self) -> usize {
        self.number.bytes(self.values.len())
    }

    /// Writes its numbers, row by row.
    fn write(&self, out: &mut dyn Write, bytes: &mut Vec<u8>) -> io::Result<()> {
        let cols = self.shape.last().copied().unwrap_or(1).max(1);
        for row in 0..self.values.len() / cols {
            let from = self.mixed.map_or(row, |head_dim| row_of(row, head_dim));
            bytes.clear();
            self.number.encode(self.values.get(from * cols..(from + 1) * cols).unwrap_or_default(), bytes);
            out.write_all(bytes)?;
        }
        out.write_all(&[0; ALIGNMENT][..padding(self.bytes())])
    }
}

/// The row that comes to be row `row` where pairs are neighbours: `i + part * head_dim / 2` of a head becomes
/// `2 i + part`.
fn row_of(row: usize, head_dim: usize) -> usize {
    let (head, at) = (row / head_dim, row % head_dim);
    head * head_dim + at % 2 * (head_dim / 2) + at / 2
}

fn padding(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT) - bytes
}

/// Writes `model` into the new file `path`.
///
/// # Errors
/// A file that is there already, a vocabulary that GGUF cannot say, a disk that does not take it.
pub(crate) fn write(path: &Path, model: &Model<'_>, number: Number) -> Result<()> {
    ensure!(!path.exists(), "{} exists already: choose another --out", path.display());
    let keys = keys(model, number)?;
    let tensors: Vec<Tensor<'_>> = model
        .tensors()
        .map(|(parameter, values)| {
            let name = name_of(&parameter.name).with_context(|| format!("GGUF has no {}", parameter.name))?;
            let of_heads = ["attn_q.weight", "attn_k.weight"].iter().any(|end| name.ends_with(end));
            let mixed =
                (of_heads && family(model.config) == "llama").then_some(model.config.head_dim as usize);
            Ok(Tensor {
                number: number_of(&name, &parameter.shape, number),
                name,
                shape: &parameter.shape,
                values,
                mixed,
            })
        })
        .collect::<Result<_>>()?;
    let head = head(&keys, &tensors);
    let mut bytes = Vec::new();
    write_streamed(path, |out| {
        out.write_all(&head)?;
        tensors.iter().try_for_each(|tensor| tensor.write(out, &mut bytes))
    })
}

/// Everything before the numbers.
fn head(keys: &[(String, Value)], tensors: &[Tensor<'_>]) -> Vec<u8> {
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        let (kind, bytes) = value.encode();
        head.extend(text(key));
        head.extend(kind.to_le_bytes());
        head.extend(bytes);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        head.extend(text(&tensor.name));
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|&size| head.extend((size as u64).to_le_bytes()));
        head.extend(type_of(tensor.number).to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset += tensor.bytes().next_multiple_of(ALIGNMENT) as u64;
    }
    head.resize(head.len() + padding(head.len()), 0);
    head
}

/// ggml's number of a number format.
fn type_of(number: Number) -> u32 {
    match number {
        Number::F32 => 0,
        Number::F16 => 1,
        Number::Q4_0 => 2,
        Number::Q8_0 => 8,
        Number::Bf16 => 30,
    }
}

/// llama.cpp's number of a file of mostly this format.
fn file_type(number: Number) -> u32 {
    match number {
        Number::F32 => 0,
        Number::F16 => 1,
        Number::Q4_0 => 2,
        Number::Q8_0 => 7,
        Number::Bf16 => 32,
    }
}

/// The format of one tensor in a file of mostly `number`.
fn number_of(name: &str, shape: &[usize], number: Number) -> Number {
    let [_, cols] = shape else { return Number::F32 };
    let outer = name == "token_embd.weight" || name == "output.weight";
    match number {
        _ if number.is_quantised() && !cols.is_multiple_of(BLOCK) => Number::F16,
        Number::Q4_0 if outer => Number::Q8_0,
        number => number,
    }
}

/// llama.cpp's name of a parameter.
fn name_of(name: &str) -> Option<String> {
    let outside = match name {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(name) = outside {
        return Some(name.to_owned());
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (part, end) = rest.rsplit_once('.')?;
    let part = match part {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.{end}"))
}

/// The keys of the file.
fn keys(model: &Model<'_>, number: Number) -> Result<Vec<(String, Value)>> {
    let config: &LlamaConfig = model.config;
    let family = family(config);
    let mut keys: Vec<(String, Value)> = vec![
        ("general.architecture".into(), Value::Text(family.into())),
        ("general.type".into(), Value::Text("model".into())),
        ("general.name".into(), Value::Text(model.name.into())),
        ("general.alignment".into(), Value::U32(ALIGNMENT as u32)),
        ("general.file_type".into(), Value::U32(file_type(number))),
        ("general.quantization_version".into(), Value::U32(2)),
    ];
    let sizes = [
        ("vocab_size", config.vocabulary),
        ("context_length", config.context),
        ("embedding_length", config.dim),
        ("block_count", config.layers),
        ("feed_forward_length", config.ffn),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", config.kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
    ];
    keys.extend(sizes.map(|(key, value)| (format!("{family}.{key}"), Value::U32(value))));
    let reals =
        [("attention.layer_norm_rms_epsilon", config.norm_eps), ("rope.freq_base", config.rope_theta)];
    keys.extend(reals.map(|(key, value)| (format!("{family}.{key}"), Value::F32(value as f32))));
    keys.extend(
        model.provenance.iter().map(|(key, value)| (format!("swarm.{key}"), Value::Text(value.clone()))),
    );
    keys.extend(vocabulary_keys(model)?.map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)));
    Ok(keys)
}

/// The vocabulary: bytes, as a byte-pair encoder without merges. Byte 0, which no text has, ends a text.
fn vocabulary_keys(model: &Model<'_>) -> Result<[(&'static str, Value); 8]> {
    if model.tokenizer.is_some() {
        bail!(
            "--format gguf: only models of bytes are written as GGUF, and this one has a tokenizer. Export safetensors, \
             and convert the folder with llama.cpp's convert_hf_to_gguf.py"
        );
    }
    let count = model.config.vocabulary;
    ensure!(
        count >= BYTE_VOCABULARY,
        "a vocabulary of {count} is not one of bytes, which need {BYTE_VOCABULARY}"
    );
    let mut names: Vec<String> = vocabulary::characters().iter().map(char::to_string).collect();
    let mut kinds = vec![NORMAL; names.len()];
    names.extend((BYTE_VOCABULARY..count).map(|token| format!("<unused{token}>")));
    kinds.resize(names.len(), UNUSED);
    Ok([
        ("model", Value::Text("gpt2".into())),
        // How texts are cut before merging, which does not matter without merges. Unlike "gpt-2", it does not take
        // spaces before punctuation out of what is decoded.
        ("pre", Value::Text("qwen2".into())),
        ("tokens", Value::Texts(names)),
        ("token_type", Value::I32s(kinds)),
        ("merges", Value::Texts(Vec::new())),
        ("bos_token_id", Value::U32(0)),
        ("eos_token_id", Value::U32(0)),
        ("add_bos_token", Value::Bool(false)),
    ])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use swarm_protocol::architecture::{Parameter, Sizes};

    /// Reads what was written, by the format's description alone.
    struct Reader<'a>(&'a [u8]);

    impl<'a> Reader<'a> {
        fn take(&mut self, count: usize) -> &'a [u8] {
            let (taken, rest) = self.0.split_at(count);
            self.0 = rest;
            taken
        }
        fn u32(&mut self) -> u32 {
            u32::from_le_bytes(self.take(4).try_into().unwrap())
        }
        fn u64(&mut self) -> u64 {
            u64::from_le_bytes(self.take(8).try_into().unwrap())
        }
        fn text(&mut self) -> String {
            let count = self.u64() as usize;
            String::from_utf8(self.take(count).to_vec()).unwrap()
        }
        fn value(&mut self, kind: u32) -> String {
            match kind {
                4 | 5 => self.u32().to_string(),
                6 => f32::from_bits(self.u32()).to_string(),
                7 => (self.take(1)[0] == 1).to_string(),
                8 => self.text(),
                9 => {
                    let (kind, count) = (self.u32(), self.u64());
                    (0..count).map(|_| self.value(kind)).collect::<Vec<_>>().join(" ")
                }
                other => panic!("type {other}"),
            }
        }
    }

    type Read = (BTreeMap<String, String>, BTreeMap<String, (Vec<u64>, u32, Vec<u8>)>);

    fn read(bytes: &[u8]) -> Read {
        let mut reader = Reader(bytes);
        assert_eq!(reader.take(4), b"GGUF");
        assert_eq!(reader.u32(), 3);
        let (tensors, keys) = (reader.u64(), reader.u64());
        let pair = |reader: &mut Reader<'_>| {
            let (key, kind) = (reader.text(), reader.u32());
            (key, reader.value(kind))
        };
        let keys = (0..keys).map(|_| pair(&mut reader)).collect();
        let infos: Vec<_> = (0..tensors)
            .map(|_| {
                let (name, dimensions) = (reader.text(), reader.u32());
                let shape: Vec<u64> = (0..dimensions).map(|_| reader.u64()).collect();
                (name, shape, reader.u32(), reader.u64() as usize)
            })
            .collect();
        let data = &bytes[(bytes.len() - reader.0.len()).next_multiple_of(32)..];
        let tensor = |(name, shape, kind, offset): (String, Vec<u64>, u32, usize)| {
            assert_eq!(offset % 32, 0);
            let count = shape.iter().product::<u64>() as usize;
            let bytes = match kind {
                0 => 4 * count,
                1 => 2 * count,
                2 => count / 32 * 18,
                8 => count / 32 * 34,
                other => panic!("type {other}"),
            };
            (name, (shape, kind, data[offset..offset + bytes].to_vec()))
        };
        assert_eq!(data.len() % 32, 0);
        (keys, infos.into_iter().map(tensor).collect())
    }

    fn config() -> LlamaConfig {
        let sizes = Sizes { vocabulary: 258, dim: 32, layers: 2, heads: 4, ffn: 40, context: 16 };
        LlamaConfig { kv_heads: 2, ..sizes.into() }
    }

    fn written(config: &LlamaConfig, number: Number) -> (Read, Vec<Parameter>, Vec<f32>) {
        let parameters = config.parameters();
        let values: Vec<f32> = (0..config.parameter_count()).map(|i| i as f32).collect();
        let said = [("round", "20".to_owned())];
        let model = Model {
            config,
            parameters: &parameters,
            values: &values,
            name: "grün",
            provenance: &said,
            tokenizer: None,
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        write(&path, &model, number).unwrap();
        assert!(write(&path, &model, number).unwrap_err().to_string().contains("exists already"));
        let tokenizer = Model { tokenizer: Some(b"{}"), ..model };
        let error = write(&dir.path().join("other"), &tokenizer, number).unwrap_err().to_string();
        assert!(error.contains("tokenizer"), "{error}");
        (read(&std::fs::read(path).unwrap()), parameters, values)
    }

    #[test]
    fn keys_say_what_llama_cpp_needs() {
        let ((keys, tensors), ..) = written(&config(), Number::F32);
        for (key, value) in [
            ("general.architecture", "llama"),
            ("general.name", "grün"),
            ("llama.attention.head_count_kv", "2"),
            ("llama.rope.dimension_count", "8"),
            ("llama.rope.freq_base", "10000"),
            ("swarm.round", "20"),
            ("tokenizer.ggml.add_bos_token", "false"),
        ] {
            assert_eq!(keys[key], value, "{key}");
        }
        let tokens: Vec<&str> = keys["tokenizer.ggml.tokens"].split(' ').collect();
        assert_eq!((tokens.len(), tokens[usize::from(b'a')], tokens[257]), (258, "a", "<unused257>"));
        assert_eq!(tensors.len(), 2 * 9 + 3);
        let biased = LlamaConfig { qkv_bias: true, tied: true, ..config() };
        let ((keys, tensors), ..) = written(&biased, Number::F32);
        assert_eq!(
            (keys["general.architecture"].as_str(), keys["qwen2.block_count"].as_str()),
            ("qwen2", "2")
        );
        assert!(tensors.contains_key("blk.1.attn_k.bias") && !tensors.contains_key("output.weight"));
    }

    /// As `LlamaModel.permute` of llama.cpp's converter: `reshape(heads, 2, half, cols).swapaxes(1, 2)`.
    #[test]
    fn rows_of_queries_and_keys_change_their_order_for_llama_only() {
        for (qkv_bias, order) in [(false, [0, 4, 1, 5, 2, 6, 3, 7]), (true, [0, 1, 2, 3, 4, 5, 6, 7])] {
            let ((_, tensors), parameters, values) =
                written(&LlamaConfig { qkv_bias, ..config() }, Number::F32);
            let mut start = 0;
            for parameter in &parameters {
                let count: usize = parameter.shape.iter().product();
                let values = &values[start..start + count];
                start += count;
                let (shape, kind, bytes) = &tensors[&name_of(&parameter.name).unwrap()];
                assert_eq!(*kind, 0);
                let reversed: Vec<u64> = parameter.shape.iter().rev().map(|&size| size as u64).collect();
                assert_eq!(*shape, reversed);
                let moves =
                    ["q_proj.weight", "k_proj.weight"].iter().any(|end| parameter.name.ends_with(end));
                let rows: Vec<&[f32]> = values.chunks(*parameter.shape.last().unwrap()).collect();
                let expected: Vec<u8> = (0..rows.len())
                    .map(|row| if moves { row / 8 * 8 + order[row % 8] } else { row })
                    .flat_map(|row| rows[row].iter().flat_map(|value| value.to_le_bytes()))
                    .collect();
                assert!(*bytes == expected, "{}", parameter.name);
            }
        }
    }

    #[test]
    fn what_has_no_whole_blocks_is_not_quantised() {
        for (number, matrix, outer) in [(Number::Q8_0, 8, 8), (Number::Q4_0, 2, 8), (Number::F16, 1, 1)] {
            let ((_, tensors), ..) = written(&config(), number);
            for (name, expected) in [
                ("blk.0.attn_q.weight", matrix),
                ("token_embd.weight", outer),
                ("output.weight", outer),
                // Rows of 40.
                ("blk.0.ffn_down.weight", 1),
                ("blk.0.attn_norm.weight", 0),
            ] {
                assert_eq!(tensors[name].1, expected, "{name} as {}", number.name());
            }
        }
    }
}
