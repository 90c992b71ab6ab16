//! The network against independent computations: a plain-loop forward pass and finite differences.

use super::{Llama, Precision, Sampling, generate, parameter_length};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use swarm_protocol::architecture::{Architecture, Init};
use tch::{Device, Tensor};

/// Two layers, two heads, odd sizes where they may be odd.
fn tiny() -> Architecture {
    Architecture { vocabulary: 256, dim: 12, layers: 2, heads: 2, ffn: 20, context: 16 }
}

/// Starting values with the spread that the layout asks for: a sum of 12 uniforms, less its mean, is
/// close enough to a normal variable.
pub(crate) fn initial_parameters(arch: &Architecture, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values = Vec::new();
    for parameter in arch.parameters() {
        for _ in 0..parameter_length(&parameter) {
            values.push(match parameter.init {
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
fn lively_parameters(arch: &Architecture) -> Vec<f32> {
    let count = arch.parameter_count() as usize;
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    (0..count).map(|_| (f64::from(rng.next_u32()) / 2.0_f64.powi(32) - 0.4) as f32).collect()
}

fn model(arch: &Architecture, values: &[f32]) -> Llama {
    tch::set_num_threads(1);
    let mut model = Llama::new(arch, Device::Cpu).unwrap();
    model.set_parameters(values).unwrap();
    model
}

fn tokens(rows: &[&[u8]]) -> Tensor {
    let flat: Vec<i64> = rows.concat().into_iter().map(i64::from).collect();
    Tensor::from_slice(&flat).view([rows.len() as i64, -1])
}

fn to_vec(tensor: &Tensor) -> Vec<f64> {
    let mut values = vec![0.0_f32; tensor.numel()];
    let count = values.len();
    tensor.copy_data(&mut values, count);
    values.into_iter().map(f64::from).collect()
}

/// The formulas of Hugging Face's `modeling_llama.py` in plain f64 loops: one sequence in, logits of
/// every position out. Shares no code and no layout trick with the model under test.
fn reference_logits(arch: &Architecture, values: &[f32], sequence: &[u8]) -> Vec<Vec<f64>> {
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
        x.iter().zip(gain).map(|(a, g)| a / (mean_square + 1e-5).sqrt() * g).collect()
    };
    let (dim, heads) = (arch.dim as usize, arch.heads as usize);
    let size = dim / heads;
    let rope = |x: &mut [f64], position: usize| {
        for head in x.chunks_mut(size) {
            for i in 0..size / 2 {
                let angle = position as f64 / 10_000.0_f64.powf(2.0 * i as f64 / size as f64);
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
            q.push(linear(&h, w("self_attn.q_proj")));
            k.push(linear(&h, w("self_attn.k_proj")));
            v.push(linear(&h, w("self_attn.v_proj")));
            rope(&mut q[position], position);
            rope(&mut k[position], position);
        }
        for t in 0..x.len() {
            let mut attended = vec![0.0; dim];
            for head in 0..heads {
                let at = head * size..(head + 1) * size;
                let scores: Vec<f64> = (0..=t)
                    .map(|s| {
                        let dot: f64 =
                            q[t][at.clone()].iter().zip(&k[s][at.clone()]).map(|(a, b)| a * b).sum();
                        (dot / (size as f64).sqrt()).exp()
                    })
                    .collect();
                let total: f64 = scores.iter().sum();
                for (s, score) in scores.iter().enumerate() {
                    for i in at.clone() {
                        attended[i] += score / total * v[s][i];
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
    x.iter()
        .map(|row| linear(&norm(row, &weights["model.norm.weight"]), &weights["lm_head.weight"]))
        .collect()
}

#[test]
fn logits_and_loss_equal_the_plain_loops() {
    let arch = tiny();
    let values = lively_parameters(&arch);
    let model = model(&arch, &values);
    let rows: [&[u8]; 2] = [b"swarm of bees", b"\0\xffhoneycomb!!"];
    let logits = to_vec(&model.logits(&tokens(&rows)).unwrap());
    let expected: Vec<Vec<f64>> = rows.iter().flat_map(|row| reference_logits(&arch, &values, row)).collect();
    let largest = expected.iter().flatten().fold(0.0_f64, |a, b| a.max(b.abs()));
    assert!(largest > 1.0, "the test would see nothing: logits up to {largest}");
    for (a, b) in logits.iter().zip(expected.iter().flatten()) {
        assert!((a - b).abs() < 1e-5 * largest, "{a} {b}");
    }
    let mut loss = 0.0;
    for row in rows {
        for (t, logits) in reference_logits(&arch, &values, &row[..row.len() - 1]).iter().enumerate() {
            let total: f64 = logits.iter().map(|l| l.exp()).sum();
            loss += total.ln() - logits[usize::from(row[t + 1])];
        }
    }
    loss /= (2 * (rows[0].len() - 1)) as f64;
    let got = model.loss(&tokens(&rows)).unwrap().double_value(&[]);
    assert!((got - loss).abs() < 1e-5 * loss, "{got} {loss}");

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
    let batch = tokens(&[b"swarm of bees"]);
    let logits = model.logits(&batch).unwrap();
    for (position, byte, expected) in [
        (0, 97, 0.302_874_147_563_747_86),
        (5, 0, 0.005_756_076_109_328_458),
        (12, 32, 0.617_667_650_834_365_9),
        (12, 255, 0.229_855_997_814_633_7),
    ] {
        let got = logits.double_value(&[0, position, byte]);
        assert!((got - expected).abs() < 2e-6, "{position} {byte}: {got} {expected}");
    }
    let loss = model.loss(&batch).unwrap().double_value(&[]);
    assert!((loss - 5.573_602_947_318_631).abs() < 5e-6, "{loss}");
}

#[test]
fn the_gradient_equals_finite_differences_of_every_parameter() {
    let arch = tiny();
    let values = lively_parameters(&arch);
    let mut model = model(&arch, &values);
    let batch = tokens(&[b"abcabcabd", b"xyzzyxyzz"]);
    let loss = model.loss(&batch).unwrap();
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
        assert!(norm > 1e-3, "{}: the gradient vanishes", parameter.name);
        let random = (range.len() as f64).sqrt().recip();
        let direction: Vec<f64> = gradient[range.clone()]
            .iter()
            .map(|g| g / norm + if rng.next_u32() % 2 == 0 { random } else { -random })
            .collect();
        let step = 0.02;
        let mut along = |sign: f64| {
            let mut moved = values.clone();
            for (i, d) in range.clone().zip(&direction) {
                moved[i] = (f64::from(moved[i]) + sign * step * d) as f32;
            }
            model.set_parameters(&moved).unwrap();
            model.loss(&batch).unwrap().double_value(&[])
        };
        let numeric = (along(1.0) - along(-1.0)) / (2.0 * step);
        let analytic: f64 = range.zip(&direction).map(|(i, d)| gradient[i] * d).sum();
        assert!((numeric - analytic).abs() < 0.005 * norm + 2e-5, "{}: {numeric} {analytic}", parameter.name);
    }
}

/// Largest difference as a share of the largest magnitude, a parameter tensor at a time.
fn differences(arch: &Architecture, ours: &[f64], reference: &[f64]) -> Vec<(String, f64)> {
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
    let odd = Architecture { vocabulary: 257, dim: 24, layers: 3, heads: 3, ffn: 10, context: 9 };
    for arch in [tiny(), odd] {
        let mut model = model(&arch, &lively_parameters(&arch));
        // A repeated byte: its embedding's gradient is a sum.
        let batch = tokens(&[b"abcabcabd", b"xyzzyxyzz", b"aaaaaaaaa"]);
        let other = tokens(&[b"123456789", b"987654321", b"fffffffff"]);
        for (precision, tolerance) in [(Precision::F32, 2e-5), (Precision::Bf16, 0.08)] {
            model = model.with_precision(precision);
            let loss = model.loss(&batch).unwrap();
            let reference = to_vec(&Tensor::run_backward(&[&loss], &[model.flat()], false, false)[0]);
            // In memory that another batch has been through.
            let spare = model.loss_and_gradient(&other, None).unwrap().1;
            let (value, gradient) = model.loss_and_gradient(&batch, Some(spare)).unwrap();
            let expected = loss.double_value(&[]);
            assert!(
                (value - expected).abs() < 1e-6_f64.max(tolerance / 10.0) * expected,
                "{value} {expected}"
            );
            for (name, differs) in differences(&arch, &to_vec(&gradient), &reference) {
                assert!(differs < tolerance, "{precision:?} {name}: {differs}");
            }
        }
        assert!(model.loss_and_gradient(&tokens(&[b"a"]), None).is_err(), "no target");
        assert!(model.loss_and_gradient(&tokens(&[&[b'a'; 18]]), None).is_err(), "longer than the context");
    }
}

#[test]
fn an_untrained_model_is_indifferent() {
    let arch = tiny();
    let model = model(&arch, &initial_parameters(&arch, 1));
    let loss = model.loss(&tokens(&[b"any text at all"])).unwrap().double_value(&[]);
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
    assert!(model.loss(&tokens(&[b"a"])).is_err(), "no target");
    assert!(model.loss(&tokens(&[b"this is longer than the context"])).is_err());
    assert!(model.logits(&Tensor::from_slice(&[256_i64]).view([1, 1])).is_err(), "not in the vocabulary");
    let error = Llama::new(&Architecture { vocabulary: 255, ..arch }, Device::Cpu).unwrap_err();
    assert!(error.to_string().starts_with("model.vocabulary = 255"), "{error}");
}

#[test]
fn generation_is_reproducible_and_can_be_stopped() {
    let arch = tiny();
    let model = model(&arch, &lively_parameters(&arch));
    let run = |prompt: &[u8], sampling: &Sampling, stop: usize| {
        let mut text = Vec::new();
        generate(&model, prompt, 24, sampling, |byte| {
            text.push(byte);
            text.len() < stop
        })
        .unwrap();
        text
    };
    let sampling = Sampling { temperature: 1.0, top_k: None, seed: 5 };
    let text = run(b"bees", &sampling, 100);
    assert_eq!(text.len(), 24, "more than the context of {}", arch.context);
    assert_eq!(text, run(b"bees", &sampling, 100));
    assert_ne!(text, run(b"bees", &Sampling { seed: 6, ..sampling }, 100));
    assert_eq!(text[..3], run(b"bees", &sampling, 3));
    assert_eq!(run(b"", &sampling, 100), run(b"\n", &sampling, 100));

    let greedy = run(b"bees", &Sampling { temperature: 0.0, ..sampling }, 100);
    let logits = reference_logits(&arch, &lively_parameters(&arch), b"bees");
    let best = (0..256).max_by(|&a, &b| logits[3][a].total_cmp(&logits[3][b])).unwrap();
    assert_eq!(usize::from(greedy[0]), best);
    assert!(generate(&model, b"", 1, &Sampling { temperature: -1.0, ..sampling }, |_| true).is_err());
    assert!(generate(&model, b"", 1, &Sampling { top_k: Some(0), ..sampling }, |_| true).is_err());
}
