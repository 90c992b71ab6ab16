//! `swarm invite`: one line that gets somebody else from nothing to training.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use libp2p::Multiaddr;
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};
use serde::Deserialize;
use swarm_protocol::checkpoint::Name;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::invite::{self, MAX_ADDRESSES};

use crate::net::{is_on_this_machine, parse_address};
use crate::node::Book;
use crate::store::{self, Store, read_limited};

/// Other peers' addresses in an invite: one who is away does not keep a newcomer out.
const OTHERS: usize = 4;
/// A status file is a few kB; more than this is something else.
const MAX_STATUS: u64 = 4 << 20;

/// Print an invite to a swarm: one line that holds its id and where to find it. Whoever has it takes part with
/// swarm join INVITE --data PATH. Nothing in it is secret.
#[derive(Args)]
pub(super) struct Invite {
    /// The folder of a node that runs, or has run: its addresses and those of the peers it met are in the invite.
    #[arg(long, value_name = "DIR", required_unless_present = "genesis")]
    dir: Option<PathBuf>,

    /// Or the swarm's genesis file, with --address.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dir", "pin"], requires = "address")]
    genesis: Option<PathBuf>,

    /// An address at which a peer can be reached, such as /dns/example.org/tcp/4001, instead of what the folder
    /// tells. May be repeated.
    #[arg(long, value_name = "MULTIADDR", value_parser = parse_address)]
    address: Vec<Multiaddr>,

    /// Also name the newest checkpoint of the node in --dir, so that the newcomer starts from it and from nothing
    /// else, even if nobody but liars answers. It has to be used soon: peers keep the last two checkpoints.
    #[arg(long)]
    pin: bool,

    /// Also print a QR code.
    #[arg(long)]
    qr: bool,
}

/// What an invite needs of status.json.
#[derive(Deserialize)]
struct Seen {
    network: Network,
    listen: Vec<String>,
    checkpoint: Option<Held>,
}

#[derive(Deserialize)]
struct Network {
    /// Addresses at which others reach the node, relays included.
    reached_at: Vec<String>,
}

#[derive(Deserialize)]
struct Held {
    settled: u64,
    manifest: String,
}

impl Invite {
    pub(super) fn execute(self) -> Result<()> {
        let invite = match (&self.dir, &self.genesis) {
            (Some(dir), _) => self.of_dir(dir)?,
            (None, Some(path)) => self.of(&store::read_genesis(path)?, self.address.clone(), None),
            (None, None) => bail!("name a node's folder with --dir DIR, or a genesis with --genesis FILE"),
        };
        if self.qr {
            println!("{}", qr(&invite.to_string())?);
        }
        println!("{invite}");
        Ok(())
    }

    fn of(&self, genesis: &Genesis, addresses: Vec<Multiaddr>, pin: Option<Name>) -> invite::Invite {
        let addresses = addresses.iter().take(MAX_ADDRESSES).map(Multiaddr::to_vec).collect();
        invite::Invite { swarm: genesis.swarm_id(), addresses, pin }
    }

    fn of_dir(&self, dir: &Path) -> Result<invite::Invite> {
        let (genesis, _) = Store::look(dir)?;
        let path = dir.join("status.json");
        let unread = || format!("{}: start the node with swarm run first", path.display());
        let seen: Seen = serde_json::from_slice(&read_limited(&path, MAX_STATUS)?).with_context(unread)?;
        let addresses = if self.address.is_empty() {
            let mut own = addresses(&seen.network.reached_at);
            own.extend(addresses(&seen.listen));
            let mut seen = std::collections::BTreeSet::new();
            own.retain(|address| seen.insert(address.to_string()));
            let mut others: Vec<Multiaddr> = Book::read(dir).newest().take(OTHERS).collect();
            if own.iter().chain(&others).any(|address| !is_on_this_machine(address)) {
                own.retain(|address| !is_on_this_machine(address));
                others.retain(|address| !is_on_this_machine(address));
            }
            own.truncate(MAX_ADDRESSES - OTHERS);
            own.extend(others);
            ensure!(
                !own.is_empty(),
                "{} names no address of this node: start it with swarm run, or name an address with --address",
                path.display()
            );
            own
        } else {
            self.address.clone()
        };
        let pin = match (self.pin, seen.checkpoint) {
            (false, _) => None,
            (true, Some(held)) => Some(Name {
                settled: held.settled,
                manifest: held.manifest.parse().map_err(anyhow::Error::msg).with_context(unread)?,
            }),
            (true, None) => bail!(
                "there is no checkpoint yet: the first one is made when {} rounds are settled, {} rounds after the \
                 start. Invite without --pin, or wait",
                genesis.rounds.checkpoint_every,
                genesis.rounds.checkpoint_every + genesis.rounds.window
            ),
        };
        Ok(self.of(&genesis, addresses, pin))
    }
}

/// The addresses in a status file that can be used.
fn addresses(texts: &[String]) -> Vec<Multiaddr> {
    texts.iter().filter_map(|text| parse_address(text).ok()).collect()
}

/// Two modules a character, dark on light as scanners expect, with the quiet zone.
fn qr(text: &str) -> Result<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)
        .context("the invite is too long for a QR code: name fewer addresses with --address")?;
    // Terminals are dark on the whole: what is not drawn stays dark.
    Ok(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}
