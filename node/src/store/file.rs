//! Files that are either whole or not there.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The checksum at the end of a checked file: BLAKE3 of everything before it.
const CHECKSUM: u64 = 32;

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
    let temporary = tempfile::NamedTempFile::new_in(dir).with_context(failed)?;
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

/// Replaces the file at `path` by `bytes`.
///
/// # Errors
/// A disk that does not take it; the old file is then still there.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |out| out.write_all(bytes))
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
/// A file that cannot be read, or whose checksum does not hold.
pub(crate) fn open_checked(path: &Path) -> Result<Option<io::Take<BufReader<File>>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let failed = || format!("cannot read {}", path.display());
    let length = file.metadata().with_context(failed)?.len();
    let Some(content) = length.checked_sub(CHECKSUM) else {
        bail!("{} is damaged: it is too short", path.display());
    };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader((&mut reader).take(content)).with_context(failed)?;
    let mut checksum = [0; CHECKSUM as usize];
    reader.read_exact(&mut checksum).with_context(failed)?;
    if *hasher.finalize().as_bytes() != checksum {
        bail!("{} is damaged: its checksum does not hold", path.display());
    }
    io::Seek::rewind(&mut reader).with_context(failed)?;
    Ok(Some(reader.take(content)))
}

/// The content of a checked file of at most `limit` bytes.
///
/// # Errors
/// As [`open_checked`]; no such file; more than `limit` bytes.
pub(crate) fn read_checked(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut reader = open_checked(path)?.with_context(|| format!("{} does not exist", path.display()))?;
    if reader.limit() > limit {
        bail!("{} has {} bytes, more than the {limit} it can have", path.display(), reader.limit());
    }
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
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

/// Renames a damaged file so that it is out of the way but not lost; returns its new name.
///
/// # Errors
/// A folder in which nothing can be renamed.
pub(crate) fn set_aside(path: &Path) -> Result<PathBuf> {
    let name = |n: u32| {
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".damaged-{n}"));
        PathBuf::from(aside)
    };
    let free = (1..=10_000).map(name).find(|aside| !aside.exists()).context("too many damaged files")?;
    fs::rename(path, &free).with_context(|| format!("cannot rename {}", path.display()))?;
    Ok(free)
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
        assert_eq!(read_checked(&path, 6).unwrap(), b"second");
        assert!(read_checked(&path, 5).unwrap_err().to_string().contains("more than"));
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).unwrap();
            assert!(read_checked(&path, 6).unwrap_err().to_string().contains("damaged"));
            fs::write(&path, &good[..at]).unwrap();
            assert!(read_checked(&path, 6).is_err());
        }
        let aside = set_aside(&path).unwrap();
        assert!(aside.exists() && !path.exists());
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
