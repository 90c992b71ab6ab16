//! Small cases whose results follow by hand; the reference's recordings are checked in
//! `tests/reference.rs`.

use proptest::prelude::*;

use super::*;

const CONFIG: DemoConfig = DemoConfig { decay: 0.5, k: 1, chunk: 64, weight_decay: 0.0 };

fn demo(shape: &[usize], config: DemoConfig) -> Demo {
    Demo::new(&[shape], config).unwrap()
}

fn refused(shape: &[usize], config: DemoConfig) -> DemoError {
    Demo::new(&[shape], config).err().unwrap()
}

fn sent(indices: &[u32], values: &[f32]) -> Sent {
    Sent { indices: indices.to_vec(), values: values.to_vec() }
}

fn assert_near(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?} is not near {want:?}");
}

#[test]
fn two_steps_of_two_elements_by_hand() {
    let mut demo = demo(&[2], CONFIG);
    let mut params = [10.0, 10.0];
    // The DCT of (a, b) is ((a + b), (a - b)) / sqrt 2. Here the sum is larger: (2, 2) goes out.
    let first = demo.extract(0, &mut params, &[3.0, 1.0], 1.0).unwrap();
    assert_eq!(first.indices, [0]);
    assert_near(&first.values, &[4.0 / 2f32.sqrt()]);
    assert_near(demo.momentum(0).unwrap(), &[1.0, -1.0]);
    assert_near(&demo.apply(0, &mut params, &[&first], 1.0).unwrap(), &[2.0, 2.0]);
    assert_eq!(params, [9.0, 9.0]);
    // Momentum 0.5 (1, -1) + 0.5 (0, -1) = (0.5, -1): now the difference is larger.
    let second = demo.extract(0, &mut params, &[0.0, -1.0], 0.5).unwrap();
    assert_eq!(second.indices, [1]);
    assert_near(&second.values, &[1.5 / 2f32.sqrt()]);
    assert_near(demo.momentum(0).unwrap(), &[-0.25, -0.25]);
    assert_near(&demo.apply(0, &mut params, &[&second], 0.5).unwrap(), &[0.75, -0.75]);
    assert_eq!(params, [8.5, 9.5]);
}

#[test]
fn a_coefficient_is_averaged_over_those_who_sent_it() {
    // A prime length above the target: chunks of one element, whose DCT is the element.
    let mut demo = demo(&[5], DemoConfig { chunk: 4, ..CONFIG });
    let (a, b, c) = (sent(&[0, 1], &[1.0, 6.0]), sent(&[1, 4], &[-2.0, 5.0]), sent(&[1], &[2.0]));
    assert_eq!(demo.merge(0, &[&a, &b, &c]).unwrap(), [1.0, 2.0, 0.0, 0.0, 5.0]);
    assert_eq!(demo.merge(0, &[]).unwrap(), [0.0; 5]);
}

#[test]
fn values_are_added_in_rank_order() {
    let mut demo = demo(&[1], CONFIG);
    let [big, minus, one] = [2f32.powi(24), -2f32.powi(24), 1.0].map(|v| sent(&[0], &[v]));
    assert_eq!(demo.merge(0, &[&big, &minus, &one]).unwrap(), [1.0 / 3.0]);
    assert_eq!(demo.merge(0, &[&big, &one, &minus]).unwrap(), [0.0]);
}

#[test]
fn what_is_sent_whole_leaves_no_momentum() {
    let mut demo = demo(&[7], DemoConfig { chunk: 6, ..CONFIG });
    let grad = [0.1, -0.2, 0.3, 0.0, 1e-9, 7.0, -3.3];
    let all = demo.extract(0, &mut [0.0; 7], &grad, 1.0).unwrap();
    assert_eq!(all.values, grad);
    assert_eq!(demo.momentum(0).unwrap(), [0.0; 7]);
}

#[test]
fn without_gradients_only_weight_decay_moves_the_weights() {
    let mut demo = demo(&[4, 6], DemoConfig { weight_decay: 0.3, ..CONFIG });
    let mut params = [1.5f32; 24];
    let zeros = demo.extract(0, &mut params, &[0.0; 24], 0.3).unwrap();
    assert_eq!(zeros, sent(&[0], &[0.0]), "the lowest of equal magnitudes");
    demo.apply(0, &mut params, &[&zeros], 0.3).unwrap();
    // The factor is computed in f64 and rounded once; in f32 it would be another.
    let factor = (1.0 - 0.3f64 * 0.3) as f32;
    assert_ne!(factor, 1.0 - 0.3f32 * 0.3);
    assert_eq!(params, [1.5 * factor; 24]);
}

#[test]
fn the_sign_of_zero_and_of_no_number_is_zero() {
    assert_eq!([0.0, -0.0, f32::NAN, 1e-45, -f32::INFINITY].map(sign), [0.0, 0.0, 0.0, 1.0, -1.0]);
}

#[test]
fn a_step_without_a_number_is_refused_and_changes_nothing() {
    let mut demo = Demo::new(&[[4usize].as_slice(), &[2, 3]], CONFIG).unwrap();
    let mut params = [1.0; 6];
    demo.extract(1, &mut params, &[0.5, 0.25, 1.0, -1.0, 2.0, 3.0], 0.1).unwrap();
    let (before, weights) = (demo.momentum(1).unwrap().to_vec(), params);
    for bad in [f32::NAN, f32::INFINITY, f32::MAX] {
        let grad = [1.0, 1.0, 1.0, 1.0, bad, 1.0];
        let error = demo.extract(1, &mut params, &grad, 1.0).unwrap_err();
        assert!(matches!(error, DemoError::NotFinite { param: 1, element: 4, .. }), "{error:?}");
        assert!(error.to_string().contains("gradient of parameter 1"), "{error}");
        assert!(demo.set_momentum(1, &grad).is_err());
    }
    for lr in [-0.1, f64::NAN, f64::INFINITY, 1e300] {
        assert!(matches!(demo.extract(1, &mut params, &[0.0; 6], lr), Err(DemoError::LearningRate(_))));
        assert!(matches!(demo.apply(1, &mut params, &[], lr), Err(DemoError::LearningRate(_))));
    }
    assert!(matches!(demo.extract(1, &mut params, &[0.0; 5], 0.1), Err(DemoError::Length { got: 5, .. })));
    assert!(matches!(demo.extract(1, &mut [], &[0.0; 6], 0.1), Err(DemoError::Length { got: 0, .. })));
    assert!(matches!(demo.apply(1, &mut [0.0; 7], &[], 0.1), Err(DemoError::Length { got: 7, .. })));
    let unknown = DemoError::UnknownParameter { param: 2, count: 2 };
    assert_eq!(demo.extract(2, &mut params, &[0.0; 6], 0.1), Err(unknown.clone()));
    assert_eq!(demo.merge(2, &[]), Err(unknown));
    assert_eq!((demo.momentum(1).unwrap(), params), (before.as_slice(), weights));
}

#[test]
fn the_largest_accepted_gradient_does_not_overflow() {
    let mut demo = demo(&[8, 8], DemoConfig { k: 64, ..CONFIG });
    let grad = [f32::MAX / 256.0; 64];
    let all = demo.extract(0, &mut [0.0; 64], &grad, 1.0).unwrap();
    assert!(all.values.iter().all(|v| v.is_finite()), "{all:?}");
    assert!(demo.momentum(0).unwrap().iter().all(|m| m.is_finite()));
}

#[test]
fn settings_and_shapes_out_of_range_are_refused() {
    assert_eq!(refused(&[3], DemoConfig { k: 0, ..CONFIG }), DemoError::K);
    assert_eq!(refused(&[3], DemoConfig { chunk: 0, ..CONFIG }), DemoError::Chunk);
    for decay in [-0.1, 1.0, f64::NAN] {
        assert!(matches!(refused(&[3], DemoConfig { decay, ..CONFIG }), DemoError::Decay(_)));
    }
    for weight_decay in [-0.1, f64::INFINITY, f64::NAN] {
        assert!(matches!(refused(&[3], DemoConfig { weight_decay, ..CONFIG }), DemoError::WeightDecay(_)));
    }
    let shapes: [&[usize]; 6] = [&[], &[0], &[4, 0], &[2, 3, 4], &[1 << 16, 1 << 16], &[usize::MAX, 2]];
    for shape in shapes {
        assert_eq!(refused(shape, CONFIG), DemoError::Shape { param: 0, shape: shape.to_vec() });
    }
    // A finite weight decay that a learning rate lifts out of f32.
    let mut demo = demo(&[3], DemoConfig { weight_decay: 1e300, ..CONFIG });
    assert_eq!(demo.extract(0, &mut [1.0; 3], &[1.0; 3], 1.0), Err(DemoError::WeightDecay(1e300)));
}

#[test]
fn hostile_messages_are_refused() {
    let mut demo = demo(&[4, 6], CONFIG);
    let good = sent(&[0, 23], &[1.0, 2.0]);
    let mut merge = |bad: Sent| {
        let mut params = [1.0; 24];
        let error = demo.apply(0, &mut params, &[&good, &bad], 0.1).unwrap_err();
        assert_eq!(params, [1.0; 24]);
        error
    };
    let (param, sender, count) = (0, 1, 24);
    assert_eq!(merge(sent(&[24], &[1.0])), DemoError::SentRange { param, sender, index: 24, count });
    let index = u32::MAX;
    assert_eq!(merge(sent(&[0, index], &[1.0, 1.0])), DemoError::SentRange { param, sender, index, count });
    assert_eq!(merge(sent(&[5, 5], &[1.0, 1.0])), DemoError::SentOrder { param, sender, index: 5 });
    assert_eq!(merge(sent(&[5, 0], &[1.0, 1.0])), DemoError::SentOrder { param, sender, index: 0 });
    assert_eq!(merge(sent(&[5], &[])), DemoError::SentLength { param, sender, indices: 1, values: 0 });
    let error = merge(sent(&[5], &[f32::NAN]));
    assert!(matches!(error, DemoError::SentNotFinite { sender: 1, index: 5, .. }), "{error:?}");
}

#[test]
fn a_resumed_run_goes_on_as_if_nothing_had_happened() {
    let grad: Vec<f32> = (0..24).map(|i| ((i * 7 % 11) as f32 - 5.0) / 3.0).collect();
    let mut first = demo(&[4, 6], CONFIG);
    first.extract(0, &mut [0.0; 24], &grad, 0.1).unwrap();
    let mut second = demo(&[4, 6], CONFIG);
    second.set_momentum(0, first.momentum(0).unwrap()).unwrap();
    let next = second.extract(0, &mut [0.0; 24], &grad, 0.2).unwrap();
    assert_eq!(next, first.extract(0, &mut [0.0; 24], &grad, 0.2).unwrap());
    assert!(matches!(second.set_momentum(0, &[0.0; 3]), Err(DemoError::Length { .. })));
}

#[test]
fn chunk_lengths_of_known_models() {
    let of_64 = [96, 100, 300, 1000, 8192, 50257, 50304, 151936, 11008, 127].map(|n| chunk_length(n, 64));
    assert_eq!(of_64, [48, 50, 60, 50, 64, 29, 64, 64, 64, 1]);
    assert_eq!((chunk_length(48, 1000), chunk_length(0, 5), chunk_length(5, 0)), (48, 0, 0));
}

proptest! {
    #[test]
    fn a_chunk_length_is_the_largest_divisor(n in 1usize..3000, target in 1usize..4000) {
        let brute = (1..=n.min(target)).rev().find(|d| n % d == 0).unwrap();
        prop_assert_eq!(chunk_length(n, target), brute);
    }

    #[test]
    fn chunks_cover_every_element_once(rows in 1usize..40, cols in 1usize..40, target in 1usize..20) {
        let grid = ChunkGrid::new(&[rows, cols], target).unwrap();
        let elements: Vec<f32> = (0..rows * cols).map(|i| i as f32).collect();
        let mut copy = vec![0.0; rows * cols];
        let mut tile = vec![0.0; grid.area()];
        for chunk in 0..grid.chunks() {
            grid.gather(chunk, &elements, &mut tile);
            prop_assert!(tile.windows(2).all(|pair| pair[0] < pair[1]), "row-major within a chunk");
            grid.scatter(chunk, &tile, &mut copy, |value, x| *value += x);
        }
        prop_assert_eq!(copy, elements);
    }
}
