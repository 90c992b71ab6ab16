//! A page that shows a node, for a browser on the same machine.
//!
//! It reads what the node writes into its folder and nothing else: status.json, the events, the log. So it takes nothing
//! of the node's loop, shows the same for a node that another process runs, and what it shows of one that has stopped is
//! how it stood then. Trying the model starts `swarm generate` as a process of its own, with little priority
//! ([`attempt`]): whatever happens there, the node goes on.
//!
//! Who may look: other users of this machine can connect to loopback, and a web page can make a browser do so. All paths
//! begin with a token of 128 random bits that is kept in the folder, readable by its owner only ([`keep`]); without it
//! there is nothing to be had, and a page of a web site cannot guess it. Beside it stands what [`crate::web`] says, and
//! headers that forbid the page everything but its own files ([`routes`]). Nothing is loaded from elsewhere.
//!
//! - [`routes`]: which path means what; [`keep`]: token and port; [`folder`]: what there is to read;
//! - [`stream`]: the same as it comes, as server-sent events; [`attempt`]: the model, tried;
//! - `page/`: what the browser gets.

mod attempt;
mod folder;
mod keep;
mod routes;
mod stream;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use tokio::net::TcpListener;

pub(crate) use folder::read_status;
use keep::Kept;

use crate::web::{self, Background, Flags};

/// Answers until it is dropped.
#[derive(Debug)]
pub(crate) struct Dashboard {
    /// What to open in a browser.
    pub(crate) url: String,
    _background: Background,
}

/// Serves the page of the node in `dir`. Port 0 is the one that it had before, or any.
///
/// # Errors
/// An address that others reach though that is not meant, one that cannot be listened at; a folder that cannot be
/// written.
pub(crate) fn start(dir: &Path, address: SocketAddr, beyond: bool, flags: Flags) -> Result<Dashboard> {
    web::permitted(address, beyond, flags)?;
    let mut kept = Kept::open(dir)?;
    let token = kept.token.clone();
    let bind = bind(address, kept.port, beyond, flags);
    let background =
        Background::start("dashboard", bind, |stopping| routes::router(dir, token.clone(), stopping))?;
    let port = background.address.port();
    // A port that was only taken today is asked for again tomorrow.
    if kept.port.is_none() || address.port() != 0 {
        kept.port = Some(port);
        kept.save(dir)?;
    }
    let url = format!("http://{}/{token}/", background.address);
    Ok(Dashboard { url, _background: background })
}

async fn bind(mut address: SocketAddr, kept: Option<u16>, beyond: bool, flags: Flags) -> Result<TcpListener> {
    if let Some(port) = kept.filter(|_| address.port() == 0) {
        address.set_port(port);
        match web::bind(address, beyond, flags).await {
            Ok(listener) => return Ok(listener),
            Err(_) => tracing::warn!("port {port}, the dashboard's so far, is taken: another one this time"),
        }
        address.set_port(0);
    }
    web::bind(address, beyond, flags).await
}
