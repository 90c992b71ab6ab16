//! Pictures that lie one after the other in a file, all of the same size. What is compressed or text is first
//! unpacked into a temporary file, so that memory holds labels only.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;

use super::Pictures;

/// A file of pictures.
#[derive(Debug)]
pub(super) struct PixelFile {
    path: PathBuf,
    file: Mutex<File>,
    /// Where the first picture begins.
    start: u64,
    labels: Vec<u16>,
}

impl PixelFile {
    /// The pictures of `file`, from byte `start` on; `path` is what the user calls them.
    pub(super) fn new(path: &Path, file: File, start: u64, labels: Vec<u16>) -> Self {
        Self { path: path.to_owned(), file: Mutex::new(file), start, labels }
    }
}

impl Pictures for PixelFile {
    fn labels(&self) -> &[u16] {
        &self.labels
    }

    fn name(&self, at: usize) -> String {
        at.to_string()
    }

    fn read(&self, at: usize, out: &mut [u8]) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut read = || {
            file.seek(SeekFrom::Start(self.start + at as u64 * out.len() as u64))?;
            file.read_exact(out)
        };
        read().with_context(|| {
            format!("cannot read picture {at} of {} (was it shortened while training?)", self.path.display())
        })
    }
}

/// Whether the file is compressed with gzip, by its name.
pub(super) fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"))
}

/// The name without `.gz`, in lower case.
pub(super) fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.strip_suffix(".gz").map(str::to_owned).unwrap_or(name)
}

/// Reads a file, unpacked if it is compressed.
pub(super) fn reader(path: &Path) -> Result<Box<dyn Read>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let file = BufReader::new(file);
    Ok(if is_gzip(path) { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}
