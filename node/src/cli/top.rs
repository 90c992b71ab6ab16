//! `swarm top`: a node, watched.

use std::io::{ErrorKind, IsTerminal, Write, stdout};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::running::{DirArg, Seen};
use super::stop_flag;
use crate::top::{self, Folder, Glance, Look};

/// Time between two looks at the folder, where there is no terminal.
const LOOK: Duration = Duration::from_millis(500);

/// Watch a node on this terminal: its round, loss, peers, traffic, what keeps it from training, its log. Reads the node's
/// folder only, so the node may be one that the system runs, and may come and go. Where there is no terminal it prints a
/// line a round.
#[derive(Args)]
pub(super) struct Top {
    #[command(flatten)]
    dir: DirArg,

    /// Print what is shown now, once, and end: for watch(1), or to be sent to somebody. Where there is no terminal
    /// COLUMNS and LINES say how large it may be, 80 x 24 otherwise.
    #[arg(long)]
    once: bool,

    /// Only characters that every terminal has. Without it the locale decides; NO_COLOR=1 does without colours.
    #[arg(long)]
    ascii: bool,
}

impl Top {
    pub(super) fn execute(self) -> Result<()> {
        let dir = &self.dir.dir;
        ensure!(dir.is_dir(), "--dir {}: there is no such folder; swarm run makes one", dir.display());
        let known = ["genesis.toml", "status.json"].iter().any(|name| dir.join(name).exists());
        ensure!(known, "--dir {}: this is no node's folder", dir.display());
        let mut folder = Folder::new(dir, glance);
        let look = Look::find(self.ascii);
        if self.once {
            let (width, height) = size();
            let text = top::as_text(&mut folder, look, width, height);
            return match stdout().write_all(text.as_bytes()) {
                // Who reads only the first lines has read enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
                written => written.context("cannot print"),
            };
        }
        if top::watch(&mut folder, look)? {
            return Ok(());
        }
        eprintln!(
            "this is no terminal that can be drawn on: a line a round follows (--once: everything, once)"
        );
        let stopped = stop_flag()?;
        top::follow(&mut folder, &mut stdout(), || {
            std::thread::sleep(LOOK);
            !stopped.load(Ordering::Relaxed)
        })
    }
}

/// What a node last wrote about itself.
fn glance(dir: &Path) -> Result<Glance> {
    let seen = Seen::read(dir)?;
    Ok(Glance { age: seen.age, runs: seen.runs(), status: seen.status })
}

/// How much fits: on the terminal, or by COLUMNS and LINES, which watch(1) sets.
fn size() -> (u16, u16) {
    let on_terminal = || ratatui::crossterm::terminal::size().ok().filter(|_| stdout().is_terminal());
    let told = |name: &str| {
        std::env::var(name).ok()?.parse::<u16>().ok().filter(|number| (1..=1000).contains(number))
    };
    // The last row is for the prompt.
    let terminal = on_terminal().map(|(width, height)| (width, height.saturating_sub(1)));
    terminal.unwrap_or_else(|| (told("COLUMNS").unwrap_or(80), told("LINES").unwrap_or(24)))
}
