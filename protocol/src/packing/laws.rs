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

use super::rans::{ALL, Reader, Share, State, Writer};

/// Most buckets of a law that have a symbol of their own.
const BUCKETS: usize = 40;
/// And the fewest.
pub(super) const LEAST_BUCKETS: usize = 4;
/// Bits that the symbol of a bucket costs at most.
pub(super) const MOST_BITS: usize = UNITS.ilog2() as usize;
/// Shares of buckets are multiples of this, so that small tables find them.
const UNIT: u32 = 32;
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

/// What the low bits of a state say, in one word: one load, and small tables.
#[derive(Clone, Copy)]
struct Seen(u32);

impl Seen {
    /// The gap in buckets, whether that is only a lower limit, the symbol's units and which of them this is.
    fn new(bucket: u32, is_more: bool, units: u32, offset: u32) -> Self {
        Self(bucket | u32::from(is_more) << 7 | offset << 8 | units << 20)
    }

    #[inline(always)]
    fn bucket(self) -> u32 {
        self.0 & 0x7f
    }

    #[inline(always)]
    fn is_more(self) -> bool {
        self.0 & 0x80 != 0
    }

    #[inline(always)]
    fn offset(self) -> u32 {
        self.0 >> 8 & 0xfff
    }

    #[inline(always)]
    fn units(self) -> u32 {
        self.0 >> 20
    }
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
        let buckets = (LEAST_BUCKETS..BUCKETS)
            .find(|&bucket| reaches(bucket) * u64::from(UNITS) < 2 * ONE)
            .unwrap_or(BUCKETS);
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
            seen: [Seen(0); UNITS as usize],
        };
        for (symbol, share) in law.shares[..=buckets].iter_mut().enumerate() {
            let (start, end) = (start(symbol), start(symbol + 1));
            *share = Share::new(start * UNIT, end * UNIT);
            for (offset, seen) in law.seen[start as usize..end as usize].iter_mut().enumerate() {
                *seen = Seen::new(symbol as u32, symbol == buckets, end - start, offset as u32);
            }
        }
        law
    }
}

/// The law of the next gaps.
#[derive(Clone, Copy)]
pub(super) struct Gaps {
    law: &'static Law,
    shift: u32,
}

/// All laws, looked up once.
#[derive(Clone, Copy)]
pub(super) struct Laws(&'static [Law]);

impl Laws {
    pub(super) fn get() -> Self {
        Self(&LAWS)
    }

    /// Where `left` of `free` positions are still to be named; `left` is at least 2 and at most `free`, which is
    /// at most 2^14.
    #[inline]
    pub(super) fn gaps(self, free: u32, left: u32) -> Gaps {
        // y in sixteenths, at least 8.
        let y = divided(8 * (2 * free - left), left);
        let octave = y.ilog2();
        let step = (y >> (octave - 3)) % STEPS;
        let power = match left {
            0..=4 => left.saturating_sub(2),
            5..=8 => 3,
            9..=16 => 4,
            _ => 5,
        };
        let class = (power * OCTAVES + (octave - 3).min(OCTAVES - 1)) * STEPS + step;
        Gaps { law: &self.0[class as usize], shift: octave.saturating_sub(OCTAVES + 2) }
    }
}

/// `value / by`, for values below 2^18 and divisors that are at least 1.
#[inline]
fn divided(value: u32, by: u32) -> u32 {
    const COUNT: usize = 65;
    const RECIPROCALS: [u64; COUNT] = {
        let mut reciprocals = [0; COUNT];
        let mut by = 1;
        while by < COUNT {
            reciprocals[by] = (1u64 << 32).div_ceil(by as u64);
            by += 1;
        }
        reciprocals
    };
    // Exact, as the reciprocal is too large by less than 2^-32.
    match RECIPROCALS.get(by as usize) {
        Some(reciprocal) => ((u64::from(value) * reciprocal) >> 32) as u32,
        None => value / by,
    }
}

impl Gaps {
    /// How many low bits of the gap are plain.
    #[inline]
    pub(super) fn plain_bits(self) -> u32 {
        self.shift
    }

    /// The plain bits of `gap`.
    #[inline]
    pub(super) fn plain(self, gap: u32) -> u32 {
        gap & ((1 << self.shift) - 1)
    }

    #[inline]
    fn share(self, gap: u32) -> Share {
        self.law.shares[(gap >> self.shift).min(self.law.buckets) as usize]
    }

    /// Writes what is above the plain bits of `gap`.
    #[inline]
    pub(super) fn put(self, writer: &mut Writer, gap: u32) {
        writer.put(self.share(gap));
        self.put_more(writer, gap);
    }

    /// Likewise of four gaps, in two turns.
    #[inline]
    pub(super) fn put_four(self, writer: &mut Writer, gaps: [u32; 4]) {
        let [a, b, c, d] = gaps;
        writer.put_four([[self.share(a), self.share(b)], [self.share(c), self.share(d)]]);
        if gaps.iter().any(|gap| gap >> self.shift >= self.law.buckets) {
            gaps.iter().for_each(|&gap| self.put_more(writer, gap));
        }
    }

    /// What follows the first symbol of a gap.
    #[inline]
    fn put_more(self, writer: &mut Writer, mut gap: u32) {
        while gap >> self.shift >= self.law.buckets {
            gap -= self.law.buckets << self.shift;
            writer.put(self.share(gap));
        }
    }

    /// Reads a gap but for its plain bits, which are 0. It is not checked, but not much longer than `most`.
    #[inline(always)]
    pub(super) fn take(self, reader: &mut Reader, most: u32) -> u32 {
        let [state, _] = reader.states();
        let (seen, state) = self.see(state);
        reader.go_on(state);
        let gap = seen.bucket() << self.shift;
        if seen.is_more() {
            let more;
            (*reader, more) = self.taken_more(*reader, gap, most);
            return more;
        }
        gap
    }

    /// Likewise four gaps of two turns.
    #[inline(always)]
    pub(super) fn take_four(self, reader: &mut Reader, most: u32) -> [u32; 4] {
        let [one, two] = reader.states();
        let (a, one) = self.see(one);
        let (c, two) = self.see(two);
        let (b, one) = self.see(one);
        let (d, two) = self.see(two);
        reader.go_on_twice([one, two]);
        let gap = |seen: Seen| seen.bucket() << self.shift;
        let mut gaps = [gap(a), gap(b), gap(c), gap(d)];
        if a.is_more() | b.is_more() | c.is_more() | d.is_more() {
            for (gap, seen) in gaps.iter_mut().zip([a, b, c, d]) {
                if seen.is_more() {
                    (*reader, *gap) = self.taken_more(*reader, *gap, most);
                }
            }
        }
        gaps
    }

    /// `gap` and what follows its first symbol, and the reader behind that. Readers come and go by value, so
    /// that they stay in registers where nothing follows.
    #[cold]
    fn taken_more(self, mut reader: Reader, mut gap: u32, most: u32) -> (Reader, u32) {
        while gap <= most {
            let [state, _] = reader.states();
            let (seen, state) = self.see(state);
            reader.go_on(state);
            gap += seen.bucket() << self.shift;
            if !seen.is_more() {
                break;
            }
        }
        (reader, gap)
    }

    #[inline(always)]
    fn see(self, state: State) -> (Seen, State) {
        let slot = state.slot();
        let seen = self.law.seen[(slot / UNIT) as usize];
        (seen, state.behind(seen.units() * UNIT, seen.offset() * UNIT + slot % UNIT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_law_tells_every_value_as_it_is_written() {
        for law in LAWS.iter() {
            let mut end = 0;
            for symbol in 0..=law.buckets {
                let share = law.shares[symbol as usize];
                let seen = law.seen[(end / UNIT) as usize];
                assert_eq!(seen.bucket(), symbol);
                assert_eq!((seen.is_more(), seen.offset()), (symbol == law.buckets, 0));
                assert_eq!(share, Share::new(end, end + seen.units() * UNIT));
                end += seen.units() * UNIT;
            }
            assert_eq!(end, ALL);
            assert!((LEAST_BUCKETS as u32..=BUCKETS as u32).contains(&law.buckets));
        }
    }

    #[test]
    fn divided_divides() {
        for by in (1..200).chain([1024, 4096, 16_384]) {
            for value in (0..1 << 18).step_by(7).chain([by - 1, by, (1 << 18) - 1]) {
                assert_eq!(divided(value, by), value / by);
            }
        }
    }

    /// What gaps cost on average, against the entropy of the exact law C(free - g - 1, left - 1) / C(free, left).
    #[test]
    fn gaps_cost_their_entropy() {
        let units =
            |law: &Law, symbol: u32| (law.seen.iter().filter(|seen| seen.bucket() == symbol)).count() as f64;
        for free in [64u32, 200, 1000, 4096, 16_384] {
            for left in
                [2u32, 3, 4, 7, 8, 12, 30, 128, 1024, 2000].into_iter().filter(|left| 2 * left <= free)
            {
                let gaps = Laws::get().gaps(free, left);
                let cost: Vec<f64> =
                    (0..=gaps.law.buckets).map(|s| -(units(gaps.law, s) / f64::from(UNITS)).log2()).collect();
                let (mut chance, mut spent, mut entropy) = (f64::from(left) / f64::from(free), 0.0, 0.0);
                for gap in 0..=free - left {
                    let bucket = gap >> gaps.plain_bits();
                    let (more, last) = (bucket / gaps.law.buckets, bucket % gaps.law.buckets);
                    let bits = f64::from(more) * cost[gaps.law.buckets as usize] + cost[last as usize];
                    spent += chance * (bits + f64::from(gaps.plain_bits()));
                    if chance > 0.0 {
                        entropy -= chance * chance.log2();
                    }
                    chance *= f64::from(free - left - gap) / f64::from(free - gap - 1);
                }
                assert!(
                    spent > entropy - 1e-9 && spent < entropy + 0.03,
                    "{left} of {free}: {spent} for {entropy}"
                );
            }
        }
    }
}
