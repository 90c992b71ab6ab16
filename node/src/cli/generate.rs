//! `swarm generate`: what was trained, used offline.

use std::io::Write;

use anyhow::{Context, Result, anyhow};
use clap::Args;

use super::using::{ModelArgs, SamplingArgs, pace};
use crate::inference::{Request, TooLong, answer};

/// Continue a text with the model in a node's folder: the personal one, or the shared one. Works offline,
/// also while the node is running (with its newest snapshot).
#[derive(Args)]
pub(super) struct Generate {
    #[command(flatten)]
    model: ModelArgs,

    /// The text to continue.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prompt: String,

    /// Of a text that is longer than the model's context, continue the end. Without this it is refused.
    #[arg(long)]
    truncate: bool,

    /// Tokens to write; a token is a byte, unless the swarm has a tokenizer.
    #[arg(long, value_name = "N", default_value_t = 300, alias = "bytes")]
    tokens: usize,

    #[command(flatten)]
    sampling: SamplingArgs,

    /// End before this text. May be repeated.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

impl Generate {
    pub(super) fn execute(self) -> Result<()> {
        self.model.prepare()?;
        let sampling = self.sampling.sampling()?;
        let mut opened = self.model.open()?;
        let mut prompt = Vec::new();
        if self.prompt.is_empty() {
            // A model has no other notion of a beginning.
            opened.tokenizer.end_document(&mut prompt)?;
        } else {
            opened.tokenizer.encode(&self.prompt, &mut prompt)?;
        }
        let context = opened.sequence.context();
        if self.truncate && prompt.len() > context {
            eprintln!("the prompt has {} tokens; the last {context} are continued", prompt.len());
            prompt.drain(..prompt.len() - context);
        }
        if prompt.len() > context {
            let long = TooLong { tokens: prompt.len(), context };
            return Err(anyhow!("{long}: shorten it, or add --truncate to continue the end of it"));
        }
        let request = Request { prompt, most: self.tokens, stop: self.stop, sampling };
        let mut out = std::io::stdout().lock();
        let mut failed = out.write_all(self.prompt.as_bytes()).err();
        let outcome = answer(&mut opened.sequence, &opened.tokenizer, &request, |text| {
            failed = out.write_all(text.as_bytes()).and_then(|()| out.flush()).err();
            failed.is_none()
        })?;
        match failed {
            // Whoever read this has seen enough.
            Some(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Some(error) => return Err(error).context("cannot write the text"),
            None => writeln!(out).context("cannot write the text")?,
        }
        if outcome.tokens > 0 {
            eprintln!("{}", pace(&outcome));
        }
        Ok(())
    }
}
