//! What has become of which text: trained on, or held out. Kept in the node's folder.
//!
//! Held-out text tells something only as long as it has never been trained on, in this run or in an earlier one. The
//! split therefore is made once for every piece of text, and remembered: what comes later is split by itself and put
//! after what was there. The same list gives the order of the text, so that a node which starts again draws the
//! windows that it would have drawn.
//!
//! A file is known by its place, and what was taken of it by a *mark*: the hash of samples of it (all of it, up to
//! 256 KiB). If the mark does not hold any more, the file was edited: what was held out of it may stand anywhere in
//! it now, so all of it is trained on and none of it is held out any more.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::CorpusError;
use crate::store::{read_limited, write_atomically};

const VERSION: u32 = 1;
/// A ledger of 100,000 files has about 30 MB.
const MAX_LEDGER: u64 = 1 << 30;
/// Samples of a long text that are in its mark, and the length of each.
const SAMPLES: u64 = 64;
const SAMPLE: u64 = 4096;

/// A piece of a file that was taken up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    /// Its place in the order.
    pub(super) number: u64,
    /// Hash of the file's path and of how it is read.
    pub(super) file: String,
    /// The bytes of the file.
    pub(super) from: u64,
    pub(super) end: u64,
    /// Hash of samples of these bytes.
    pub(super) mark: String,
    /// Number of tokens that they became.
    pub(super) tokens: u64,
    /// Which of the tokens are held out: first and end of each range, rising.
    pub(super) held: Vec<(u64, u64)>,
}

impl Taken {
    /// The name of the file with its tokens, if they are kept.
    pub(super) fn token_file(&self) -> String {
        let Self { file, from, end, mark, .. } = self;
        format!(
            "{:.32}{}",
            blake3::hash(format!("{file} {from} {end} {mark}").as_bytes()).to_hex(),
            super::cache::ENDING
        )
    }
}

/// All that was taken up, in order.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    path: Option<PathBuf>,
    pub(super) taken: Vec<Taken>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    taken: Vec<Taken>,
}

impl Ledger {
    /// The ledger in `dir`, empty if there is none; without `dir` one that is not kept.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn read(dir: Option<&Path>) -> Result<Self, CorpusError> {
        let Some(dir) = dir else { return Ok(Self::default()) };
        let path = dir.join("split.json");
        let mut ledger = Self { path: Some(path.clone()), taken: Vec::new() };
        if !path.exists() {
            return Ok(ledger);
        }
        let keep = |error: anyhow::Error| CorpusError::Keep { reason: format!("{error:#}") };
        let bytes = read_limited(&path, MAX_LEDGER).map_err(keep)?;
        match serde_json::from_slice::<Written>(&bytes) {
            Ok(written) if written.version == VERSION && in_order(&written.taken) => {
                ledger.taken = written.taken
            }
            _ => tracing::warn!(
                "{} is damaged: which text is held out is chosen anew, so held-out losses are not comparable with those \
                 before",
                path.display()
            ),
        }
        Ok(ledger)
    }

    /// Puts it on disk. To be done before anything new in it is trained on.
    ///
    /// # Errors
    /// A disk that does not take it.
    pub(super) fn write(&self) -> Result<(), CorpusError> {
        let Some(path) = &self.path else { return Ok(()) };
        let keep = |reason: String| CorpusError::Keep { reason };
        let written = Written { version: VERSION, taken: self.taken.clone() };
        let bytes = serde_json::to_vec(&written).map_err(|error| keep(error.to_string()))?;
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)
                .map_err(|error| keep(format!("cannot make the folder {}: {error}", dir.display())))?;
        }
        write_atomically(path, &bytes).map_err(|error| keep(format!("{error:#}")))
    }

    /// The number that comes next.
    pub(super) fn next_number(&self) -> u64 {
        self.taken.last().map_or(0, |taken| taken.number + 1)
    }

    /// What was taken of each file, in order.
    pub(super) fn by_file(&self) -> HashMap<String, Vec<Taken>> {
        let mut files: HashMap<String, Vec<Taken>> = HashMap::new();
        for taken in &self.taken {
            files.entry(taken.file.clone()).or_default().push(taken.clone());
        }
        files
    }
}

/// Whether the numbers rise and every range lies where it can.
fn in_order(taken: &[Taken]) -> bool {
    let rising = taken.windows(2).all(|pair| matches!(pair, [a, b] if a.number < b.number));
    let held = |taken: &Taken| {
        let mut at = 0;
        taken.held.iter().all(|(first, end)| {
            let fits = at <= *first && first < end && *end <= taken.tokens.saturating_add(1);
            at = *end;
            fits
        })
    };
    rising && taken.iter().all(|taken| taken.from <= taken.end && held(taken))
}

/// The mark of the bytes `from..end` of a file.
pub(super) fn mark(path: &Path, from: u64, end: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let length = end.saturating_sub(from);
    hasher.update(&length.to_le_bytes());
    let mut sample = |start: u64, length: u64| -> io::Result<()> {
        file.seek(SeekFrom::Start(start))?;
        let read = io::copy(&mut (&mut file).take(length), &mut hasher)?;
        if read == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    };
    if length <= SAMPLES * SAMPLE {
        sample(from, length)?;
    } else {
        for i in 0..SAMPLES {
            let slack = u128::from(length - SAMPLE);
            sample(from + (slack * u128::from(i) / u128::from(SAMPLES - 1)) as u64, SAMPLE)?;
        }
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}
