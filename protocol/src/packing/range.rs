//! An adaptive binary range coder: each decision costs what it tells, given how often it fell either way.
//!
//! G. N. N. Martin, "Range encoding", 1979, in the carry-propagating form that LZMA uses. A [`Bit`] keeps
//! the probability that its decision is 0, as the share of zeros so far (Krichevsky and Trofimov 1981),
//! and later as one that forgets slowly. Integers only, so encoder and decoder agree everywhere.

/// Below this the range is refilled with a byte.
const TOP: u32 = 1 << 24;
/// Certainty, in the unit of a probability.
const ONE: u32 = 1 << 22;
/// An estimate rests on about this many decisions; earlier ones are forgotten.
const MEMORY: u32 = 1022;

/// An adaptive decision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bit {
    /// Probability of 0.
    zero: u32,
    /// Decisions seen, at most [`MEMORY`].
    seen: u32,
}

impl Bit {
    /// Either way is equally likely.
    pub(super) const EVEN: Self = Self { zero: ONE / 2, seen: 0 };

    /// The part of `range` that belongs to 0: neither nothing nor all.
    fn share(self, range: u32) -> u32 {
        (range >> 16) * (self.zero >> 6).clamp(16, (1 << 16) - 16)
    }

    fn learn(&mut self, bit: bool) {
        let parts = self.seen + 2;
        if bit {
            self.zero -= self.zero / parts;
        } else {
            self.zero += (ONE - self.zero) / parts;
        }
        self.seen = MEMORY.min(self.seen + 1);
    }
}

/// Writes decisions behind `bytes`.
pub(super) struct Encoder {
    bytes: Vec<u8>,
    low: u64,
    range: u32,
    /// The last byte that a carry may still change, and how many 0xff follow it; none at first.
    cache: Option<u8>,
    pending: usize,
}

impl Encoder {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, low: 0, range: u32::MAX, cache: None, pending: 0 }
    }

    pub(super) fn put(&mut self, model: &mut Bit, bit: bool) {
        let share = model.share(self.range);
        self.narrow(share, bit);
        model.learn(bit);
    }

    /// A decision that is as likely to fall either way, always.
    pub(super) fn put_even(&mut self, bit: bool) {
        self.narrow(self.range >> 1, bit);
    }

    fn narrow(&mut self, share: u32, bit: bool) {
        if bit {
            self.low += u64::from(share);
            self.range -= share;
        } else {
            self.range = share;
        }
        while self.range < TOP {
            self.range <<= 8;
            self.shift();
        }
    }

    fn shift(&mut self) {
        let carry = (self.low >> 32) as u8;
        if carry != 0 || self.low < 0xff00_0000 {
            // Before the first byte there is nothing that a carry could change: low starts at 0.
            if let Some(cache) = self.cache {
                self.bytes.push(cache.wrapping_add(carry));
            }
            self.bytes.extend(std::iter::repeat_n(carry.wrapping_sub(1), self.pending));
            self.pending = 0;
            self.cache = Some((self.low >> 24) as u8);
        } else {
            self.pending += 1;
        }
        self.low = (self.low & 0x00ff_ffff) << 8;
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        for _ in 0..5 {
            self.shift();
        }
        self.bytes
    }
}

/// Reads what an [`Encoder`] wrote. Bytes beyond the end read as nothing and are reported by
/// [`Decoder::is_exact`].
pub(super) struct Decoder<'a> {
    bytes: &'a [u8],
    value: u32,
    range: u32,
    missing: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self { bytes, value: 0, range: u32::MAX, missing: 0 };
        (0..4).for_each(|_| decoder.pull());
        decoder
    }

    fn pull(&mut self) {
        let next = match self.bytes {
            [first, rest @ ..] => {
                self.bytes = rest;
                *first
            }
            [] => {
                self.missing += 1;
                0
            }
        };
        self.value = (self.value << 8) | u32::from(next);
    }

    pub(super) fn take(&mut self, model: &mut Bit) -> bool {
        let share = model.share(self.range);
        let bit = self.narrow(share);
        model.learn(bit);
        bit
    }

    pub(super) fn take_even(&mut self) -> bool {
        self.narrow(self.range >> 1)
    }

    fn narrow(&mut self, share: u32) -> bool {
        let bit = self.value >= share;
        if bit {
            self.value -= share;
            self.range -= share;
        } else {
            self.range = share;
        }
        while self.range < TOP {
            self.range <<= 8;
            self.pull();
        }
        bit
    }

    /// Whether more was read than there is.
    pub(super) fn is_short(&self) -> bool {
        self.missing > 0
    }

    /// Whether everything was read, and no more than that.
    pub(super) fn is_exact(&self) -> bool {
        self.missing == 0 && self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decisions_come_back(bits in proptest::collection::vec((0usize..3, any::<bool>()), 0..3000)) {
            let mut models = [Bit::EVEN; 2];
            let mut encoder = Encoder::new(vec![7]);
            for &(which, bit) in &bits {
                match models.get_mut(which) {
                    Some(model) => encoder.put(model, bit),
                    None => encoder.put_even(bit),
                }
            }
            let bytes = encoder.finish();
            let mut models = [Bit::EVEN; 2];
            let mut decoder = Decoder::new(&bytes[1..]);
            for &(which, bit) in &bits {
                let read = match models.get_mut(which) {
                    Some(model) => decoder.take(model),
                    None => decoder.take_even(),
                };
                prop_assert_eq!(read, bit);
            }
            prop_assert!(decoder.is_exact());
        }
    }

    #[test]
    fn rare_decisions_cost_their_entropy() {
        for (every, bits) in [(2usize, 1.0), (4, 0.811), (16, 0.337), (128, 0.066)] {
            let mut model = Bit::EVEN;
            let mut encoder = Encoder::new(Vec::new());
            let mut state = 1u64;
            for _ in 0..400_000 {
                state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
                encoder.put(&mut model, ((state >> 33) as usize).is_multiple_of(every));
            }
            let spent = encoder.finish().len() as f64 * 8.0 / 400_000.0;
            assert!(spent < bits * 1.004 + 0.001, "one in {every}: {spent:.4} bits, entropy {bits}");
        }
    }

    #[test]
    fn carries_travel_through_long_runs() {
        // Ones in even decisions make low all ones; the last decisions then carry or not.
        for tail in 0..64u32 {
            let mut encoder = Encoder::new(Vec::new());
            let mut model = Bit::EVEN;
            let bits: Vec<bool> = (0..200).map(|_| true).chain((0..6).map(|i| tail >> i & 1 == 1)).collect();
            for (i, &bit) in bits.iter().enumerate() {
                if i % 50 == 49 { encoder.put(&mut model, bit) } else { encoder.put_even(bit) }
            }
            let bytes = encoder.finish();
            let (mut decoder, mut model) = (Decoder::new(&bytes), Bit::EVEN);
            for (i, &bit) in bits.iter().enumerate() {
                let read = if i % 50 == 49 { decoder.take(&mut model) } else { decoder.take_even() };
                assert_eq!(read, bit);
            }
            assert!(decoder.is_exact());
        }
    }
}
