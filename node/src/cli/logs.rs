//! `swarm logs`: what a node has said.

use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::running::DirArg;
use crate::logs::FILE;
use crate::rolling::Follow;
use crate::store::Store;

/// Time between two looks for more.
const LOOK: Duration = Duration::from_millis(250);

/// Print the newest lines that a node has logged. They are in the files log and log.1 in its folder, a megabyte each at
/// most.
#[derive(Args)]
pub(super) struct Logs {
    #[command(flatten)]
    dir: DirArg,

    /// How many lines.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    lines: u32,

    /// Go on with what comes, until Ctrl-C.
    #[arg(long)]
    follow: bool,
}

impl Logs {
    pub(super) fn execute(self) -> Result<()> {
        let dir = &self.dir.dir;
        Store::look(dir)?;
        let failed = || format!("cannot read the log in {}", dir.display());
        let mut log = Follow::new(dir.join(FILE));
        let mut last: VecDeque<Vec<u8>> = VecDeque::new();
        log.read(|line| {
            last.push_back(line.to_vec());
            if last.len() > self.lines as usize {
                last.pop_front();
            }
        })
        .with_context(failed)?;
        if last.is_empty() && !self.follow {
            bail!("no node has logged anything in {} yet", dir.display());
        }
        let mut out = std::io::stdout().lock();
        let mut print = |line: &[u8]| out.write_all(line).and_then(|()| out.flush());
        last.iter().try_for_each(|line| print(line))?;
        if !self.follow {
            return Ok(());
        }
        loop {
            std::thread::sleep(LOOK);
            let mut printed = Ok(());
            log.read(|line| {
                if printed.is_ok() {
                    printed = print(line);
                }
            })
            .with_context(failed)?;
            printed?;
        }
    }
}
