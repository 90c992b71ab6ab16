//! `swarm reference`: the help of every command in one text, `node/REFERENCE.md`.
//!
//! It is made of the very definitions that the command line is read with, and a test compares it with the file, so it
//! cannot go stale.

use anyhow::Result;
use clap::{Args, Command, CommandFactory};

use super::Cli;

/// Columns, whatever the terminal has.
const WIDTH: usize = 100;
/// What stands before the commands.
const HEAD: &str = "# Every command and flag\n\nWhat `--help` says, command by command.\nWritten by `scripts/reference.sh`: change \
                    the commands, not this file.\n";

/// Print the help of every command as Markdown.
#[derive(Args)]
pub(super) struct Reference {}

impl Reference {
    pub(super) fn execute(self) -> Result<()> {
        print!("{}", reference());
        Ok(())
    }
}

/// The text.
fn reference() -> String {
    let mut program = Cli::command().term_width(WIDTH).max_term_width(WIDTH);
    program.build();
    let mut text = HEAD.to_owned();
    add(&program, "", &mut text);
    text
}

fn add(command: &Command, before: &str, text: &mut String) {
    let name = format!("{before}{}", command.get_name());
    let help = command.clone().bin_name(&name).render_long_help().to_string();
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    *text += &format!("\n## {name}\n\n```text\n{}\n```\n", lines.join("\n"));
    let shown = command.get_subcommands().filter(|of| !of.is_hide_set() && of.get_name() != "help");
    shown.for_each(|of| add(of, &format!("{name} "), text));
}

#[cfg(test)]
mod tests {
    use super::*;

    // The file is of the program that people run.
    #[cfg(feature = "train")]
    #[test]
    fn the_reference_is_what_help_says() {
        let written = include_str!("../../REFERENCE.md");
        let right = reference();
        let line = written.lines().zip(right.lines()).find(|(written, right)| written != right);
        assert!(
            written == right,
            "node/REFERENCE.md is stale: run scripts/reference.sh and look at what changes; first: {line:?}"
        );
    }

    /// The lines of the shell examples of a text that call the program, as words.
    #[cfg(feature = "train")]
    fn examples(text: &str) -> Vec<Vec<String>> {
        let shells = text.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
        let lines = shells
            .flat_map(|shell| shell.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>());
        let calls = lines.filter(|line| line.starts_with("swarm ")).filter_map(|line| shlex::split(&line));
        // Comments are gone already; a pipe is another program's.
        calls
            .map(|words| words.into_iter().take_while(|word| !["|", ">", "&&"].contains(&&**word)).collect())
            .collect()
    }

    #[cfg(feature = "train")]
    #[test]
    fn every_documented_command_exists() {
        use clap::error::ErrorKind::{DisplayHelp, DisplayVersion, MissingRequiredArgument, ValueValidation};
        let mut count = 0;
        for text in [include_str!("../../../README.md"), include_str!("../../GUIDE.md")] {
            for words in examples(text) {
                count += 1;
                // A value may be a placeholder, or a file that is not there; flags and commands may not. What a file of
                // settings is named for may be in it.
                let mut fine = vec![DisplayHelp, DisplayVersion, ValueValidation];
                fine.extend(words.iter().any(|word| word == "--config").then_some(MissingRequiredArgument));
                let refused = Cli::command().try_get_matches_from(&words).err();
                let refused = refused.filter(|error| !fine.contains(&error.kind()));
                assert!(refused.is_none(), "{words:?}: {}", refused.unwrap());
            }
        }
        assert!(count > 60, "only {count} examples were found");
    }

    #[test]
    fn every_command_and_no_machine_is_in_it() {
        let text = reference();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(text.contains(&format!("\n## swarm {}\n", command.get_name())), "{}", command.get_name());
        }
        // Defaults must not depend on who builds it.
        assert!(!text.contains(env!("CARGO_MANIFEST_DIR")));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "too wide");
    }
}
