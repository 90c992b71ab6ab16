//! A node's folder, read as it stands and as it goes on.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use serde_json::Value;

use crate::logs;
use crate::rolling::Follow;

/// A status is a few kilobytes; one of a node with thousands of neighbours some hundred.
const MAX_STATUS: u64 = 4 << 20;
/// Lines of the log that are shown.
const MAX_LINES: usize = 200;
/// Characters of a line of the log.
const MAX_LINE: usize = 2000;

/// What a node last said about itself, and how many seconds ago; `None` if there is nothing that can be read.
pub(crate) fn read_status(dir: &Path) -> Option<(Value, f64)> {
    let file = File::open(dir.join("status.json")).ok()?;
    let written = file.metadata().ok()?.modified().ok()?;
    let status = serde_json::from_reader(std::io::BufReader::new(file.take(MAX_STATUS))).ok()?;
    let age = SystemTime::now().duration_since(written).unwrap_or_default().as_secs_f64();
    Some((status, age))
}

/// The log as it goes on.
#[derive(Debug)]
pub(super) struct Log(Follow);

impl Log {
    /// From the first line that is kept.
    pub(super) fn new(dir: &Path) -> Self {
        Self(Follow::new(dir.join(logs::FILE)))
    }

    /// The lines since the last call; the last ones, if there are many. A log that cannot be read has none.
    pub(super) fn read(&mut self) -> Vec<String> {
        let mut lines = VecDeque::new();
        let _ = self.0.read(|line| {
            if lines.len() == MAX_LINES {
                lines.pop_front();
            }
            lines.push_back(String::from_utf8_lossy(line).trim_end().chars().take(MAX_LINE).collect());
        });
        lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_the_last_lines_are_shown_and_none_is_longer_than_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::new(dir.path());
        assert!(log.read().is_empty());
        let path = dir.path().join(logs::FILE);
        let many: String = (0..1000).map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, many + &"x".repeat(3000) + "\nnot whole").unwrap();
        let lines = log.read();
        assert_eq!((lines.len(), lines.first().map(String::as_str)), (MAX_LINES, Some("801")));
        assert_eq!(lines.last().unwrap().len(), MAX_LINE);
        assert!(log.read().is_empty());
    }

    #[test]
    fn a_status_has_an_age_and_none_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_status(dir.path()), None);
        std::fs::write(dir.path().join("status.json"), "{\"round\": 3").unwrap();
        assert_eq!(read_status(dir.path()), None);
        std::fs::write(dir.path().join("status.json"), "{\"round\": 3}").unwrap();
        let (status, age) = read_status(dir.path()).unwrap();
        assert_eq!(status["round"], 3);
        assert!(age >= 0.0);
    }
}
