//! What is learned on the way: the probabilities of a few symbols, from how often each came before.
//!
//! Reader and writer count alike, so nothing about the probabilities has to be sent. They are renewed from the
//! counts after 4 symbols, 8, 16 and so on, and after every 128 from there on: in between they are constants, which
//! makes them cheap.

use super::rans::{ALL, Reader, Share, Writer};

/// What one symbol adds to its count. Counts at the beginning stand for what is expected, in this unit.
const SEEN: u32 = 16;
/// The longest time between two renewals, in symbols.
const PERIOD: u32 = 128;
/// Counts are halved when they reach this together: earlier symbols are slowly forgotten.
const MEMORY: u32 = SEEN << 16;

/// The least share of a symbol.
const LEAST: u32 = 8;
/// Bits that a symbol costs at most.
pub(super) const MOST_BITS: usize = (ALL / LEAST).ilog2() as usize;

/// The probabilities of `N` symbols.
#[derive(Clone, Debug)]
pub(super) struct Adaptive<const N: usize> {
    counts: [u32; N],
    /// Where each begins in `0 .. ALL`; the first at 0.
    starts: [i16; N],
    until_renewal: u32,
    period: u32,
}

impl<const N: usize> Adaptive<N> {
    /// Begins with these counts, none of them 0.
    pub(super) fn new(counts: [u32; N]) -> Self {
        let mut model = Self { counts, starts: [0; N], until_renewal: 0, period: 2 };
        model.renew();
        model
    }

    #[cold]
    fn renew(&mut self) {
        let mut total: u32 = self.counts.iter().sum();
        if total >= MEMORY {
            self.counts.iter_mut().for_each(|count| *count = count.div_ceil(2));
            total = self.counts.iter().sum();
        }
        // Every symbol gets the least, and of the rest what it is worth.
        let share = (u64::from(ALL - LEAST * N as u32) << 32) / u64::from(total);
        let mut below = 0;
        for (symbol, (start, count)) in self.starts.iter_mut().zip(self.counts).enumerate() {
            *start = (LEAST as usize * symbol) as i16 + ((u64::from(below) * share) >> 32) as i16;
            below += count;
        }
        self.period = PERIOD.min(2 * self.period);
        self.until_renewal = self.period;
    }

    #[inline]
    fn learn(&mut self, symbol: usize) {
        self.counts[symbol] += SEEN;
        self.until_renewal -= 1;
        if self.until_renewal == 0 {
            self.renew();
        }
    }

    #[inline(always)]
    fn range(&self, symbol: usize) -> (u32, u32) {
        let end = self.starts.get(symbol + 1).map_or(ALL, |&end| end as u32);
        (self.starts[symbol] as u32, end)
    }

    /// Writes `symbol`, which is below `N`.
    #[inline]
    pub(super) fn put(&mut self, writer: &mut Writer, symbol: usize) {
        let (start, end) = self.range(symbol);
        writer.put(Share::new(start, end));
        self.learn(symbol);
    }

    /// Reads a symbol.
    #[inline(always)]
    pub(super) fn take(&mut self, reader: &mut Reader) -> usize {
        let [state, _] = reader.states();
        let slot = state.slot();
        // The first is by far the likeliest almost everywhere. Otherwise all at once, in lanes of 16 bits.
        let symbol = if slot < self.range(0).1 {
            0
        } else {
            let begun =
                self.starts.iter().fold(0, |begun: i16, &start| begun + i16::from(start <= slot as i16));
            (begun as usize).wrapping_sub(1) % N
        };
        let (start, end) = self.range(symbol);
        reader.go_on(state.behind(end - start, slot - start));
        self.learn(symbol);
        symbol
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The symbols of `order`: the first comes every second time on average, the second every fourth, and so on.
    fn symbols(count: usize, order: [usize; 4]) -> Vec<usize> {
        let mut state = 1u64;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                order[((state >> 61) as u32).trailing_zeros().min(3) as usize]
            })
            .collect()
    }

    /// Bits that `symbols` cost, which come back.
    fn bits(symbols: &[usize]) -> f64 {
        let (mut writer, mut model) = (Writer::default(), Adaptive::<5>::new([16; 5]));
        symbols.iter().for_each(|&symbol| model.put(&mut writer, symbol));
        let mut bytes = Vec::new();
        writer.finish(&mut bytes);
        let (mut reader, mut model) = (Reader::new(&bytes).unwrap(), Adaptive::<5>::new([16; 5]));
        assert!(symbols.iter().all(|&symbol| model.take(&mut reader) == symbol));
        assert!(reader.is_exact());
        8.0 * bytes.len() as f64
    }

    #[test]
    fn what_comes_often_gets_cheap() {
        // Their entropy is 7/4 bits.
        let each = bits(&symbols(60_000, [0, 1, 2, 3])) / 60_000.0;
        assert!((each - 1.75).abs() < 0.02, "{each}");
    }

    /// After long enough, symbols cost what they are worth now, whatever came before.
    #[test]
    fn what_was_long_ago_is_forgotten() {
        let sent = [symbols(60_000, [0, 1, 2, 3]), symbols(220_000, [3, 2, 0, 1])].concat();
        let each = (bits(&sent) - bits(&sent[..240_000])) / 40_000.0;
        assert!((each - 1.75).abs() < 0.02, "{each}");
    }

    #[test]
    fn every_symbol_keeps_a_share() {
        let mut model = Adaptive::<16>::new([1; 16]);
        let mut writer = Writer::default();
        (0..200_000).for_each(|_| model.put(&mut writer, 7));
        for symbol in 0..16 {
            let (start, end) = model.range(symbol);
            assert!(end - start >= LEAST, "{symbol}: {start} .. {end}");
        }
        assert!(model.counts.iter().sum::<u32>() < MEMORY + SEEN * PERIOD);
    }
}
