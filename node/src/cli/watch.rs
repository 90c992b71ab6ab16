//! Flags of every command that runs a node, for watching it: the dashboard and the metrics.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use anyhow::Result;
use clap::Args;

use crate::dashboard::{self, Dashboard};
use crate::metrics;
#[cfg(feature = "train")]
use crate::web;
use crate::web::{Background, Flags};

/// The flag that lets others watch.
pub(super) const BEYOND: &str = "--let-others-watch";
const DASHBOARD: Flags = Flags { listen: "--dashboard", beyond: BEYOND };
const METRICS: Flags = Flags { listen: "--metrics", beyond: BEYOND };
/// Any port for the dashboard, and from then on the same.
pub(super) const ANY: &str = "127.0.0.1:0";

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Watching")]
pub(super) struct WatchArgs {
    /// Serve a page that shows this node: loss, peers, who contributes, what the device does. Its address, which the log
    /// tells, has a secret in it and stays the same when the node is started again. Without ADDRESS, any free port of
    /// this machine ("on" in a file of settings).
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "on")]
    dashboard: Option<At>,

    /// Serve numbers for Prometheus at /metrics. Without ADDRESS, at 127.0.0.1:9464 ("on" in a file of settings).
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "on")]
    metrics: Option<At>,

    /// Let dashboard and metrics have an address that others can reach. Nothing is encrypted there; the dashboard still
    /// asks for its secret, the metrics for none.
    #[arg(long)]
    let_others_watch: bool,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Default,
    Here(SocketAddr),
    Unknown(String),
}

impl FromStr for At {
    // What is no address is told with the flag's name, by `WatchArgs::check`: clap may have taken the argument after it.
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.parse() {
            _ if text == "on" => Self::Default,
            Ok(address) => Self::Here(address),
            Err(_) => Self::Unknown(text.to_owned()),
        })
    }
}

impl At {
    fn address(&self, default: SocketAddr, flag: &str) -> Result<SocketAddr> {
        match self {
            Self::Default => Ok(default),
            Self::Here(address) => Ok(*address),
            Self::Unknown(text) => anyhow::bail!(
                "{flag} {text}: it takes IP:PORT, such as {default}, or nothing; if '{text}' belongs to something else, \
                 write {flag}=on"
            ),
        }
    }
}

/// What answers while the node runs.
#[derive(Debug)]
pub(super) struct Watch {
    _dashboard: Option<Dashboard>,
    _metrics: Option<Background>,
}

impl WatchArgs {
    fn addresses(&self) -> Result<(Option<SocketAddr>, Option<SocketAddr>)> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, metrics::PORT));
        let dashboard = self.dashboard.as_ref().map(|at| at.address(any, DASHBOARD.listen)).transpose()?;
        let metrics = self.metrics.as_ref().map(|at| at.address(usual, METRICS.listen)).transpose()?;
        Ok((dashboard, metrics))
    }

    /// Checks what can be checked without starting anything.
    ///
    /// # Errors
    /// An address that is none, or that others reach though that is not meant.
    #[cfg(feature = "train")]
    pub(super) fn check(&self) -> Result<()> {
        let (dashboard, metrics) = self.addresses()?;
        for (address, flags) in [(dashboard, DASHBOARD), (metrics, METRICS)] {
            address.map(|address| web::permitted(address, self.let_others_watch, flags)).transpose()?;
        }
        Ok(())
    }

    /// Begins to answer for the node in `dir`, until what is returned is dropped.
    ///
    /// # Errors
    /// An address that cannot be used.
    pub(super) fn start(&self, dir: &Path) -> Result<Watch> {
        let (dashboard, metrics) = self.addresses()?;
        let beyond = self.let_others_watch;
        let dashboard =
            dashboard.map(|address| dashboard::start(dir, address, beyond, DASHBOARD)).transpose()?;
        if let Some(dashboard) = &dashboard {
            tracing::info!("dashboard: {}", dashboard.url);
        }
        let metrics = metrics.map(|address| metrics::start(dir, address, beyond, METRICS)).transpose()?;
        if let Some(metrics) = &metrics {
            tracing::info!("metrics: http://{}/metrics", metrics.address);
        }
        Ok(Watch { _dashboard: dashboard, _metrics: metrics })
    }
}
