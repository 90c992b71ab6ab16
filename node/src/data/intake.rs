//! Taking files up: what is new in them, what was there, and what has been edited since.
//!
//! The same search is made when a corpus is opened and when it is refreshed. At first everything that the ledger
//! knows is put back in its place, and what it does not know is new. Later on, what has been added to a file or to a
//! folder is new, a bounded amount at a time, because training waits for it; files that were edited are left as they
//! were taken up until the next start.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;

use super::cache::{self, Encoder, Ids, TokenFile};
use super::collect::{FoundFile, Unreadable, collect};
use super::corpus::CorpusOptions;
use super::documents::{Outcome, Span, line_end, read, whole_tokens};
use super::error::CorpusError;
use super::format::{Content, Format, Packing};
use super::ledger::{Ledger, Taken, mark};
use super::segment::{Segment, Source};
use crate::tokens::Tokenizer;

/// Text in files up to this size is kept in memory.
const SMALL_FILE: u64 = 1 << 20;
/// All text in memory together is at most this large.
const MEMORY_LIMIT: u64 = 256 << 20;
/// A file that has grown by less than this is left until it has grown by more.
const LEAST_GROWTH: u64 = 4096;
/// Bytes of one file that a refresh takes up at once, and files.
const MOST_GROWTH: u64 = 16 << 20;
const MOST_FILES: usize = 1000;

/// Takes files up. What it has taken is in the ledger; [`Intake::scan`] gives the segments.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) paths: Vec<PathBuf>,
    pub(super) options: CorpusOptions,
    pub(super) ledger: Ledger,
    /// Files as they were when they were looked at last.
    looked_at: HashMap<PathBuf, (u64, Option<SystemTime>)>,
    /// Where token files are, if the options do not say: made when it is needed.
    temporary: Option<TempDir>,
    in_memory: u64,
    on_disk: u64,
    pub(super) binary: usize,
    pub(super) unreadable: Unreadable,
    /// Lines and rows without text.
    pub(super) bad: Unreadable,
}

/// What a search has brought.
#[derive(Debug, Default)]
pub(super) struct Brought {
    /// What the ledger knew.
    pub(super) known: Vec<Segment>,
    /// What is new: some of it is to be held out.
    pub(super) new: Vec<Segment>,
    /// What is new of files that were edited: to be trained on.
    pub(super) edited: Vec<Segment>,
}

impl Intake {
    pub(super) fn new(paths: &[PathBuf], options: CorpusOptions) -> Result<Self, CorpusError> {
        let ledger = Ledger::read(options.keep.as_deref())?;
        Ok(Self {
            paths: paths.to_vec(),
            options,
            ledger,
            looked_at: HashMap::new(),
            temporary: None,
            in_memory: 0,
            on_disk: 0,
            binary: 0,
            unreadable: Unreadable::default(),
            bad: Unreadable::default(),
        })
    }

    /// Looks for files. `first`: none has been looked at before.
    ///
    /// # Errors
    /// A path that is not there, too many files, a named file that cannot be used.
    pub(super) fn scan(&mut self, first: bool) -> Result<Brought, CorpusError> {
        let found = collect(&self.paths, self.options.max_files)?;
        if first {
            (self.binary, self.unreadable) = (0, found.unreadable);
        }
        let mut known = self.ledger.by_file();
        let mut brought = Brought::default();
        let mut taken_up = 0;
        for file in found.files {
            if !first && taken_up == MOST_FILES {
                break;
            }
            let now = match fs::metadata(&file.path) {
                Ok(metadata) => (metadata.len(), metadata.modified().ok()),
                Err(reason) => {
                    self.unreadable.add(&file.path, reason);
                    continue;
                }
            };
            if self.looked_at.get(&file.real) == Some(&now) {
                continue;
            }
            let format = Format::of(&file.path, self.options.token_bytes.is_some());
            let key = self.key(&file, format);
            let earlier = known.remove(&key).unwrap_or_default();
            let one = One { file: &file, format, key, length: now.0 };
            let before = brought.new.len();
            let taken = self.take(&one, earlier, first, &mut brought);
            if first && self.options.is_stopped() {
                return Err(CorpusError::Stopped);
            }
            let complete = match taken {
                Ok(complete) => complete,
                Err(error) if file.named && first => {
                    return Err(CorpusError::Unusable { path: file.path, reason: format!("{error:#}") });
                }
                Err(error) => {
                    self.unreadable.add(&file.path, format_args!("{error:#}"));
                    true
                }
            };
            taken_up += brought.new.len() - before;
            if complete {
                self.looked_at.insert(file.real, now);
            }
        }
        Ok(brought)
    }

    /// Names a file and all that decides what its tokens are.
    fn key(&self, file: &FoundFile, format: Format) -> String {
        let CorpusOptions { tokenizer, field, token_bytes, .. } = &self.options;
        let mut hasher = blake3::Hasher::new();
        hasher.update(file.real.as_os_str().as_encoded_bytes());
        let how = match format.content {
            Content::Text => String::new(),
            Content::Jsonl | Content::Parquet => field.clone(),
            Content::Tokens => format!("{token_bytes:?}"),
        };
        let digest = tokenizer.digest().map(|digest| digest.to_string()).unwrap_or_default();
        hasher.update(format!("\0{format:?}\0{how}\0{digest}").as_bytes());
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// Takes up what is new of a file. Returns whether that is all there is.
    fn take(
        &mut self,
        one: &One<'_>,
        earlier: Vec<Taken>,
        first: bool,
        brought: &mut Brought,
    ) -> Result<bool> {
        let path = &one.file.path;
        let reached = earlier.last().map_or(0, |taken| taken.end);
        let as_it_was = || -> io::Result<bool> {
            for taken in &earlier {
                if mark(path, taken.from, taken.end)? != taken.mark {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let whole =
            one.length >= reached && (one.format.grows() || one.length == reached || earlier.is_empty());
        let mut edited = !(whole && as_it_was()?);
        if edited && !first {
            // What was taken of it stays until the next start.
            return Ok(true);
        }
        if first && !edited {
            let mut segments = Vec::new();
            for taken in &earlier {
                match self.again(one, taken)? {
                    Some(segment) => segments.push(segment),
                    None => {
                        edited = true;
                        break;
                    }
                }
            }
            if !edited {
                brought.known.append(&mut segments);
            }
        }
        let from = if edited {
            self.ledger.taken.retain(|taken| taken.file != one.key);
            0
        } else {
            reached
        };
        let left = one.length.saturating_sub(from);
        if left == 0 || from > 0 && left < LEAST_GROWTH {
            return Ok(true);
        }
        let until = match one.format {
            _ if first => one.length,
            format if !format.grows() => {
                if one.length > MOST_GROWTH {
                    tracing::info!(
                        "{}: too large to be taken up while training; it will be at the next start",
                        path.display()
                    );
                    return Ok(true);
                }
                one.length
            }
            Format { content: Content::Tokens, .. } => from + left.min(MOST_GROWTH),
            _ => line_end(path, from, one.length, MOST_GROWTH)?,
        };
        let Some((mut segment, end)) = self.read(one, from, until)? else {
            if one.file.named && path.extension().is_some_and(|extension| extension == "bin") {
                bail!(
                    "it is no text; if it holds token ids, say how wide they are with --token-bytes 2 or 4"
                );
            }
            self.binary += 1;
            return Ok(true);
        };
        segment.number = self.ledger.next_number();
        let taken = Taken {
            number: segment.number,
            file: one.key.clone(),
            from,
            end,
            mark: mark(path, from, end)?,
            tokens: segment.tokens,
            held: Vec::new(),
        };
        if let Source::Disk(kept, _) = &mut segment.source
            && kept != path
        {
            let name = kept.with_file_name(taken.token_file());
            fs::rename(kept.as_path(), &name).with_context(|| format!("cannot rename {}", kept.display()))?;
            *kept = name;
        }
        if segment.tokens > 0 {
            self.ledger.taken.push(taken);
            if edited { brought.edited.push(segment) } else { brought.new.push(segment) }
        }
        Ok(end >= one.length)
    }

    /// What was taken of a file before; `None` if it gives something else now.
    fn again(&mut self, one: &One<'_>, taken: &Taken) -> Result<Option<Segment>> {
        let kept = self.options.keep.as_ref().map(|dir| dir.join(taken.token_file()));
        let segment = match kept.as_deref().and_then(TokenFile::open).filter(|_| !self.is_direct(one.format))
        {
            Some(file) => {
                self.on_disk += file.bytes();
                Some(self.segment(one, file.tokens, file.width, Source::Disk(file.path, cache::HEADER)))
            }
            None => match (self.read(one, taken.from, taken.end)?, kept) {
                (Some((mut segment, end)), kept) if end == taken.end => {
                    if let (Source::Disk(at, _), Some(kept)) = (&mut segment.source, kept)
                        && *at != one.file.path
                    {
                        fs::rename(at.as_path(), &kept)
                            .with_context(|| format!("cannot rename {}", at.display()))?;
                        *at = kept;
                    }
                    Some(segment)
                }
                _ => None,
            },
        };
        Ok(segment.filter(|segment| segment.tokens == taken.tokens).map(|mut segment| {
            segment.number = taken.number;
            segment.held = taken.held.iter().map(|(first, end)| *first..*end).collect();
            segment
        }))
    }

    /// Whether the file's own bytes are the tokens.
    fn is_direct(&self, format: Format) -> bool {
        let content = match format.content {
            Content::Text => matches!(self.options.tokenizer, Tokenizer::Bytes),
            Content::Tokens => true,
            Content::Jsonl | Content::Parquet => false,
        };
        content && format.packing == Packing::None
    }

    fn segment(&self, one: &One<'_>, tokens: u64, width: u8, source: Source) -> Segment {
        let newline = one.format.content == Content::Text && self.is_direct(one.format);
        let (file, vocabulary) = (one.key.clone(), self.options.vocabulary);
        Segment { number: 0, file, tokens, width, newline, vocabulary, source, held: Vec::new() }
    }

    /// The tokens of a part of a file, and where it really ends; `None` if it is no text.
    fn read(&mut self, one: &One<'_>, from: u64, until: u64) -> Result<Option<(Segment, u64)>> {
        let path = one.file.path.as_path();
        let CorpusOptions { field, token_bytes, vocabulary, .. } = &self.options;
        let span = Span { path, format: one.format, field, from, until };
        let (ids_width, vocabulary) = (token_bytes.unwrap_or(2), *vocabulary);
        if self.is_direct(one.format) {
            if one.format.content == Content::Text {
                return self.read_text(one, from, until).map_err(Into::into);
            }
            let until = if from == 0 { until } else { until - (until - from) % u64::from(ids_width) };
            whole_tokens(until - from, ids_width)?;
            let mut ids = Ids::check(ids_width, vocabulary);
            read(Span { until, ..span }, &mut ids, &mut Unreadable::default())?;
            let tokens = (until - from) / u64::from(ids_width);
            let source = Source::Disk(path.to_owned(), from);
            return Ok(Some((self.segment(one, tokens, ids_width, source), until)));
        }
        let dir = match (&self.options.keep, &self.temporary) {
            (Some(dir), _) => dir.clone(),
            (None, Some(dir)) => dir.path().to_owned(),
            (None, None) => {
                let dir = tempfile::Builder::new().prefix("swarm-tokens-").tempdir();
                let dir = self.temporary.insert(dir.context("cannot make a temporary folder for tokens")?);
                dir.path().to_owned()
            }
        };
        let room = self.options.max_kept.saturating_sub(self.on_disk);
        let at = dir.join(format!(
            "{:.32}{}",
            blake3::hash(format!("{} {from}", one.key).as_bytes()).to_hex(),
            cache::ENDING
        ));
        let mut bad = Unreadable::default();
        let (outcome, file) = if one.format.content == Content::Tokens {
            let mut ids = Ids::keep(ids_width, vocabulary, &dir, room)?;
            (read(span, &mut ids, &mut bad)?, ids.finish(&at)?.ok_or_else(|| anyhow!("no token file"))?)
        } else {
            let mut encoder = Encoder::new(path, &self.options, &dir, room)?;
            match read(span, &mut encoder, &mut bad)? {
                Outcome::Binary => return Ok(None),
                done => (done, encoder.finish(&at)?),
            }
        };
        if let Some(first) = bad.first {
            self.bad.count += bad.count;
            self.bad.first.get_or_insert_with(|| format!("{}: {first}", path.display()));
        }
        let end = match outcome {
            Outcome::Binary => return Ok(None),
            Outcome::Done(end) => end,
        };
        self.on_disk += file.bytes();
        let source = Source::Disk(file.path, cache::HEADER);
        Ok(Some((self.segment(one, file.tokens, file.width, source), end)))
    }

    /// Plain text whose bytes are the tokens: kept in memory if it is small.
    fn read_text(&mut self, one: &One<'_>, from: u64, until: u64) -> io::Result<Option<(Segment, u64)>> {
        let path = &one.file.path;
        let small = until - from <= SMALL_FILE.min(MEMORY_LIMIT - self.in_memory);
        if from == 0 && is_binary(path)? {
            return Ok(None);
        }
        if !small {
            let segment = self.segment(one, until - from, 1, Source::Disk(path.clone(), from));
            return Ok(Some((segment, until)));
        }
        let mut file = File::open(path)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(until - from).read_to_end(&mut bytes)?;
        // A file that is being written may be shorter than its metadata said a moment ago.
        let length = bytes.len() as u64;
        self.in_memory += length;
        Ok(Some((self.segment(one, length, 1, Source::Memory(bytes)), from + length)))
    }

    /// Deletes token files that nobody needs any more.
    pub(super) fn sweep(&self, segments: &[Segment]) {
        let Some(dir) = &self.options.keep else { return };
        let needed: std::collections::HashSet<&Path> = segments
            .iter()
            .filter_map(|segment| match &segment.source {
                Source::Disk(path, _) => Some(path.as_path()),
                Source::Memory(_) => None,
            })
            .collect();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let ours = name.ends_with(cache::ENDING) || name.starts_with(".writing-");
            if ours && !needed.contains(entry.path().as_path()) {
                // What cannot be deleted now is looked at again at the next start.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Everything is looked at again.
    pub(super) fn look_again(&mut self) {
        self.looked_at.clear();
    }

    /// Forgets everything: the split is made anew.
    pub(super) fn forget(&mut self) {
        self.ledger.taken.clear();
        self.looked_at.clear();
        (self.in_memory, self.on_disk) = (0, 0);
        self.bad = Unreadable::default();
    }
}

/// A file that is being looked at.
struct One<'a> {
    file: &'a FoundFile,
    format: Format,
    key: String,
    length: u64,
}

fn is_binary(path: &Path) -> io::Result<bool> {
    const PROBE: u64 = 1024;
    let mut bytes = Vec::new();
    File::open(path)?.take(PROBE).read_to_end(&mut bytes)?;
    Ok(content_inspector::inspect(&bytes).is_binary())
}
