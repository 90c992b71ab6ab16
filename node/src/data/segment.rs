//! One taken piece of a file, as tokens that can be read from anywhere.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::cache::ids;
use super::error::CorpusError;

/// Where the tokens are.
#[derive(Debug)]
pub(super) enum Source {
    /// In memory, as bytes.
    Memory(Vec<u8>),
    /// In a file, from this byte on.
    Disk(PathBuf, u64),
}

/// A piece of a file: its tokens, then a newline if it is plain text.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its place in the order.
    pub(super) number: u64,
    /// Hash of the file's path.
    pub(super) file: String,
    /// Number of tokens in the source.
    pub(super) tokens: u64,
    /// Bytes of a token.
    pub(super) width: u8,
    /// Whether a newline follows that is not in the source.
    pub(super) newline: bool,
    /// Ids from here on are no tokens.
    pub(super) vocabulary: u32,
    pub(super) source: Source,
    /// Which of its tokens are held out.
    pub(super) held: Vec<Range<u64>>,
}

impl Segment {
    /// Number of tokens, the newline included.
    pub(super) fn length(&self) -> u64 {
        self.tokens + u64::from(self.newline)
    }

    /// The ranges that are trained on: all that are not held out.
    pub(super) fn trained(&self) -> Vec<Range<u64>> {
        let mut at = 0;
        let mut ranges = Vec::new();
        for held in &self.held {
            ranges.push(at..held.start);
            at = held.end;
        }
        ranges.push(at..self.length());
        ranges
    }

    /// Fills `out` with its tokens from `offset` on.
    pub(super) fn read(&self, offset: u64, out: &mut [u32]) -> Result<(), CorpusError> {
        let there = self.tokens.saturating_sub(offset).min(out.len() as u64) as usize;
        let (text, newline) = out.split_at_mut(there);
        newline.fill(u32::from(b'\n'));
        if text.is_empty() {
            return Ok(());
        }
        let width = usize::from(self.width);
        match &self.source {
            Source::Memory(bytes) => {
                // In range by construction: `bytes` is as long as the segment says.
                let start = offset as usize * width;
                if let Some(part) = bytes.get(start..start + there * width) {
                    text.copy_from_slice(&ids(part, self.width));
                }
                Ok(())
            }
            Source::Disk(path, first) => {
                let mut bytes = vec![0; there * width];
                let failed = |source| CorpusError::Read { path: path.clone(), source };
                read_at(path, first + offset * width as u64, &mut bytes).map_err(failed)?;
                text.copy_from_slice(&ids(&bytes, self.width));
                // A file that was checked may have been written over since.
                if text.iter().any(|token| *token >= self.vocabulary) {
                    return Err(failed(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "it holds a token id that the model does not have",
                    )));
                }
                Ok(())
            }
        }
    }
}

fn read_at(path: &Path, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(out)
}
