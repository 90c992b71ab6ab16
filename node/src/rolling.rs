//! A file of lines that is added to and does not grow for ever: `NAME`, and `NAME.1` before it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// No more is read of such a file: none is larger.
const MOST: u64 = 4 << 20;

/// Where the lines before those of `path` are.
pub(crate) fn older(path: &Path) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".1");
    path.with_file_name(name)
}

/// The end of such a file, open for writing.
#[derive(Debug)]
pub(crate) struct Rolling {
    path: PathBuf,
    file: File,
    length: u64,
    largest: u64,
}

impl Rolling {
    /// Goes on with what is at `path`. A file that would become larger than `largest` bytes becomes the older one;
    /// `largest` is 4 MiB at most.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn open(path: PathBuf, largest: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        // A log names the dashboard's address, with the secret in it.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        let length = file.metadata()?.len();
        Ok(Self { path, file, length, largest: largest.min(MOST) })
    }

    /// Adds a line, its end included.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.length > 0 && self.length.saturating_add(line.len() as u64) > self.largest {
            std::fs::rename(&self.path, older(&self.path))?;
            *self = Self::open(self.path.clone(), self.largest)?;
        }
        self.file.write_all(line)?;
        self.length += line.len() as u64;
        Ok(())
    }
}

/// Such a file, read by whoever does not write it: first all there is, then what is added.
#[derive(Debug)]
pub(crate) struct Follow {
    path: PathBuf,
    /// How much of the newer file has been read; `None` before the first time.
    read: Option<u64>,
}

impl Follow {
    /// From the first line that is kept.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, read: None }
    }

    /// Hands over the lines that have been added, each with its end; one that is not whole yet waits. A file that is
    /// not there has no lines.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn read(&mut self, mut line: impl FnMut(&[u8])) -> io::Result<()> {
        let length = match std::fs::metadata(&self.path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let from = match self.read {
            Some(read) if read <= length => read,
            // It is another file, and the one that was read from is the older one now.
            read => {
                lines(&older(&self.path), read.unwrap_or(0), &mut line)?;
                0
            }
        };
        self.read = Some(lines(&self.path, from, &mut line)?);
        Ok(())
    }
}

/// Hands over the whole lines of a file from `start` on, as it is now. Returns where the last one ends.
fn lines(path: &Path, start: u64, line: &mut impl FnMut(&[u8])) -> io::Result<u64> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(start))?;
    // A file of this kind is no longer; whatever it is, no more is read.
    let mut reader = BufReader::new(file.take(MOST.saturating_sub(start)));
    let (mut end, mut bytes) = (start, Vec::new());
    while reader.read_until(b'\n', &mut bytes)? > 0 && bytes.ends_with(b"\n") {
        end += bytes.len() as u64;
        line(&bytes);
        bytes.clear();
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: u64 = 100_500;

    #[test]
    fn it_is_bounded_and_keeps_what_was_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut kept = Rolling::open(path.clone(), LARGEST).unwrap();
        let line = [b'x'; 999];
        for _ in 0..5 * LARGEST / 1000 {
            kept.write(&line).unwrap();
            kept.write(b"\n").unwrap();
        }
        let lengths = [path.clone(), older(&path)].map(|path| std::fs::metadata(path).unwrap().len());
        assert!(lengths.iter().all(|length| *length <= LARGEST) && lengths[1] > LARGEST / 2, "{lengths:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        #[cfg(unix)]
        for path in [path.clone(), older(&path)] {
            let mode =
                std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600, "others can read it");
        }
        // A restart goes on with the same file.
        let mut again = Rolling::open(path.clone(), LARGEST).unwrap();
        again.write(b"after\n").unwrap();
        assert!(std::fs::read(&path).unwrap().ends_with(b"x\nafter\n"));
    }

    #[test]
    fn whoever_reads_along_gets_every_line_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut follow = Follow::new(path.clone());
        let mut got: Vec<u64> = Vec::new();
        let mut look = |got: &mut Vec<u64>| {
            let number = |line: &[u8]| std::str::from_utf8(line).unwrap().trim().parse::<u64>().unwrap();
            follow.read(|line| got.push(number(line))).unwrap();
        };
        look(&mut got);
        assert!(got.is_empty());
        let mut kept = Rolling::open(path.clone(), LARGEST).unwrap();
        // Two and a half files.
        let count = 5 * LARGEST / 200;
        for number in 0..count {
            kept.write(format!("{number:099}\n").as_bytes()).unwrap();
            if number % 577 == 0 {
                look(&mut got);
            }
        }
        // A line that is not whole waits.
        kept.write(b"77").unwrap();
        look(&mut got);
        assert!(got.iter().copied().eq(0..count));
        kept.write(b"7\n").unwrap();
        look(&mut got);
        assert_eq!(got.last(), Some(&777));
        // Who comes late gets what is kept, in order.
        let mut late: Vec<Vec<u8>> = Vec::new();
        Follow::new(path).read(|line| late.push(line.to_vec())).unwrap();
        assert!(late.len() as u64 * 100 > LARGEST && late[..late.len() - 1].is_sorted(), "{}", late.len());
        assert_eq!(late.last().map(Vec::as_slice), Some(&b"777\n"[..]));
    }
}
