//! All text of some files once, in order: to train a tokenizer on, or to measure a model with.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use anyhow::{Context, Result, anyhow};

use super::collect::{Unreadable, collect};
use super::documents::{Sink, Span, read};
use super::format::{Content, Format};
use crate::tokens::Tokenizer;

/// Pieces that wait to be taken.
const QUEUE: usize = 16;
/// More files than this are a mistake.
const MAX_FILES: usize = 100_000;

/// The text of all files below `paths`, piece by piece, of any format but token ids. It is read on a thread of its
/// own, which ends when the pieces are dropped. Files in folders that cannot be read are passed over with a warning.
///
/// # Errors
/// Paths that are not there. The iterator's: a named file that cannot be used.
pub(crate) fn text_pieces(
    paths: &[PathBuf],
    field: String,
) -> Result<impl Iterator<Item = Result<String>> + Send + use<>> {
    let found = collect(paths, MAX_FILES)?;
    if let Some(first) = &found.unreadable.first {
        tracing::warn!("{} could not be read, the first: {first}", found.unreadable.count);
    }
    let (pieces, taken) = sync_channel(QUEUE);
    let run = move || {
        for file in found.files {
            let format = Format::of(&file.path, false);
            let span = Span { path: &file.path, format, field: &field, from: 0, until: u64::MAX };
            let mut sink = Pieces { pieces: &pieces, text: Vec::new(), gone: false };
            let mut bad = Unreadable::default();
            let done = read(span, &mut sink, &mut bad);
            if sink.gone {
                return;
            }
            match done {
                Ok(_) => {}
                Err(error) if file.named => {
                    let _ = pieces.send(Err(error.context(format!("{}", file.path.display()))));
                    return;
                }
                Err(error) => tracing::warn!("{}: {error:#}", file.path.display()),
            }
            if let Some(first) = bad.first {
                tracing::warn!(
                    "{}: {} lines or rows without text, the first: {first}",
                    file.path.display(),
                    bad.count
                );
            }
        }
    };
    std::thread::Builder::new().name("data".into()).spawn(run).context("no thread for reading")?;
    Ok(taken.into_iter())
}

/// Hands text on, in pieces that are whole characters.
struct Pieces<'a> {
    pieces: &'a SyncSender<Result<String>>,
    text: Vec<u8>,
    /// Nobody takes them any more.
    gone: bool,
}

impl Pieces<'_> {
    fn send(&mut self, length: usize) -> Result<()> {
        let piece: Vec<u8> = self.text.drain(..length).collect();
        self.pieces.send(Ok(String::from_utf8_lossy(&piece).into_owned())).map_err(|_| {
            self.gone = true;
            anyhow!("nobody takes the text")
        })
    }
}

impl Sink for Pieces<'_> {
    fn text(&mut self, bytes: &[u8]) -> Result<()> {
        const PIECE: usize = 64 << 10;
        for part in bytes.chunks(PIECE) {
            self.text.extend_from_slice(part);
            if self.text.len() >= PIECE {
                let end =
                    self.text.iter().rposition(|byte| *byte == b'\n').map_or(self.text.len(), |at| at + 1);
                let end = if end < self.text.len() { end } else { super::cache::piece_end(&self.text) };
                self.send(end)?;
            }
        }
        Ok(())
    }

    fn end_document(&mut self) -> Result<()> {
        if self.text.is_empty() { Ok(()) } else { self.send(self.text.len()) }
    }
}

/// The first tokens of a file, at most `limit` of them.
///
/// # Errors
/// A file that cannot be used; the text names it.
pub(crate) fn encode_file(path: &Path, tokenizer: &Tokenizer, field: &str, limit: usize) -> Result<Vec<u32>> {
    let failed = || format!("{}", path.display());
    let format = Format::of(path, false);
    if format.content == Content::Text && matches!(tokenizer, Tokenizer::Bytes) {
        // Any bytes will do.
        use std::io::Read;
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(limit as u64).read_to_end(&mut bytes))
            .with_context(failed)?;
        return Ok(bytes.into_iter().map(u32::from).collect());
    }
    let mut tokens = Vec::new();
    for piece in text_pieces(&[path.to_owned()], field.to_owned())? {
        tokenizer.encode(&piece?, &mut tokens).with_context(failed)?;
        if tokens.len() >= limit {
            tokens.truncate(limit);
            break;
        }
    }
    Ok(tokens)
}
