//! `swarm pause`, `swarm resume`: the device for oneself, and back.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use super::running::{DirArg, Seen, wait_for};
use crate::governor::{Control, Span};
use crate::node::unix_time;
use crate::store::Store;

/// A step may be under way that takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Let a node do nothing for a while: it takes no steps, and holds and passes on what the others learn. Nothing is lost.
/// A pause outlives a restart of the node.
#[derive(Args)]
pub(super) struct Pause {
    /// For how long, such as 30m or 8h. Default: until swarm resume.
    #[arg(value_name = "TIME")]
    length: Option<Span>,

    #[command(flatten)]
    dir: DirArg,
}

/// Let a paused node go on. Rules on when to train hold all the same: see swarm status.
#[derive(Args)]
pub(super) struct Resume {
    #[command(flatten)]
    dir: DirArg,
}

impl Pause {
    pub(super) fn execute(self) -> Result<()> {
        let dir = &self.dir.dir;
        Store::look(dir)?;
        if self.length.is_some_and(|length| length.0.is_zero()) {
            bail!("a pause of no time is none; swarm resume ends one");
        }
        if Seen::read(dir).is_ok_and(|seen| seen.runs() && seen.status["guest"].is_null()) {
            bail!(
                "the node in {} does not train, so there is nothing to pause; swarm stop stops it",
                dir.display()
            );
        }
        change(dir, |control| control.pause(unix_time(), self.length.map(|length| length.0)))?;
        if !Seen::read(dir).is_ok_and(|seen| seen.runs()) {
            println!("no node is running in {}; it will be paused when one is started", dir.display());
            return Ok(());
        }
        let asked = |seen: &Seen| {
            let objections = seen.status["guest"]["objections"].as_array();
            objections.is_some_and(|all| all.iter().any(|one| one["why"] == "asked"))
        };
        let took = wait_for(dir, PATIENCE, asked)?;
        println!("{} (after {:.1} s)", words(&Seen::read(dir)?), took.as_secs_f64());
        Ok(())
    }
}

impl Resume {
    pub(super) fn execute(self) -> Result<()> {
        let dir = &self.dir.dir;
        Store::look(dir)?;
        change(dir, Control::resume)?;
        if !Seen::read(dir).is_ok_and(|seen| seen.runs()) {
            println!("no node is running in {}; one that is started will not be paused", dir.display());
            return Ok(());
        }
        let asked = |seen: &Seen| {
            let objections = seen.status["guest"]["objections"].as_array();
            objections.is_some_and(|all| all.iter().any(|one| one["why"] == "asked"))
        };
        wait_for(dir, PATIENCE, |seen| !asked(seen))?;
        println!("{}", words(&Seen::read(dir)?));
        Ok(())
    }
}

/// Changes what the user asks of the node in `dir`. A file that is damaged is written anew.
fn change(dir: &std::path::Path, how: impl FnOnce(&mut Control)) -> Result<()> {
    let mut control = Control::read(dir).unwrap_or_default();
    how(&mut control);
    control.write(dir)
}

/// What the governor says.
fn words(seen: &Seen) -> &str {
    seen.status["guest"]["words"].as_str().unwrap_or("it does not train")
}
