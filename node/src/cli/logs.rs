//! `swarm logs`: what a node has said.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::running::DirArg;
use crate::logs::{FILE, OLDER};
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
        let mut last = VecDeque::new();
        let mut end = 0;
        for name in [OLDER, FILE] {
            end = read(&dir.join(name), 0, |line| {
                last.push_back(line);
                if last.len() > self.lines as usize {
                    last.pop_front();
                }
            })?;
        }
        if last.is_empty() && !self.follow {
            bail!("no node has logged anything in {} yet", dir.display());
        }
        let mut out = std::io::stdout().lock();
        let mut print = |line: &[u8]| out.write_all(line).and_then(|()| out.flush());
        last.iter().try_for_each(|line: &Vec<u8>| print(line))?;
        if !self.follow {
            return Ok(());
        }
        loop {
            std::thread::sleep(LOOK);
            let mut printed = Ok(());
            end = read(&dir.join(FILE), end, |line| {
                if printed.is_ok() {
                    printed = print(&line);
                }
            })?;
            printed?;
        }
    }
}

/// Hands over the lines of a file from `start` on, or from its beginning if it is shorter than that: another file has
/// taken its place. Returns where it ends.
fn read(path: &Path, start: u64, mut line: impl FnMut(Vec<u8>)) -> Result<u64> {
    let failed = || format!("cannot read {}", path.display());
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).with_context(failed),
    };
    let length = file.metadata().with_context(failed)?.len();
    let start = if length < start { 0 } else { start };
    file.seek(SeekFrom::Start(start)).with_context(failed)?;
    let mut reader = BufReader::new(file.take(length - start));
    loop {
        let mut bytes = Vec::new();
        if reader.read_until(b'\n', &mut bytes).with_context(failed)? == 0 {
            return Ok(length);
        }
        line(bytes);
    }
}
