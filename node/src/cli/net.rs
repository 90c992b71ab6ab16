//! `swarm net`: whether others can reach this node, through what, and what to do about it.

mod words;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use libp2p::Multiaddr;
use serde_json::json;

use super::running::Seen;
use super::{block_on, listen_at};
use crate::{
    net::{self, Command, Config, NetworkKey, Picture, parse_address},
    node, store,
};

/// Say in words whether others can reach this device, through what, and what to do about it: of the node in --dir, or
/// tried out for some seconds with --genesis and --bootstrap.
#[derive(Args)]
pub(super) struct Net {
    /// The folder of a running node.
    #[arg(long, value_name = "DIR", required_unless_present = "genesis", conflicts_with = "genesis")]
    dir: Option<PathBuf>,

    /// Try it out: join this swarm's network for some seconds under a name made up for it, without training.
    #[arg(long, value_name = "FILE", requires = "bootstrap")]
    genesis: Option<PathBuf>,

    /// The address of any peer of the swarm, to try it out with. May be repeated.
    #[arg(long, value_name = "MULTIADDR", value_parser = parse_address, requires = "genesis")]
    bootstrap: Vec<Multiaddr>,

    /// An address to listen on while trying it out, such as /ip4/0.0.0.0/tcp/4001: the one to be used later.
    /// May be repeated. Default: any free TCP and QUIC port on all addresses.
    #[arg(long, value_name = "MULTIADDR", value_parser = parse_address, requires = "genesis")]
    listen: Vec<Multiaddr>,

    /// How long to try.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600),
          requires = "genesis")]
    seconds: u32,

    /// Do not ask the router to let others in (UPnP) while trying it out.
    #[arg(long, requires = "genesis")]
    no_upnp: bool,

    /// The key of a private network.
    #[arg(long, value_name = "FILE", requires = "genesis")]
    network_key: Option<NetworkKey>,

    /// Write it as JSON, for programs.
    #[arg(long)]
    json: bool,
}

impl Net {
    pub(super) fn execute(self) -> Result<()> {
        let (picture, note) = match (&self.dir, &self.genesis) {
            (Some(dir), _) => written(dir)?,
            (None, Some(genesis)) => (block_on(self.try_out(genesis))?, None),
            (None, None) => {
                bail!("name a running node's folder with --dir DIR, or try it out with --genesis FILE")
            }
        };
        if self.json {
            println!("{}", serde_json::to_string_pretty(&json!({"note": note, "network": picture}))?);
            return Ok(());
        }
        if let Some(note) = note {
            println!("{note}\n");
        }
        print!("{}", words::explain(&picture));
        Ok(())
    }

    /// Takes part in the network for a while, and says nothing.
    async fn try_out(&self, genesis: &Path) -> Result<Picture> {
        let genesis = store::read_genesis(genesis)?;
        let config = Config {
            upnp: !self.no_upnp,
            key: self.network_key,
            ..Config::new(
                rand::random(),
                genesis.swarm_id().0,
                listen_at(&self.listen, self.network_key.is_some())?,
                self.bootstrap.clone(),
            )
        };
        let (network, mut events, service) = net::start(config).await?;
        eprintln!("trying it out for {} s (Ctrl-C: show what is known so far)", self.seconds);
        let mut trouble = None;
        let watch = async {
            while let Some(event) = events.recv().await {
                match event {
                    net::Event::BootstrapFailed { address, reason, .. } => {
                        trouble = Some(format!("{address}: {reason}"));
                    }
                    net::Event::OtherSwarm { address, theirs, .. } => {
                        trouble = Some(format!("{address} belongs to another swarm ({theirs:.16})"));
                    }
                    net::Event::Connected { .. } => trouble = None,
                    _ => {}
                }
            }
        };
        tokio::select! {
            () = watch => {}
            () = tokio::time::sleep(Duration::from_secs(self.seconds.into())) => {}
            () = node::asked_to_stop() => {}
        }
        let picture = network.picture();
        let _ = network.send(Command::Shutdown).await;
        let _ = tokio::time::timeout(Duration::from_secs(5), service).await;
        match trouble {
            Some(trouble) if picture.peers.is_empty() => {
                bail!("nobody could be reached, so nothing can be found out: {trouble}")
            }
            _ => Ok(picture),
        }
    }
}

/// What the node in `dir` last wrote, and a word on its age if it does not run.
fn written(dir: &Path) -> Result<(Picture, Option<String>)> {
    let seen = Seen::read(dir)?;
    let picture = serde_json::from_value(seen.status["network"].clone()).with_context(|| {
        format!(
            "{} says nothing of the network: was it written by an older version?",
            dir.join("status.json").display()
        )
    })?;
    let note = (!seen.runs()).then(|| {
        format!(
            "This node does not run; {} s ago, when it last did, it stood as follows.",
            seen.age.as_secs()
        )
    });
    Ok((picture, note))
}
