//! A key that all peers of a private network have: whoever lacks it learns nothing, not even what swarm this is.
//!
//! ```text
//! TCP   socket ─ XSalsa20 under the key ─ noise ─ yamux ─ streams
//! ```
//!
//! This is libp2p's pre-shared key (specs/pnet): it protects nothing that noise does not, but it answers nobody who
//! does not have it, so that strangers can neither connect nor tell what is listening. QUIC has no place for it and
//! is not used with a key. Files are as other libp2p programs have them (`swarm.key`).

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use libp2p::pnet::PreSharedKey;

use crate::store::{read_limited, write_atomically};

/// A key file has three short lines.
const LIMIT: u64 = 1024;
/// What a key file says before the key's 64 hexadecimal digits.
const HEAD: &str = "/key/swarm/psk/1.0.0/\n/base16/\n";

/// A private network's key.
#[derive(Clone, Copy)]
pub(crate) struct NetworkKey(pub(super) PreSharedKey);

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkKey({})", self.0.fingerprint())
    }
}

impl NetworkKey {
    /// Reads a key file.
    ///
    /// # Errors
    /// No such file, or it is no key file; the text says what to do.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = String::from_utf8(read_limited(path, LIMIT)?).ok();
        let key = text.as_deref().and_then(|text| text.parse::<PreSharedKey>().ok());
        let key = key.with_context(|| {
            format!(
                "{} is no network key: it must have the three lines that swarm network-key writes, unchanged",
                path.display()
            )
        })?;
        Ok(Self(key))
    }

    /// Makes a key and writes it to a new file, which only its owner may read.
    ///
    /// # Errors
    /// The file is there already, or cannot be written.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        ensure!(
            !path.try_exists().with_context(|| format!("cannot look for {}", path.display()))?,
            "{} is there already: it is not replaced, because whoever has it would be locked out",
            path.display()
        );
        let secret: [u8; 32] = rand::random();
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        write_atomically(path, format!("{HEAD}{hex}\n").as_bytes())?;
        Self::read(path)
    }

    /// What tells two keys apart and gives nothing away.
    pub(crate) fn fingerprint(&self) -> String {
        self.0.fingerprint().to_string()
    }
}

/// What a flag names: the key in the file.
impl std::str::FromStr for NetworkKey {
    type Err = anyhow::Error;

    fn from_str(path: &str) -> Result<Self> {
        Self::read(&PathBuf::from(path)).map_err(|error| anyhow!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("swarm.key");
        let key = NetworkKey::create(&path).unwrap();
        assert_eq!(NetworkKey::read(&path).unwrap().fingerprint(), key.fingerprint());
        assert!(!format!("{key:?}").contains(&std::fs::read_to_string(&path).unwrap()[HEAD.len()..]));
        assert!(NetworkKey::create(&path).unwrap_err().to_string().contains("there already"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
        }
        let other = NetworkKey::create(&dir.path().join("other")).unwrap();
        assert_ne!(other.fingerprint(), key.fingerprint());
        for damaged in [&b"nonsense"[..], b"", &[0xff; 90]] {
            std::fs::write(&path, damaged).unwrap();
            assert!(NetworkKey::read(&path).unwrap_err().to_string().contains("no network key"));
        }
        let missing = dir.path().join("missing");
        assert!(format!("{:#}", NetworkKey::read(&missing).unwrap_err()).contains("missing"));
    }
}
