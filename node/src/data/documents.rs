//! Reading a file's documents as a stream, whatever the file is.
//!
//! Nothing is ever read whole: text comes in blocks, JSON a line at a time, Parquet a few rows at a time, and what is
//! packed is unpacked on the way. So memory does not depend on the length of a file, of its documents, or of what a
//! packed file turns out to hold; what that takes on disk is bounded where it is written ([`super::cache`]). A line
//! longer than [`MAX_LINE`] is skipped and counted. Of Parquet one page is in memory at a time, which its writer
//! makes as large as it likes (1 MB usually, 2 GB at most).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::collect::Unreadable;
use super::format::{Content, Format, Packing};
use super::{jsonl, table};

/// Bytes of text handed on at once.
const BLOCK: usize = 64 << 10;
/// Bytes of a file that decide whether it is binary.
const PROBE: usize = 1024;
/// A line of JSON with more bytes is not read.
pub(super) const MAX_LINE: usize = 16 << 20;

/// Who takes what is read.
pub(super) trait Sink {
    /// More bytes of the current document.
    fn text(&mut self, bytes: &[u8]) -> Result<()>;
    /// The current document is complete.
    fn end_document(&mut self) -> Result<()>;
}

/// What is read of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    pub(super) path: &'a Path,
    pub(super) format: Format,
    /// The field or column of the text.
    pub(super) field: &'a str,
    /// From this byte on; 0 unless the format grows.
    pub(super) from: u64,
    /// Up to this byte; of lines, to the end of the line that it is in.
    pub(super) until: u64,
}

/// What became of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is not text.
    Binary,
    /// It was read up to this byte.
    Done(u64),
}

/// Hands the documents of a file on. Lines and rows without text are counted in `bad`.
///
/// # Errors
/// In words for the user, without the file's name: it cannot be read, is damaged, or has no text where it should be;
/// and whatever `sink` fails with.
pub(super) fn read(span: Span<'_>, sink: &mut dyn Sink, bad: &mut Unreadable) -> Result<Outcome> {
    if span.format.content == Content::Parquet {
        ensure!(
            span.format.packing == Packing::None,
            "a Parquet file is packed inside: unpack it first (gunzip or unzstd)"
        );
        table::read(span.path, span.field, sink, bad)?;
        return Ok(Outcome::Done(span.until));
    }
    let mut file = File::open(span.path)?;
    file.seek(SeekFrom::Start(span.from))?;
    let file = BufReader::with_capacity(BLOCK, file);
    let what = match span.format.packing {
        Packing::None => "",
        Packing::Gzip => "it is damaged, or no gzip file: make it again (gzip)",
        Packing::Zstd => "it is damaged, or no zstd file: make it again (zstd)",
    };
    let mut unpacked: Box<dyn BufRead> = match span.format.packing {
        Packing::None => Box::new(file),
        Packing::Gzip => {
            Box::new(BufReader::with_capacity(BLOCK, flate2::bufread::MultiGzDecoder::new(file)))
        }
        Packing::Zstd => Box::new(BufReader::with_capacity(BLOCK, zstd::stream::Decoder::with_buffer(file)?)),
    };
    // The sink's own troubles are not the file's.
    let mut source = Source { inner: &mut *unpacked, failed: false };
    let packed = span.format.packing != Packing::None;
    let limit = if packed { u64::MAX } else { span.until.saturating_sub(span.from) };
    let done = match span.format.content {
        Content::Jsonl => jsonl::read(&mut source, limit, span.field, sink, bad).map(Some),
        _ => blocks(&mut source, limit, span.format.content == Content::Text && span.from == 0, sink),
    };
    let failed = source.failed;
    let done = if failed && packed { done.context(what)? } else { done? };
    Ok(match done {
        None => Outcome::Binary,
        Some(_) if packed => Outcome::Done(span.until),
        Some(read) => Outcome::Done(span.from + read),
    })
}

/// Notes that the file is what failed.
struct Source<'a> {
    inner: &'a mut dyn BufRead,
    failed: bool,
}

impl Read for Source<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.inner.read(out).inspect_err(|_| self.failed = true)
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf().inspect_err(|_| self.failed = true)
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
    }
}

/// All of it is one document. `None`: it is binary.
fn blocks(source: &mut dyn Read, limit: u64, probe: bool, sink: &mut dyn Sink) -> Result<Option<u64>> {
    let mut source = source.take(limit);
    let mut block = Vec::with_capacity(BLOCK);
    let mut total = 0;
    loop {
        block.clear();
        source.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        if total == 0 && probe && content_inspector::inspect(block.get(..PROBE).unwrap_or(&block)).is_binary()
        {
            return Ok(None);
        }
        if block.is_empty() {
            break;
        }
        total += block.len() as u64;
        sink.text(&block)?;
    }
    if total > 0 {
        sink.end_document()?;
    }
    Ok(Some(total))
}

/// Where to stop reading plain text that is longer than `most` from `from` on: after a line if there is one in the
/// last block, else between two characters; `length` if it is not longer.
pub(super) fn line_end(path: &Path, from: u64, length: u64, most: u64) -> io::Result<u64> {
    let limit = from.saturating_add(most);
    if length <= limit {
        return Ok(length);
    }
    let start = limit.saturating_sub(BLOCK as u64).max(from);
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut block = Vec::new();
    file.take(limit - start).read_to_end(&mut block)?;
    let cut = block.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
    // No character of UTF-8 is longer than four bytes; its later bytes begin with the bits 10.
    let cut = cut.or_else(|| block.iter().rposition(|byte| byte & 0xc0 != 0x80).filter(|at| *at > 0));
    match cut {
        Some(cut) => Ok(start + cut as u64),
        None => Ok(limit),
    }
}

/// Checks that a file of token ids is whole.
///
/// # Errors
/// Its length is no multiple of a token's.
pub(super) fn whole_tokens(length: u64, width: u8) -> Result<()> {
    if !length.is_multiple_of(width.into()) {
        bail!(
            "its {length} bytes are no whole number of {width}-byte tokens: check --token-bytes, and that it is complete"
        );
    }
    Ok(())
}
