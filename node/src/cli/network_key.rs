//! `swarm network-key`: makes the key of a private network.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::net::NetworkKey;

/// Make a key for a private network. Only nodes that are started with it (--network-key FILE) can connect to each
/// other; nobody else learns anything, not even what they are. Give the file to every peer, over a way that you trust.
#[derive(Args)]
pub(super) struct MakeNetworkKey {
    /// The file to write.
    #[arg(value_name = "FILE", default_value = "swarm.key")]
    out: PathBuf,
}

impl MakeNetworkKey {
    pub(super) fn execute(self) -> Result<()> {
        let key = NetworkKey::create(&self.out)?;
        let out = self.out.display();
        println!("wrote {out} (fingerprint {})", key.fingerprint());
        println!("start every peer with --network-key {out}, and keep the file to yourselves: it is the key");
        Ok(())
    }
}
