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

/// The probabilities of `N` symbols.
#[derive(Clone, Debug)]
pub(super) struct Adaptive<const N: usize> {
    counts: [u32; N],
    /// Where each begins in `0 .. ALL`; the first at 0.
    starts: [u16; N],
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
        // Every symbol gets one value, and of the rest what it is worth.
        let share = (u64::from(ALL - N as u32) << 32) / u64::from(total);
        let mut below = 0;
        for (symbol, (start, count)) in self.starts.iter_mut().zip(self.counts).enumerate() {
            *start = symbol as u16 + ((u64::from(below) * share) >> 32) as u16;
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

    fn end(&self, symbol: usize) -> u32 {
        self.starts.get(symbol + 1).map_or(ALL, |&end| u32::from(end))
    }

    /// Writes `symbol`, which is below `N`.
    #[inline]
    pub(super) fn put(&mut self, writer: &mut Writer, symbol: usize) {
        writer.put(Share::new(u32::from(self.starts[symbol]), self.end(symbol)));
        self.learn(symbol);
    }

    /// Reads a symbol.
    #[inline]
    pub(super) fn take(&mut self, reader: &mut Reader) -> usize {
        let slot = reader.peek();
        // The first is by far the likeliest almost everywhere.
        let symbol = if slot < self.end(0) {
            0
        } else {
            self.starts.iter().map(|&start| usize::from(u32::from(start) <= slot)).sum::<usize>() - 1
        };
        let start = u32::from(self.starts[symbol]);
        reader.skip(self.end(symbol) - start, slot - start);
        self.learn(symbol);
        symbol
    }
}
