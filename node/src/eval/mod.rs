//! Measuring a language model on a text: every token of it, once.
//!
//! The text is cut into windows as long as the model's context that do not overlap but for one token: the last one of a
//! window is the first input of the next. So every token but the first of a file is predicted exactly once, from the
//! tokens of its window before it. (Tokens early in a window are predicted from little; a measure that slides on token by
//! token would come out lower, and take as many passes as a window has tokens.)
//!
//! - *Loss*: mean of -ln p over the predicted tokens, in nats a token.
//! - *Perplexity*: e to the loss; between how many tokens the model is undecided.
//! - *Bits a byte*: all nats in bits, divided by the bytes of the text that was predicted. It alone compares models with
//!   different tokenizers.
//!
//! [`text`] reads what is measured on.

pub(crate) mod set;
pub(crate) mod text;

use std::f64::consts::LN_2;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tch::Tensor;

use crate::model::{Batch, Network};

/// Windows that go through a model at once.
const AT_ONCE: usize = 8;

/// A part of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its tokens.
    pub(crate) tokens: Vec<u32>,
    /// What they stand for.
    pub(crate) bytes: u64,
    /// It is the beginning of a file: nothing before it tells anything of it.
    pub(crate) begins: bool,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Measured {
    /// Nats a token.
    pub(crate) loss: f64,
    /// e to the loss.
    pub(crate) perplexity: f64,
    /// Of the text that was predicted.
    pub(crate) bits_per_byte: f64,
    /// Tokens that were predicted.
    pub(crate) tokens: u64,
    /// Bytes that they stand for.
    pub(crate) bytes: u64,
}

/// Measures `model` with windows of `context` inputs. `go_on` is told the bytes read so far, and says whether to.
///
/// # Errors
/// Text that cannot be read, or of less than two tokens; tokens that the model does not have; a failure of the device;
/// `go_on` did not want to.
pub(crate) fn measure(
    model: &dyn Network,
    context: usize,
    text: impl Iterator<Item = Result<Piece>>,
    mut go_on: impl FnMut(u64) -> bool,
) -> Result<Measured> {
    let mut sum = Sum { model, width: context + 1, waiting: Vec::new(), nats: 0.0, tokens: 0 };
    let (mut bytes, mut read) = (0, 0);
    for piece in text {
        let piece = piece?;
        if piece.begins {
            sum.finish()?;
        }
        if sum.waiting.is_empty() && !piece.tokens.is_empty() {
            // The first token is not predicted, so its bytes (as many as those of others on average) do not count.
            bytes += piece.bytes.saturating_sub(piece.bytes.div_ceil(piece.tokens.len() as u64));
        } else {
            bytes += piece.bytes;
        }
        read += piece.bytes;
        sum.waiting.extend(piece.tokens.iter().copied().map(i64::from));
        while sum.waiting.len() > AT_ONCE * context {
            sum.windows(AT_ONCE)?;
            if !go_on(read) {
                bail!("stopped before there was a result");
            }
        }
    }
    sum.finish()?;
    let Sum { nats, tokens, .. } = sum;
    ensure!(tokens > 0, "there is nothing to measure on: at least two tokens of text are needed");
    let loss = nats / tokens as f64;
    Ok(Measured {
        loss,
        perplexity: loss.exp(),
        bits_per_byte: nats / LN_2 / bytes.max(1) as f64,
        tokens,
        bytes,
    })
}

/// A measurement under way.
struct Sum<'a> {
    model: &'a dyn Network,
    /// Tokens of a window: one more than the context.
    width: usize,
    /// Tokens that come next; the first is only an input.
    waiting: Vec<i64>,
    nats: f64,
    tokens: u64,
}

impl Sum<'_> {
    /// Measures the next `count` whole windows at once.
    fn windows(&mut self, count: usize) -> Result<()> {
        let step = self.width - 1;
        let mut all = Vec::with_capacity(count * self.width);
        for number in 0..count {
            let window = self.waiting.get(number * step..number * step + self.width);
            all.extend_from_slice(window.context("a window reaches beyond the text")?);
        }
        self.add(&all, count)?;
        self.waiting.drain(..count * step);
        Ok(())
    }

    /// Measures what is left, and begins anew.
    fn finish(&mut self) -> Result<()> {
        while self.waiting.len() >= self.width {
            self.windows(((self.waiting.len() - 1) / (self.width - 1)).min(AT_ONCE))?;
        }
        let rest = std::mem::take(&mut self.waiting);
        if rest.len() >= 2 {
            self.add(&rest, 1)?;
        }
        Ok(())
    }

    fn add(&mut self, tokens: &[i64], count: usize) -> Result<()> {
        let windows = Tensor::f_from_slice(tokens)?.f_view([count as i64, -1])?;
        let batch = Batch::of_windows(&windows)?.part(0, count, self.model.device())?;
        let mean = tch::no_grad(|| self.model.loss(&batch))?.f_double_value(&[])?;
        let predicted = tokens.len() - count;
        self.nats += mean * predicted as f64;
        self.tokens += predicted as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Llama, initial_parameters};
    use swarm_protocol::architecture::{LlamaConfig, Sizes};
    use tch::Device;

    const CONTEXT: usize = 8;

    fn model() -> Llama {
        tch::set_num_threads(1);
        let context = CONTEXT as u32;
        let arch: LlamaConfig =
            Sizes { vocabulary: 256, dim: 16, layers: 2, heads: 2, ffn: 20, context }.into();
        let mut model = Llama::new(&arch, Device::Cpu).unwrap();
        let values: Vec<f32> = initial_parameters(&arch, 3).iter().map(|value| 8.0 * value).collect();
        model.set_parameters(&values).unwrap();
        model
    }

    fn pieces(parts: &[(&[u8], bool)]) -> Vec<Result<Piece>> {
        let piece = |(bytes, begins): &(&[u8], bool)| Piece {
            tokens: bytes.iter().map(|&byte| byte.into()).collect(),
            bytes: bytes.len() as u64,
            begins: *begins,
        };
        parts.iter().map(piece).map(Ok).collect()
    }

    /// Nats of the bytes `from..` of a text of at most a context and one.
    fn nats(model: &Llama, text: &[u8]) -> f64 {
        let tokens: Vec<i64> = text.iter().map(|&byte| byte.into()).collect();
        let batch = Batch::of_windows(&Tensor::from_slice(&tokens).view([1, -1])).unwrap();
        model.loss(&batch).unwrap().double_value(&[]) * (text.len() - 1) as f64
    }

    #[test]
    fn every_byte_but_the_first_of_a_file_counts_once() {
        let model = model();
        let text: Vec<u8> = (0..150u32).map(|i| (i * i * 31 + i) as u8).collect();
        // By hand, a window at a time.
        let mut expected = 0.0;
        for start in (0..text.len() - 1).step_by(CONTEXT) {
            expected += nats(&model, &text[start..text.len().min(start + CONTEXT + 1)]);
        }
        let (head, tail) = text.split_at(70);
        for parts in [vec![(&text[..], true)], vec![(head, true), (tail, false)]] {
            let measured = measure(&model, CONTEXT, pieces(&parts).into_iter(), |_| true).unwrap();
            assert_eq!((measured.tokens, measured.bytes), (149, 149));
            assert!((measured.loss - expected / 149.0).abs() < 1e-5, "{measured:?} {expected}");
            assert!((measured.bits_per_byte - measured.loss / LN_2).abs() < 1e-12);
            assert!((measured.perplexity - measured.loss.exp()).abs() < 1e-12);
        }
        // As two files nothing of the first tells anything of the second.
        let two = measure(&model, CONTEXT, pieces(&[(head, true), (tail, true)]).into_iter(), |_| true);
        let two = two.unwrap();
        assert_eq!(two.tokens, 148);
        let alone = |part| measure(&model, CONTEXT, pieces(&[(part, true)]).into_iter(), |_| true).unwrap();
        let sum = alone(head).loss * 69.0 + alone(tail).loss * 79.0;
        assert!((two.loss - sum / 148.0).abs() < 1e-5);
    }

    #[test]
    fn too_little_text_a_failed_read_and_a_stop_are_said() {
        let model = model();
        let run = |text: Vec<Result<Piece>>, go_on: bool| {
            measure(&model, CONTEXT, text.into_iter(), |_| go_on).unwrap_err().to_string()
        };
        assert!(run(pieces(&[]), true).contains("at least two tokens"));
        assert!(run(pieces(&[(b"a", true), (b"b", true)]), true).contains("at least two tokens"));
        let mut failing = pieces(&[(b"abc", true)]);
        failing.push(Err(anyhow::anyhow!("the disk is gone")));
        assert!(run(failing, true).contains("the disk is gone"));
        assert!(run(pieces(&[(&[7; 400], true)]), false).contains("stopped"));
    }
}
