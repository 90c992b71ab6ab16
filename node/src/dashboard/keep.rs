//! What makes the page's address: the file `dashboard` in the node's folder, readable by its owner only. So the address
//! stays the same when the node is started again.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::store::{read_limited, write_atomically};

const FILE: &str = "dashboard";
/// It has a line.
const LIMIT: u64 = 4096;
/// Random bytes of a token.
const TOKEN: usize = 16;

/// Token and port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Who does not know it sees nothing.
    pub(super) token: String,
    /// Where it was listened at.
    pub(super) port: Option<u16>,
}

impl Kept {
    /// Reads it, or draws a new token if there is none, or none that can be used.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let found = read_limited(&path, LIMIT).ok();
        if let Some(kept) = found.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok())
            && kept.token.len() == 2 * TOKEN
            && kept.token.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return Ok(kept);
        }
        let token = rand::random::<[u8; TOKEN]>().iter().map(|byte| format!("{byte:02x}")).collect();
        let kept = Self { token, port: None };
        kept.save(dir)?;
        Ok(kept)
    }

    /// Writes it.
    ///
    /// # Errors
    /// The disk does not take it.
    pub(super) fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string(self).context("a token that cannot be written")?;
        write_atomically(&dir.join(FILE), format!("{text}\n").as_bytes())
    }
}
