//! The files as one string of bytes, and windows of it.
//!
//! # The string
//! All text files, in order, each followed by a newline. A window may cross from one file into the next.
//! Files are judged to be text or binary by their first KiB.
//!
//! # Training part and held-out part
//! Only text that was never trained on tells whether a model learns more than its text by heart. A
//! share of the string is therefore held out. To be representative it must not come from one place, and
//! to be usable its pieces must be much longer than a window; so the string is cut into equal stripes,
//! and the tail of each is held out:
//!
//! ```text
//!     |<------ stripe 0 ------>|<------ stripe 1 ------>| ...
//!     [ training       |held   ][ training      |held   ]
//! ```
//!
//! There are up to 64 stripes, fewer if a held-out piece would be shorter than 16 windows; a small
//! corpus has one, and its held-out part is simply its end. Each part is the concatenation of its
//! pieces. The split is a function of the files' lengths and the options alone.
//!
//! # Memory, and files that change
//! Small files are kept in memory up to a limit; windows of the others are read from disk, one
//! positioned read each (a few microseconds from the page cache, against milliseconds for a training
//! step). They are deliberately not memory-mapped: if another program shortens a mapped file, the next
//! access is a SIGBUS that kills the process, while a short read is an error with the file's name in it.
//! A file that has shrunk or vanished since [`Corpus::open`] costs its windows: [`Corpus::sample`]
//! draws another one. A file that has grown or was edited in place is read as it now is, within the
//! length it had.

use super::collect::{Unreadable, collect};
use super::error::CorpusError;
use super::sampler::Sampler;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Files up to this size are kept in memory.
const SMALL_FILE: u64 = 1 << 20;
/// All files in memory together are at most this large.
const MEMORY_LIMIT: u64 = 256 << 20;
/// Bytes of a file that decide whether it is binary.
const PROBE: u64 = 1024;
/// More stripes than this would not make the held-out part more representative.
const MAX_STRIPES: u64 = 64;
/// A held-out piece is at least this many windows long, if there is more than one.
const WINDOWS_PER_PIECE: u64 = 16;
/// Windows drawn before a read failure is reported instead of passed over.
const MAX_DRAWS: usize = 16;

/// How a [`Corpus`] is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CorpusOptions {
    /// Sequence length of the model in bytes; a window is one byte longer.
    pub(crate) context: usize,
    /// Share of the text that is never trained on, between 0 and 1 (both excluded).
    pub(crate) held_out_fraction: f64,
    /// More files than this are refused: a folder given by mistake (`/`) should fail at once.
    pub(crate) max_files: usize,
}

impl CorpusOptions {
    /// The defaults for a model with this context: 5 % held out, at most 100,000 files.
    pub(crate) fn new(context: usize) -> Self {
        Self { context, held_out_fraction: 0.05, max_files: 100_000 }
    }
}

/// Where a file's bytes are.
#[derive(Debug)]
enum Source {
    Memory(Vec<u8>),
    Disk(PathBuf),
}

/// One file's place in the string: its bytes, then a newline.
#[derive(Debug)]
struct Segment {
    start: u64,
    /// Length of the file; the segment is one longer.
    length: u64,
    source: Source,
}

/// One of the two parts of the string.
#[derive(Debug)]
struct Part {
    name: &'static str,
    /// Ranges of the string, in order, each with its first byte's position within the part.
    pieces: Vec<(u64, Range<u64>)>,
    length: u64,
}

impl Part {
    fn new(name: &'static str, ranges: impl Iterator<Item = Range<u64>>) -> Self {
        let mut part = Self { name, pieces: Vec::new(), length: 0 };
        for range in ranges.filter(|range| !range.is_empty()) {
            let start = part.length;
            part.length += range.end - range.start;
            part.pieces.push((start, range));
        }
        part
    }
}

/// The user's text: one string of bytes in two parts.
#[derive(Debug)]
pub(crate) struct Corpus {
    segments: Vec<Segment>,
    training: Part,
    held_out: Part,
    fraction: f64,
    binary: usize,
    unreadable: Unreadable,
    failed_reads: u64,
}

impl Corpus {
    /// Finds the text below `paths` and splits it.
    ///
    /// # Errors
    /// See [`CorpusError`]; each names the path or says what is missing. Single unreadable or binary
    /// files are no error: [`Corpus::summary`] counts them.
    pub(crate) fn open(paths: &[PathBuf], options: CorpusOptions) -> Result<Self, CorpusError> {
        let fraction = options.held_out_fraction;
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(CorpusError::Fraction { fraction });
        }
        if paths.is_empty() {
            return Err(CorpusError::NoPaths);
        }
        let found = collect(paths, options.max_files)?;
        let mut corpus = Self {
            segments: Vec::new(),
            training: Part::new("training", std::iter::empty()),
            held_out: Part::new("held-out", std::iter::empty()),
            fraction,
            binary: 0,
            unreadable: found.unreadable,
            failed_reads: 0,
        };
        let (mut total, mut in_memory) = (0, 0);
        for path in found.files {
            match read_file(&path, MEMORY_LIMIT - in_memory) {
                Ok(Content::Text { length: 0, .. }) => {}
                Ok(Content::Text { length, bytes }) => {
                    let source = match bytes {
                        Some(bytes) => {
                            in_memory += length;
                            Source::Memory(bytes)
                        }
                        None => Source::Disk(path),
                    };
                    corpus.segments.push(Segment { start: total, length, source });
                    total += length + 1;
                }
                Ok(Content::Binary) => corpus.binary += 1,
                Err(reason) => corpus.unreadable.add(&path, reason),
            }
        }
        if total == 0 {
            return Err(CorpusError::NoText { summary: corpus.summary() });
        }
        corpus.split(total, options.context as u64 + 1)?;
        Ok(corpus)
    }

    /// Splits the string of `total` bytes into stripes; see the module's documentation.
    fn split(&mut self, total: u64, window: u64) -> Result<(), CorpusError> {
        let wanted = (total as f64 * self.fraction).round() as u64;
        let stripes = (wanted / (WINDOWS_PER_PIECE * window)).clamp(1, MAX_STRIPES);
        let (stripe, held_out) = (total / stripes, wanted / stripes);
        // The last stripe ends where the string ends; the remainder of the division is trained on.
        let bounds = |i: u64| {
            let start = i * stripe;
            let end = if i + 1 == stripes { total } else { start + stripe };
            (start, end - held_out.min(end - start), end)
        };
        self.training = Part::new("training", (0..stripes).map(bounds).map(|(start, cut, _)| start..cut));
        self.held_out = Part::new("held-out", (0..stripes).map(bounds).map(|(_, cut, end)| cut..end));
        for part in [&self.training, &self.held_out] {
            if part.length < window {
                let smaller_share = self.fraction.min(1.0 - self.fraction);
                return Err(CorpusError::TooShort {
                    part: part.name,
                    have: part.length,
                    window,
                    needed: ((window + 1) as f64 / smaller_share).ceil() as u64,
                    summary: self.summary(),
                });
            }
        }
        Ok(())
    }

    /// Bytes that training windows are drawn from.
    #[cfg(test)]
    pub(crate) fn training_bytes(&self) -> u64 {
        self.training.length
    }

    /// Bytes that are never trained on.
    pub(crate) fn held_out_bytes(&self) -> u64 {
        self.held_out.length
    }

    /// Windows that could not be read since the corpus was opened.
    pub(crate) fn failed_reads(&self) -> u64 {
        self.failed_reads
    }

    /// One line for the user: what was found and what was left out.
    pub(crate) fn summary(&self) -> String {
        let bytes: u64 = self.segments.iter().map(|segment| segment.length).sum();
        let plural = |count: usize| if count == 1 { "file" } else { "files" };
        let files = self.segments.len();
        let mut text = format!("{files} {}, {} of text", plural(files), human_bytes(bytes));
        if bytes > 0 {
            text += &format!("; {} % held out", (self.fraction * 1000.0).round() / 10.0);
        }
        if self.binary > 0 {
            text += &format!("; {} binary {} skipped", self.binary, plural(self.binary));
        }
        if let Some(first) = &self.unreadable.first {
            text += &format!("; {} could not be read, the first: {first}", self.unreadable.count);
        }
        text
    }

    /// Fills `window` with a random window of the training part.
    ///
    /// A window that cannot be read is counted and another is drawn.
    ///
    /// # Errors
    /// [`CorpusError::Window`] if the part is shorter than the window, [`CorpusError::Read`] if many
    /// windows in a row cannot be read.
    pub(crate) fn sample(&mut self, sampler: &mut Sampler, window: &mut [u8]) -> Result<(), CorpusError> {
        let starts = self.training.length.saturating_sub(window.len() as u64).saturating_add(1);
        let mut draws = 1;
        loop {
            match self.read(&self.training, sampler.below(starts), window) {
                Err(error @ CorpusError::Read { .. }) => {
                    if self.failed_reads == 0 {
                        tracing::warn!("{error}; windows of this text are passed over");
                    }
                    self.failed_reads += 1;
                    if draws == MAX_DRAWS {
                        return Err(error);
                    }
                    draws += 1;
                }
                done => return done,
            }
        }
    }

    /// Fills `window` with the held-out bytes from `start` on.
    ///
    /// # Errors
    /// [`CorpusError::Window`] if they reach beyond the part, [`CorpusError::Read`] if they cannot be
    /// read.
    pub(crate) fn read_held_out(&self, start: u64, window: &mut [u8]) -> Result<(), CorpusError> {
        self.read(&self.held_out, start, window)
    }

    fn read(&self, part: &Part, start: u64, window: &mut [u8]) -> Result<(), CorpusError> {
        let length = window.len() as u64;
        if start.checked_add(length).is_none_or(|end| end > part.length) {
            return Err(CorpusError::Window { part: part.name, start, length, have: part.length });
        }
        let first = part.pieces.partition_point(|(piece, _)| *piece <= start).saturating_sub(1);
        let mut rest = window;
        let mut skip = start;
        for (piece, range) in part.pieces.iter().skip(first) {
            if rest.is_empty() {
                break;
            }
            let from = range.start + (skip - piece);
            let take = (range.end - from).min(rest.len() as u64);
            let (head, tail) = rest.split_at_mut(take as usize);
            self.read_string(from, head)?;
            skip += take;
            rest = tail;
        }
        Ok(())
    }

    /// Fills `out` with the string's bytes from `start` on; the caller has checked the bounds.
    fn read_string(&self, start: u64, out: &mut [u8]) -> Result<(), CorpusError> {
        let first = self.segments.partition_point(|segment| segment.start <= start).saturating_sub(1);
        let mut rest = out;
        let mut position = start;
        for segment in self.segments.iter().skip(first) {
            if rest.is_empty() {
                break;
            }
            let offset = position - segment.start;
            let take = (segment.length + 1 - offset).min(rest.len() as u64);
            let (head, tail) = rest.split_at_mut(take as usize);
            segment.read(offset, head)?;
            position += take;
            rest = tail;
        }
        Ok(())
    }
}

impl Segment {
    /// Fills `out` with the segment's bytes from `offset` on: the file's, then the newline.
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), CorpusError> {
        let from_file = self.length.saturating_sub(offset).min(out.len() as u64) as usize;
        let (text, newline) = out.split_at_mut(from_file);
        newline.fill(b'\n');
        if text.is_empty() {
            return Ok(());
        }
        match &self.source {
            Source::Memory(bytes) => {
                // In range by construction: `bytes` is as long as the segment says.
                if let Some(part) = bytes.get(offset as usize..offset as usize + from_file) {
                    text.copy_from_slice(part);
                }
                Ok(())
            }
            Source::Disk(path) => {
                read_at(path, offset, text).map_err(|source| CorpusError::Read { path: path.clone(), source })
            }
        }
    }
}

enum Content {
    Binary,
    Text { length: u64, bytes: Option<Vec<u8>> },
}

/// Looks at a file and keeps its bytes if it is small and `room` allows.
fn read_file(path: &Path, room: u64) -> io::Result<Content> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    file.by_ref().take(PROBE).read_to_end(&mut bytes)?;
    if content_inspector::inspect(&bytes).is_binary() {
        return Ok(Content::Binary);
    }
    if length > SMALL_FILE.min(room) {
        return Ok(Content::Text { length, bytes: None });
    }
    file.take(length.saturating_sub(bytes.len() as u64)).read_to_end(&mut bytes)?;
    // A file that is being written may be shorter or longer than its metadata said a moment ago.
    Ok(Content::Text { length: bytes.len() as u64, bytes: Some(bytes) })
}

fn read_at(path: &Path, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(out)
}

/// A size in decimal units, to two digits or more.
fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}
