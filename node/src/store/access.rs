//! Who may take part in a closed swarm, as a node's folder keeps it.
//!
//! ```text
//! access       "swarm access 1\n", all certificates and revocations that are known (bincode), BLAKE3 of this
//! incoming/*   text that somebody puts here while the node runs, such as `swarm admit --dir`: certificates and
//!              revocations, one a line. They are taken up, told to the swarm, and the file is deleted.
//! ```
//!
//! Nothing in `access` is believed: every signature is looked at again when it is read, so nothing but the checksum
//! has to tell whether the file is whole.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use swarm_protocol::access::Statements;
use swarm_protocol::codec;

use super::Store;
use super::file::{self, Damaged, aside_name};

const MAGIC: &[u8] = b"swarm access 1\n";
/// As many statements as a register keeps take less.
const MAX_ACCESS: u64 = 2 << 20;
/// A file of text with a few statements.
const MAX_TEXT: u64 = 64 * 1024;
const FILE: &str = "access";
const INCOMING: &str = "incoming";

/// Certificates and revocations in a text: one a line.
///
/// # Errors
/// The first line that is none, in words; a text without any.
pub(crate) fn parse_statements(text: &str) -> Result<Statements> {
    let mut all = Statements::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut read: Statements = line.parse()?;
        all.certificates.append(&mut read.certificates);
        all.revocations.append(&mut read.revocations);
    }
    if all.is_empty() {
        bail!("there is no certificate or revocation in it");
    }
    Ok(all)
}

/// The same from a file.
///
/// # Errors
/// As [`parse_statements`], or a file that cannot be read.
pub(crate) fn read_statements(path: &Path) -> Result<Statements> {
    let bytes = file::read_limited(path, MAX_TEXT)?;
    let text = String::from_utf8(bytes).map_err(|_| anyhow!("{} is not text", path.display()))?;
    parse_statements(&text).with_context(|| format!("{}", path.display()))
}

/// What the node whose folder is `dir` knows about who may take part, without locking it.
///
/// # Errors
/// A file that cannot be read; [`Damaged`] if it is not whole.
pub(crate) fn read_access(dir: &Path) -> Result<Statements> {
    let path = dir.join(FILE);
    let Some(bytes) = file::read_checked(&path, MAX_ACCESS)? else { return Ok(Statements::default()) };
    match bytes.strip_prefix(MAGIC).and_then(codec::decode) {
        Some(statements) => Ok(statements),
        None => bail!(Damaged(format!("{} is damaged: it holds no certificates", path.display()))),
    }
}

/// Leaves statements for the node whose folder is `dir`; it takes them up at once if it is running, and else when it
/// is started.
///
/// # Errors
/// A disk that does not take them.
pub(crate) fn leave_statements(dir: &Path, statements: &Statements) -> Result<()> {
    let folder = dir.join(INCOMING);
    file::make_folder(&folder)?;
    let text = format!("{statements}\n");
    let name = format!("{}.txt", &blake3::hash(text.as_bytes()).to_hex()[..16]);
    file::write_atomically(&folder.join(name), text.as_bytes())
}

impl Store {
    /// What was known about who may take part. A damaged file is set aside, and the log says so.
    ///
    /// # Errors
    /// A file that cannot be read at all.
    pub(crate) fn access(&self) -> Result<Statements> {
        match read_access(&self.dir) {
            Err(error) if file::is_damage(&error) => {
                let aside = file::set_aside(&self.path(FILE))?;
                tracing::error!(
                    "{error:#}; it is kept as {}. Peers know the certificates of the swarm; this device's own may have \
                     to be given again with --certificate",
                    aside.display()
                );
                Ok(Statements::default())
            }
            read => read,
        }
    }

    /// Keeps what is known about who may take part.
    ///
    /// # Errors
    /// A disk that does not take it; the old file is then still there.
    pub(crate) fn keep_access(&self, statements: &Statements) -> Result<()> {
        file::write_checked(&self.path(FILE), |out| {
            out.write_all(MAGIC)?;
            out.write_all(&codec::encode(statements))
        })
    }

    /// What has been left in the folder `incoming`, by file. What cannot be read is set aside, and the log says so.
    ///
    /// # Errors
    /// A folder that cannot be listed, or in which nothing can be renamed.
    pub(crate) fn incoming(&self) -> Result<Vec<(PathBuf, Statements)>> {
        let folder = self.path(INCOMING);
        let mut all = Vec::new();
        for name in file::names(&folder)? {
            // What is still being written, or was set aside.
            if name.starts_with('.') || aside_name(&name).is_some() {
                continue;
            }
            let path = folder.join(name);
            match read_statements(&path) {
                Ok(statements) => all.push((path, statements)),
                Err(error) => {
                    let aside = file::set_aside(&path)?;
                    tracing::error!("{error:#}; it is kept as {}", aside.display());
                }
            }
        }
        Ok(all)
    }

    /// A file of `incoming` has been taken up.
    ///
    /// # Errors
    /// A file that cannot be deleted.
    pub(crate) fn taken_up(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).with_context(|| format!("cannot delete {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_protocol::access::{Certificate, NEVER, Signed};
    use swarm_protocol::architecture::Sizes;
    use swarm_protocol::digest::Digest;
    use swarm_protocol::genesis::Genesis;
    use swarm_protocol::identity::Identity;

    fn statements(count: u8) -> Statements {
        let identity = Identity::from_secret(&[1; 32]);
        let issuer = identity.public();
        let of = |n| {
            let subject = Identity::from_secret(&[n + 2; 32]).public();
            let swarm = Digest::of_bytes(b"swarm");
            Signed::new(
                Certificate { swarm, subject, issuer, may_admit: false, last_round: NEVER },
                &identity,
            )
        };
        (0..count).map(of).collect::<Vec<_>>().into()
    }

    fn store(dir: &Path) -> Store {
        let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
        Store::open(dir, Some(Genesis::new("store", model, 1))).unwrap().0
    }

    #[test]
    fn what_is_known_is_kept_and_a_damaged_file_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        assert_eq!(store.access().unwrap(), Statements::default());
        store.keep_access(&statements(3)).unwrap();
        assert_eq!(store.access().unwrap(), statements(3));
        let path = store.path(FILE);
        let good = fs::read(&path).unwrap();
        for at in [0, 20, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).unwrap();
            assert_eq!(store.access().unwrap(), Statements::default());
            assert!(!path.exists() && dir.path().join("access.damaged-1").exists());
        }
    }

    #[test]
    fn what_is_left_in_the_folder_is_taken_up_and_what_cannot_be_read_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        assert!(store.incoming().unwrap().is_empty());
        leave_statements(dir.path(), &statements(2)).unwrap();
        let folder = dir.path().join(INCOMING);
        fs::write(folder.join("mail.txt"), format!("# for you\n\n{}\n", statements(1))).unwrap();
        for (name, text) in [("cut", "swarm-cert:AQEA"), ("empty", "\n"), (".hidden", "swarm-cert:AQEA")] {
            fs::write(folder.join(name), text).unwrap();
        }
        fs::write(folder.join("large"), vec![b'\n'; 70_000]).unwrap();
        let mut read = store.incoming().unwrap();
        read.sort_unstable_by_key(|(_, statements)| statements.len());
        let lengths: Vec<usize> = read.iter().map(|(_, statements)| statements.len()).collect();
        assert_eq!(lengths, [1, 2]);
        read.iter().for_each(|(path, _)| store.taken_up(path).unwrap());
        assert!(store.incoming().unwrap().is_empty());
        for name in ["cut.damaged-1", "empty.damaged-1", "large.damaged-1", ".hidden"] {
            assert!(folder.join(name).exists(), "{name}");
        }
    }
}
