//! The number formats that weights are written in.
//!
//! The quantised ones are ggml's (`ggml-quants.c`): blocks of 32 neighbours in a row with one scale,
//!
//! ```text
//! q8_0   d: f16 | 32 x i8                      x = d q            d = max |x| / 127
//! q4_0   d: f16 | 16 bytes, two numbers each   x = d (q - 8)      d = x of the largest magnitude / -8
//! ```
//!
//! In a byte of q4_0 the lower four bits are of the first half of the block, the upper four of the second.

use half::{bf16, f16};

/// Scalars of a block.
pub(crate) const BLOCK: usize = 32;

/// How a weight is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Number {
    /// 32 bits, as the swarm holds them.
    F32,
    /// 16 bits.
    F16,
    /// 16 bits with the range of 32.
    Bf16,
    /// 8.5 bits, GGUF only.
    #[value(name = "q8_0")]
    Q8_0,
    /// 4.5 bits (the embedding and the output layer q8_0), GGUF only.
    #[value(name = "q4_0")]
    Q4_0,
}

impl Number {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }

    /// Whether it is of blocks.
    pub(crate) fn is_quantised(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0)
    }

    /// Bytes of `count` scalars: whole blocks where it is of blocks.
    pub(crate) fn bytes(self, count: usize) -> usize {
        match self {
            Self::F32 => 4 * count,
            Self::F16 | Self::Bf16 => 2 * count,
            Self::Q8_0 => count / BLOCK * (2 + BLOCK),
            Self::Q4_0 => count / BLOCK * (2 + BLOCK / 2),
        }
    }

    /// Appends `values` to `out`: whole blocks where it is of blocks. What is beyond f16's range is written as the
    /// largest that it has.
    pub(crate) fn encode(self, values: &[f32], out: &mut Vec<u8>) {
        match self {
            Self::F32 => values.iter().for_each(|value| out.extend(value.to_le_bytes())),
            Self::F16 => values.iter().for_each(|&value| out.extend(nearest_f16(value).to_le_bytes())),
            Self::Bf16 => values.iter().for_each(|&value| out.extend(bf16::from_f32(value).to_le_bytes())),
            Self::Q8_0 => values.chunks_exact(BLOCK).for_each(|block| q8_0(block, out)),
            Self::Q4_0 => values.chunks_exact(BLOCK).for_each(|block| q4_0(block, out)),
        }
    }
}

fn nearest_f16(value: f32) -> f16 {
    f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { scale.recip() }
}

fn q8_0(block: &[f32], out: &mut Vec<u8>) {
    let largest = block.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    let scale = largest / 127.0;
    out.extend(nearest_f16(scale).to_le_bytes());
    out.extend(block.iter().map(|value| (value * inverse(scale)).round() as i8 as u8));
}

fn q4_0(block: &[f32], out: &mut Vec<u8>) {
    let largest = block.iter().fold(0.0f32, |a, &b| if b.abs() > a.abs() { b } else { a });
    let scale = largest / -8.0;
    out.extend(nearest_f16(scale).to_le_bytes());
    // A cast drops the fraction.
    let level = |value: f32| ((value * inverse(scale) + 8.5) as u8).min(15);
    let (low, high) = block.split_at(BLOCK / 2);
    out.extend(low.iter().zip(high).map(|(&low, &high)| level(low) | level(high) << 4));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave() -> Vec<f32> {
        (0..2 * BLOCK).map(|i| (i as f32 * 0.7).sin() * if i < BLOCK { 0.02 } else { 3.0 }).collect()
    }

    /// The largest error of a block as a share of its largest magnitude.
    fn errors(back: &[f32], values: &[f32]) -> Vec<f32> {
        let of = |(back, values): (&[f32], &[f32])| {
            let largest = values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            back.iter().zip(values).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max)
        };
        back.chunks(BLOCK).zip(values.chunks(BLOCK)).map(of).collect()
    }

    #[test]
    fn blocks_decode_to_what_was_there() {
        let values = wave();
        let mut bytes = Vec::new();
        Number::Q8_0.encode(&values, &mut bytes);
        assert_eq!(bytes.len(), Number::Q8_0.bytes(values.len()));
        let scale = |block: &[u8]| f16::from_le_bytes([block[0], block[1]]).to_f32();
        let back: Vec<f32> = bytes
            .chunks(34)
            .flat_map(|block| {
                block[2..].iter().map(|&q| f32::from(q as i8) * scale(block)).collect::<Vec<_>>()
            })
            .collect();
        assert!(errors(&back, &values).iter().all(|&error| error > 1e-4 && error < 0.0045), "{back:?}");

        let mut bytes = Vec::new();
        Number::Q4_0.encode(&values, &mut bytes);
        assert_eq!(bytes.len(), Number::Q4_0.bytes(values.len()));
        let half = |block: &[u8], shift: u8| -> Vec<f32> {
            block[2..].iter().map(|&q| (f32::from(q >> shift & 15) - 8.0) * scale(block)).collect()
        };
        let back: Vec<f32> =
            bytes.chunks(18).flat_map(|block| [half(block, 0), half(block, 4)].concat()).collect();
        assert!(errors(&back, &values).iter().all(|&error| error > 1e-2 && error < 0.13), "{back:?}");
    }

    #[test]
    fn nothing_but_zeros_and_numbers_out_of_range_stay_finite() {
        for number in [Number::Q8_0, Number::Q4_0] {
            let mut bytes = Vec::new();
            number.encode(&[0.0; BLOCK], &mut bytes);
            assert_eq!(f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(), 0.0);
            let expected = if number == Number::Q8_0 { 0 } else { 0x88 };
            assert!(bytes[2..].iter().all(|&byte| byte == expected));
        }
        let mut bytes = Vec::new();
        Number::F16.encode(&[1e9, -1e9, 0.5], &mut bytes);
        assert!(f16::from_le_bytes([bytes[0], bytes[1]]).is_finite());
        assert_eq!(f16::from_le_bytes([bytes[4], bytes[5]]).to_f32(), 0.5);
    }
}
