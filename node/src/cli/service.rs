//! `swarm service`: a node that the system starts.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::service::{Service as Unit, Step, System};
use crate::settings::FILE;
use crate::store::write_atomically;

/// Have the system start a node at every login, with a file of settings (see swarm config init). If the file does not say
/// otherwise, it trains while the device is idle.
#[derive(Args)]
pub(super) struct Service {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Write the system's file, and start the node now and at every login.
    Install(Install),
    /// Say whether the system starts it, and whether it is running.
    Status(Which),
    /// Stop the node, and do not start it again. Its folder stays.
    Uninstall(Uninstall),
}

#[derive(Args)]
struct Which {
    /// A name for the service; another one for a second node on the same device.
    #[arg(long, value_name = "NAME", default_value = "swarm")]
    name: String,

    /// The kind of service. Default: that of this system.
    #[arg(long, value_enum, value_name = "SYSTEM")]
    system: Option<System>,
}

#[derive(Args)]
struct Install {
    #[command(flatten)]
    which: Which,

    /// The settings. Without it, config.toml in the current folder.
    #[arg(long, value_name = "FILE", default_value = FILE)]
    config: PathBuf,

    /// Print the file and the commands, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
struct Uninstall {
    #[command(flatten)]
    which: Which,

    /// Print the commands, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Service {
    pub(super) fn execute(self) -> Result<()> {
        match self.what {
            What::Install(install) => install.execute(),
            What::Status(which) => which.status(),
            What::Uninstall(uninstall) => uninstall.execute(),
        }
    }
}

impl Which {
    fn system(&self) -> System {
        self.system.unwrap_or_else(System::here)
    }

    /// The service, and the place of its file.
    fn unit(&self, config: &Path) -> Result<(Unit, PathBuf)> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let variable = if self.system() == System::Launchd { "DYLD_LIBRARY_PATH" } else { "LD_LIBRARY_PATH" };
        let libraries = std::env::var(variable).ok().filter(|folders| !folders.is_empty());
        let config =
            std::path::absolute(config).with_context(|| format!("{} is no path", config.display()))?;
        let unit = Unit::new(&self.name, program, config, libraries)?;
        let home = std::env::home_dir().context("this user has no home folder")?;
        let config_home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let config_home = config_home.filter(|path| path.is_absolute());
        let place = unit.place(self.system(), &home, config_home.as_deref());
        Ok((unit, place))
    }

    fn status(&self) -> Result<()> {
        let (unit, place) = self.unit(Path::new(FILE))?;
        if !place.exists() {
            println!("not installed: there is no {}", place.display());
            return Ok(());
        }
        println!("installed: {}", place.display());
        match output(&unit.query(self.system())) {
            Ok(words) => println!("{}", words.trim()),
            Err(error) => println!("whether it is running cannot be told: {error}"),
        }
        println!("what the node is doing: swarm status --dir DIR");
        Ok(())
    }
}

impl Install {
    fn execute(self) -> Result<()> {
        let system = self.which.system();
        let (unit, place) = self.which.unit(&self.config)?;
        let steps = unit.install(system, &place);
        if self.dry_run {
            println!("{}:\n\n{}", place.display(), unit.text(system).trim_end());
            println!("\nthen:");
            steps.iter().for_each(|step| println!("  {}", step.line()));
            return Ok(());
        }
        ensure!(system == System::here(), "this is another system; --dry-run prints what would be done");
        // What the service would only say in its log.
        super::config::check(&self.config)?;
        if let Some(folder) = place.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        write_atomically(&place, unit.text(system).as_bytes())?;
        println!("{} is written", place.display());
        let done = take(&steps);
        if done && system == System::Systemd {
            println!("to have it run also while nobody is logged in: loginctl enable-linger");
        }
        Ok(())
    }
}

impl Uninstall {
    fn execute(self) -> Result<()> {
        let system = self.which.system();
        let (unit, place) = self.which.unit(Path::new(FILE))?;
        let steps = unit.uninstall(system, &place);
        if self.dry_run {
            steps.iter().for_each(|step| println!("{}", step.line()));
            println!("and {} is deleted", place.display());
            return Ok(());
        }
        if !place.exists() {
            println!("not installed: there is no {}", place.display());
            return Ok(());
        }
        ensure!(system == System::here(), "this is another system; --dry-run prints what would be done");
        take(&steps);
        std::fs::remove_file(&place).with_context(|| format!("cannot delete {}", place.display()))?;
        println!("{} is deleted; the node's folder is as it was", place.display());
        Ok(())
    }
}

/// Takes the steps; where the system does not, says what is left to do by hand.
fn take(steps: &[Step]) -> bool {
    for (number, step) in steps.iter().enumerate() {
        if let Err(error) = output(step) {
            println!("this has to be done by hand ({error:#}):");
            steps.iter().skip(number).for_each(|step| println!("  {}    # {}", step.line(), step.purpose));
            return false;
        }
        println!("{}", step.purpose);
    }
    true
}

/// Runs a command of the system's.
fn output(step: &Step) -> Result<String> {
    let (program, arguments) = step.command.split_first().context("an empty command")?;
    let ran = std::process::Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let ran = ran.with_context(|| format!("{program} cannot be run here"))?;
    let words =
        String::from_utf8_lossy(if ran.stdout.is_empty() { &ran.stderr } else { &ran.stdout }).into_owned();
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        bail!(
            "{}",
            said.lines().chain(words.lines()).find(|line| !line.trim().is_empty()).unwrap_or("it failed")
        );
    }
    Ok(words)
}
