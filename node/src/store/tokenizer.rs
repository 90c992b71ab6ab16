//! The swarm's tokenizer in a node's folder: for the node itself, and for peers that join.

use std::path::Path;

use anyhow::{Context, Result};
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::{MAX_TOKENIZER, Tokenizer};

use super::{Store, file};

const NAME: &str = "tokenizer.json";

/// The tokenizer in a node's folder that is only looked at; `None` if it is not there, or not the one named.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn read_tokenizer(dir: &Path, pinned: &Tokenizer) -> Result<Option<Vec<u8>>> {
    let path = dir.join(NAME);
    if !path.try_exists().with_context(|| format!("cannot read {}", path.display()))? {
        return Ok(None);
    }
    let bytes = file::read_limited(&path, MAX_TOKENIZER)?;
    Ok((Digest::of_bytes(&bytes) == pinned.blake3).then_some(bytes))
}

/// Writes the tokenizer into a node's folder.
///
/// # Errors
/// A disk that does not take it.
pub(crate) fn write_tokenizer(dir: &Path, bytes: &[u8]) -> Result<()> {
    file::write_atomically(&dir.join(NAME), bytes)
}

impl Store {
    /// The folder's copy of the tokenizer that the genesis names. One that is another or damaged is set aside.
    ///
    /// # Errors
    /// A file that cannot be read, or a folder in which nothing can be renamed.
    pub(crate) fn tokenizer(&self, pinned: &Tokenizer) -> Result<Option<Vec<u8>>> {
        let path = self.path(NAME);
        if let Some(bytes) = read_tokenizer(self.dir(), pinned)? {
            return Ok(Some(bytes));
        }
        if path.exists() {
            let aside = file::set_aside(&path)?;
            tracing::warn!(
                "{} is damaged, or not this swarm's tokenizer: it is kept as {}",
                path.display(),
                aside.display()
            );
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_protocol::architecture::Sizes;
    use swarm_protocol::genesis::Genesis;

    #[test]
    fn only_the_tokenizer_that_the_genesis_names_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
        let (store, _) = Store::open(dir.path(), Some(Genesis::new("words", model, 1))).unwrap();
        let pinned = Tokenizer { blake3: Digest::of_bytes(b"{}"), vocabulary: 16 };
        assert_eq!(store.tokenizer(&pinned).unwrap(), None);
        write_tokenizer(dir.path(), b"{}").unwrap();
        assert_eq!(store.tokenizer(&pinned).unwrap().as_deref(), Some(&b"{}"[..]));
        write_tokenizer(dir.path(), b"{ }").unwrap();
        assert_eq!(store.tokenizer(&pinned).unwrap(), None);
        assert_eq!(std::fs::read(dir.path().join("tokenizer.json.damaged-1")).unwrap(), b"{ }");
    }
}
