//! A node that the system starts: files for systemd, launchd and the Windows task scheduler.
//!
//! All of them start `swarm run --as-service --config FILE` when the user logs in (systemd's also without, if it is let),
//! with the lowest claim on the device, and start it again after a failure but not after `swarm stop`. Here are only texts
//! and the commands that belong to them; `swarm service` writes the one and runs the other.

mod launchd;
mod systemd;
#[cfg(test)]
mod tests;
mod windows;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::ValueEnum;

/// Which system is to start a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// Linux: a unit of the user's systemd
    Systemd,
    /// macOS: a launch agent
    Launchd,
    /// Windows: a task of the scheduler
    Windows,
}

impl System {
    /// Of the machine that this was built for.
    pub(crate) fn here() -> Self {
        if cfg!(target_os = "macos") {
            Self::Launchd
        } else if cfg!(windows) {
            Self::Windows
        } else {
            Self::Systemd
        }
    }
}

/// What is to be started.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// Its name: letters, digits and dashes.
    name: String,
    /// This program.
    program: PathBuf,
    /// The settings.
    config: PathBuf,
    /// Where the program looks for its libraries, if it has been told.
    libraries: Option<String>,
}

/// A command that is run, and whether its failure matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// What it does, in words.
    pub(crate) purpose: &'static str,
}

impl Step {
    fn new(purpose: &'static str, command: &[&str]) -> Self {
        Self { command: command.iter().map(|&part| part.to_owned()).collect(), purpose }
    }

    /// As one would type it.
    pub(crate) fn line(&self) -> String {
        let quoted = |part: &String| {
            if part.contains([' ', '"', '$', '\\']) { format!("'{part}'") } else { part.clone() }
        };
        self.command.iter().map(quoted).collect::<Vec<_>>().join(" ")
    }
}

impl Service {
    /// A service that runs `program` with the settings in `config`; both are whole paths.
    ///
    /// # Errors
    /// A name that is none for a file.
    pub(crate) fn new(
        name: &str,
        program: PathBuf,
        config: PathBuf,
        libraries: Option<String>,
    ) -> Result<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        ensure!(
            !name.is_empty() && name.len() <= 64 && name.chars().all(fits) && !name.starts_with('-'),
            "--name '{name}': a service's name has letters, digits and dashes, 64 at most"
        );
        // A file for the system is text, a line each.
        for path in [&program, &config] {
            let text = path.to_str();
            ensure!(
                text.is_some_and(|text| !text.chars().any(char::is_control)),
                "{}: a service cannot be given a path that is not plain text",
                path.display()
            );
        }
        Ok(Self { name: name.to_owned(), program, config, libraries })
    }

    /// The file's text.
    pub(crate) fn text(&self, system: System) -> String {
        match system {
            System::Systemd => systemd::unit(self),
            System::Launchd => launchd::agent(self),
            System::Windows => windows::task(self),
        }
    }

    /// The file's place; `home` is the user's folder, `config_home` `XDG_CONFIG_HOME` where it is set.
    pub(crate) fn place(&self, system: System, home: &Path, config_home: Option<&Path>) -> PathBuf {
        match system {
            System::Systemd => {
                let config = config_home.map_or_else(|| home.join(".config"), Path::to_owned);
                config.join("systemd/user").join(format!("{}.service", self.name))
            }
            System::Launchd => home.join("Library/LaunchAgents").join(format!("{}.plist", self.label())),
            System::Windows => home.join("AppData/Local/swarm").join(format!("{}.xml", self.name)),
        }
    }

    /// What is run once the file is in its `place`.
    pub(crate) fn install(&self, system: System, place: &Path) -> Vec<Step> {
        let place = place.display().to_string();
        match system {
            System::Systemd => vec![
                Step::new("systemd reads the new unit", &["systemctl", "--user", "daemon-reload"]),
                Step::new(
                    "it starts now and at every login",
                    &["systemctl", "--user", "enable", "--now", &self.name],
                ),
            ],
            System::Launchd => {
                vec![Step::new("it starts now and at every login", &["launchctl", "load", "-w", &place])]
            }
            System::Windows => vec![
                Step::new(
                    "it starts at every login",
                    &["schtasks", "/Create", "/F", "/TN", &self.name, "/XML", &place],
                ),
                Step::new("and now", &["schtasks", "/Run", "/TN", &self.name]),
            ],
        }
    }

    /// What is run before the file in its `place` is deleted.
    pub(crate) fn uninstall(&self, system: System, place: &Path) -> Vec<Step> {
        let place = place.display().to_string();
        match system {
            System::Systemd => {
                vec![Step::new(
                    "it stops and is not started again",
                    &["systemctl", "--user", "disable", "--now", &self.name],
                )]
            }
            System::Launchd => {
                vec![Step::new("it stops and is not started again", &["launchctl", "unload", "-w", &place])]
            }
            System::Windows => vec![
                Step::new("it stops", &["schtasks", "/End", "/TN", &self.name]),
                Step::new("and is not started again", &["schtasks", "/Delete", "/F", "/TN", &self.name]),
            ],
        }
    }

    /// What tells whether it is running.
    pub(crate) fn query(&self, system: System) -> Step {
        match system {
            System::Systemd => {
                Step::new("the system's own words", &["systemctl", "--user", "is-active", &self.name])
            }
            System::Launchd => Step::new("the system's own words", &["launchctl", "list", &self.label()]),
            System::Windows => {
                Step::new("the system's own words", &["schtasks", "/Query", "/TN", &self.name])
            }
        }
    }

    /// Its name among the launch agents of all programs.
    fn label(&self) -> String {
        format!("swarm.{}", self.name)
    }
}
