//! Files that are either whole or not there, and what becomes of those that are neither.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The checksum at the end of a checked file: BLAKE3 of everything before it.
const CHECKSUM: u64 = 32;
/// What a file is called while it is written. A kill leaves it behind; see [`sweep`].
const WRITING: &str = ".writing-";
/// Damaged files that are kept of one name, or of all names that are numbers: the newest.
const KEPT_ASIDE: usize = 3;
/// Between a file's name and its number when it has been set aside.
const ASIDE: &str = ".damaged-";

/// A file that is there and can be read, but is not what was written: bits flipped, cut short, emptied.
/// Anything else that is wrong with a file (no permission, a failing disk) is no reason to set it aside.
#[derive(Debug)]
pub(crate) struct Damaged(pub(crate) String);

impl std::fmt::Display for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Damaged {}

/// Whether an error is [`Damaged`].
pub(crate) fn is_damage(error: &anyhow::Error) -> bool {
    error.is::<Damaged>()
}

/// Passes bytes on and hashes them.
struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Replaces `path` by what `fill` writes: beside it first, synced, then renamed. Readable by the owner
/// only.
fn replace(path: &Path, fill: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> Result<()> {
    let failed = || {
        format!(
            "cannot write {} (is the disk full, or the folder not yours?); nothing there has been changed",
            path.display()
        )
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new().prefix(WRITING).tempfile_in(dir).with_context(failed)?;
    let mut out = BufWriter::new(temporary.as_file());
    fill(&mut out).and_then(|()| out.flush()).with_context(failed)?;
    drop(out);
    temporary.as_file().sync_all().with_context(failed)?;
    temporary.persist(path).map_err(|error| error.error).with_context(failed)?;
    sync_folder(dir).with_context(failed)
}

/// Makes a rename in `dir` durable.
#[cfg(unix)]
fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_dir: &Path) -> io::Result<()> {
    Ok(())
}

/// Makes a folder and those above it, durably: a file is not on disk while the name of its folder is not.
///
/// # Errors
/// A disk that does not take it.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let failed = || format!("cannot make the folder {}", path.display());
    fs::create_dir_all(path).with_context(failed)?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_folder(above).with_context(failed)
}

/// Deletes what a kill in the middle of a write has left in `dir`. Nobody else may be writing there.
///
/// # Errors
/// A folder that cannot be listed, or a file that cannot be deleted.
pub(crate) fn sweep(dir: &Path) -> Result<()> {
    for name in names(dir)? {
        if name.starts_with(WRITING) {
            let path = dir.join(name);
            fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
        }
    }
    Ok(())
}

/// The names in `dir` that are text; none if there is no such folder.
///
/// # Errors
/// A folder that cannot be listed.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>> {
    let failed = || format!("cannot list {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(failed),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.with_context(failed)?.file_name().into_string());
    }
    Ok(names)
}

/// The names in `dir` that are numbers, in order.
///
/// # Errors
/// As [`names`].
pub(crate) fn numbers(dir: &Path) -> Result<Vec<u64>> {
    let mut numbers: Vec<u64> = names(dir)?.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Replaces the file at `path` by `bytes`.
///
/// # Errors
/// A disk that does not take it; the old file is then still there.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |out| out.write_all(bytes))
}

/// Replaces the file at `path` by what `fill` writes.
///
/// # Errors
/// As [`write_atomically`].
pub(crate) fn write_streamed(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    replace(path, |out| fill(out))
}

/// Replaces the file at `path` by what `fill` writes, and a checksum.
///
/// # Errors
/// As [`write_atomically`].
pub(crate) fn write_checked(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    replace(path, |out| {
        let mut hashing = Hashing { inner: out, hasher: blake3::Hasher::new() };
        fill(&mut hashing)?;
        let checksum = *hashing.hasher.finalize().as_bytes();
        hashing.inner.write_all(&checksum)
    })
}

/// Opens a checked file whose checksum holds, for reading what is before it; `None` if there is no such
/// file. The reader ends where the checksum begins.
///
/// # Errors
/// A file that cannot be read; [`Damaged`] if its checksum does not hold.
pub(crate) fn open_checked(path: &Path) -> Result<Option<io::Take<BufReader<File>>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let failed = || format!("cannot read {}", path.display());
    let length = file.metadata().with_context(failed)?.len();
    let Some(content) = length.checked_sub(CHECKSUM) else {
        bail!(Damaged(format!("{} is damaged: it is too short", path.display())));
    };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader((&mut reader).take(content)).with_context(failed)?;
    let mut checksum = [0; CHECKSUM as usize];
    reader.read_exact(&mut checksum).with_context(failed)?;
    if *hasher.finalize().as_bytes() != checksum {
        bail!(Damaged(format!("{} is damaged: its checksum does not hold", path.display())));
    }
    io::Seek::rewind(&mut reader).with_context(failed)?;
    Ok(Some(reader.take(content)))
}

/// The content of a checked file of at most `limit` bytes, or `None` if there is no such file.
///
/// # Errors
/// As [`open_checked`]; more than `limit` bytes are damage, too.
pub(crate) fn read_checked(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let Some(mut reader) = open_checked(path)? else { return Ok(None) };
    if reader.limit() > limit {
        let (path, has) = (path.display(), reader.limit());
        bail!(Damaged(format!("{path} is damaged: it has {has} bytes, more than the {limit} it can have")));
    }
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(bytes))
}

/// A whole file of at most `limit` bytes.
///
/// # Errors
/// A file that cannot be read or is larger.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let failed = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    File::open(path).with_context(failed)?.take(limit + 1).read_to_end(&mut bytes).with_context(failed)?;
    if bytes.len() as u64 > limit {
        bail!("{} has more than {limit} bytes", path.display());
    }
    Ok(bytes)
}

/// Renames a damaged file so that it is out of the way but not lost; returns its new name. The newest
/// [`KEPT_ASIDE`] are kept of each name, and of all names together that are numbers.
///
/// # Errors
/// A folder in which nothing can be renamed.
pub(crate) fn set_aside(path: &Path) -> Result<PathBuf> {
    let failed = || format!("cannot set {} aside", path.display());
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str()).with_context(failed)?;
    let number_of = |name: &str| name.parse::<u64>().ok();
    let all = names(dir)?;
    // What has been set aside of this name or, if that is a number, of any number: the oldest first.
    let mut kept: Vec<(Option<u64>, u32, &str)> = Vec::new();
    let mut last = 0;
    for held in &all {
        let Some((of, count)) = aside_name(held) else { continue };
        if of == name {
            last = last.max(count);
        }
        if of == name || number_of(of).is_some() && number_of(name).is_some() {
            kept.push((number_of(of), count, held));
        }
    }
    kept.sort_unstable();
    let aside = dir.join(format!("{name}{ASIDE}{}", last.checked_add(1).with_context(failed)?));
    fs::rename(path, &aside).with_context(failed)?;
    for (.., old) in kept.iter().rev().skip(KEPT_ASIDE - 1) {
        fs::remove_file(dir.join(old)).with_context(failed)?;
    }
    sync_folder(dir).with_context(failed)?;
    Ok(aside)
}

/// The name that a file had before it was set aside, and its number.
pub(crate) fn aside_name(name: &str) -> Option<(&str, u32)> {
    let (of, number) = name.rsplit_once(ASIDE)?;
    Some((of, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checked_file_holds_at_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(open_checked(&path).unwrap().is_none());
        write_checked(&path, |out| out.write_all(b"first")).unwrap();
        write_checked(&path, |out| out.write_all(b"second")).unwrap();
        assert_eq!(read_checked(&path, 6).unwrap().unwrap(), b"second");
        assert!(read_checked(&path, 5).unwrap_err().to_string().contains("more than"));
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).unwrap();
            assert!(is_damage(&read_checked(&path, 6).unwrap_err()));
            fs::write(&path, &good[..at]).unwrap();
            assert!(is_damage(&read_checked(&path, 6).unwrap_err()));
        }
        // What cannot be read at all is no damage: here, a folder.
        assert!(!is_damage(&read_checked(dir.path(), 6).unwrap_err()));
    }

    #[test]
    fn the_newest_damaged_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for n in 1..=5 {
            fs::write(&path, n.to_string()).unwrap();
            let aside = set_aside(&path).unwrap();
            assert_eq!(aside, dir.path().join(format!("file.damaged-{n}")));
            assert!(!path.exists() && fs::read_to_string(aside).unwrap() == n.to_string());
        }
        let mut left = names(dir.path()).unwrap();
        left.sort_unstable();
        assert_eq!(left, ["file.damaged-3", "file.damaged-4", "file.damaged-5"]);
        for n in 1..=5 {
            let path = dir.path().join(n.to_string());
            fs::write(&path, "damaged").unwrap();
            set_aside(&path).unwrap();
        }
        let mut left = names(dir.path()).unwrap();
        left.sort_unstable();
        assert_eq!(left[..3], ["3.damaged-1", "4.damaged-1", "5.damaged-1"]);
        assert_eq!(left.len(), 6);
        assert_eq!(aside_name("file.damaged-3"), Some(("file", 3)));
        assert_eq!(aside_name("file"), None);
    }

    #[test]
    fn what_a_kill_left_unfinished_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        write_atomically(&dir.path().join("file"), b"whole").unwrap();
        fs::write(dir.path().join(".writing-aB3"), b"ha").unwrap();
        fs::write(dir.path().join(".somebody"), b"else").unwrap();
        sweep(dir.path()).unwrap();
        let mut left = names(dir.path()).unwrap();
        left.sort_unstable();
        assert_eq!(left, [".somebody", "file"]);
        sweep(&dir.path().join("nowhere")).unwrap();
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomically(&path, b"old").unwrap();
        let full = |_: &mut BufWriter<&File>| Err(io::Error::from(io::ErrorKind::StorageFull));
        let error = format!("{:#}", replace(&path, full).unwrap_err());
        assert!(error.contains("disk full") && error.contains("file"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn files_are_the_owners() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomically(&path, b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
