//! What `swarm pause`, `resume` and `stop` leave for a node: the file `control` in its folder.
//!
//! A file, not a socket: who may write to the folder may control the node, which the system already enforces; a pause
//! outlives a restart, as one expects who has paused for the night; nothing listens, so there is nothing to attack and
//! nothing left over after a crash; and it is the same on every system. It is written beside its place and renamed, so
//! that a node never sees half of it, and the node looks at it several times a second.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::store::{read_limited, write_atomically};

const FILE: &str = "control";
const MAX_FILE: u64 = 4096;

/// What the user asks of a node at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing.
    Nothing,
    /// Not to train.
    Pause {
        /// For how much longer; `None` until told otherwise.
        left: Option<Duration>,
    },
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Control {
    /// Seconds since 1970 until which it is paused; 0: until told otherwise.
    paused_until: Option<u64>,
    /// The process that is to stop. Another one, started later, is not meant.
    stop: Option<u32>,
}

impl Control {
    /// What is in the folder `dir`.
    ///
    /// # Errors
    /// A file that cannot be read, or is none.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let path = file(dir);
        match read_limited(&path, MAX_FILE) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!("{} is damaged; delete it, or use swarm pause or resume again", path.display())
            }),
            Err(error) if is_missing(&error) => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Puts it into the folder `dir`.
    ///
    /// # Errors
    /// A disk that does not take it.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        write_atomically(&file(dir), &serde_json::to_vec(self)?)
    }

    /// Paused at `now` (seconds since 1970), for so long or until told otherwise.
    pub(crate) fn pause(&mut self, now: u64, length: Option<Duration>) {
        self.paused_until = Some(length.map_or(0, |length| now.saturating_add(length.as_secs()).max(1)));
    }

    /// Not paused any more.
    pub(crate) fn resume(&mut self) {
        self.paused_until = None;
    }

    /// The process `pid` is to stop.
    pub(crate) fn stop(&mut self, pid: u32) {
        self.stop = Some(pid);
    }

    /// Forgets who is to stop. Returns whether there was anybody.
    pub(crate) fn forget_stop(&mut self) -> bool {
        self.stop.take().is_some()
    }

    /// Whether the process `pid` is to stop.
    pub(crate) fn stops(&self, pid: u32) -> bool {
        self.stop == Some(pid)
    }

    /// What it means at `now`, in seconds since 1970.
    pub(crate) fn asked(&self, now: u64) -> Asked {
        match self.paused_until {
            Some(0) => Asked::Pause { left: None },
            Some(until) if until > now => Asked::Pause { left: Some(Duration::from_secs(until - now)) },
            _ => Asked::Nothing,
        }
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

fn is_missing(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    kinds.map(std::io::Error::kind).any(|kind| kind == ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_by_itself_or_when_told_and_outlives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut control = Control::read(dir.path()).unwrap();
        assert_eq!(control.asked(1000), Asked::Nothing);
        control.pause(1000, Some(Duration::from_secs(60)));
        control.write(dir.path()).unwrap();
        let mut control = Control::read(dir.path()).unwrap();
        assert_eq!(control.asked(1001), Asked::Pause { left: Some(Duration::from_secs(59)) });
        assert_eq!(control.asked(1060), Asked::Nothing);
        control.pause(1000, None);
        assert_eq!(control.asked(u64::MAX), Asked::Pause { left: None });
        control.resume();
        assert_eq!(control.asked(1001), Asked::Nothing);
    }

    #[test]
    fn only_the_process_that_is_meant_stops() {
        let mut control = Control::default();
        assert!(!control.stops(7));
        control.stop(7);
        assert!(control.stops(7) && !control.stops(8));
    }

    #[test]
    fn a_damaged_file_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [&b"{"[..], b"{\"paused\": true}", b"\xff"] {
            std::fs::write(file(dir.path()), bytes).unwrap();
            let error = format!("{:#}", Control::read(dir.path()).unwrap_err());
            assert!(
                error.contains("damaged") && error.contains("swarm resume") || error.contains("pause"),
                "{error}"
            );
        }
        std::fs::write(file(dir.path()), vec![b' '; 5000]).unwrap();
        assert!(Control::read(dir.path()).is_err());
    }
}
