//! A node's log, also in its folder: `log`, and `log.1` before it.
//!
//! What a service says goes to wherever the system puts it; `swarm logs` shows the same everywhere.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result};

use crate::rolling::Rolling;

/// The newest lines; see [`crate::rolling`].
pub(crate) const FILE: &str = "log";

/// A file's size at most.
const LARGEST: u64 = 1 << 20;

static KEPT: OnceLock<Mutex<Rolling>> = OnceLock::new();

/// Keeps what is logged from now on in the folder `dir`; the first one counts.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn keep_in(dir: &Path) -> Result<()> {
    let path = dir.join(FILE);
    let kept =
        Rolling::open(path.clone(), LARGEST).with_context(|| format!("cannot write {}", path.display()))?;
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
