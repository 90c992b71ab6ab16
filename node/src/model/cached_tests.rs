//! A sequence that grows against the same computed in one go.

use super::tests::{lively_parameters, model, tokens};
use super::{Llama, Network, Precision, Sequence};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use swarm_protocol::architecture::{LlamaConfig, Sizes};
use tch::Tensor;

/// How far logits may differ, as a share of the largest: sums in another order, in f32.
const TOLERANCE: f64 = 2e-5;
/// The same where matrix products are rounded to 8 bits: one such rounding.
const TOLERANCE_BF16: f64 = 2e-2;

fn families() -> [LlamaConfig; 3] {
    let plain: LlamaConfig =
        Sizes { vocabulary: 256, dim: 24, layers: 2, heads: 4, ffn: 20, context: 40 }.into();
    [
        plain,
        LlamaConfig { kv_heads: 2, ..plain },
        LlamaConfig { kv_heads: 1, head_dim: 10, tied: true, qkv_bias: true, ..plain },
    ]
}

/// Logits after each position, computed in one go.
fn whole(model: &Llama, sequence: &[u32]) -> Vec<Vec<f32>> {
    let indices: Vec<i64> = sequence.iter().map(|&token| token.into()).collect();
    let logits = tch::no_grad(|| {
        model.logits(&Tensor::from_slice(&indices).view([1, -1])).unwrap().to_kind(tch::Kind::Float)
    });
    let vocabulary = logits.size()[2] as usize;
    let mut flat = vec![0.0_f32; logits.numel()];
    let count = flat.len();
    logits.contiguous().view([-1]).copy_data(&mut flat, count);
    flat.chunks(vocabulary).map(<[f32]>::to_vec).collect()
}

fn ensure_close(got: &[f32], expected: &[f32], tolerance: f64, what: &str) {
    let largest = expected.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    assert!(largest > 1e-3, "the test would see nothing");
    assert_eq!(got.len(), expected.len());
    for (a, b) in got.iter().zip(expected) {
        let differs = f64::from((a - b).abs() / largest);
        assert!(differs <= tolerance, "{what}: {a} {b}, {differs} of the largest");
    }
}

/// Attention that has something to choose from: the lively parameters are so large that it saturates.
fn parameters(arch: &LlamaConfig) -> Vec<f32> {
    lively_parameters(arch).iter().map(|value| 0.4 * value).collect()
}

#[test]
fn any_split_into_a_beginning_and_steps_gives_the_logits_of_the_whole() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for (number, arch) in families().into_iter().enumerate() {
        for (precision, tolerance) in [(Precision::F32, TOLERANCE), (Precision::Bf16, TOLERANCE_BF16)] {
            let values = parameters(&arch);
            let reference = model(&arch, &values).with_precision(precision);
            let mut sequence = Sequence::new(model(&arch, &values).with_precision(precision)).unwrap();
            for case in 0..12 {
                let length = 2 + rng.next_u32() as usize % (arch.context as usize - 1);
                let all: Vec<u32> = (0..length).map(|_| rng.next_u32() % arch.vocabulary).collect();
                let expected = whole(&reference, &all);
                // Sometimes begun in two pieces, the second of several tokens: it needs a mask of its own.
                let first = 1 + rng.next_u32() as usize % (length - 1);
                let begun = first + rng.next_u32() as usize % (length - first);
                sequence.set(&all[..first]).unwrap();
                let what =
                    |at: usize| format!("family {number} {precision:?} case {case}: {first} {begun} {at}");
                let logits = sequence.set(&all[..begun]).unwrap();
                ensure_close(&logits, &expected[begun - 1], tolerance, &what(begun));
                for at in begun..length {
                    let logits = sequence.push(all[at]).unwrap();
                    ensure_close(&logits, &expected[at], tolerance, &what(at));
                }
                assert_eq!(sequence.tokens(), all);
            }
        }
    }
}

#[test]
fn a_full_context_slides_on_from_its_second_half() {
    let arch = families()[1];
    let values = parameters(&arch);
    let reference = model(&arch, &values);
    let mut sequence = Sequence::new(model(&arch, &values)).unwrap();
    let context = arch.context as usize;
    let all: Vec<u32> = (0..3 * context as u32).map(|i| (i * 97 + i * i) % arch.vocabulary).collect();
    sequence.set(&all[..context]).unwrap();
    for at in context..all.len() {
        let logits = sequence.push(all[at]).unwrap();
        let kept = sequence.tokens().len();
        assert!((context / 2..=context).contains(&kept), "{kept}");
        let seen = &all[at + 1 - kept..=at];
        assert_eq!(sequence.tokens(), seen, "the last ones");
        ensure_close(&logits, whole(&reference, seen).last().unwrap(), TOLERANCE, "slid");
    }
}

#[test]
fn another_sequence_takes_over_only_the_common_beginning() {
    let arch = families()[0];
    let values = parameters(&arch);
    let reference = model(&arch, &values);
    let mut sequence = Sequence::new(model(&arch, &values)).unwrap();
    for text in [&b"one two three"[..], b"one two four", b"one two", b"one two", b"x"] {
        let all: Vec<u32> = text.iter().map(|&byte| byte.into()).collect();
        let logits = sequence.set(&all).unwrap();
        ensure_close(&logits, whole(&reference, &all).last().unwrap(), TOLERANCE, "taken over");
    }
}

#[test]
fn what_cannot_be_computed_is_an_error_and_the_sequence_can_be_used_again() {
    let arch = families()[0];
    let values = parameters(&arch);
    let mut sequence = Sequence::new(model(&arch, &values)).unwrap();
    assert!(sequence.set(&[]).unwrap_err().to_string().contains("at least one token"));
    let long = vec![1; arch.context as usize + 1];
    assert!(sequence.set(&long).unwrap_err().to_string().contains("longer than the model's context of 40"));
    assert!(sequence.set(&[1, 256]).unwrap_err().to_string().contains("token 256 is not in"));
    assert!(sequence.tokens().is_empty());
    let logits = sequence.set(&[98, 101]).unwrap();
    let reference = model(&arch, &values);
    let expected = tch::no_grad(|| reference.next_logits(&tokens(&[b"be"])).unwrap());
    let mut values = vec![0.0_f32; 256];
    expected.view([-1]).copy_data(&mut values, 256);
    ensure_close(&logits, &values, TOLERANCE, "after errors");
    assert_eq!(reference.parameter_count() as u64, arch.parameter_count());
}
