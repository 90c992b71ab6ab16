//! `swarm dashboard`: the page that shows a node, for one that runs elsewhere on this machine.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use clap::Args;

use super::block_on;
use super::running::DirArg;
use super::watch::{ANY, BEYOND};
use crate::web::Flags;
use crate::{dashboard, node};

const FLAGS: Flags = Flags { listen: "--listen", beyond: BEYOND };

/// Serve a page that shows a node: one that was started without --dashboard, or that does not run any more. The page
/// needs nothing from elsewhere; its address has a secret in it, so that only who is told it can look. Ctrl-C ends.
#[derive(Args)]
pub(super) struct Dashboard {
    #[command(flatten)]
    dir: DirArg,

    /// Address and port to listen at; port 0 is the one that the page of this folder had before, or any free one.
    #[arg(long, value_name = "IP:PORT", default_value = ANY)]
    listen: SocketAddr,

    /// Listen at an address that others can reach, too. Nothing is encrypted there: whoever is on the way reads along.
    #[arg(long)]
    let_others_watch: bool,
}

impl Dashboard {
    pub(super) fn execute(self) -> Result<()> {
        let dir = &self.dir.dir;
        ensure!(
            ["genesis.toml", "status.json"].iter().any(|name| dir.join(name).exists()),
            "{} is no node's folder: swarm run makes one, and its log says where",
            dir.display()
        );
        let dashboard = dashboard::start(dir, self.listen, self.let_others_watch, FLAGS)?;
        eprintln!("dashboard: {}", dashboard.url);
        block_on(async {
            node::asked_to_stop().await;
            Ok(())
        })
    }
}
