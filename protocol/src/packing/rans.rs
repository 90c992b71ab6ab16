//! Range asymmetric numeral systems: symbols of any probability, in and out of one whole number.
//!
//! J. Duda, "Asymmetric numeral systems", arXiv 1311.2540. A *state* x is a number that holds everything
//! which is still to be read. A symbol owns `freq` of the `2^bits` values that the low bits of x can have,
//! from `start` on; writing it replaces x by one that is `2^bits / freq` times as large, and reading takes
//! just that back:
//!
//! ```text
//! write   x -> (x / freq) 2^bits + start + x % freq
//! read    x -> freq (x / 2^bits) + x % 2^bits - start
//! ```
//!
//! x is kept in 2^15 .. 2^31 by moving 16 bits at a time between it and the bytes. Whether a move is due
//! follows from x and the symbol alone, and the same way in both directions, so that writing undoes reading
//! exactly, as reading undoes writing. A writer starts with x = 2^15 and goes through the symbols from the last
//! to the first; a reader that has read them all therefore holds 2^15 again, with all bytes used. If it does,
//! there are no other bytes that say the same, and nothing has to be written again to know that.
//!
//! Two states take turns: a processor works on one while it waits for the other. What is evenly spread (signs,
//! low bits) costs the same as plain bits, and is cheaper to read. Those lie at the other end of the bytes:
//!
//! ```text
//! bytes 0-7     the first and the second state as the writer left them, little-endian
//! then          16-bit words, little-endian, in the order in which the reader needs them
//! last bytes    plain bits, from the last byte backwards, in each from the lowest bit up; 0 after the last
//! ```

use std::sync::LazyLock;

/// States are at least this and below 2^16 times as much.
const LOW: u32 = 1 << 15;
/// Probabilities are multiples of 2^-15; more bits than [`LOW`] has would not do.
pub(super) const BITS: u32 = 15;
/// All values that the low bits of a state can have.
pub(super) const ALL: u32 = 1 << BITS;
/// Bytes of the two states.
const STATES: usize = 8;

/// The values of the low bits of a state that belong to a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    start: u16,
    /// One less than their number, which may be all.
    more: u16,
}

impl Share {
    /// The values `start .. end`: at least one, at most [`ALL`].
    #[inline]
    pub(super) fn new(start: u32, end: u32) -> Self {
        debug_assert!(start < end && end <= ALL);
        Self { start: start as u16, more: (end - start).wrapping_sub(1) as u16 }
    }

    /// What belongs to `value` of `0 .. count`, all as likely as each other; `count` is at most 2^14.
    fn even(value: u32, count: u32) -> Self {
        let start = |value: u32| (value << BITS).div_ceil(count);
        Self::new(start(value), start(value + 1))
    }
}

/// By `more` of a [`Share`]: the reciprocal of `more + 1`, less 1, in units of 2^-32 and, beyond 1, scaled up by
/// a power of two until all 32 bits count.
///
/// The upper part of the product with the rounded up reciprocal is the exact quotient of any state, which is below
/// 2^31 (Alverson, "Integer division using reciprocals", 1991, as in F. Giesen's ryg_rans).
static RECIPROCALS: LazyLock<Vec<u32>> = LazyLock::new(|| {
    (0..ALL).map(|more| ((1u64 << (32 + scale(more))).div_ceil(u64::from(more) + 1) - 1) as u32).collect()
});

/// The power of two by which the reciprocal of `more + 1` is scaled up.
#[inline]
fn scale(more: u32) -> u32 {
    (more | 1).ilog2()
}

/// Collects symbols and plain bits, and writes them. It may be used again after [`Writer::finish`].
#[derive(Clone, Debug, Default)]
pub(super) struct Writer {
    shares: Vec<Share>,
    words: Vec<u16>,
    plain: Vec<u8>,
    /// Plain bits that do not make a byte yet, and their number.
    held: u64,
    held_bits: u32,
}

impl Writer {
    /// Forgets what was put in and not finished.
    pub(super) fn clear(&mut self) {
        self.shares.clear();
        self.plain.clear();
        (self.held, self.held_bits) = (0, 0);
    }

    #[inline]
    pub(super) fn put(&mut self, share: Share) {
        self.shares.push(share);
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
        // A symbol moves one word at most; one place more, because words that do not count are written too.
        self.words.clear();
        self.words.resize(self.shares.len() + 1, 0);
        let mut first = self.words.len();
        let reciprocals = RECIPROCALS.as_slice();
        let mut push = |x: u32, share: Share| {
            let more = u32::from(share.more);
            self.words[first - 1] = x as u16;
            let due = x >= (more + 1) << 16;
            first -= usize::from(due);
            let x = if due { x >> 16 } else { x };
            let reciprocal = u64::from(reciprocals[more as usize]) + 1;
            let quotient = (u64::from(x) * reciprocal) >> 32 >> scale(more);
            x + u32::from(share.start) + quotient as u32 * (ALL - 1 - more)
        };
        let (mut a, mut b) = (LOW, LOW);
        let (pairs, last) = self.shares.as_chunks::<2>();
        for &share in last {
            a = push(a, share);
        }
        for &[even, odd] in pairs.iter().rev() {
            b = push(b, odd);
            a = push(a, even);
        }
        bytes.extend_from_slice(&a.to_le_bytes());
        bytes.extend_from_slice(&b.to_le_bytes());
        bytes.extend(self.words[first..].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(self.plain.iter().rev());
        self.clear();
    }
}

/// Reads what a [`Writer`] wrote. Beyond its end it reads zeros: [`Reader::is_short`] tells.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// The next word.
    front: usize,
    /// Plain bits read so far.
    plain: usize,
    /// The state whose turn it is, and the other one.
    state: u32,
    other: u32,
}

impl<'a> Reader<'a> {
    /// `None` if these bytes cannot even hold two states.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let [a, b] = *bytes.first_chunk::<STATES>()?.as_chunks::<4>().0 else { return None };
        let states = (u32::from_le_bytes(a), u32::from_le_bytes(b));
        let valid = |x: u32| (LOW..LOW << 16).contains(&x);
        (valid(states.0) && valid(states.1)).then_some(Self {
            bytes,
            front: STATES,
            plain: 0,
            state: states.0,
            other: states.1,
        })
    }

    /// The low bits of the state: they tell which symbol comes.
    #[inline]
    pub(super) fn peek(&self) -> u32 {
        self.state % ALL
    }

    /// Goes on behind the symbol that has `freq` values, of which the one seen is `offset`.
    #[inline]
    pub(super) fn skip(&mut self, freq: u32, offset: u32) {
        let x = freq * (self.state >> BITS) + offset;
        // Without a branch: it would go the unforeseen way every fourth time.
        let word =
            self.bytes.get(self.front..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        let due = x < LOW;
        self.front += 2 * usize::from(due);
        let refilled = x << 16 | u32::from(u16::from_le_bytes(word));
        self.state = self.other;
        self.other = if due { refilled } else { x };
    }

    /// One of `count` values that are equally likely; `count` is at most 2^14.
    pub(super) fn take_even(&mut self, count: u32) -> u32 {
        let slot = self.peek();
        let value = (slot * count) >> BITS;
        let share = Share::even(value, count);
        self.skip(u32::from(share.more) + 1, slot - u32::from(share.start));
        value
    }

    /// The next `bits` plain bits, at most 56; more than these may be set above them.
    #[inline]
    pub(super) fn take_plain(&mut self, bits: u32) -> u64 {
        let window = self.window();
        self.plain += bits as usize;
        window
    }

    #[inline]
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
