//! A node's log, also in its folder: `log`, and `log.1` before it.
//!
//! What a service says goes to wherever the system puts it; `swarm logs` shows the same everywhere.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result};

/// The newest lines.
pub(crate) const FILE: &str = "log";
/// Those before.
pub(crate) const OLDER: &str = "log.1";
/// A file that is larger becomes the older one.
const LARGEST: u64 = 1 << 20;

static KEPT: OnceLock<Mutex<Kept>> = OnceLock::new();

struct Kept {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Kept {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let length = file.metadata()?.len();
        Ok(Self { path, file, length })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.length > 0 && self.length.saturating_add(line.len() as u64) > LARGEST {
            std::fs::rename(&self.path, self.path.with_file_name(OLDER))?;
            *self = Self::open(self.path.clone())?;
        }
        self.file.write_all(line)?;
        self.length += line.len() as u64;
        Ok(())
    }
}

/// Keeps what is logged from now on in the folder `dir`; the first one counts.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn keep_in(dir: &Path) -> Result<()> {
    let path = dir.join(FILE);
    let kept = Kept::open(path.clone()).with_context(|| format!("cannot write {}", path.display()))?;
    let _ = KEPT.set(Mutex::new(kept));
    Ok(())
}

/// Where the log's lines go, a call a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer;

impl Write for Writer {
    /// A full disk is said elsewhere, and no reason not to go on.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(kept) = KEPT.get() {
            let _ = kept.lock().unwrap_or_else(PoisonError::into_inner).write(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_bounded_and_keeps_what_was_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut kept = Kept::open(path.clone()).unwrap();
        let line = [b'x'; 999];
        for _ in 0..5 * LARGEST / 1000 {
            kept.write(&line).unwrap();
            kept.write(b"\n").unwrap();
        }
        let lengths = [FILE, OLDER].map(|name| std::fs::metadata(dir.path().join(name)).unwrap().len());
        assert!(lengths.iter().all(|length| *length <= LARGEST) && lengths[1] > LARGEST / 2, "{lengths:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        // A restart goes on with the same file.
        let mut again = Kept::open(path.clone()).unwrap();
        again.write(b"after\n").unwrap();
        assert!(std::fs::read(&path).unwrap().ends_with(b"x\nafter\n"));
    }
}
