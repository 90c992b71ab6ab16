//! `swarm id`: who and what a genesis or a node's folder is.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use swarm_protocol::access::Register;

use super::access::until;
use crate::net::peer_id;
use crate::store::{self, Store};

/// Print the swarm id of a genesis, and the peer id of a node's folder.
#[derive(Args)]
pub(super) struct Id {
    /// A genesis file.
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,

    /// A node's folder.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Id {
    pub(super) fn execute(self) -> Result<()> {
        if self.genesis.is_none() && self.dir.is_none() {
            bail!("name a genesis with --genesis FILE, or a node's folder with --dir DIR");
        }
        if let Some(path) = &self.genesis {
            let genesis = store::read_genesis(path)?;
            println!("swarm id: {}", genesis.swarm_id());
            println!("name: {}", genesis.name);
            println!("parameters: {}", genesis.model.parameter_count());
            for key in genesis.access.keys() {
                println!("admits by invitation, with the key: {key}");
            }
            if let Some(parent) = genesis.parent {
                match parent.swarm {
                    Some(swarm) => println!("parent: {swarm} after {} rounds", parent.settled),
                    None => println!("starts with the imported model {}", parent.state),
                }
            }
        }
        if let Some(dir) = &self.dir {
            let (genesis, key) = Store::look(dir)?;
            println!("swarm id: {}", genesis.swarm_id());
            match peer_id(&key) {
                Some(peer) => println!("peer id: {peer}"),
                None => bail!("the key in {} is not usable", dir.display()),
            }
            if !genesis.access.is_open() {
                let mut register = Register::new(&genesis);
                register.add(&store::read_access(dir)?);
                match register.admitted_until(&key) {
                    0 => println!("not admitted"),
                    round => println!("admitted: {}", until(round)),
                }
            }
        }
        Ok(())
    }
}
