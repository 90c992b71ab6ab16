//! A node's folder, read as it stands and as it goes on.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use crate::logs;

/// A status is a few kilobytes; one of a node with thousands of neighbours some hundred.
const MAX_STATUS: u64 = 4 << 20;
/// Bytes of the log that are looked at.
const MAX_LOG: u64 = 64 << 10;
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

/// At most `most` bytes of a file from `start` on, or, if there are more, its last ones; with where they begin.
fn tail(path: &Path, start: u64, most: u64) -> Option<(u64, Vec<u8>)> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    // A file that is shorter has taken the place of the one that was read.
    let start = if length < start { 0 } else { start };
    let start = start.max(length.saturating_sub(most));
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.take(most.min(length - start)).read_to_end(&mut bytes).ok()?;
    Some((start, bytes))
}

/// The log as it goes on.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    end: u64,
}

impl Log {
    /// Its last lines, and what follows.
    pub(super) fn open(dir: &Path) -> (Vec<String>, Self) {
        let mut log = Self { path: dir.join(logs::FILE), end: 0 };
        let mut lines = log.read();
        if lines.len() < MAX_LINES
            && let Some((start, bytes)) = tail(&dir.join(logs::OLDER), 0, MAX_LOG)
        {
            let mut older = split(&bytes, start > 0);
            older.append(&mut lines);
            lines = older;
        }
        let before = lines.len().saturating_sub(MAX_LINES);
        (lines.split_off(before), log)
    }

    /// The lines since; the last ones, if there are many.
    pub(super) fn read(&mut self) -> Vec<String> {
        let Some((start, bytes)) = tail(&self.path, self.end, MAX_LOG) else { return Vec::new() };
        // What is being written is read when it is complete.
        let Some(complete) = bytes.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let cut = start > self.end;
        self.end = start + complete as u64 + 1;
        let mut lines = split(bytes.get(..complete).unwrap_or_default(), cut);
        let before = lines.len().saturating_sub(MAX_LINES);
        lines.split_off(before)
    }
}

/// Lines of a text; without its first one if that is `cut`.
fn split(bytes: &[u8], cut: bool) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().skip(usize::from(cut)).filter(|line| !line.is_empty());
    lines.map(|line| line.chars().take(MAX_LINE).collect()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_is_read_as_it_goes_on_and_over_its_rolling() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Log::open(dir.path()).0, Vec::<String>::new());
        let path = dir.path().join(logs::FILE);
        std::fs::write(dir.path().join(logs::OLDER), "one\ntwo\n").unwrap();
        let mut file = File::create(&path).unwrap();
        file.write_all(b"three\nfo").unwrap();
        let (lines, mut log) = Log::open(dir.path());
        assert_eq!(lines, ["one", "two", "three"]);
        assert!(log.read().is_empty(), "a line that is not complete");
        file.write_all(b"ur\nfive\n").unwrap();
        assert_eq!(log.read(), ["four", "five"]);
        assert!(log.read().is_empty());
        std::fs::write(&path, "six\n").unwrap();
        assert_eq!(log.read(), ["six"]);
        // More than is shown, and a line that has no end.
        let many: String = (0..1000).map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, many + &"x".repeat(3000) + "\n").unwrap();
        let lines = log.read();
        assert_eq!((lines.len(), lines.first().map(String::as_str)), (MAX_LINES, Some("801")));
        assert_eq!(lines.last().unwrap().len(), MAX_LINE);
        std::fs::write(&path, vec![b'x'; 200_000]).unwrap();
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
