//! Folders as other programs write them, good and bad.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use swarm_optimizer::residual::whole_model;
use swarm_protocol::architecture::{LlamaConfig, Sizes};
use swarm_protocol::genesis::Genesis;

use super::*;

/// The smallest of every kind: shared keys, biases, a tied output layer.
fn qwen2() -> LlamaConfig {
    let sizes = Sizes { vocabulary: 256, dim: 32, layers: 2, heads: 4, ffn: 48, context: 64 };
    LlamaConfig { kv_heads: 2, tied: true, qkv_bias: true, norm_eps: 1e-6, ..sizes.into() }
}

fn llama() -> LlamaConfig {
    LlamaConfig { tied: false, qkv_bias: false, head_dim: 10, ..qwen2() }
}

fn weights(config: &LlamaConfig) -> Vec<f32> {
    (0..config.parameter_count()).map(|i| ((i * 7919 % 10_007) as f32 / 10_007.0 - 0.4) * 0.1).collect()
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn tensors(config: &LlamaConfig, dtype: Dtype) -> Tensors {
    let all = weights(config);
    let mut rest = &all[..];
    let encode = |value: &f32| match dtype {
        Dtype::F32 => value.to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f32(*value).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f32(*value).to_le_bytes().to_vec(),
        _ => f64::from(*value).to_le_bytes().to_vec(),
    };
    let tensor = |parameter: swarm_protocol::architecture::Parameter| {
        let (values, after) = rest.split_at(parameter.shape.iter().product());
        rest = after;
        (parameter.name, (dtype, parameter.shape, values.iter().flat_map(encode).collect()))
    };
    config.parameters().into_iter().map(tensor).collect()
}

fn write_file(path: &Path, tensors: &Tensors) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn write_config(folder: &Path, config: &LlamaConfig) {
    fs::write(folder.join("config.json"), config::write(config, "float32").to_string()).unwrap();
}

fn write_folder(config: &LlamaConfig, dtype: Dtype) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), config);
    write_file(&dir.path().join("model.safetensors"), &tensors(config, dtype));
    dir
}

fn read(folder: &Path, context: Option<u32>) -> anyhow::Result<Imported> {
    import(folder, context, 48, |config| Ok(Genesis::new("in", *config, 0).layout()?))
}

fn model_of(imported: &Imported) -> Vec<f32> {
    let layout = Genesis::new("in", imported.config, 0).layout().unwrap();
    whole_model(&layout, &imported.coefficients, None)
}

fn error_of(folder: &Path) -> String {
    format!("{:#}", read(folder, None).err().expect("it should be refused"))
}

#[track_caller]
fn assert_refused(folder: &Path, words: &[&str]) {
    let error = error_of(folder);
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
}

#[test]
fn a_folder_becomes_coefficients_and_those_its_weights() {
    for config in [llama(), qwen2()] {
        for (dtype, tolerance) in [(Dtype::F32, 0.0), (Dtype::F16, 3e-5), (Dtype::BF16, 3e-4)] {
            let dir = write_folder(&config, dtype);
            let imported = read(dir.path(), None).unwrap();
            assert_eq!(imported.config, LlamaConfig { context: 48, ..config });
            assert_eq!(imported.whole_context, 64);
            let pairs = || {
                let both = model_of(&imported).into_iter().zip(weights(&config));
                both.map(|(a, b)| f64::from((a - b).abs()))
            };
            // Rounding to units of 2^-20 and nothing else: see `swarm_optimizer::given`.
            let worst = pairs().fold(0.0, f64::max);
            assert!(worst < 1.5e-6 + tolerance && worst > 1e-7, "{dtype:?}: {worst:e}");
            let rms = (pairs().map(|e| e * e).sum::<f64>() / config.parameter_count() as f64).sqrt();
            assert!(rms < 3e-7 + tolerance, "{dtype:?}: {rms:e}");
        }
        let dir = write_folder(&config, Dtype::F32);
        assert_eq!(read(dir.path(), Some(64)).unwrap().config, config);
        for context in [1, 65] {
            let error = read(dir.path(), Some(context)).err().unwrap().to_string();
            assert!(error.contains("--context") && error.contains("64"), "{error}");
        }
    }
}

#[test]
fn a_folder_in_several_files_is_the_same_model() {
    let config = qwen2();
    let (whole, dir) = (write_folder(&config, Dtype::F32), tempfile::tempdir().unwrap());
    let folder = dir.path();
    write_config(folder, &config);
    let (mut parts, mut map) = ([Tensors::new(), Tensors::new()], BTreeMap::new());
    for (i, (name, tensor)) in tensors(&config, Dtype::F32).into_iter().enumerate() {
        map.insert(name.clone(), format!("model-{}.safetensors", i % 2));
        parts[i % 2].insert(name, tensor);
    }
    for (i, part) in parts.iter().enumerate() {
        write_file(&folder.join(format!("model-{i}.safetensors")), part);
    }
    let index = folder.join("model.safetensors.index.json");
    let write_index = |map: &BTreeMap<String, String>| {
        fs::write(&index, serde_json::json!({ "metadata": {}, "weight_map": map }).to_string()).unwrap();
    };
    write_index(&map);
    assert_eq!(model_of(&read(folder, None).unwrap()), model_of(&read(whole.path(), None).unwrap()));

    let mut outside = map.clone();
    outside.insert("model.norm.weight".into(), "../model-0.safetensors".into());
    write_index(&outside);
    assert_refused(folder, &["index.json", "model.norm.weight", "no file name"]);
    let mut moved = map.clone();
    let first = moved.values_mut().next().unwrap();
    *first = "model-1.safetensors".into();
    write_index(&moved);
    assert_refused(folder, &["model-1.safetensors has no tensor", "fetch both again"]);
    fs::write(&index, "{}").unwrap();
    assert_refused(folder, &["index.json", "weight_map"]);
    write_index(&map);
    fs::remove_file(folder.join("model-1.safetensors")).unwrap();
    assert_refused(folder, &["cannot open", "model-1.safetensors"]);
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let config = qwen2();
    let name = "model.layers.1.self_attn.k_proj.bias";
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let change = |config: &LlamaConfig, change: &dyn Fn(&mut Tensors)| {
        write_config(folder, config);
        let mut tensors = tensors(config, Dtype::F32);
        change(&mut tensors);
        write_file(&folder.join("model.safetensors"), &tensors);
    };
    change(&config, &|tensors| drop(tensors.remove(name)));
    assert_refused(folder, &["no tensor", name]);
    change(&config, &|tensors| tensors.get_mut(name).unwrap().1 = vec![4, 4]);
    assert_refused(folder, &["model.safetensors", name, "[4, 4]", "[16]"]);
    change(&config, &|tensors| *tensors.get_mut(name).unwrap() = (Dtype::F64, vec![16], vec![0; 128]));
    assert_refused(folder, &["model.safetensors", name, "F64", "convert it"]);
    change(&config, &|tensors| {
        let bytes = &mut tensors.get_mut(name).unwrap().2;
        bytes[20..24].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert_refused(folder, &["model.safetensors", name, "NaN", "scalar 5"]);
    change(&config, &|tensors| {
        tensors.get_mut(name).unwrap().2 = 1e6f32.to_le_bytes().repeat(16);
    });
    assert_refused(folder, &["model.safetensors", name, "too large"]);
    change(&config, &|tensors| {
        tensors.insert("model.layers.1.self_attn.q_norm.weight".into(), (Dtype::F32, vec![8], vec![0; 32]));
    });
    assert_refused(folder, &["q_norm", "none of a qwen2 model"]);
    // Old checkpoints have these, and they say nothing.
    change(&config, &|tensors| {
        tensors.insert(
            "model.layers.1.self_attn.rotary_emb.inv_freq".into(),
            (Dtype::F32, vec![4], vec![0; 16]),
        );
    });
    read(folder, None).unwrap();
    // A tied model may have its output layer all the same, if it is the embedding.
    let copy = |tensors: &mut Tensors| {
        tensors.insert("lm_head.weight".into(), tensors["model.embed_tokens.weight"].clone())
    };
    change(&config, &|tensors| drop(copy(tensors)));
    read(folder, None).unwrap();
    change(&config, &|tensors| {
        copy(tensors);
        tensors.get_mut("lm_head.weight").unwrap().2[7001] ^= 1;
    });
    assert_refused(folder, &["lm_head.weight differs", "tie_word_embeddings = true", "say false"]);
    change(&llama(), &|tensors| drop(tensors.remove("lm_head.weight")));
    assert_refused(folder, &["no tensor lm_head.weight", "tie_word_embeddings = false", "say true"]);
}

#[test]
fn damaged_files_are_refused_at_once() {
    let dir = write_folder(&qwen2(), Dtype::F32);
    let folder = dir.path();
    let path = folder.join("model.safetensors");
    let good = fs::read(&path).unwrap();
    let with = |bytes: &[u8], words: &[&str]| {
        fs::write(&path, bytes).unwrap();
        assert_refused(folder, &[&["model.safetensors"], words].concat());
    };
    with(b"", &["too short"]);
    with(&good[..7], &["too short"]);
    with(&good[..good.len() - 1], &["cut short"]);
    with(&[&good[..], b"more"].concat(), &["cut short or is damaged"]);
    // Lengths that nobody should allocate.
    for length in [u64::MAX, 1 << 40, good.len() as u64] {
        with(&[&length.to_le_bytes(), &good[8..]].concat(), &["its header claims", "fetch it again"]);
    }
    with(&[&good[..8], b"[", &good[9..]].concat(), &["no safetensors header"]);
    let swapped = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = good.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        [&good[..at], to.as_bytes(), &good[at + to.len()..]].concat()
    };
    with(&swapped("\"F32\"", "\"F99\""), &["no safetensors header"]);
    with(&swapped("[256,32]", "[256,99]"), &["no safetensors header"]);
    with(&swapped("\"data_offsets\":[0", "\"data_offsets\":[8"), &["no safetensors header"]);
    with(b"PK\x03\x04 and a zip archive as torch.save writes it", &["pickle", "convert it"]);
    for at in (0..good.len().min(3000)).step_by(7) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x15;
        fs::write(&path, bytes).unwrap();
        // Whatever comes of it, it is no panic.
        let _ = read(folder, None);
    }
    fs::remove_file(&path).unwrap();
    assert_refused(folder, &["neither model.safetensors nor"]);
    fs::write(folder.join("pytorch_model.bin"), "PK").unwrap();
    assert_refused(folder, &["pytorch_model.bin", "can run code", "convert it to safetensors"]);
}

/// The model to write, with a name that is not ASCII.
fn model<'a>(
    config: &'a LlamaConfig,
    parameters: &'a [swarm_protocol::architecture::Parameter],
    values: &'a [f32],
) -> Model<'a> {
    const SAID: &[(&str, String)] = &[];
    Model { config, parameters, values, name: "grün", provenance: SAID, tokenizer: None }
}

#[test]
fn a_written_folder_reads_back() {
    for config in [LlamaConfig { context: 48, ..llama() }, LlamaConfig { context: 48, ..qwen2() }] {
        let (parameters, values) = (config.parameters(), weights(&config));
        let said = [("round", "20".to_owned())];
        let model = Model { provenance: &said, ..model(&config, &parameters, &values) };
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        folder::write(&out, &model, Number::F32).unwrap();
        let bytes = fs::read(out.join("model.safetensors")).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let said = metadata.metadata().as_ref().unwrap();
        assert_eq!((said["format"].as_str(), said["swarm.round"].as_str()), ("pt", "20"));
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut rest = &values[..];
        for parameter in &parameters {
            let (expected, after) = rest.split_at(parameter.shape.iter().product());
            rest = after;
            let view = tensors.tensor(&parameter.name).unwrap();
            assert_eq!((view.shape(), view.dtype()), (&parameter.shape[..], Dtype::F32));
            let bytes: Vec<u8> = expected.iter().flat_map(|value| value.to_le_bytes()).collect();
            assert_eq!(view.data(), bytes);
        }
        assert_eq!(read(&out, None).unwrap().config, config);
        let error = folder::write(&out, &model, Number::F16).unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");
        for number in [Number::F16, Number::Bf16] {
            let out = dir.path().join(number.name());
            folder::write(&out, &model, number).unwrap();
            let back = model_of(&read(&out, None).unwrap());
            assert!(back.iter().zip(&values).all(|(a, b)| (a - b).abs() < 3e-4));
        }
        let error = folder::write(&dir.path().join("q"), &model, Number::Q8_0).unwrap_err().to_string();
        assert!(error.contains("--quantize q8_0") && error.contains("gguf"), "{error}");
        assert!(!dir.path().join("q").exists());
    }
}
