//! Token files: what text became, for text that cannot be read as it is.
//!
//! A window starts anywhere, and where its text begins in a packed file, or in one whose tokens have different
//! lengths, is known only after all that is before it has been read. So such text is read once, and its tokens are
//! kept as numbers of one width, of which any can be read directly. In the node's folder that is once for all
//! starts; other commands use a temporary folder.
//!
//! ```text
//!   magic, 15 bytes | width of a token, u8: 1, 2 or 4 | number of tokens, u64 | 8 zero bytes | tokens, little-endian
//! ```
//!
//! A file is written beside its place and renamed when it is complete. All of them together are at most as large as
//! the caller says: what a packed file turns out to hold is bounded by that and by nothing in the file itself.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::NamedTempFile;

use super::corpus::CorpusOptions;
use super::documents::{Sink, whole_tokens};
use super::human_bytes;
use crate::tokens::Tokenizer;

const MAGIC: &[u8; 15] = b"swarm tokens 1\n";
/// Bytes before the first token.
pub(super) const HEADER: u64 = 32;
/// What token files end with.
pub(super) const ENDING: &str = ".tokens";
/// Text is encoded in pieces of about this size: a newline or a space before it ends one.
const PIECE: usize = 64 << 10;
/// Text that is encoded at once, on all cores.
const BATCH: usize = 1 << 20;
/// Time between two words about how far it is.
const SAY: Duration = Duration::from_secs(5);

/// Bytes that a token of this vocabulary takes.
pub(super) fn width_of(vocabulary: u32) -> u8 {
    match vocabulary {
        0..=0x100 => 1,
        0x101..=0x1_0000 => 2,
        _ => 4,
    }
}

/// A complete token file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenFile {
    pub(super) path: PathBuf,
    pub(super) width: u8,
    pub(super) tokens: u64,
}

impl TokenFile {
    /// The token file at `path`, if there is one and it is whole.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let mut header = [0; HEADER as usize];
        file.read_exact(&mut header).ok()?;
        let (magic, rest) = header.split_at(MAGIC.len());
        let (width, rest) = rest.split_first()?;
        let tokens = u64::from_le_bytes(*rest.first_chunk()?);
        let length = tokens.checked_mul((*width).into())?.checked_add(HEADER)?;
        let whole = magic == MAGIC && matches!(width, 1 | 2 | 4) && file.metadata().ok()?.len() == length;
        whole.then(|| Self { path: path.to_owned(), width: *width, tokens })
    }

    /// Bytes that it takes on disk.
    pub(super) fn bytes(&self) -> u64 {
        HEADER + self.tokens * u64::from(self.width)
    }
}

/// Writes tokens. Nothing stays if it is dropped before [`Writer::finish`].
struct Writer {
    out: BufWriter<NamedTempFile>,
    width: u8,
    tokens: u64,
    /// Bytes that may still be written.
    room: u64,
}

impl Writer {
    fn new(dir: &Path, vocabulary: u32, room: u64) -> Result<Self> {
        let failed = || format!("cannot write to {}", dir.display());
        fs::create_dir_all(dir).with_context(failed)?;
        let file = tempfile::Builder::new().prefix(".writing-").tempfile_in(dir).with_context(failed)?;
        let mut out = BufWriter::new(file);
        out.write_all(&[0; HEADER as usize]).with_context(failed)?;
        Ok(Self { out, width: width_of(vocabulary), tokens: 0, room })
    }

    fn write(&mut self, tokens: &[u32]) -> Result<()> {
        let width = usize::from(self.width);
        let bytes = (tokens.len() * width) as u64;
        self.room = self.room.checked_sub(bytes).context(
            "its tokens would take more disk than all tokens may take: allow more with --max-cache, or leave it out",
        )?;
        for token in tokens {
            let bytes = token.to_le_bytes();
            self.out.write_all(bytes.get(..width).unwrap_or(&bytes)).context("cannot write its tokens")?;
        }
        self.tokens += tokens.len() as u64;
        Ok(())
    }

    fn finish(mut self, path: &Path) -> Result<TokenFile> {
        let failed = || format!("cannot write {}", path.display());
        self.out.seek(SeekFrom::Start(0)).with_context(failed)?;
        self.out.write_all(MAGIC).with_context(failed)?;
        self.out.write_all(&[self.width]).with_context(failed)?;
        self.out.write_all(&self.tokens.to_le_bytes()).with_context(failed)?;
        self.out.flush().with_context(failed)?;
        let file = self.out.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(failed)?;
        file.as_file().sync_all().with_context(failed)?;
        file.persist(path).map_err(|error| error.error).with_context(failed)?;
        Ok(TokenFile { path: path.to_owned(), width: self.width, tokens: self.tokens })
    }
}

/// Text becomes a token file.
pub(super) struct Encoder<'a> {
    options: &'a CorpusOptions,
    tokenizer: &'a Tokenizer,
    writer: Writer,
    /// Of the current document, what is not in `batch` yet.
    pending: Vec<u8>,
    /// Pieces of text, and whether a document ends after each.
    batch: Vec<(String, bool)>,
    batched: usize,
    name: &'a Path,
    read: u64,
    said: Instant,
}

impl<'a> Encoder<'a> {
    /// Of the file `name`, to a file in `dir` of at most `room` bytes.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub(super) fn new(name: &'a Path, options: &'a CorpusOptions, dir: &Path, room: u64) -> Result<Self> {
        let tokenizer = &options.tokenizer;
        let writer = Writer::new(dir, tokenizer.vocabulary(), room)?;
        let (pending, batch) = (Vec::new(), Vec::new());
        Ok(Self {
            options,
            tokenizer,
            writer,
            pending,
            batch,
            batched: 0,
            name,
            read: 0,
            said: Instant::now(),
        })
    }

    fn cut(&mut self, end: usize, ends_document: bool) -> Result<()> {
        let piece: Vec<u8> = self.pending.drain(..end).collect();
        self.batched += piece.len() + 64;
        if let Tokenizer::Bytes = self.tokenizer {
            // Bytes need not be UTF-8.
            let mut tokens: Vec<u32> = piece.into_iter().map(u32::from).collect();
            if ends_document {
                self.tokenizer.end_document(&mut tokens)?;
            }
            return self.writer.write(&tokens);
        }
        self.batch.push((String::from_utf8_lossy(&piece).into_owned(), ends_document));
        if self.batched >= BATCH { self.encode() } else { Ok(()) }
    }

    fn encode(&mut self) -> Result<()> {
        self.batched = 0;
        let (texts, ends): (Vec<String>, Vec<bool>) = std::mem::take(&mut self.batch).into_iter().unzip();
        for (mut tokens, ends) in self.tokenizer.encode_all(texts)?.into_iter().zip(ends) {
            if ends {
                self.tokenizer.end_document(&mut tokens)?;
            }
            self.writer.write(&tokens)?;
        }
        if self.said.elapsed() > SAY {
            self.said = Instant::now();
            tracing::info!(
                "{}: {} of text so far, {} tokens",
                self.name.display(),
                human_bytes(self.read),
                self.writer.tokens
            );
        }
        Ok(())
    }

    /// Puts the complete file at `path`.
    ///
    /// # Errors
    /// A disk that does not take it.
    pub(super) fn finish(mut self, path: &Path) -> Result<TokenFile> {
        self.encode()?;
        self.writer.finish(path)
    }
}

/// Where a piece of text that is too long ends: after a line, before a space, or between two characters.
pub(super) fn piece_end(text: &[u8]) -> usize {
    let newline = text.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
    let space = || text.iter().rposition(|byte| *byte == b' ').filter(|at| *at > 0);
    let character = || text.iter().rposition(|byte| byte & 0xc0 != 0x80).filter(|at| *at > 0);
    newline.or_else(space).or_else(character).unwrap_or(text.len())
}

impl Sink for Encoder<'_> {
    fn text(&mut self, bytes: &[u8]) -> Result<()> {
        ensure!(!self.options.is_stopped(), "stopped");
        self.read += bytes.len() as u64;
        for part in bytes.chunks(PIECE) {
            self.pending.extend_from_slice(part);
            if self.pending.len() >= PIECE {
                self.cut(piece_end(&self.pending), false)?;
            }
        }
        Ok(())
    }

    fn end_document(&mut self) -> Result<()> {
        self.cut(self.pending.len(), true)
    }
}

/// Token ids as they are: checked and, of a packed file, written to a token file.
pub(super) struct Ids {
    width: u8,
    vocabulary: u32,
    /// The beginning of a token whose end has not come yet.
    rest: Vec<u8>,
    read: u64,
    writer: Option<Writer>,
}

impl Ids {
    /// Only checks ids of `width` bytes.
    pub(super) fn check(width: u8, vocabulary: u32) -> Self {
        Self { width, vocabulary, rest: Vec::new(), read: 0, writer: None }
    }

    /// Also writes them to a file in `dir` of at most `room` bytes.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub(super) fn keep(width: u8, vocabulary: u32, dir: &Path, room: u64) -> Result<Self> {
        Ok(Self { writer: Some(Writer::new(dir, vocabulary, room)?), ..Self::check(width, vocabulary) })
    }

    /// Puts the complete file at `path`; `None` if the ids were only checked.
    ///
    /// # Errors
    /// A disk that does not take it.
    pub(super) fn finish(self, path: &Path) -> Result<Option<TokenFile>> {
        self.writer.map(|writer| writer.finish(path)).transpose()
    }
}

impl Sink for Ids {
    fn text(&mut self, bytes: &[u8]) -> Result<()> {
        self.read += bytes.len() as u64;
        self.rest.extend_from_slice(bytes);
        let width = usize::from(self.width);
        let whole = self.rest.len() / width * width;
        let tokens = ids(&self.rest[..whole], self.width);
        if let Some(beyond) = tokens.iter().find(|token| **token >= self.vocabulary) {
            bail!(
                "it has the token id {beyond}, and the model's vocabulary ends at {}: it was made with another tokenizer, \
                 or --token-bytes is not {}",
                self.vocabulary - 1,
                self.width
            );
        }
        self.rest.drain(..whole);
        self.writer.as_mut().map_or(Ok(()), |writer| writer.write(&tokens))
    }

    fn end_document(&mut self) -> Result<()> {
        whole_tokens(self.read, self.width)?;
        ensure!(self.rest.is_empty(), "its last token is not complete");
        Ok(())
    }
}

/// Little-endian numbers of `width` bytes.
pub(super) fn ids(bytes: &[u8], width: u8) -> Vec<u32> {
    match width {
        1 => bytes.iter().copied().map(u32::from).collect(),
        2 => bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair).into()).collect(),
        _ => bytes.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four)).collect(),
    }
}
