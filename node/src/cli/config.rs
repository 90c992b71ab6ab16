//! `swarm config`: the file of settings.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, Parser, Subcommand};

use super::guest::GuestArgs;
use super::run::PartArgs;
use super::{Cli, Command, flags_of, settled};
use crate::governor::{Reload, Rules, never_here};
use crate::settings::{FILE, Found, template, variable};
use crate::store::write_atomically;

/// Write or check a file of settings. Its keys are the flags of swarm run; a flag that is given wins over the environment
/// (SWARM_MAX_UPLOAD for --max-upload), and that over the file. The file config.toml in the folder given with --dir is
/// used by itself.
#[derive(Args)]
pub(super) struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Write a file with every setting and what it means, to be edited. It trains while the device is idle; all else is
    /// a comment.
    Init(Init),
    /// Read a file as swarm run would, and say what it means, without running anything.
    Check(Check),
}

#[derive(Args)]
struct Init {
    /// The file to write. Default: config.toml in the folder given with --dir, or else in the current one.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// The node's folder, to be written into the file.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// A text file or a folder to train on, to be written into the file. May be repeated.
    #[arg(long, value_name = "PATH")]
    data: Vec<PathBuf>,

    /// Write it even if there is one already.
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
struct Check {
    /// The file.
    #[arg(value_name = "FILE", default_value = FILE)]
    file: PathBuf,
}

impl Config {
    pub(super) fn execute(self) -> Result<()> {
        match self.what {
            What::Init(init) => init.execute(),
            What::Check(check) => check.execute(),
        }
    }
}

impl Init {
    fn execute(self) -> Result<()> {
        let folder = self.dir.clone().unwrap_or_default();
        let path = self.out.unwrap_or_else(|| folder.join(FILE));
        ensure!(self.force || !path.exists(), "{} exists; --force replaces it", path.display());
        let whole = |path: &PathBuf| {
            std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))
        };
        let text = |path: PathBuf| toml::Value::String(path.display().to_string()).to_string();
        let mut set = vec![("when", "\"idle\"".to_owned())];
        if let Some(dir) = &self.dir {
            set.push(("dir", text(whole(dir)?)));
        }
        if !self.data.is_empty() {
            let paths: Vec<String> =
                self.data.iter().map(|path| Ok(text(whole(path)?))).collect::<Result<_>>()?;
            set.push(("data", format!("[{}]", paths.join(", "))));
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        write_atomically(&path, template(&flags_of("run"), &set).as_bytes())?;
        println!("{} is written: edit it, then swarm config check {}", path.display(), path.display());
        Ok(())
    }
}

impl Check {
    fn execute(self) -> Result<()> {
        let (found, rules) = check(&self.file)?;
        let file = found.file.as_ref();
        for key in file.into_iter().flat_map(|file| file.keys()) {
            if found.from_environment.iter().any(|name| name == key) {
                println!("{key}: {} in the environment wins", variable(key));
            }
        }
        let never = never_here(&rules);
        for warning in &never {
            println!("warning: {warning}");
        }
        let count = file.map_or(0, |file| file.keys().count());
        let sure = if never.is_empty() { "" } else { ", but see above" };
        println!("{}: {count} settings, all of them understood{sure}", self.file.display());
        Ok(())
    }
}

/// Reads the file at `path` as `swarm run` would.
///
/// # Errors
/// Something in it is wrong; the text says what.
pub(super) fn check(path: &Path) -> Result<(Found, Rules)> {
    let line: [OsString; 4] = ["swarm".into(), "run".into(), "--config".into(), path.into()];
    let found = settled(line.into(), &|name| std::env::var_os(name))?;
    let part = part(&found, path)?;
    let rules = part.check()?;
    Ok((found, rules))
}

/// What the node that this process is looks at when the file at `path` changes.
///
/// # Errors
/// As [`check`].
pub(super) fn rules_again(path: PathBuf) -> Result<Reload> {
    let again = || settled(std::env::args_os().collect(), &|name| std::env::var_os(name));
    let mut before = again()?.file;
    let own: Vec<String> = GuestArgs::augment_args(clap::Command::new("guest"))
        .get_arguments()
        .filter_map(|flag| flag.get_long().map(str::to_owned))
        .collect();
    let file = path.clone();
    let read = move || {
        let found = again()?;
        let rules = part(&found, &file)?.rules()?;
        let pair = found.file.as_ref().zip(before.as_ref());
        let changed = pair.into_iter().flat_map(|(now, before)| now.changed(before));
        let others = changed.filter(|name| !own.iter().any(|flag| flag == name)).map(str::to_owned).collect();
        before = found.file;
        Ok((rules, others))
    };
    Ok(Reload { path, read: Box::new(read) })
}

/// The flags on a line that is whole.
fn part(found: &Found, path: &Path) -> Result<PartArgs> {
    let cli = Cli::try_parse_from(&found.arguments).map_err(|error| {
        let text = error.render().to_string();
        let text =
            text.strip_prefix("error: ").unwrap_or(&text).split("\n\nUsage").next().unwrap_or_default();
        anyhow!("{}: {}", path.display(), text.trim())
    })?;
    match cli.command {
        Command::Run(run) => Ok(run.part),
        Command::Join(join) => Ok(join.part),
        _ => bail!("{}: only swarm run and swarm join have such settings", path.display()),
    }
}
