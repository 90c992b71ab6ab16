//! Where training examples come from, and those that a model is measured on.
//!
//! A learner does not know what its data are. It draws batches from [`Examples`], which keep a part of what they
//! have back: a [`TestSet`], like any other that a model is measured on.

use std::fmt::Debug;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use super::{Corpus, Sampler};
use crate::model::Batch;

/// Examples that are measured on and never trained on.
pub(crate) trait TestSet: Debug + Send {
    /// Number of examples that do not overlap.
    fn len(&self) -> u64;

    /// The examples `which` of `count` that are evenly spaced over all there are. `count` is at most
    /// [`TestSet::len`]; the same `count` gives the same examples, as long as the data stay as they are.
    ///
    /// # Errors
    /// Data that can no longer be read.
    fn read(&self, which: Range<u64>, count: u64) -> Result<Batch>;

    /// How many examples take about the place of a window of text where so many windows are to be measured.
    fn examples_a_window(&self) -> u64 {
        1
    }

    /// What there is, in words, such as `1000 tokens`.
    fn amount(&self) -> String;
}

/// Examples to train on; as a [`TestSet`], those that are held out of training.
pub(crate) trait Examples: TestSet {
    /// Draws a batch of `count`, on the CPU.
    ///
    /// # Errors
    /// Data that can no longer be read.
    fn draw(&mut self, sampler: &mut Sampler, count: usize) -> Result<Batch>;

    /// What is held out.
    fn as_test_set(&self) -> &dyn TestSet;

    /// Targets of an example: tokens of a text, one of a picture.
    fn targets(&self) -> u64;

    /// Reads that failed since the data were opened.
    fn failed_reads(&self) -> u64;
}

/// Whether the example of this name is among the share that is held out of training. It follows from the name alone,
/// so it stays as it is when a node starts again and when examples are added.
///
/// # Errors
/// A share that is none.
pub(super) fn is_held_out(name: &str, share: f64) -> Result<bool> {
    ensure!(
        share > 0.0 && share < 1.0,
        "the held-out share is {share}: it must be more than 0 and less than 1"
    );
    let hash = blake3::hash(name.as_bytes());
    // Of the range of a u64; what the multiplication loses does not matter.
    let limit = (share * u64::MAX as f64) as u64;
    Ok(hash.as_bytes().first_chunk().is_some_and(|first| u64::from_le_bytes(*first) < limit))
}

/// Windows of the user's text.
#[derive(Debug)]
pub(crate) struct TextExamples {
    corpus: Corpus,
    /// Tokens of a window's input; the window is one longer.
    context: usize,
    /// Memory for a batch.
    windows: Vec<u32>,
}

impl TextExamples {
    /// Windows of `context` tokens and their targets.
    pub(crate) fn new(corpus: Corpus, context: usize) -> Self {
        Self { corpus, context, windows: Vec::new() }
    }
}

/// Tokens of windows as i64 `[windows, width]`.
fn windows(tokens: &[u32], width: usize) -> Result<Batch> {
    let tokens: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
    Batch::of_windows(&Tensor::f_from_slice(&tokens)?.f_view([-1, width as i64])?)
}

impl TestSet for TextExamples {
    fn len(&self) -> u64 {
        self.corpus.held_out_tokens() / (self.context as u64 + 1)
    }

    fn read(&self, which: Range<u64>, count: u64) -> Result<Batch> {
        let width = self.context + 1;
        let mut tokens = vec![0; which.clone().count() * width];
        for (number, window) in which.zip(tokens.chunks_exact_mut(width)) {
            let start = evenly_spaced(number, count, self.corpus.held_out_tokens(), width as u64);
            self.corpus.read_held_out(start, window)?;
        }
        windows(&tokens, width)
    }

    fn amount(&self) -> String {
        format!("{} tokens held out", self.corpus.held_out_tokens())
    }
}

impl Examples for TextExamples {
    fn draw(&mut self, sampler: &mut Sampler, count: usize) -> Result<Batch> {
        let width = self.context + 1;
        let length = count.checked_mul(width).context("the batch size is too large")?;
        self.windows.try_reserve_exact(length.saturating_sub(self.windows.len()))?;
        self.windows.resize(length, 0);
        for window in self.windows.chunks_exact_mut(width) {
            self.corpus.sample(sampler, window)?;
        }
        windows(&self.windows, width)
    }

    fn as_test_set(&self) -> &dyn TestSet {
        self
    }

    fn targets(&self) -> u64 {
        self.context as u64
    }

    fn failed_reads(&self) -> u64 {
        self.corpus.failed_reads()
    }
}

/// A text in memory.
#[derive(Debug)]
pub(crate) struct Text {
    tokens: Vec<u32>,
    context: usize,
}

impl Text {
    /// Windows of `context` tokens and their targets.
    ///
    /// # Errors
    /// Less than one window.
    pub(crate) fn new(tokens: Vec<u32>, context: usize) -> Result<Self> {
        let window = context + 1;
        ensure!(
            tokens.len() >= window,
            "{} tokens are less than one window of the model ({window} tokens)",
            tokens.len()
        );
        Ok(Self { tokens, context })
    }
}

impl Text {
    /// The same of bytes, each a token.
    ///
    /// # Errors
    /// As [`Text::new`].
    pub(crate) fn of_bytes(bytes: &[u8], context: usize) -> Result<Self> {
        Self::new(bytes.iter().map(|byte| u32::from(*byte)).collect(), context)
    }
}

impl TestSet for Text {
    fn len(&self) -> u64 {
        (self.tokens.len() / (self.context + 1)) as u64
    }

    fn read(&self, which: Range<u64>, count: u64) -> Result<Batch> {
        let width = self.context + 1;
        let mut tokens = Vec::with_capacity(which.clone().count() * width);
        for number in which {
            let start = evenly_spaced(number, count, self.tokens.len() as u64, width as u64) as usize;
            let window = self.tokens.get(start..start + width);
            tokens.extend_from_slice(window.context("a window reaches beyond the text")?);
        }
        windows(&tokens, width)
    }

    fn amount(&self) -> String {
        format!("{} tokens", self.tokens.len())
    }
}

/// Start of window `number` of `count` in `0..length`, each `width` long and all as far apart as possible. They do
/// not overlap if `count` is at most `length / width`.
fn evenly_spaced(number: u64, count: u64, length: u64, width: u64) -> u64 {
    let slack = length.saturating_sub(width);
    let position = u128::from(number) * u128::from(slack) / u128::from(count.saturating_sub(1).max(1));
    // At most `slack` for a number below the count.
    position as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_evenly_spaced_and_do_not_overlap() {
        for (length, width, max) in [(1000, 129, 100), (129, 129, 5), (1_000_003, 17, 64), (258, 129, 1)] {
            let count = (length / width).min(max);
            let starts: Vec<u64> = (0..count).map(|i| evenly_spaced(i, count, length, width)).collect();
            assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= width), "{starts:?}");
            assert!(starts.iter().all(|start| start + width <= length));
        }
    }

    #[test]
    fn a_text_gives_windows_with_their_targets() {
        let text = Text::new((0..30).collect(), 9).unwrap();
        assert_eq!(text.len(), 3);
        let batch = text.read(1..3, 3).unwrap();
        assert_eq!((batch.inputs.size(), batch.len()), (vec![2, 9], 2));
        assert_eq!(batch.inputs.int64_value(&[0, 0]), 10);
        assert_eq!(batch.targets.int64_value(&[1, 8]), 29);
        let error = Text::new(vec![0; 9], 9).unwrap_err().to_string();
        assert!(error.contains("9 tokens are less than one window"), "{error}");
    }
}
