//! A node as its folder shows it, for commands that look at one or tell it something.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

/// A running node rewrites its status twice a second; an older one is of a node that is gone, or stuck.
const STALE: Duration = Duration::from_secs(15);
/// A status file is a few kilobytes.
const MAX_STATUS: u64 = 1 << 20;
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Whose folder.
#[derive(Args)]
pub(super) struct DirArg {
    /// The node's folder. SWARM_DIR in the environment means the same.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: PathBuf,
}

/// What a node last wrote about itself.
pub(super) struct Seen {
    /// Its status.json.
    pub(super) status: Value,
    /// How long ago.
    pub(super) age: Duration,
}

impl Seen {
    /// Reads it.
    ///
    /// # Errors
    /// There is none, or it is no node's.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("status.json");
        let what = || format!("cannot read {}: is it the folder of a node that was started?", path.display());
        let about = fs::metadata(&path).with_context(what)?;
        ensure!(about.len() <= MAX_STATUS, "{} is too large for a node's status", path.display());
        let status = serde_json::from_slice(&fs::read(&path).with_context(what)?)
            .with_context(|| format!("{} is no node's status", path.display()))?;
        let age = about
            .modified()
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok())
            .unwrap_or_default();
        Ok(Self { status, age })
    }

    /// One of its texts.
    pub(super) fn text(&self, name: &str) -> &str {
        self.status[name].as_str().unwrap_or_default()
    }

    /// Whether it has said that it ends.
    pub(super) fn has_ended(&self) -> bool {
        ["done", "stopped", "failed"].contains(&self.text("phase"))
    }

    /// Whether the node is running, as far as its status tells.
    pub(super) fn runs(&self) -> bool {
        !self.has_ended() && self.age <= STALE
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.status["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
    }
}

/// Waits until the node in `dir` has what `found` looks for, at most for `patience`. Returns how long it took.
///
/// # Errors
/// It took longer, or the status cannot be read any more.
pub(super) fn wait_for(dir: &Path, patience: Duration, found: impl Fn(&Seen) -> bool) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let seen = Seen::read(dir)?;
        if found(&seen) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > patience {
            bail!(
                "the node in {} has not done so for {} s; its status: {}",
                dir.display(),
                patience.as_secs(),
                seen.text("phase")
            );
        }
        std::thread::sleep(LOOK);
    }
}
