//! `swarm generate`: what was trained, used offline.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;

use super::using::{ModelArgs, SamplingArgs, pace};
use crate::inference::{Request, TooLong, answer};
use crate::store::read_limited;

/// Most bytes of a text that is continued: more than any context.
const MAX_PROMPT: u64 = 16 << 20;

/// Continue a text with the model in a node's folder: the personal one, or the shared one. Works offline,
/// also while the node is running (with its newest snapshot).
#[derive(Args)]
pub(super) struct Generate {
    #[command(flatten)]
    model: ModelArgs,

    /// The text to continue.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prompt: String,

    /// Continue the text in FILE instead; - is the standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,

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
        let text = match &self.prompt_file {
            Some(path) => read_text(path)?,
            None => self.prompt,
        };
        let mut opened = self.model.open()?;
        let mut prompt = Vec::new();
        if text.is_empty() {
            // A model has no other notion of a beginning.
            opened.tokenizer.end_document(&mut prompt)?;
        } else {
            opened.tokenizer.encode(&text, &mut prompt)?;
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
        let mut failed = out.write_all(text.as_bytes()).and_then(|()| out.flush()).err();
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

/// The text in a file, or on the standard input.
fn read_text(path: &Path) -> Result<String> {
    let bytes = if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        let stdin = std::io::stdin().lock();
        stdin.take(MAX_PROMPT + 1).read_to_end(&mut bytes).context("cannot read the standard input")?;
        ensure!(bytes.len() as u64 <= MAX_PROMPT, "the standard input has more than {MAX_PROMPT} bytes");
        bytes
    } else {
        read_limited(path, MAX_PROMPT)?
    };
    String::from_utf8(bytes).with_context(|| format!("--prompt-file {}: it is not text", path.display()))
}
