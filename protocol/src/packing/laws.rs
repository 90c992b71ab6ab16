//! How far apart positions are that could be anywhere.
//!
//! Of `n` free positions `r` are taken, every choice as likely as any other. The gap before the first of them
//! is then at least g with probability C(n - g, r) / C(n, r), close to
//!
//! ```text
//! ((y - 1/2) / (y + 1/2))^g        for many, with y = n / r - 1/2 (the geometric law)
//! (1 - g / (r y))^r                for few
//! ```
//!
//! A gap is written as a *bucket*, `gap >> shift`, and `shift` plain bits. The shift is such that the mean bucket
//! lies between 4 and 8, or 0 where gaps are shorter; so the same 8 laws do for every octave of y from there
//! on. Within a bucket the law is nearly level and plain bits cost 0.004 bits too much; the 8 steps of an octave
//! cost less than that. Buckets from [`BUCKETS`] on are written as a symbol of their own, which says: so many
//! positions are free, ask again.
//!
//! All of it is computed in integers, once, and is the same everywhere.

use std::sync::LazyLock;

use super::rans::{ALL, Reader, Share, Writer};

/// Most buckets of a law that have a symbol of their own.
const BUCKETS: usize = 40;
/// Shares of buckets are multiples of this, so that a table of 2^11 entries finds them.
const UNIT: u32 = 16;
const UNITS: u32 = ALL / UNIT;
/// Steps of an octave of y.
const STEPS: u32 = 8;
/// Octaves of y: from 1/2, from 1, from 2 and from 4 on.
const OCTAVES: u32 = 4;
/// Powers r of the law for few, for 2, 3, 4, up to 8 and up to 16 that are left; the geometric law beyond.
const FEW: [u32; 5] = [2, 3, 4, 6, 12];

/// One law of buckets, for writing and for reading.
struct Law {
    /// Buckets that have a symbol of their own; the next symbol stands for all others.
    buckets: u32,
    shares: [Share; BUCKETS + 1],
    seen: [Seen; UNITS as usize],
}

/// What a unit of a state's low bits says.
#[derive(Clone, Copy)]
struct Seen {
    bucket: u8,
    /// Whether this is the symbol for more than that.
    is_more: bool,
    /// The symbol's units, and which of them this is.
    units: u16,
    offset: u16,
}

static LAWS: LazyLock<Vec<Law>> = LazyLock::new(|| {
    let classes = (0..OCTAVES).flat_map(|octave| (0..STEPS).map(move |step| (octave, step)));
    let powers = FEW.into_iter().map(Some).chain([None]);
    powers
        .flat_map(|power| classes.clone().map(move |(octave, step)| Law::new(power, octave, step)))
        .collect()
});

impl Law {
    /// The law with this power, or the geometric one, at the middle of a step of an octave.
    fn new(power: Option<u32>, octave: u32, step: u32) -> Self {
        // In units of 1/32; in the last octave, per 2^shift.
        let y = u64::from((2 * (STEPS + step) + 1) << octave);
        const ONE: u64 = 1 << 30;
        let reaches = |bucket: usize| -> u64 {
            let base = match power {
                None => (y - 16) * ONE / (y + 16),
                Some(power) => {
                    let all = y * u64::from(power);
                    all.saturating_sub(32 * bucket as u64) * ONE / all
                }
            };
            let times = power.map_or(bucket, |power| power as usize);
            (0..times).fold(ONE, |product, _| product * base / ONE)
        };
        // Longer gaps than two units of chance share a symbol: to give each its own would cost more.
        let buckets =
            (1..BUCKETS).find(|&bucket| reaches(bucket) * u64::from(UNITS) < 2 * ONE).unwrap_or(BUCKETS);
        // Every symbol gets a unit, and of the rest what it is worth.
        let rest = u64::from(UNITS) - (buckets as u64 + 1);
        let start = |symbol: usize| {
            if symbol > buckets {
                UNITS
            } else {
                symbol as u32 + ((ONE - reaches(symbol)) * rest / ONE) as u32
            }
        };
        let mut law = Self {
            buckets: buckets as u32,
            shares: [Share::new(0, ALL); BUCKETS + 1],
            seen: [Seen { bucket: 0, is_more: false, units: 0, offset: 0 }; UNITS as usize],
        };
        for (symbol, share) in law.shares[..=buckets].iter_mut().enumerate() {
            let (start, end) = (start(symbol), start(symbol + 1));
            *share = Share::new(start * UNIT, end * UNIT);
            for (offset, seen) in law.seen[start as usize..end as usize].iter_mut().enumerate() {
                let (bucket, units) = (symbol as u8, (end - start) as u16);
                *seen = Seen { bucket, is_more: symbol == buckets, units, offset: offset as u16 };
            }
        }
        law
    }
}

/// The law of the next gap.
#[derive(Clone, Copy)]
pub(super) struct Gaps {
    /// None for the last one, which may end anywhere in the free positions.
    law: Option<&'static Law>,
    shift: u32,
    free: u32,
}

/// All laws, looked up once.
#[derive(Clone, Copy)]
pub(super) struct Laws(&'static [Law]);

impl Laws {
    pub(super) fn get() -> Self {
        Self(&LAWS)
    }

    /// Where `left` of `free` positions are still to be named; `left` is at least 1 and at most `free`, which is
    /// at most 2^14.
    #[inline]
    pub(super) fn gaps(self, free: u32, left: u32) -> Gaps {
        // y in sixteenths, at least 8.
        let y = 8 * (2 * free - left) / left;
        let octave = y.ilog2();
        let step = (y >> (octave - 3)) % STEPS;
        let power = match left {
            0..=4 => left.saturating_sub(2),
            5..=8 => 3,
            9..=16 => 4,
            _ => 5,
        };
        if left == 1 {
            return Gaps { law: None, shift: 0, free };
        }
        let class = (power * OCTAVES + (octave - 3).min(OCTAVES - 1)) * STEPS + step;
        Gaps { law: self.0.get(class as usize), shift: octave.saturating_sub(OCTAVES + 2), free }
    }
}

impl Gaps {
    /// How many low bits of the gap are plain.
    #[inline]
    pub(super) fn plain_bits(self) -> u32 {
        self.shift
    }

    /// Writes what is above the plain bits of `gap`, and returns those.
    #[inline]
    pub(super) fn put(self, writer: &mut Writer, gap: u32) -> u32 {
        let Some(law) = self.law else {
            writer.put_even(gap, self.free);
            return 0;
        };
        let mut bucket = gap >> self.shift;
        while bucket >= law.buckets {
            writer.put(law.shares[law.buckets as usize]);
            bucket -= law.buckets;
        }
        writer.put(law.shares[bucket as usize]);
        gap & ((1 << self.shift) - 1)
    }

    /// Reads a gap but for its plain bits, which are 0. It is not checked, but not much longer than `most`.
    #[inline]
    pub(super) fn take(self, reader: &mut Reader, most: u32) -> u32 {
        let Some(law) = self.law else { return reader.take_even(self.free) };
        let mut gap = 0;
        loop {
            let slot = reader.peek();
            let seen = law.seen[(slot / UNIT) as usize];
            reader.skip(u32::from(seen.units) * UNIT, u32::from(seen.offset) * UNIT + slot % UNIT);
            gap += u32::from(seen.bucket) << self.shift;
            if !seen.is_more || gap > most {
                return gap;
            }
        }
    }
}
