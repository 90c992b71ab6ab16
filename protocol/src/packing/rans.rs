//! Range asymmetric numeral systems: symbols of any probability, in and out of one whole number.
//!
//! J. Duda, "Asymmetric numeral systems", arXiv 1311.2540. A *state* x is a number that holds everything
//! which is still to be read. A symbol owns `freq` of the 2^15 values that the low bits of x can have, from
//! `start` on; writing it replaces x by one that is `2^15 / freq` times as large, and reading takes just that back:
//!
//! ```text
//! write   x -> (x / freq) 2^15 + start + x % freq
//! read    x -> freq (x / 2^15) + x % 2^15 - start
//! ```
//!
//! Symbols go in and out one by one or two at once. Between that x is kept in 2^31 .. 2^63 by moving 32 bits at a time
//! between it and the bytes. Whether a move is due follows from x and the symbols alone, and the same way in
//! both directions, so that writing undoes reading exactly, as reading undoes writing. A writer starts with
//! x = 2^31 and goes through the symbols from the last to the first; a reader that has read them all therefore
//! holds 2^31 again, with all bytes used. If it does, there are no other bytes that say the same, and nothing has to
//! be written again to know that.
//!
//! Two states take turns: a processor works on one while it waits for the other. What is evenly spread (signs,
//! low bits) costs the same as plain bits, and is cheaper to read. Those lie at the other end of the bytes:
//!
//! ```text
//! bytes 0-15    the first and the second state as the writer left them, little-endian
//! then          32-bit words, little-endian, in the order in which the reader needs them
//! last bytes    plain bits, from the last byte backwards, in each from the lowest bit up; 0 after the last
//! ```

use std::sync::LazyLock;

/// Between turns, states are at least this and below 2^32 times as much. It must be a multiple of [`ALL`]^2.
const LOW: u64 = 1 << 31;
/// Probabilities are multiples of 2^-15.
const BITS: u32 = 15;
/// All values that the low bits of a state can have.
pub(super) const ALL: u32 = 1 << BITS;
/// Bits that one of up to 2^14 values which are equally likely costs at most.
pub(super) const EVEN_MOST_BITS: usize = 14;
/// Bytes of the two states.
pub(super) const STATES: usize = 16;

/// The values of the low bits of a state that belong to a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    start: u16,
    /// One less than their number, which may be all.
    more: u16,
}

impl Share {
    /// What is certain: writing it changes nothing.
    const CERTAIN: Self = Self { start: 0, more: (ALL - 1) as u16 };

    /// The values `start .. end`: at least two, at most [`ALL`].
    #[inline]
    pub(super) fn new(start: u32, end: u32) -> Self {
        debug_assert!(start + 1 < end && end <= ALL);
        Self { start: start as u16, more: (end - start).wrapping_sub(1) as u16 }
    }

    /// What belongs to `value` of `0 .. count`, all as likely as each other; `count` is at most 2^14.
    fn even(value: u32, count: u32) -> Self {
        let start = |value: u32| (value << BITS).div_ceil(count);
        Self::new(start(value), start(value + 1))
    }

    #[inline]
    fn freq(self) -> u64 {
        u64::from(self.more) + 1
    }
}

/// By `more` of a [`Share`]: the reciprocal of `more + 1`, in units of 2^-64 and scaled up by the largest power of
/// two that leaves it below 1. (There is none for 1, which no share has.)
///
/// The upper part of the product with the rounded up reciprocal is the exact quotient of any state, which is below
/// 2^63 (Alverson, "Integer division using reciprocals", 1991, as in F. Giesen's ryg_rans).
static RECIPROCALS: LazyLock<Vec<u64>> = LazyLock::new(|| {
    (0..ALL as u16).map(|more| (1u128 << (64 + scale(more))).div_ceil(u128::from(more) + 1) as u64).collect()
});

/// The power of two by which the reciprocal of `more + 1` is scaled up.
#[inline]
fn scale(more: u16) -> u32 {
    (more | 1).ilog2()
}

/// The state `x` with one symbol or two on top. What has to move goes before `words[first]`.
#[inline(always)]
fn pushed(x: u64, [one, two]: [Share; 2], reciprocals: &[u64], words: &mut [u32], first: &mut usize) -> u64 {
    let put = |x: u64, share: Share| {
        let product = u128::from(x) * u128::from(reciprocals[usize::from(share.more)]);
        let quotient = (product >> 64) as u64 >> scale(share.more);
        x + u64::from(share.start) + quotient * (u64::from(ALL) - share.freq())
    };
    words[*first - 1] = x as u32;
    // The share that both have of 2^63.
    let due = x >= (one.freq() * two.freq()) << (63 - 2 * BITS);
    *first -= usize::from(due);
    let x = if due { x >> 32 } else { x };
    put(put(x, two), one)
}

/// Collects symbols and plain bits, and writes them. It may be used again after [`Writer::finish`].
#[derive(Clone, Debug, Default)]
pub(super) struct Writer {
    turns: Vec<[Share; 2]>,
    words: Vec<u32>,
    plain: Vec<u8>,
    /// Plain bits that do not make a byte yet, and their number.
    held: u64,
    held_bits: u32,
}

impl Writer {
    /// Forgets what was put in and not finished.
    pub(super) fn clear(&mut self) {
        self.turns.clear();
        self.plain.clear();
        (self.held, self.held_bits) = (0, 0);
    }

    /// A symbol.
    #[inline]
    pub(super) fn put(&mut self, share: Share) {
        self.turns.push([share, Share::CERTAIN]);
    }

    /// Four symbols, two at once.
    #[inline]
    pub(super) fn put_four(&mut self, turns: [[Share; 2]; 2]) {
        self.turns.extend_from_slice(&turns);
    }

    /// One of `count` values that are equally likely; `count` is at most 2^14.
    pub(super) fn put_even(&mut self, value: u32, count: u32) {
        self.put(Share::even(value, count));
    }

    /// The `bits` low bits of `value`, at most 56; the others must be 0.
    #[inline]
    pub(super) fn put_plain(&mut self, value: u64, bits: u32) {
        self.held |= value << self.held_bits;
        self.held_bits += bits;
        let whole = self.held_bits / 8;
        let end = self.plain.len() + whole as usize;
        self.plain.extend_from_slice(&self.held.to_le_bytes());
        self.plain.truncate(end);
        self.held >>= 8 * whole;
        self.held_bits %= 8;
    }

    /// Appends everything to `bytes`.
    pub(super) fn finish(&mut self, bytes: &mut Vec<u8>) {
        if self.held_bits > 0 {
            self.plain.push(self.held as u8);
        }
        // A turn moves one word at most; one place more, because words that do not count are written too.
        self.words.clear();
        self.words.resize(self.turns.len() + 1, 0);
        let mut first = self.words.len();
        let (reciprocals, words) = (RECIPROCALS.as_slice(), self.words.as_mut_slice());
        let (mut a, mut b) = (LOW, LOW);
        let (turns, last) = self.turns.as_chunks::<2>();
        for &turn in last {
            a = pushed(a, turn, reciprocals, words, &mut first);
        }
        for &[one, two] in turns.iter().rev() {
            b = pushed(b, two, reciprocals, words, &mut first);
            a = pushed(a, one, reciprocals, words, &mut first);
        }
        bytes.extend_from_slice(&a.to_le_bytes());
        bytes.extend_from_slice(&b.to_le_bytes());
        bytes.extend(self.words[first..].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(self.plain.iter().rev());
        self.clear();
    }
}

/// A state on its way through the symbols of a turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct State(u64);

impl State {
    /// The low bits: they tell which symbol comes.
    #[inline(always)]
    pub(super) fn slot(self) -> u32 {
        self.0 as u32 % ALL
    }

    /// Behind a symbol that has `freq` values, of which the one seen is `offset`.
    #[inline(always)]
    pub(super) fn behind(self, freq: u32, offset: u32) -> Self {
        Self(u64::from(freq) * (self.0 >> BITS) + u64::from(offset))
    }

    /// Whether a word is due; and the state, with the low half of `words` if it is.
    #[inline(always)]
    fn refilled(self, words: u64) -> (bool, u64) {
        // Without a branch: it would often go the unforeseen way.
        let (due, refilled) = (self.0 < LOW, self.0 << 32 | words & u64::from(u32::MAX));
        (due, if due { refilled } else { self.0 })
    }
}

/// Reads what a [`Writer`] wrote. Beyond its end it reads zeros: [`Reader::is_short`] tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// The next word.
    front: usize,
    /// Plain bits read so far.
    plain: usize,
    /// The state whose turn it is, and the other one.
    state: u64,
    other: u64,
}

impl<'a> Reader<'a> {
    /// `None` if these bytes cannot begin with two states.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let [a, b] = *bytes.first_chunk::<STATES>()?.as_chunks::<8>().0 else { return None };
        let (state, other) = (u64::from_le_bytes(a), u64::from_le_bytes(b));
        let valid = |x: u64| (LOW..LOW << 32).contains(&x);
        (valid(state) && valid(other)).then_some(Self { bytes, front: STATES, plain: 0, state, other })
    }

    /// The states from which the next turn and the one after that are read.
    #[inline(always)]
    pub(super) fn states(&self) -> [State; 2] {
        [State(self.state), State(self.other)]
    }

    /// Goes on behind a turn.
    #[inline(always)]
    pub(super) fn go_on(&mut self, state: State) {
        let (due, refilled) = state.refilled(self.words());
        self.front += 4 * usize::from(due);
        (self.state, self.other) = (self.other, refilled);
    }

    /// Goes on behind two turns.
    #[inline(always)]
    pub(super) fn go_on_twice(&mut self, [one, two]: [State; 2]) {
        let words = self.words();
        let (due, refilled) = one.refilled(words);
        let words = if due { words >> 32 } else { words };
        let (also_due, also_refilled) = two.refilled(words);
        self.front += 4 * (usize::from(due) + usize::from(also_due));
        (self.state, self.other) = (refilled, also_refilled);
    }

    /// The next two words.
    #[inline(always)]
    fn words(&self) -> u64 {
        match self.bytes.get(self.front..self.front + 8).and_then(|bytes| bytes.first_chunk()) {
            Some(words) => u64::from_le_bytes(*words),
            None => last_words(self.bytes, self.front),
        }
    }

    /// One of `count` values that are equally likely; `count` is at most 2^14.
    #[inline(always)]
    pub(super) fn take_even(&mut self, count: u32) -> u32 {
        let [state, _] = self.states();
        let value = (state.slot() * count) >> BITS;
        let share = Share::even(value, count);
        self.go_on(state.behind(share.freq() as u32, state.slot() - u32::from(share.start)));
        value
    }

    /// The next `bits` plain bits, at most 56; above them, others may be set.
    #[inline(always)]
    pub(super) fn take_plain(&mut self, bits: u32) -> u64 {
        let window = self.window();
        self.plain += bits as usize;
        window
    }

    #[inline(always)]
    fn window(&self) -> u64 {
        let end = self.bytes.len().saturating_sub(self.plain / 8);
        let window = self.bytes.get(..end).and_then(|bytes| bytes.last_chunk()).copied().unwrap_or_default();
        u64::from_be_bytes(window) >> (self.plain % 8)
    }

    fn used(&self) -> usize {
        self.front + self.plain.div_ceil(8)
    }

    /// Whether more was read than there is.
    pub(super) fn is_short(&self) -> bool {
        self.used() > self.bytes.len()
    }

    /// Whether bytes are left between what was read from either end.
    pub(super) fn is_long(&self) -> bool {
        self.used() < self.bytes.len()
    }

    /// Whether everything was read, and is what a writer of the same symbols and bits would have written.
    pub(super) fn is_exact(&self) -> bool {
        let padding = match self.plain % 8 {
            0 => 0,
            used => self.window() & ((1 << (8 - used)) - 1),
        };
        self.used() == self.bytes.len() && (self.state, self.other) == (LOW, LOW) && padding == 0
    }
}

/// Likewise where fewer than two are left. (Not of a reader: one that is passed on has to be kept in memory.)
#[cold]
fn last_words(bytes: &[u8], front: usize) -> u64 {
    let rest = bytes.get(front..).unwrap_or_default();
    rest.iter().rev().fold(0, |words, &byte| words << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Put {
        One(Share),
        Four([[Share; 2]; 2]),
        Even(u32, u32),
        Plain(u64, u32),
    }

    fn share() -> impl Strategy<Value = Share> {
        (0..ALL - 2, any::<u32>())
            .prop_map(|(start, more)| Share::new(start, start + 2 + more % (ALL - 1 - start)))
    }

    fn puts() -> impl Strategy<Value = Put> {
        prop_oneof![
            share().prop_map(Put::One),
            (share(), share(), share(), share()).prop_map(|(a, b, c, d)| Put::Four([[a, b], [c, d]])),
            (1u32..=1 << 14, any::<u32>()).prop_map(|(count, value)| Put::Even(value % count, count)),
            (0u32..=56, any::<u64>()).prop_map(|(bits, value)| Put::Plain(value & ((1 << bits) - 1), bits)),
        ]
    }

    /// The state behind `share`, which must be what it holds.
    fn behind(state: State, share: Share) -> State {
        let offset = state.slot().checked_sub(u32::from(share.start)).unwrap();
        assert!(offset <= u32::from(share.more));
        state.behind(share.freq() as u32, offset)
    }

    proptest! {
        #[test]
        fn what_is_put_comes_back(puts in proptest::collection::vec(puts(), 0..300)) {
            let mut writer = Writer::default();
            for &put in &puts {
                match put {
                    Put::One(share) => writer.put(share),
                    Put::Four(shares) => writer.put_four(shares),
                    Put::Even(value, count) => writer.put_even(value, count),
                    Put::Plain(value, bits) => writer.put_plain(value, bits),
                }
            }
            let mut bytes = Vec::new();
            writer.finish(&mut bytes);
            let mut reader = Reader::new(&bytes).unwrap();
            for put in puts {
                match put {
                    Put::One(share) => reader.go_on(behind(reader.states()[0], share)),
                    Put::Four([[a, b], [c, d]]) => {
                        let [one, two] = reader.states();
                        reader.go_on_twice([behind(behind(one, a), b), behind(behind(two, c), d)]);
                    }
                    Put::Even(value, count) => prop_assert_eq!(reader.take_even(count), value),
                    Put::Plain(value, bits) => {
                        prop_assert_eq!(reader.take_plain(bits) & ((1 << bits) - 1), value);
                    }
                }
                prop_assert!(!reader.is_short());
            }
            prop_assert!(reader.is_exact() && !reader.is_long());
        }

        #[test]
        fn quotients_are_exact(more in 1..ALL as u16, x in any::<u64>(), near in 0u64..3) {
            // The largest states, and those around a multiple, are where a wrong reciprocal would show.
            let by = u64::from(more) + 1;
            for x in [x >> 1, (x >> 1) / by * by + near, (x >> 1) / by * by - 1, (1 << 63) - 1 - near] {
                let product = u128::from(x) * u128::from(RECIPROCALS[usize::from(more)]);
                prop_assert_eq!((product >> 64) as u64 >> scale(more), x / by);
            }
        }
    }

    #[test]
    fn states_out_of_range_are_refused() {
        let bytes = |a: u64, b: u64| [a.to_le_bytes(), b.to_le_bytes()].concat();
        assert!(Reader::new(&bytes(LOW, (LOW << 32) - 1)).is_some());
        assert!(Reader::new(&bytes(LOW - 1, LOW)).is_none());
        assert!(Reader::new(&bytes(LOW, LOW << 32)).is_none());
        assert!(Reader::new(&bytes(LOW, LOW)[..15]).is_none());
    }

    #[test]
    fn symbols_cost_their_entropy() {
        for (share, bits) in [(ALL / 2, 1.0), (ALL / 8, 3.0), (3, 13.415), (ALL - 300, 0.01327)] {
            let mut writer = Writer::default();
            (0..100_000).for_each(|_| writer.put(Share::new(ALL - share, ALL)));
            let mut bytes = Vec::new();
            writer.finish(&mut bytes);
            let spent = (bytes.len() - STATES) as f64 * 8.0 / 100_000.0;
            assert!((spent - bits).abs() < 0.002, "{share}: {spent:.4} bits, not {bits}");
        }
    }
}
