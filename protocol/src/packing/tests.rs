use proptest::prelude::*;
use swarm_optimizer::kernels::Kernels;
use swarm_optimizer::residual::Residual;

use super::*;

const RULE: Rule = Rule { tile: 64, k: 256, max_exponent: 18, publishers: 64 };

fn layout() -> Layout {
    Layout::new([("m", vec![130, 70]), ("v", vec![70])], 64).unwrap()
}

/// A sequence of numbers below 2^32 that look random (xorshift*, Vigna, arXiv 1402.6246).
fn numbers(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed | 1;
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

/// What a residual of sums of `terms` uniform numbers sends: the more, the further levels reach.
fn extracted(layout: &Layout, seed: u64, k: u32, terms: u32) -> SparseDelta {
    let mut next = numbers(seed);
    let mut uniform = || f64::from(next()) / f64::from(1 << 16) / f64::from(1 << 16) - 0.5;
    let values = (0..layout.len()).map(|_| (0..terms).map(|_| uniform()).sum::<f64>() as f32 * 0.1).collect();
    Residual::from_values(layout, values).unwrap().extract(
        layout,
        &mut Kernels::single(layout),
        k as usize,
        RULE.max_exponent,
    )
}

/// How positions of a made up delta lie in their tile.
#[derive(Clone, Copy, Debug)]
enum Lie {
    First,
    Last,
    Ends,
    Random,
}

/// A delta that a rule allows but no residual would send: any number of coefficients anywhere, any levels, any
/// steps.
fn made_up(layout: &Layout, rule: &Rule, k: u32, seed: u64, lie: Lie, full: bool) -> SparseDelta {
    let mut next = numbers(seed);
    let mut delta = SparseDelta::default();
    for (index, tile) in layout.tiles().iter().enumerate() {
        let (area, share) = (tile.area(), layout.tile_k(tile.area(), k as usize));
        let count = if full { share } else { next() as usize % (share + 1) };
        let step = Step::from_code((next() % 120) as u8).unwrap();
        let most = ((1 << rule.max_exponent) / step.units()).clamp(1, i32::from(MAX_LEVEL)) as u32;
        let mut chosen: Vec<usize> = match lie {
            Lie::First => (0..count).collect(),
            Lie::Last => (area - count..area).collect(),
            Lie::Ends => (0..count / 2).chain(area - (count - count / 2)..area).collect(),
            Lie::Random => {
                let mut all: Vec<usize> = (0..area).collect();
                all.sort_by_cached_key(|_| next());
                all[..count].to_vec()
            }
        };
        chosen.sort_unstable();
        let entries = chosen.into_iter().map(|position| {
            let level = 1 + (next() % most) as i8;
            Entry { position: position as u16, level: if next().is_multiple_of(2) { level } else { -level } }
        });
        delta.push(index as u32, step, entries.collect::<Vec<_>>());
    }
    delta
}

fn lies() -> impl Strategy<Value = Lie> {
    prop_oneof![Just(Lie::First), Just(Lie::Last), Just(Lie::Ends), Just(Lie::Random)]
}

/// Whether `body` is accepted; it is then what the delta that it says is encoded as.
fn accepts(layout: &Layout, rule: &Rule, body: &[u8]) -> bool {
    decode(layout, rule, body).is_ok_and(|delta| {
        let k = u32::from(u16::from_le_bytes([body[1], body[2]]));
        assert_eq!(encode(layout, rule, k, &delta).as_deref(), Ok(body), "{delta:?}");
        true
    })
}

proptest! {
    #[test]
    fn what_a_residual_sends_comes_back(seed in any::<u64>(), k in 1u32..=256, terms in 1u32..12) {
        let layout = layout();
        let delta = extracted(&layout, seed, k, terms);
        let body = encode(&layout, &RULE, k, &delta).unwrap();
        prop_assert!(body.len() <= max_len(&layout, &RULE));
        prop_assert_eq!(decode(&layout, &RULE, &body).unwrap(), delta);
    }

    /// Whatever an author makes up comes back too, and is no longer than it may be.
    #[test]
    fn anything_comes_back(
        seed in any::<u64>(), side in 0usize..5, k in 1u32..=4096, lie in lies(), full in any::<bool>(),
        rows in 1usize..150, cols in 1usize..150, len in 1usize..300,
    ) {
        let side = Layout::SIDES[side];
        let layout = Layout::new([("m", vec![rows, cols]), ("v", vec![len])], side).unwrap();
        let k = k.min((side * side) as u32);
        let rule = Rule { tile: side as u32, k, ..RULE };
        let delta = made_up(&layout, &rule, k, seed, lie, full);
        if delta.is_empty() {
            prop_assert_eq!(encode(&layout, &rule, k, &delta), Err(PackingError::Empty));
        } else {
            let body = encode(&layout, &rule, k, &delta).unwrap();
            prop_assert!(body.len() <= max_len(&layout, &rule), "{} > {}", body.len(), max_len(&layout, &rule));
            prop_assert_eq!(decode(&layout, &rule, &body).unwrap(), delta);
        }
    }

    #[test]
    fn noise_never_panics(body in proptest::collection::vec(any::<u8>(), 0..600), start in any::<bool>()) {
        let mut body = body;
        if start && body.len() > 19 {
            body[..3].copy_from_slice(&[VERSION, 8, 0]);
            // States that are in their range.
            (body[10], body[18]) = (body[10] & 0x7f | 1, body[18] & 0x7f | 1);
        }
        accepts(&layout(), &RULE, &body);
    }

    #[test]
    fn every_truncation_is_refused(seed in any::<u64>(), cut in 1usize..2000) {
        let layout = layout();
        let body = encode(&layout, &RULE, 64, &extracted(&layout, seed, 64, 2)).unwrap();
        let short = &body[..body.len().saturating_sub(cut)];
        prop_assert!(decode(&layout, &RULE, short).is_err());
    }

    /// Memory that was used before makes no difference.
    #[test]
    fn a_packer_can_be_used_again(seeds in proptest::collection::vec((any::<u64>(), 1u32..=256), 2..5)) {
        let (layout, mut packer) = (layout(), Packer::default());
        let (mut body, mut delta) = (vec![1], SparseDelta::default());
        for (seed, k) in seeds {
            let sent = extracted(&layout, seed, k, 4);
            packer.encode_into(&layout, &RULE, k, &sent, &mut body).unwrap();
            prop_assert_eq!(&body, &encode(&layout, &RULE, k, &sent).unwrap());
            prop_assert!(packer.encode_into(&layout, &RULE, 300, &sent, &mut Vec::new()).is_err());
            prop_assert!(packer.decode_into(&layout, &RULE, &body[1..], &mut delta).is_err());
            packer.decode_into(&layout, &RULE, &body, &mut delta).unwrap();
            prop_assert_eq!(&delta, &sent);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    /// Whatever bytes decode are the encoding of what they decode to: one body per delta.
    #[test]
    fn one_encoding_per_delta(
        seed in any::<u64>(), k in 1u32..40, edits in proptest::collection::vec((any::<usize>(), 0u8..10, any::<u8>()), 1..4)
    ) {
        let layout = Layout::new([("m", vec![20, 9]), ("v", vec![5])], 8).unwrap();
        let rule = Rule { tile: 8, k: 64, ..RULE };
        let mut body = encode(&layout, &rule, k, &made_up(&layout, &rule, k, seed, Lie::Random, true)).unwrap();
        for (at, kind, byte) in edits {
            let at = at % body.len();
            match kind {
                0..=7 => body[at] ^= 1 << kind,
                8 => body[at] = byte,
                _ => body.insert(at, byte),
            }
        }
        accepts(&layout, &rule, &body);
    }
}

#[test]
fn every_change_of_one_byte_is_refused_or_another_delta() {
    let layout = Layout::new([("m", vec![20, 9]), ("v", vec![5])], 8).unwrap();
    let rule = Rule { tile: 8, k: 64, ..RULE };
    let mut accepted = 0;
    for k in [2, 8, 30] {
        let body = encode(&layout, &rule, k, &made_up(&layout, &rule, k, 5, Lie::Random, false)).unwrap();
        for at in 0..body.len() {
            for byte in (0..=255).filter(|&byte| byte != body[at]) {
                let mut other = body.clone();
                other[at] = byte;
                accepted += usize::from(accepts(&layout, &rule, &other));
            }
        }
    }
    // Other signs are other deltas, so that the test is not about refusals only.
    assert!(accepted > 50, "{accepted}");
}

#[test]
fn each_rule_is_enforced() {
    let layout = layout();
    let good = extracted(&layout, 3, 256, 1);
    let body = encode(&layout, &RULE, 256, &good).unwrap();
    let with = |at: usize, value: u8| {
        let mut copy = body.clone();
        copy[at] = value;
        decode(&layout, &RULE, &copy).unwrap_err()
    };
    assert_eq!(with(0, 2), PackingError::Version(2));
    assert_eq!(with(0, 2).to_string(), "the body has format version 2, not 3");
    assert_eq!(with(2, 2), PackingError::Density);
    assert_eq!(with(2, 0), PackingError::Density);
    assert_eq!(with(1, 200), PackingError::Density);
    assert_eq!(decode(&layout, &RULE, &body[..18]), Err(PackingError::Truncated));
    assert!(decode(&layout, &RULE, &[body.clone(), vec![0]].concat()).is_err());
    assert_eq!(encode(&layout, &RULE, 256, &SparseDelta::default()), Err(PackingError::Empty));
    assert_eq!(encode(&layout, &RULE, 128, &good), Err(PackingError::Share));
    assert_eq!(encode(&layout, &RULE, 300, &good), Err(PackingError::Density));
    let one = |tile, units: f64, position, level| {
        let mut delta = SparseDelta::default();
        delta.push(tile, Step::nearest(units), [Entry { position, level }]);
        encode(&layout, &RULE, 256, &delta).map(|_| ())
    };
    let quarter = f64::from(1 << 18);
    assert_eq!(one(0, quarter, 5, 1), Ok(()));
    assert_eq!(one(0, quarter, 5, 2), Err(PackingError::Scale));
    assert_eq!(one(0, 1.13 * quarter, 5, -1), Err(PackingError::Scale));
    assert_eq!(one(0, 8.0, 5, 0), Err(PackingError::Level));
    assert_eq!(one(0, 8.0, 5, 16), Err(PackingError::Level));
    assert_eq!(one(0, 8.0, 5, -128), Err(PackingError::Level));
    assert_eq!(one(0, 8.0, 4096, 1), Err(PackingError::Position));
    assert_eq!(one(8, 8.0, 0, 1), Err(PackingError::Position));
}

/// What the decoder reads, it may only accept if the encoder would write it: bodies that break a rule are made
/// with another rule's encoder.
#[test]
fn the_decoder_enforces_the_rules_too() {
    let layout = layout();
    let loose = Rule { max_exponent: 20, ..RULE };
    for (units, level) in [(1 << 19, 1), (1 << 17, -3)] {
        let mut loud = SparseDelta::default();
        loud.push(0, Step::nearest(f64::from(units)), [Entry { position: 5, level }]);
        let body = encode(&layout, &loose, 8, &loud).unwrap();
        assert_eq!(decode(&layout, &loose, &body).unwrap(), loud);
        assert_eq!(decode(&layout, &RULE, &body), Err(PackingError::Scale));
    }
}

#[test]
fn a_coefficient_costs_little_more_than_the_bound() {
    let layout = Layout::new([("m", vec![640, 640])], 64).unwrap();
    // Uniform values: levels 1 only, at evenly spread positions. The bound is log2 C(4096, k) / k + 1.
    for (k, bound) in [(8, 11.086), (32, 9.318), (128, 7.382), (256, 6.363)] {
        let delta = extracted(&layout, 11, k, 1);
        assert!(delta.tiles().flat_map(|(.., entries)| entries).all(|entry| entry.level.abs() == 1));
        let body = encode(&layout, &RULE, k, &delta).unwrap();
        let bits = body.len() as f64 * 8.0 / delta.len() as f64;
        // What is over are the states (128 bits), the tile's steps, and what laws are rounded by.
        let most = bound + 0.02 + (128.0 + 100.0 * 2.5) / (100.0 * f64::from(k));
        assert!(bits < most, "k = {k}: {bits:.3} bits a coefficient, {most:.3} at most");
    }
}

/// Bodies of symbols that no encoder writes, though each may be read.
#[test]
fn what_could_be_said_shorter_is_refused() {
    let layout = Layout::new([("v", vec![24])], 8).unwrap();
    let rule = Rule { tile: 8, k: 16, max_exponent: 18, publishers: 64 };
    // The first tile as it is written, and two that say nothing.
    let body = |write: &dyn Fn(&mut Models, &mut Writer)| {
        let (mut writer, mut models) = (Writer::default(), Models::new());
        write(&mut models, &mut writer);
        models.put_silence(&mut writer);
        models.put_silence(&mut writer);
        let mut body = vec![VERSION, 16, 0];
        writer.finish(&mut body);
        body
    };
    let tile = &layout.tiles()[0];
    let head = |count, large| Head { count, large, step: Step::from_code(80).unwrap() };
    let entries = [Entry { position: 2, level: 1 }, Entry { position: 7, level: -3 }];
    let good = body(&|models, writer| {
        models.put_head(writer, tile, 2, head(2, true));
        models.put_entries(writer, 8, true, &entries).unwrap();
    });
    let mut delta = SparseDelta::default();
    delta.push(0, head(2, true).step, entries);
    assert_eq!(encode(&layout, &rule, 16, &delta), Ok(good.clone()));

    let small = entries.map(|entry| Entry { level: 1, ..entry });
    let far_step = body(&|models, writer| {
        models.says.put(writer, 1);
        models.steps[1].0.put(writer, tile::FAR_STEP);
        writer.put_even(80, u32::from(Step::COUNT));
        models.put_entries(writer, 8, false, &small).unwrap();
    });
    assert_eq!(decode(&layout, &rule, &far_step), Err(PackingError::Canonical));
    let none_large = body(&|models, writer| {
        models.put_head(writer, tile, 2, head(2, true));
        models.put_entries(writer, 8, true, &small).unwrap();
    });
    assert_eq!(decode(&layout, &rule, &none_large), Err(PackingError::Canonical));
    let mark_behind_the_last = body(&|models, writer| {
        models.put_head(writer, tile, 2, head(2, true));
        models.marks[tile::BEFORE].put(writer, 0b110);
        models.put_entries(writer, 8, false, &small).unwrap();
    });
    assert_eq!(decode(&layout, &rule, &mark_behind_the_last), Err(PackingError::Canonical));
    // At density 8, one is all that a tile of 8 may send.
    let mut fewer_than_one = body(&|models, writer| {
        models.put_head(writer, tile, 2, head(1, false));
        models.put_entries(writer, 8, false, &small[..1]).unwrap();
    });
    fewer_than_one[1] = 8;
    assert_eq!(decode(&layout, &rule, &fewer_than_one), Err(PackingError::Canonical));
    // No tile speaks.
    assert_eq!(
        decode(&layout, &rule, &body(&|models, writer| models.put_silence(writer))),
        Err(PackingError::Empty)
    );
    // Bytes between the two ends.
    let at = good.len() - 1;
    let long = [&good[..at], &[0, 0], &good[at..]].concat();
    assert_eq!(decode(&layout, &rule, &long), Err(PackingError::Trailing));
    // A bit behind the last plain bit, which is the first of the last byte but one or of the last one.
    let mut padded = good;
    padded[at] |= 1 << 7;
    assert_eq!(decode(&layout, &rule, &padded), Err(PackingError::Canonical));
}

#[test]
fn golden_bytes() {
    let layout = Layout::new([("v", vec![24])], 8).unwrap();
    let rule = Rule { tile: 8, k: 16, max_exponent: 18, publishers: 64 };
    let mut delta = SparseDelta::default();
    let entry = |position, level| Entry { position, level };
    delta.push(0, Step::nearest(1024.0), [entry(1, -1), entry(6, 3)]);
    delta.push(2, Step::nearest(8.0), [entry(0, 1), entry(7, -1)]);
    let body = encode(&layout, &rule, 16, &delta).unwrap();
    // Written by this test; they change only together with the version.
    assert_eq!(body, GOLDEN);
    assert_eq!(decode(&layout, &rule, &body).unwrap(), delta);
}

const GOLDEN: [u8; 20] = [3, 16, 0, 54, 119, 159, 174, 80, 80, 172, 0, 145, 127, 158, 112, 86, 6, 131, 6, 9];
