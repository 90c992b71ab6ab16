//! The files as one string of tokens, and windows of it.
//!
//! # The string
//! All files in the order in which they were taken up, which at first is that of their names. After each document
//! stands the tokenizer's end of text, or a newline. A window may cross from one file into the next.
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
//! # Text that comes later
//! Files that are added to a folder, and what is added to files, are found by [`Corpus::refresh`], which
//! [`Corpus::sample`] calls every so often, or at the next start. New text is cut into stripes by itself and put
//! after what was there, so what was trained on stays trained on and what was held out stays held out; that is
//! remembered in a ledger ([`super::ledger`]), where there is a folder for it.
//!
//! # Memory, and files that change
//! Small files are kept in memory up to a limit; windows of the others are read from disk, one
//! positioned read each (a few microseconds from the page cache, against milliseconds for a training
//! step). They are deliberately not memory-mapped: if another program shortens a mapped file, the next
//! access is a SIGBUS that kills the process, while a short read is an error with the file's name in it.
//! The page cache is the same either way.
//! A file that has shrunk or vanished since [`Corpus::open`] costs its windows: [`Corpus::sample`]
//! draws another one. A large file that was edited in place is read as it now is, within the
//! length it had, until the next start.

use super::cache::width_of;
use super::error::CorpusError;
use super::human_bytes;
use super::intake::{Brought, Intake};
use super::sampler::Sampler;
use super::segment::Segment;
use crate::tokens::Tokenizer;
use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use swarm_protocol::architecture::BYTE_VOCABULARY;

/// More stripes than this would not make the held-out part more representative.
const MAX_STRIPES: u64 = 64;
/// A held-out piece is at least this many windows long, if there is more than one.
const WINDOWS_PER_PIECE: u64 = 16;
/// Windows drawn before a read failure is reported instead of passed over.
const MAX_DRAWS: usize = 16;
/// All token files together are at most this large, unless the user allows more.
pub(crate) const MAX_KEPT: u64 = 64 << 30;

/// How a [`Corpus`] is made.
#[derive(Clone, Debug)]
pub(crate) struct CorpusOptions {
    /// Sequence length of the model in tokens; a window is one token longer.
    pub(crate) context: usize,
    /// Share of the text that is never trained on, between 0 and 1 (both excluded).
    pub(crate) held_out_fraction: f64,
    /// More files than this are refused: a folder given by mistake (`/`) should fail at once.
    pub(crate) max_files: usize,
    /// How text becomes tokens.
    pub(crate) tokenizer: Tokenizer,
    /// Number of token ids that the model has.
    pub(crate) vocabulary: u32,
    /// The field of JSON lines, or the column of Parquet files, that has the text.
    pub(crate) field: String,
    /// `.bin` files hold token ids of so many bytes, 2 or 4; `None`: they are like any other file.
    pub(crate) token_bytes: Option<u8>,
    /// Where token files and the ledger are kept; `None`: nothing is, after the end of the program.
    pub(crate) keep: Option<PathBuf>,
    /// Bytes that all token files together may have.
    pub(crate) max_kept: u64,
    /// Time between two searches for new text; `None`: none after the first.
    pub(crate) refresh: Option<Duration>,
    /// Set when the user wants no more of it while it is being opened.
    pub(crate) stop: Arc<AtomicBool>,
}

impl CorpusOptions {
    /// The defaults for a model of bytes with this context: 5 % held out, at most 100,000 files, nothing kept.
    pub(crate) fn new(context: usize) -> Self {
        Self {
            context,
            held_out_fraction: 0.05,
            max_files: 100_000,
            tokenizer: Tokenizer::Bytes,
            vocabulary: BYTE_VOCABULARY,
            field: "text".into(),
            token_bytes: None,
            keep: None,
            max_kept: MAX_KEPT,
            refresh: None,
            stop: Arc::default(),
        }
    }

    /// Whether the user wants no more of it.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// One of the two parts of the string.
#[derive(Debug)]
struct Part {
    name: &'static str,
    /// Segment, range of its tokens, and the position of the first of them within the part.
    pieces: Vec<(u64, usize, Range<u64>)>,
    length: u64,
}

impl Part {
    fn new(name: &'static str, segments: &[Segment], ranges: impl Fn(&Segment) -> Vec<Range<u64>>) -> Self {
        let mut part = Self { name, pieces: Vec::new(), length: 0 };
        for (at, segment) in segments.iter().enumerate() {
            for range in ranges(segment).into_iter().filter(|range| !range.is_empty()) {
                let start = part.length;
                part.length += range.end - range.start;
                part.pieces.push((start, at, range));
            }
        }
        part
    }
}

/// The user's text: one string of tokens in two parts.
#[derive(Debug)]
pub(crate) struct Corpus {
    intake: Intake,
    /// In the order of the string.
    segments: Vec<Segment>,
    training: Part,
    held_out: Part,
    refreshed: Instant,
    failed_reads: u64,
    #[cfg(test)]
    split_anew: bool,
}

impl Corpus {
    /// Finds the text below `paths` and splits it.
    ///
    /// # Errors
    /// See [`CorpusError`]; each names the path or says what is missing. Single unreadable or binary
    /// files are no error unless they were named: [`Corpus::summary`] counts them.
    pub(crate) fn open(paths: &[PathBuf], options: CorpusOptions) -> Result<Self, CorpusError> {
        let fraction = options.held_out_fraction;
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(CorpusError::Fraction { fraction });
        }
        if paths.is_empty() {
            return Err(CorpusError::NoPaths);
        }
        let intake = Intake::new(paths, options)?;
        let mut corpus = Self {
            intake,
            training: Part::new("training", &[], Segment::trained),
            held_out: Part::new("held-out", &[], Segment::trained),
            segments: Vec::new(),
            refreshed: Instant::now(),
            failed_reads: 0,
            #[cfg(test)]
            split_anew: false,
        };
        let remembers = !corpus.intake.ledger.taken.is_empty();
        let brought = corpus.intake.scan(true)?;
        corpus.put(brought);
        if let (Err(error), true) = (corpus.is_enough(), remembers) {
            tracing::warn!(
                "the data is not what it was ({error}): which text is held out is chosen anew, so held-out losses are \
                 not comparable with those before"
            );
            #[cfg(test)]
            {
                corpus.split_anew = true;
            }
            corpus.intake.forget();
            corpus.segments.clear();
            let brought = corpus.intake.scan(true)?;
            corpus.put(brought);
        }
        corpus.is_enough()?;
        corpus.intake.ledger.write()?;
        corpus.intake.sweep(&corpus.segments);
        Ok(corpus)
    }

    /// Looks for files that were added, and for what was added to files. Returns how many tokens there are more to
    /// train on.
    ///
    /// # Errors
    /// A path that is no longer there, or a disk that does not take the ledger; the corpus is then as before.
    pub(crate) fn refresh(&mut self) -> Result<u64, CorpusError> {
        self.refreshed = Instant::now();
        let before = self.intake.ledger.taken.len();
        let brought = self.intake.scan(false)?;
        if brought.new.is_empty() {
            return Ok(0);
        }
        let (trained, segments) = (self.training.length, self.segments.len());
        self.put(brought);
        if let Err(error) = self.intake.ledger.write() {
            // Trained on and forgotten, it could be held out after the next start.
            self.intake.ledger.taken.truncate(before);
            self.segments.truncate(segments);
            self.intake.look_again();
            self.cut();
            return Err(error);
        }
        Ok(self.training.length - trained)
    }

    /// Puts what a search has brought into its place; of what is new, some is held out.
    fn put(&mut self, brought: Brought) {
        let Brought { known, mut new, mut edited } = brought;
        let first = known.is_empty() && self.segments.is_empty();
        self.hold_out(&mut new, first);
        let held: Vec<(u64, Vec<(u64, u64)>)> = new
            .iter()
            .filter(|segment| !segment.held.is_empty())
            .map(|segment| {
                (segment.number, segment.held.iter().map(|range| (range.start, range.end)).collect())
            })
            .collect();
        for (number, ranges) in held {
            let taken = &mut self.intake.ledger.taken;
            if let Ok(at) = taken.binary_search_by_key(&number, |taken| taken.number)
                && let Some(taken) = taken.get_mut(at)
            {
                taken.held = ranges;
            }
        }
        self.segments.extend(known);
        self.segments.append(&mut new);
        self.segments.append(&mut edited);
        self.segments.sort_by_key(|segment| segment.number);
        self.cut();
    }

    fn cut(&mut self) {
        self.training = Part::new("training", &self.segments, Segment::trained);
        self.held_out = Part::new("held-out", &self.segments, |segment| segment.held.clone());
    }

    /// Cuts new text into stripes; see the module's documentation. What is added later gives to the held-out part
    /// only if that is a window at least.
    fn hold_out(&self, new: &mut [Segment], first: bool) {
        let window = self.intake.options.context as u64 + 1;
        let total: u64 = new.iter().map(Segment::length).sum();
        let wanted = (total as f64 * self.intake.options.held_out_fraction).round() as u64;
        if !first && wanted < window {
            return;
        }
        let stripes = (wanted / (WINDOWS_PER_PIECE * window)).clamp(1, MAX_STRIPES);
        let (stripe, held_out) = (total / stripes, wanted / stripes);
        // The last stripe ends where the string ends; the remainder of the division is trained on.
        let mut held = (0..stripes).map(|i| {
            let start = i * stripe;
            let end = if i + 1 == stripes { total } else { start + stripe };
            end - held_out.min(end - start)..end
        });
        let mut next = held.next();
        let mut start = 0;
        for segment in new {
            let end = start + segment.length();
            while let Some(range) = &next {
                let (from, to) = (range.start.max(start), range.end.min(end));
                if from < to {
                    segment.held.push(from - start..to - start);
                }
                if range.end > end {
                    break;
                }
                next = held.next();
            }
            start = end;
        }
    }

    /// Checks that both parts have a window.
    fn is_enough(&self) -> Result<(), CorpusError> {
        if self.segments.is_empty() {
            return Err(CorpusError::NoText { summary: self.summary() });
        }
        let window = self.intake.options.context as u64 + 1;
        let fraction = self.intake.options.held_out_fraction;
        for part in [&self.training, &self.held_out] {
            if part.length < window {
                let smaller_share = fraction.min(1.0 - fraction);
                return Err(CorpusError::TooShort {
                    part: part.name,
                    unit: self.unit(),
                    have: part.length,
                    window,
                    needed: ((window + 1) as f64 / smaller_share).ceil() as u64,
                    summary: self.summary(),
                });
            }
        }
        Ok(())
    }

    /// What its tokens are called.
    fn unit(&self) -> &'static str {
        if width_of(self.intake.options.vocabulary) == 1 { "bytes" } else { "tokens" }
    }

    /// The pieces of the training part, and those of the held-out part.
    #[cfg(test)]
    pub(super) fn parts(&self) -> Result<[Vec<Vec<u32>>; 2], CorpusError> {
        let mut parts = [Vec::new(), Vec::new()];
        for (part, pieces) in [&self.training, &self.held_out].into_iter().zip(&mut parts) {
            for (start, _, range) in &part.pieces {
                let mut tokens = vec![0; (range.end - range.start) as usize];
                self.read(part, *start, &mut tokens)?;
                pieces.push(tokens);
            }
        }
        Ok(parts)
    }

    /// All tokens, in the order of the string.
    #[cfg(test)]
    pub(super) fn string(&self) -> Result<Vec<u32>, CorpusError> {
        let mut all = Vec::new();
        for segment in &self.segments {
            let mut tokens = vec![0; segment.length() as usize];
            segment.read(0, &mut tokens)?;
            all.append(&mut tokens);
        }
        Ok(all)
    }

    /// Whether the split that was remembered was of no use.
    #[cfg(test)]
    pub(super) fn split_anew(&self) -> bool {
        self.split_anew
    }

    /// Tokens that training windows are drawn from.
    #[cfg(test)]
    pub(crate) fn training_tokens(&self) -> u64 {
        self.training.length
    }

    /// Tokens that are never trained on.
    pub(crate) fn held_out_tokens(&self) -> u64 {
        self.held_out.length
    }

    /// Windows that could not be read since the corpus was opened.
    pub(crate) fn failed_reads(&self) -> u64 {
        self.failed_reads
    }

    /// One line for the user: what was found and what was left out.
    pub(crate) fn summary(&self) -> String {
        let Intake { binary, unreadable, bad, options, .. } = &self.intake;
        let tokens: u64 = self.segments.iter().map(|segment| segment.tokens).sum();
        let plural = |count: usize| if count == 1 { "file" } else { "files" };
        let files = self.segments.iter().map(|segment| &segment.file).collect::<HashSet<_>>().len();
        let amount = match self.unit() {
            "bytes" => format!("{} of text", human_bytes(tokens)),
            _ => format!("{tokens} tokens"),
        };
        let mut text = format!("{files} {}, {amount}", plural(files));
        if tokens > 0 {
            let share = self.held_out.length as f64 / (self.held_out.length + self.training.length) as f64;
            text += &format!("; {} % held out", (share * 1000.0).round() / 10.0);
        }
        if *binary > 0 {
            text += &format!("; {binary} binary {} skipped", plural(*binary));
        }
        if let Some(first) = &unreadable.first {
            text += &format!("; {} could not be read, the first: {first}", unreadable.count);
        }
        if let Some(first) = &bad.first {
            text += &format!(
                "; {} lines or rows have no text in \"{}\", the first: {first}",
                bad.count, options.field
            );
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
    pub(crate) fn sample(&mut self, sampler: &mut Sampler, window: &mut [u32]) -> Result<(), CorpusError> {
        if self.intake.options.refresh.is_some_and(|every| self.refreshed.elapsed() >= every) {
            match self.refresh() {
                Ok(0) => {}
                Ok(more) => {
                    tracing::info!("data: {more} {} more to train on: {}", self.unit(), self.summary())
                }
                Err(error) => tracing::warn!("new text was not taken up: {error}"),
            }
        }
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

    /// Fills `window` with the held-out tokens from `start` on.
    ///
    /// # Errors
    /// [`CorpusError::Window`] if they reach beyond the part, [`CorpusError::Read`] if they cannot be
    /// read.
    pub(crate) fn read_held_out(&self, start: u64, window: &mut [u32]) -> Result<(), CorpusError> {
        self.read(&self.held_out, start, window)
    }

    fn read(&self, part: &Part, start: u64, window: &mut [u32]) -> Result<(), CorpusError> {
        let length = window.len() as u64;
        if start.checked_add(length).is_none_or(|end| end > part.length) {
            return Err(CorpusError::Window { part: part.name, start, length, have: part.length });
        }
        let first = part.pieces.partition_point(|(piece, ..)| *piece <= start).saturating_sub(1);
        let mut rest = window;
        let mut skip = start;
        for (piece, segment, range) in part.pieces.iter().skip(first) {
            if rest.is_empty() {
                break;
            }
            let from = range.start + (skip - piece);
            let take = (range.end - from).min(rest.len() as u64);
            let (head, tail) = rest.split_at_mut(take as usize);
            if let Some(segment) = self.segments.get(*segment) {
                segment.read(from, head)?;
            }
            skip += take;
            rest = tail;
        }
        Ok(())
    }
}
