//! Reads a node's folder, again and again.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::past::Past;
use super::text::clean;
use super::view::{Running, View};
use crate::events::Told;
use crate::{logs, rolling};

/// Lines of the log that can be looked through, and the bytes that are read for them.
const LINES: usize = 300;
const TAIL: u64 = 64 << 10;
/// Characters of a line of the log.
const LONGEST: usize = 1000;

/// A node's status as somebody else has read it: `swarm top` judges whether it runs as all commands do.
pub(crate) struct Glance {
    /// Its status.json.
    pub(crate) status: Value,
    /// How long ago it was written.
    pub(crate) age: Duration,
    /// Whether the node runs.
    pub(crate) runs: bool,
}

/// A node's folder.
pub(crate) struct Folder {
    dir: PathBuf,
    read: fn(&Path) -> Result<Glance>,
    status: Option<Value>,
    past: Arc<Past>,
    told: Told,
    log: Tail,
}

impl Folder {
    /// The folder `dir`, whose status `read` reads.
    pub(crate) fn new(dir: &Path, read: fn(&Path) -> Result<Glance>) -> Self {
        let dir = dir.to_owned();
        let told = Told::new(&dir);
        Self { dir, read, status: None, past: Arc::default(), told, log: Tail::default() }
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// As it is now.
    pub(super) fn look(&mut self) -> View {
        // Without events there are no curves; what is wrong with the file is the node's to say.
        for event in self.told.read().unwrap_or_default() {
            Arc::make_mut(&mut self.past).learn(&event);
        }
        let (running, trouble) = match (self.read)(&self.dir) {
            Ok(glance) => {
                self.status = Some(glance.status);
                let running = if glance.runs { Running::Yes } else { Running::Not(glance.age.as_secs_f64()) };
                (running, None)
            }
            // Of a folder in which nothing has run yet that is no news.
            Err(_) if self.status.is_none() && !self.dir.join("status.json").exists() => {
                (Running::Never, None)
            }
            Err(error) => (Running::Not(0.0), Some(clean(&format!("{error:#}"), LONGEST))),
        };
        let mut view = View::of(self.status.as_ref().unwrap_or(&Value::Null));
        (view.running, view.trouble) = (running, trouble);
        view.past = self.past.clone();
        view.log = self.log.read(&self.dir).to_vec();
        view
    }
}

/// The end of the log, read anew only if there is more of it.
#[derive(Default)]
struct Tail {
    length: u64,
    lines: Vec<String>,
}

impl Tail {
    fn read(&mut self, dir: &Path) -> &[String] {
        let path = dir.join(logs::FILE);
        let length = fs::metadata(&path).map_or(0, |about| about.len());
        if length != self.length {
            self.length = length;
            self.lines = end_of(&path, LINES);
            // Just after a log was rolled its beginning is next to empty.
            if self.lines.len() < LINES {
                let mut before = end_of(&rolling::older(&path), LINES - self.lines.len());
                before.append(&mut self.lines);
                self.lines = before;
            }
        }
        &self.lines
    }
}

/// The last lines of a file; none of one that cannot be read.
fn end_of(path: &Path, most: usize) -> Vec<String> {
    let read = || -> std::io::Result<(u64, Vec<u8>)> {
        let mut file = File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(TAIL);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok((start, bytes))
    };
    let Ok((start, bytes)) = read() else { return Vec::new() };
    let text = String::from_utf8_lossy(&bytes);
    // The first of them is half a line, unless it is the file's first.
    let lines: Vec<&str> = text.lines().skip(usize::from(start > 0)).collect();
    let from = lines.len().saturating_sub(most);
    lines.iter().skip(from).filter(|line| !line.is_empty()).map(|line| short(line)).collect()
}

/// A line of the log with the time of day instead of the date and its fractions, and no level if it is the usual one.
fn short(line: &str) -> String {
    let cut = || {
        let (time, rest) = line.split_once(' ')?;
        let (_, clock) = time.strip_suffix('Z')?.split_once('T')?;
        let clock = clock.get(..8)?;
        let rest = rest.trim_start();
        let rest = rest.strip_prefix("INFO ").unwrap_or(rest);
        Some(format!("{clock} {}", clean(rest, LONGEST)))
    };
    cut().unwrap_or_else(|| clean(line, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn nothing(_: &Path) -> Result<Glance> {
        anyhow::bail!("nothing\x1b[2J there")
    }

    #[test]
    fn a_log_is_shown_by_its_end_across_a_roll() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join(logs::FILE);
        fs::write(&log, "2025-11-22T15:12:00.123456Z  INFO round 1\nno \x1b[31mtime\n").unwrap();
        let mut folder = Folder::new(dir.path(), nothing);
        assert_eq!(folder.look().log, ["15:12:00 round 1", "no \\u{1b}[31mtime"]);
        fs::rename(&log, rolling::older(&log)).unwrap();
        let mut file = File::create(&log).unwrap();
        writeln!(file, "2025-11-22T15:12:01.123456Z  WARN a word").unwrap();
        assert_eq!(folder.look().log, ["15:12:00 round 1", "no \\u{1b}[31mtime", "15:12:01 WARN a word"]);
        for number in 0..20_000 {
            writeln!(file, "line {number}").unwrap();
        }
        let shown = folder.look().log;
        assert_eq!((shown.len(), shown.last().map(String::as_str)), (LINES, Some("line 19999")));
    }

    #[test]
    fn a_folder_without_a_status_is_waited_for_and_a_damaged_one_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path(), nothing);
        let view = folder.look();
        assert_eq!((view.running, view.trouble), (Running::Never, None));
        fs::write(dir.path().join("status.json"), "{").unwrap();
        let view = folder.look();
        assert_eq!(view.trouble.as_deref(), Some("nothing\\u{1b}[2J there"));
        // What was known is still shown.
        folder.read = |_| {
            let status = serde_json::json!({"round": 7});
            Ok(Glance { status, age: Duration::ZERO, runs: true })
        };
        assert_eq!((folder.look().running, folder.look().round), (Running::Yes, 7));
        folder.read = nothing;
        let view = folder.look();
        assert_eq!((view.running, view.round), (Running::Not(0.0), 7));
    }
}
