//! `swarm chat`: a conversation in the terminal.
//!
//! Two threads tell the conversation what happens: one reads lines, the other waits for Ctrl-C. So an answer can be
//! interrupted, and a question that is being typed, too.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context, Result};
use clap::Args;

use super::block_on;
use super::using::{ModelArgs, SamplingArgs, pace};
use crate::inference::talk::{self, Speaker, Trimmed, Turn};
use crate::inference::{Finish, Loaded, Request, TooLong, answer};

/// Longest line that is read.
const MAX_LINE: u64 = 1 << 20;
/// Lines that may wait while an answer is written.
const WAITING: usize = 64;
/// Turns that are remembered; the context holds far fewer.
const MAX_TURNS: usize = 1000;

/// Talk with the model in a node's folder: the personal one, or the shared one. Works offline, also while the node is
/// running. The conversation is given to the model as plain text, "User: ..." and "Assistant: ...", which works as
/// well as a model that was trained on plain text can: it is no trained assistant.
///
/// Ctrl-C stops an answer, twice ends; so does the end of the input (Ctrl-D). When the context is full, the oldest
/// turns are forgotten.
#[derive(Args)]
pub(super) struct Chat {
    #[command(flatten)]
    model: ModelArgs,

    /// What stands before the conversation.
    #[arg(long, value_name = "TEXT", default_value = "")]
    system: String,

    /// Most tokens of an answer; a token is a byte, unless the swarm has a tokenizer.
    #[arg(long, value_name = "N", default_value_t = 300)]
    tokens: usize,

    #[command(flatten)]
    sampling: SamplingArgs,
}

/// What happens.
enum Event {
    Line(String),
    /// Ctrl-C.
    Interrupt,
    /// Nothing more will be said.
    End,
}

/// What the signal thread knows.
#[derive(Default)]
struct Signals {
    /// Times that Ctrl-C was pressed.
    interrupts: AtomicU32,
    /// An answer is being written: Ctrl-C is meant for it.
    answering: AtomicBool,
}

impl Chat {
    pub(super) fn execute(self) -> Result<()> {
        self.model.prepare()?;
        self.sampling.sampling()?;
        let mut opened = self.model.open()?;
        eprintln!("{}; as plain text. Ctrl-C stops an answer, twice ends.", opened.about);
        let (events, signals) = listen()?;
        let asks = std::io::stdin().is_terminal();
        let mut turns: Vec<Turn> = Vec::new();
        let mut interrupted = false;
        loop {
            if asks {
                eprint!("> ");
            }
            let line = match events.recv() {
                Ok(Event::Line(line)) => line,
                Ok(Event::Interrupt) if !interrupted => {
                    interrupted = true;
                    eprintln!("\nCtrl-C once more ends");
                    continue;
                }
                Ok(Event::Interrupt | Event::End) | Err(_) => break,
            };
            interrupted = false;
            if line.trim().is_empty() {
                continue;
            }
            turns.push(Turn { speaker: Speaker::User, text: line });
            turns.drain(..turns.len().saturating_sub(MAX_TURNS));
            match self.reply(&mut opened, &turns, &signals) {
                Ok((text, finish)) => {
                    interrupted = finish == Finish::Cancelled;
                    turns.push(Turn { speaker: Speaker::Assistant, text });
                }
                Err(error) if error.is::<TooLong>() => {
                    eprintln!("{error}, with what stands before it: say it shorter");
                    turns.pop();
                }
                Err(error) => return Err(error),
            }
        }
        if asks {
            eprintln!();
        }
        Ok(())
    }

    /// Writes the answer to the last of these turns.
    fn reply(&self, opened: &mut Loaded, turns: &[Turn], signals: &Signals) -> Result<(String, Finish)> {
        let Loaded { sequence, tokenizer, .. } = opened;
        let (prompt, left_out) = talk::fitted(&self.system, turns, tokenizer, sequence.context())?;
        if left_out > 0 {
            eprintln!("(the context is full: {left_out} of {} turns are left out)", turns.len());
        }
        let mut sampling = self.sampling.sampling()?;
        // Another draw for every answer, and the same ones when the same is said again.
        sampling.seed = sampling.seed.wrapping_add(turns.len() as u64);
        let stop = talk::STOP.map(str::to_owned).to_vec();
        let request = Request { prompt, most: self.tokens, stop, sampling };
        let before = signals.interrupts.load(Ordering::SeqCst);
        signals.answering.store(true, Ordering::SeqCst);
        let (mut text, mut trimmed, mut failed) = (String::new(), Trimmed::default(), None);
        let mut out = std::io::stdout().lock();
        let outcome = answer(sequence, tokenizer, &request, |piece| {
            let piece = trimmed.push(piece);
            text.push_str(piece);
            failed = out.write_all(piece.as_bytes()).and_then(|()| out.flush()).err();
            failed.is_none() && signals.interrupts.load(Ordering::SeqCst) == before
        });
        signals.answering.store(false, Ordering::SeqCst);
        let outcome = outcome?;
        if let Some(error) = failed {
            return Err(error).context("cannot write the answer");
        }
        writeln!(out).context("cannot write the answer")?;
        eprintln!("{}", pace(&outcome));
        Ok((text, outcome.finish))
    }
}

/// Begins to read lines and to wait for Ctrl-C.
fn listen() -> Result<(Receiver<Event>, Arc<Signals>)> {
    let (tell, events) = sync_channel(WAITING);
    let signals = Arc::new(Signals::default());
    let (known, told) = (signals.clone(), tell.clone());
    let wait = move || {
        let ended = block_on(interrupts(|| {
            known.interrupts.fetch_add(1, Ordering::SeqCst);
            known.answering.load(Ordering::SeqCst) || told.send(Event::Interrupt).is_ok()
        }));
        if let Err(error) = ended {
            tracing::warn!("Ctrl-C ends everything at once: {error:#}");
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("no thread for signals")?;
    let read = move || read_lines(&mut std::io::stdin().lock(), &tell);
    std::thread::Builder::new().name("input".into()).spawn(read).context("no thread for the input")?;
    Ok((events, signals))
}

/// Calls `each` for every Ctrl-C, until it wants no more.
#[cfg(unix)]
async fn interrupts(mut each: impl FnMut() -> bool) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signals = signal(SignalKind::interrupt()).context("no way to hear of Ctrl-C")?;
    while signals.recv().await.is_some() && each() {}
    Ok(())
}

/// Calls `each` for every Ctrl-C, until it wants no more.
#[cfg(not(unix))]
async fn interrupts(mut each: impl FnMut() -> bool) -> Result<()> {
    loop {
        tokio::signal::ctrl_c().await.context("no way to hear of Ctrl-C")?;
        if !each() {
            return Ok(());
        }
    }
}

/// Passes on lines, until there are no more.
fn read_lines(input: &mut impl BufRead, tell: &SyncSender<Event>) {
    loop {
        let mut line = Vec::new();
        let event = match input.take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(length) if length > 0 => Event::Line(String::from_utf8_lossy(&line).into_owned()),
            _ => Event::End,
        };
        let end = matches!(event, Event::End);
        if tell.send(event).is_err() || end {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_one_by_one_and_a_long_one_in_parts() {
        let (tell, events) = sync_channel(9);
        let long = "x".repeat(MAX_LINE as usize + 3);
        read_lines(&mut format!("one\n\ntwo ü\n{long}").as_bytes(), &tell);
        let lengths: Vec<usize> = events
            .try_iter()
            .map(|event| match event {
                Event::Line(line) => line.len(),
                _ => 0,
            })
            .collect();
        assert_eq!(lengths, [4, 1, 7, MAX_LINE as usize, 3, 0]);
    }
}
