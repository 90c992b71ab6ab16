//! Continuing a prompt: the model predicts, a token is drawn, its text is handed on; until there is enough.
//!
//! # Stop sequences
//! A text that ends at a stop sequence must not contain its beginning either. So what could still become one is held
//! back until it is clear.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::sampling::{Dice, Sampling};
use crate::model::Sequence;
use crate::tokens::Tokenizer;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The tokens to continue, at least one.
    pub(crate) prompt: Vec<u32>,
    /// Write at most so many tokens.
    pub(crate) most: usize,
    /// End before any of these.
    pub(crate) stop: Vec<String>,
    /// How tokens are drawn.
    pub(crate) sampling: Sampling,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// At a stop sequence, or where the model says that it is over.
    Stop,
    /// It has as many tokens as were asked for.
    Length,
    /// Nobody wants more of it.
    Cancelled,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Why it ended.
    pub(crate) finish: Finish,
    /// Tokens written, with those of a stop sequence.
    pub(crate) tokens: usize,
    /// Time for the prompt.
    pub(crate) reading: Duration,
    /// Time for what was written.
    pub(crate) writing: Duration,
}

/// A prompt that does not fit.
#[derive(Debug, thiserror::Error)]
#[error("the prompt has {tokens} tokens, more than the model's context of {context}")]
pub(crate) struct TooLong {
    /// Tokens of the prompt.
    pub(crate) tokens: usize,
    /// Tokens that the model can look back at.
    pub(crate) context: usize,
}

/// Continues a prompt. `on_text` gets the text of each token, which may be empty, and says whether to go on. A text
/// that goes beyond the model's context is continued from the last half of it (see [`Sequence`]).
///
/// # Errors
/// [`TooLong`]; as [`Sampling::check`] and [`Sequence::set`]; logits that are not finite.
pub(crate) fn answer(
    sequence: &mut Sequence,
    tokenizer: &Tokenizer,
    request: &Request,
    mut on_text: impl FnMut(&str) -> bool,
) -> Result<Outcome> {
    let (tokens, context) = (request.prompt.len(), sequence.context());
    ensure!(tokens <= context, TooLong { tokens, context });
    let mut dice = Dice::new(request.sampling)?;
    let mut stream = tokenizer.stream();
    let mut held = Held::new(&request.stop);
    let began = Instant::now();
    let mut outcome =
        Outcome { finish: Finish::Length, tokens: 0, reading: Duration::ZERO, writing: Duration::ZERO };
    if request.most == 0 {
        return Ok(outcome);
    }
    let mut logits = sequence.set(&request.prompt)?;
    outcome.reading = began.elapsed();
    let began = Instant::now();
    // Tokens that the tokenizer does not have, if the model's vocabulary is larger, are never written.
    let written = tokenizer.vocabulary() as usize;
    loop {
        let token = dice.draw(logits.get(..written).unwrap_or(&logits))?;
        outcome.tokens += 1;
        if tokenizer.end() == Some(token) {
            outcome.finish = Finish::Stop;
            break;
        }
        let (text, stopped) = held.push(&stream.push(token)?);
        if !on_text(&text) {
            outcome.finish = Finish::Cancelled;
            break;
        }
        if stopped {
            outcome.finish = Finish::Stop;
            outcome.writing = began.elapsed();
            return Ok(outcome);
        }
        if outcome.tokens == request.most {
            break;
        }
        logits = sequence.push(token)?;
    }
    if outcome.finish != Finish::Cancelled {
        let (mut rest, stopped) = held.push(&stream.finish()?);
        if stopped {
            outcome.finish = Finish::Stop;
        } else {
            rest.push_str(&held.take());
        }
        if !rest.is_empty() {
            on_text(&rest);
        }
    }
    outcome.writing = began.elapsed();
    Ok(outcome)
}

/// The end of a text that could become a stop sequence.
#[derive(Debug)]
struct Held<'a> {
    stop: &'a [String],
    text: String,
}

impl<'a> Held<'a> {
    fn new(stop: &'a [String]) -> Self {
        Self { stop, text: String::new() }
    }

    /// Adds `more`; gives what can be given out, and whether a stop sequence follows it.
    fn push(&mut self, more: &str) -> (String, bool) {
        self.text.push_str(more);
        let found = self.stop.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| self.text.find(stop));
        if let Some(at) = found.min() {
            self.text.truncate(at);
            return (self.take(), true);
        }
        let kept = self.stop.iter().map(|stop| begun(&self.text, stop)).max().unwrap_or(0);
        let rest = self.text.split_off(self.text.len() - kept);
        (std::mem::replace(&mut self.text, rest), false)
    }

    fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }
}

/// Bytes of the longest beginning of `stop`, but not all of it, that `text` ends with.
fn begun(text: &str, stop: &str) -> usize {
    let lengths = stop.char_indices().map(|(at, _)| at).rev();
    lengths.into_iter().find(|&at| stop.get(..at).is_some_and(|part| text.ends_with(part))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Llama, Network, initial_parameters};
    use swarm_protocol::architecture::{LlamaConfig, Sizes};
    use tch::Device;

    fn sequence() -> Sequence {
        tch::set_num_threads(1);
        let arch: LlamaConfig =
            Sizes { vocabulary: 300, dim: 16, layers: 2, heads: 2, ffn: 20, context: 16 }.into();
        let mut model = Llama::new(&arch, Device::Cpu).unwrap();
        let values: Vec<f32> = initial_parameters(&arch, 3).iter().map(|value| 8.0 * value).collect();
        model.set_parameters(&values).unwrap();
        Sequence::new(model).unwrap()
    }

    fn request(prompt: &str, most: usize) -> Request {
        let mut tokens = Vec::new();
        Tokenizer::Bytes.encode(prompt, &mut tokens).unwrap();
        Request {
            prompt: tokens,
            most,
            stop: Vec::new(),
            sampling: Sampling { temperature: 1.0, ..Sampling::default() },
        }
    }

    fn written(request: &Request, enough: usize) -> (String, Outcome) {
        let mut text = String::new();
        let mut calls = 0;
        let outcome = answer(&mut sequence(), &Tokenizer::Bytes, request, |more| {
            text.push_str(more);
            calls += 1;
            calls < enough
        });
        (text, outcome.unwrap())
    }

    #[test]
    fn a_seed_gives_the_same_text_beyond_the_context_and_it_can_be_stopped() {
        let plain = request("bees", 40);
        let (text, outcome) = written(&plain, 100);
        assert_eq!((outcome.tokens, outcome.finish), (40, Finish::Length));
        assert_eq!(text, written(&plain, 100).0);
        let other = Request { sampling: Sampling { seed: 6, ..plain.sampling }, ..plain.clone() };
        assert_ne!(text, written(&other, 100).0);
        let (cut, outcome) = written(&plain, 5);
        assert_eq!((outcome.tokens, outcome.finish), (5, Finish::Cancelled));
        assert!(text.starts_with(&cut));
        let (nothing, outcome) = written(&request("bees", 0), 100);
        assert_eq!((nothing.as_str(), outcome.tokens), ("", 0));
    }

    #[test]
    fn a_prompt_beyond_the_context_is_refused_with_both_numbers() {
        let fits = request("0123456789abcdef", 1);
        assert_eq!(written(&fits, 9).1.tokens, 1);
        let long = request("0123456789abcdefg", 1);
        let error = answer(&mut sequence(), &Tokenizer::Bytes, &long, |_| true).unwrap_err();
        assert!(error.is::<TooLong>());
        assert!(error.to_string().contains("17 tokens, more than the model's context of 16"), "{error}");
    }

    #[test]
    fn a_text_ends_before_a_stop_sequence() {
        let plain = request("bees", 40);
        let (text, _) = written(&plain, 100);
        let characters: Vec<char> = text.chars().collect();
        let stop: String = characters[10..12].iter().collect();
        let first = text.find(&stop).unwrap();
        let stopping = Request { stop: vec!["never there".into(), stop], ..plain };
        let (cut, outcome) = written(&stopping, 100);
        assert_eq!((cut.as_str(), outcome.finish), (&text[..first], Finish::Stop));
        assert!(outcome.tokens < 40);
    }

    #[test]
    fn what_may_become_a_stop_sequence_is_held_back_and_nothing_is_lost() {
        let stop = vec!["\nUser:".to_owned(), "ENDE".to_owned()];
        let mut held = Held::new(&stop);
        assert_eq!(held.push("a\nU"), ("a".into(), false));
        assert_eq!(held.push("s"), (String::new(), false));
        assert_eq!(held.push("e\n"), ("\nUse".into(), false));
        assert_eq!(held.push("x EN"), ("\nx ".into(), false));
        assert_eq!(held.push("END"), ("EN".into(), false));
        assert_eq!(held.push("E and more"), (String::new(), true));
        let mut held = Held::new(&stop);
        assert_eq!(held.push("both ENDE\nUser: x"), ("both ".into(), true), "the earlier one counts");
        let mut held = Held::new(&stop);
        assert_eq!(held.push("over\nUser"), ("over".into(), false));
        assert_eq!(held.take(), "\nUser");
        assert_eq!(begun("ünü", "üb"), 2);
    }
}
