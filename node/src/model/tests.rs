//! The network against independent computations: a plain-loop forward pass and finite differences.

use super::{Batch, Llama, Network, Precision, parameter_length};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use swarm_protocol::architecture::{Init, LlamaConfig, Sizes};
use tch::{Device, Tensor};

/// Two layers, two heads, odd sizes where they may be odd.
fn tiny() -> LlamaConfig {
    Sizes { vocabulary: 256, dim: 12, layers: 2, heads: 2, ffn: 20, context: 16 }.into()
}

/// Every way in which a model can differ from a plain one, each alone and all together: keys shared by two heads and by
/// three, heads that are wider and narrower than their share of the width, a tied output layer, biases, another
/// rotation, another normalisation.
fn kinds() -> Vec<LlamaConfig> {
    let plain = LlamaConfig { heads: 6, head_dim: 4, kv_heads: 6, ..tiny() };
    vec![
        tiny(),
        LlamaConfig { kv_heads: 3, ..plain },
        LlamaConfig { kv_heads: 2, head_dim: 2, ..plain },
        LlamaConfig { kv_heads: 1, head_dim: 6, ..plain },
        LlamaConfig { tied: true, ..tiny() },
        LlamaConfig { qkv_bias: true, ..tiny() },
        LlamaConfig { rope_theta: 50.0, norm_eps: 0.03, ..tiny() },
        LlamaConfig { kv_heads: 2, tied: true, qkv_bias: true, rope_theta: 1e6, norm_eps: 1e-6, ..plain },
    ]
}

/// Starting values with the spread that the layout asks for: a sum of 12 uniforms, less its mean, is
/// close enough to a normal variable.
pub(crate) fn initial_parameters(arch: &LlamaConfig, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values = Vec::new();
    for parameter in arch.parameters() {
        for _ in 0..parameter_length(&parameter) {
            values.push(match parameter.init {
                Init::Zeros => 0.0,
                Init::Ones => 1.0,
                Init::Normal { std_millionths } => {
                    let sum: f64 = (0..12).map(|_| f64::from(rng.next_u32()) / 2.0_f64.powi(32)).sum();
                    ((sum - 6.0) * f64::from(std_millionths) * 1e-6) as f32
                }
            });
        }
    }
    values
}

/// Larger weights and uneven gains, so that every part of the network matters to its output.
pub(super) fn lively_parameters(arch: &LlamaConfig) -> Vec<f32> {
    let count = arch.parameter_count() as usize;
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    (0..count).map(|_| (f64::from(rng.next_u32()) / 2.0_f64.powi(32) - 0.4) as f32).collect()
}

pub(super) fn model(arch: &LlamaConfig, values: &[f32]) -> Llama {
    tch::set_num_threads(1);
    let mut model = Llama::new(arch, Device::Cpu).unwrap();
    model.set_parameters(values).unwrap();
    model
}

pub(super) fn tokens(rows: &[&[u8]]) -> Tensor {
    let flat: Vec<i64> = rows.concat().into_iter().map(i64::from).collect();
    Tensor::from_slice(&flat).view([rows.len() as i64, -1])
}

fn batch(rows: &[&[u8]]) -> Batch {
    Batch::of_windows(&tokens(rows)).unwrap()
}

fn to_vec(tensor: &Tensor) -> Vec<f64> {
    let mut values = vec![0.0_f32; tensor.numel()];
    let count = values.len();
    tensor.copy_data(&mut values, count);
    values.into_iter().map(f64::from).collect()
}

/// The formulas of Hugging Face's `modeling_llama.py` in plain f64 loops: one sequence in, logits of
/// every position out. Shares no code and no layout trick with the model under test.
fn reference_logits(arch: &LlamaConfig, values: &[f32], sequence: &[u8]) -> Vec<Vec<f64>> {
    let mut weights = std::collections::HashMap::new();
    let mut start = 0;
    for parameter in arch.parameters() {
        let length = parameter_length(&parameter);
        let slice: Vec<f64> = values[start..start + length].iter().map(|&x| f64::from(x)).collect();
        weights.insert(parameter.name.clone(), slice);
        start += length;
    }
    let linear = |x: &[f64], w: &[f64]| -> Vec<f64> {
        w.chunks(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
    };
    let norm = |x: &[f64], gain: &[f64]| -> Vec<f64> {
        let mean_square = x.iter().map(|a| a * a).sum::<f64>() / x.len() as f64;
        x.iter().zip(gain).map(|(a, g)| a / (mean_square + arch.norm_eps).sqrt() * g).collect()
    };
    let (dim, heads, size) = (arch.dim as usize, arch.heads as usize, arch.head_dim as usize);
    // So many heads share a key.
    let sharing = heads / arch.kv_heads as usize;
    let rope = |x: &mut [f64], position: usize| {
        for head in x.chunks_mut(size) {
            for i in 0..size / 2 {
                let angle = position as f64 / arch.rope_theta.powf(2.0 * i as f64 / size as f64);
                let (a, b) = (head[i], head[i + size / 2]);
                head[i] = a * angle.cos() - b * angle.sin();
                head[i + size / 2] = b * angle.cos() + a * angle.sin();
            }
        }
    };
    let embedding = &weights["model.embed_tokens.weight"];
    let mut x: Vec<Vec<f64>> =
        sequence.iter().map(|&t| embedding[usize::from(t) * dim..][..dim].to_vec()).collect();
    for layer in 0..arch.layers {
        let w = |name: &str| &weights[&format!("model.layers.{layer}.{name}.weight")];
        let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
        for (position, row) in x.iter().enumerate() {
            let h = norm(row, w("input_layernorm"));
            let project = |name: &str| {
                let mut out = linear(&h, w(name));
                if let Some(bias) = weights.get(&format!("model.layers.{layer}.{name}.bias")) {
                    out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
                }
                out
            };
            q.push(project("self_attn.q_proj"));
            k.push(project("self_attn.k_proj"));
            v.push(project("self_attn.v_proj"));
            rope(&mut q[position], position);
            rope(&mut k[position], position);
        }
        for t in 0..x.len() {
            let mut attended = vec![0.0; heads * size];
            for head in 0..heads {
                let at = head * size..(head + 1) * size;
                let shared = head / sharing * size..(head / sharing + 1) * size;
                let scores: Vec<f64> = (0..=t)
                    .map(|s| {
                        let dot: f64 =
                            q[t][at.clone()].iter().zip(&k[s][shared.clone()]).map(|(a, b)| a * b).sum();
                        (dot / (size as f64).sqrt()).exp()
                    })
                    .collect();
                let total: f64 = scores.iter().sum();
                for (s, score) in scores.iter().enumerate() {
                    for (i, from) in at.clone().zip(shared.clone()) {
                        attended[i] += score / total * v[s][from];
                    }
                }
            }
            for (a, b) in x[t].iter_mut().zip(linear(&attended, w("self_attn.o_proj"))) {
                *a += b;
            }
        }
        for row in &mut x {
            let h = norm(row, w("post_attention_layernorm"));
            let gate = linear(&h, w("mlp.gate_proj"));
            let up = linear(&h, w("mlp.up_proj"));
            let inner: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            for (a, b) in row.iter_mut().zip(linear(&inner, w("mlp.down_proj"))) {
                *a += b;
            }
        }
    }
    let head = if arch.tied { embedding } else { &weights["lm_head.weight"] };
    x.iter().map(|row| linear(&norm(row, &weights["model.norm.weight"]), head)).collect()
}

#[test]
fn logits_and_loss_equal_the_plain_loops() {
    kinds().iter().for_each(equals_the_plain_loops);
}

fn equals_the_plain_loops(arch: &LlamaConfig) {
    let values = lively_parameters(arch);
    let model = model(arch, &values);
    let rows: [&[u8]; 2] = [b"swarm of bees", b"\0\xffhoneycomb!!"];
    let logits = to_vec(&model.logits(&tokens(&rows)).unwrap());
    let expected: Vec<Vec<f64>> = rows.iter().flat_map(|row| reference_logits(arch, &values, row)).collect();
    let largest = expected.iter().flatten().fold(0.0_f64, |a, b| a.max(b.abs()));
    assert!(largest > 0.4, "{arch:?}: the test would see nothing: logits up to {largest}");
    for (a, b) in logits.iter().zip(expected.iter().flatten()) {
        assert!((a - b).abs() < 1e-5 * largest, "{arch:?}: {a} {b}");
    }
    let mut loss = 0.0;
    for row in rows {
        for (t, logits) in reference_logits(arch, &values, &row[..row.len() - 1]).iter().enumerate() {
            let total: f64 = logits.iter().map(|l| l.exp()).sum();
            loss += total.ln() - logits[usize::from(row[t + 1])];
        }
    }
    loss /= (2 * (rows[0].len() - 1)) as f64;
    let got = model.loss(&batch(&rows)).unwrap().double_value(&[]);
    assert!((got - loss).abs() < 1e-5 * loss, "{arch:?}: {got} {loss}");

    let last = to_vec(&model.next_logits(&tokens(&rows)).unwrap());
    for (row, values) in last.chunks(256).enumerate() {
        let expected = &expected[(row + 1) * rows[0].len() - 1];
        assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5 * largest));
    }
}

/// Recorded from `transformers` 5.23.0 on PyTorch 2.13.0: `LlamaForCausalLM` in f64 with `LlamaConfig(
/// vocab_size=256, hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
/// num_key_value_heads=2, max_position_embeddings=16, rms_norm_eps=1e-5, rope_theta=10000,
/// tie_word_embeddings=False)`, its parameters filled in layout order with the formula below.
#[test]
fn logits_and_loss_equal_hugging_faces() {
    let arch = tiny();
    let count = arch.parameter_count();
    assert_eq!(count, 8796);
    let values: Vec<f32> = (0..count).map(|i| (((i * 7919) % 1009) as f64 / 1009.0 - 0.4) as f32).collect();
    let model = model(&arch, &values);
    let sequence = tokens(&[b"swarm of bees"]);
    let examples = Batch::of_windows(&sequence).unwrap();
    let logits = model.logits(&sequence).unwrap();
    for (position, byte, expected) in [
        (0, 97, 0.302_874_147_563_747_86),
        (5, 0, 0.005_756_076_109_328_458),
        (12, 32, 0.617_667_650_834_365_9),
        (12, 255, 0.229_855_997_814_633_7),
    ] {
        let got = logits.double_value(&[0, position, byte]);
        assert!((got - expected).abs() < 2e-6, "{position} {byte}: {got} {expected}");
    }
    let loss = model.loss(&examples).unwrap().double_value(&[]);
    assert!((loss - 5.573_602_947_318_631).abs() < 5e-6, "{loss}");
}

#[test]
fn the_gradient_equals_finite_differences_of_every_parameter() {
    kinds().iter().for_each(gradient_equals_finite_differences);
}

fn gradient_equals_finite_differences(arch: &LlamaConfig) {
    let values = lively_parameters(arch);
    let mut model = model(arch, &values);
    let examples = batch(&[b"abcabcabd", b"xyzzyxyzz"]);
    let loss = model.loss(&examples).unwrap();
    let gradient = to_vec(&Tensor::run_backward(&[&loss], &[model.flat()], false, false)[0]);
    assert_eq!(gradient.len(), values.len());
    // The derivative of the loss along one direction a parameter tensor, once from the gradient, once from
    // two forward passes. Half of the direction is the gradient's own (so that the derivative is far above
    // f32 rounding), half is random (so that a missing or misplaced element shows).
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut start = 0;
    for parameter in arch.parameters() {
        let range = start..start + parameter_length(&parameter);
        start = range.end;
        let norm = gradient[range.clone()].iter().map(|g| g * g).sum::<f64>().sqrt();
        // What follows tells half of it from rounding, and of most parameters far less.
        assert!(norm > 5e-5, "{arch:?} {}: the gradient vanishes", parameter.name);
        let random = (range.len() as f64).sqrt().recip();
        let direction: Vec<f64> = gradient[range.clone()]
            .iter()
            .map(|g| g / norm + if rng.next_u32() % 2 == 0 { random } else { -random })
            .collect();
        let mut along = |step: f64| {
            let mut moved = values.clone();
            for (i, d) in range.clone().zip(&direction) {
                moved[i] = (f64::from(moved[i]) + step * d) as f32;
            }
            model.set_parameters(&moved).unwrap();
            model.loss(&examples).unwrap().double_value(&[])
        };
        // The slope of a h + b h^3, which is what the odd part of a smooth function is near 0, fitted to several h: a
        // single difference of two f32 losses would say more about their rounding.
        let (mut by_h, mut by_h3, mut h2, mut h4, mut h6) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for step in (1..=8).map(|step| 0.01 * f64::from(step)) {
            let odd = (along(step) - along(-step)) / 2.0;
            by_h += odd * step;
            by_h3 += odd * step.powi(3);
            h2 += step.powi(2);
            h4 += step.powi(4);
            h6 += step.powi(6);
        }
        let numeric = (by_h * h6 - by_h3 * h4) / (h2 * h6 - h4 * h4);
        let analytic: f64 = range.zip(&direction).map(|(i, d)| gradient[i] * d).sum();
        assert!((numeric - analytic).abs() < 0.005 * norm + 2e-5, "{}: {numeric} {analytic}", parameter.name);
    }
}

/// Largest difference as a share of the largest magnitude, a parameter tensor at a time.
fn differences(arch: &LlamaConfig, ours: &[f64], reference: &[f64]) -> Vec<(String, f64)> {
    assert_eq!(ours.len(), reference.len());
    let mut start = 0;
    let mut all = Vec::new();
    for parameter in arch.parameters() {
        let range = start..start + parameter_length(&parameter);
        start = range.end;
        let largest = reference[range.clone()].iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        let differs = range.map(|i| (ours[i] - reference[i]).abs()).fold(0.0, f64::max);
        assert!(largest > 1e-6, "{}: the test would see nothing", parameter.name);
        all.push((parameter.name, differs / largest));
    }
    all
}

#[test]
fn the_gradient_by_hand_equals_autograds() {
    let odd = Sizes { vocabulary: 257, dim: 24, layers: 3, heads: 3, ffn: 10, context: 9 };
    for arch in kinds().into_iter().chain([odd.into()]) {
        let mut model = model(&arch, &lively_parameters(&arch));
        // A repeated byte: its embedding's gradient is a sum.
        let examples = batch(&[b"abcabcabd", b"xyzzyxyzz", b"aaaaaaaaa"]);
        let other = batch(&[b"123456789", b"987654321", b"fffffffff"]);
        for (precision, tolerance) in [(Precision::F32, 2e-5), (Precision::Bf16, 0.08)] {
            model = model.with_precision(precision);
            let loss = model.loss(&examples).unwrap();
            let reference = to_vec(&Tensor::run_backward(&[&loss], &[model.flat()], false, false)[0]);
            // In memory that another batch has been through.
            let spare = model.loss_and_gradient(&other, None).unwrap().1;
            let (value, gradient) = model.loss_and_gradient(&examples, Some(spare)).unwrap();
            let expected = loss.double_value(&[]);
            assert!(
                (value - expected).abs() < 1e-6_f64.max(tolerance / 10.0) * expected,
                "{value} {expected}"
            );
            for (name, differs) in differences(&arch, &to_vec(&gradient), &reference) {
                assert!(differs < tolerance, "{precision:?} {name}: {differs}");
            }
        }
        assert!(model.loss_and_gradient(&batch(&[&[b'a'; 18]]), None).is_err(), "longer than the context");
    }
}

#[test]
fn an_untrained_model_is_indifferent() {
    let arch = tiny();
    let model = model(&arch, &initial_parameters(&arch, 1));
    let loss = model.loss(&batch(&[b"any text at all"])).unwrap().double_value(&[]);
    assert!((loss - 256.0_f64.ln()).abs() < 0.1, "{loss}");
}

#[test]
fn a_later_byte_does_not_reach_earlier_logits() {
    let arch = tiny();
    let model = model(&arch, &lively_parameters(&arch));
    let before = to_vec(&model.logits(&tokens(&[b"0123456789"])).unwrap());
    let after = to_vec(&model.logits(&tokens(&[b"012345X789"])).unwrap());
    assert_eq!(before[..6 * 256], after[..6 * 256]);
    for (a, b) in before[6 * 256..].chunks(256).zip(after[6 * 256..].chunks(256)) {
        assert_ne!(a, b, "positions from the change on see it");
    }
}

#[test]
fn the_flat_vector_round_trips() {
    let arch = tiny();
    let values = lively_parameters(&arch);
    let mut model = model(&arch, &values);
    assert_eq!(model.parameter_count() as u64, arch.parameter_count());
    let mut read = vec![0.0; values.len()];
    model.read_parameters(&mut read).unwrap();
    assert_eq!(read, values);
    let short = &values[1..];
    assert!(model.set_parameters(short).unwrap_err().to_string().contains("the model's layout has"));
    assert!(model.read_parameters(&mut read[1..]).is_err());
}

#[test]
fn wrong_shapes_are_errors() {
    let arch = tiny();
    let model = model(&arch, &lively_parameters(&arch));
    assert!(Batch::of_windows(&tokens(&[b"a"])).is_err(), "no target");
    assert!(model.loss(&batch(&[b"this is longer than the context"])).is_err());
    assert!(model.logits(&Tensor::from_slice(&[256_i64]).view([1, 1])).is_err(), "not in the vocabulary");
    let error = Llama::new(&LlamaConfig { vocabulary: 1, ..arch }, Device::Cpu).unwrap_err();
    assert!(error.to_string().starts_with("model.llama.vocabulary = 1"), "{error}");
}
