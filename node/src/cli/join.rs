//! `swarm join`: from an invite to training, in one line.

use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;
use swarm_protocol::invite;

use super::run::PartArgs;
use super::{block_on, default_dir};
use crate::net::multiaddr;
use crate::node;
use crate::store::Store;

/// Take part in a swarm that somebody invited you to (see `swarm invite`), training on your own text, which never
/// leaves this device. The rules are fetched from the peers that the invite names and checked against it.
///
/// Ctrl-C stops and keeps everything; the same line goes on from there.
#[derive(Args)]
pub(super) struct Join {
    /// The invite: the line that begins with swarm:
    invite: invite::Invite,

    #[command(flatten)]
    pub(super) part: PartArgs,
}

impl Join {
    pub(super) fn execute(self) -> Result<()> {
        self.part.prepare()?;
        let asked = Instant::now();
        let Self { invite, mut part } = self;
        let node = &mut part.node;
        node.bootstrap.extend(invite.addresses.iter().filter_map(|bytes| multiaddr(bytes)));
        let dir = node.dir.clone().unwrap_or_else(|| default_dir(&invite.swarm));
        let (store, genesis) = if dir.join("genesis.toml").exists() {
            let (store, genesis) = Store::open(&dir, None)?;
            ensure!(
                genesis.swarm_id() == invite.swarm,
                "{} belongs to swarm {:.16} ({}), and the invite is to swarm {:.16}: choose another folder with --dir",
                dir.display(),
                genesis.swarm_id(),
                genesis.name,
                invite.swarm
            );
            (store, genesis)
        } else {
            ensure!(
                !node.bootstrap.is_empty() || !node.no_mdns,
                "the invite names no address, and --no-mdns forbids looking around: ask for an invite with an address, \
                 or give one with --bootstrap"
            );
            let around = node::Around {
                bootstrap: node.bootstrap.clone(),
                mdns: !node.no_mdns,
                key: node.network_key,
            };
            let genesis = block_on(node::fetch_genesis(invite.swarm, around))?;
            Store::open(&dir, Some(genesis))?
        };
        let mut setup = part.node.setup(store, genesis.into())?;
        (setup.pin, setup.asked) = (invite.pin, asked);
        part.fetches = true;
        part.run(setup)
    }
}
