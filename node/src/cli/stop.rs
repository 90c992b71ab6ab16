//! `swarm stop`: what Ctrl-C does, from elsewhere.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::running::{DirArg, Seen, wait_for};
use crate::governor::Control;
use crate::store::Store;

/// Saving a large model takes a while.
const PATIENCE: Duration = Duration::from_secs(180);

/// Stop the node that is running in a folder, as Ctrl-C does: what was trained is saved first. A service that was stopped
/// like this is started again at the next login.
#[derive(Args)]
pub(super) struct Stop {
    #[command(flatten)]
    dir: DirArg,
}

impl Stop {
    pub(super) fn execute(self) -> Result<()> {
        let dir = &self.dir.dir;
        Store::look(dir)?;
        let seen = Seen::read(dir)?;
        if !seen.runs() {
            println!("no node is running in {}", dir.display());
            return Ok(());
        }
        let pid = seen.pid().context("its status does not say which process it is")?;
        let mut control = Control::read(dir).unwrap_or_default();
        control.stop(pid);
        control.write(dir)?;
        // Another process in its place means that it has ended as well.
        let took = wait_for(dir, PATIENCE, |seen| seen.has_ended() || seen.pid() != Some(pid))?;
        if Seen::read(dir).is_ok_and(|seen| seen.text("phase") == "failed" && seen.pid() == Some(pid)) {
            bail!(
                "it has stopped, but not everything could be saved: swarm logs --dir {} says why",
                dir.display()
            );
        }
        println!("stopped after {:.1} s; everything is in {}", took.as_secs_f64(), dir.display());
        Ok(())
    }
}
