//! One command line from flags, environment and file.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Arg, ArgAction};

use super::file::named;
use super::{Environment, FILE, File, variable};

/// Between the values of a flag that may be repeated, in a variable.
const BETWEEN: char = ';';

/// A command line with everything on it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// The program, the command, the flags given, those of the environment, those of the file.
    pub(crate) arguments: Vec<OsString>,
    /// The file, if there is one.
    pub(crate) file: Option<File>,
    /// Flags that come from the environment.
    pub(crate) from_environment: Vec<String>,
}

/// Adds to the command line `given` what environment and file say of the command's `flags`. `known` are the flags of all
/// commands that share the file.
///
/// # Errors
/// A file that cannot be used: the text says why.
pub(crate) fn merge(
    given: Vec<OsString>,
    flags: &[Arg],
    known: &[Arg],
    environment: Environment<'_>,
) -> Result<Found> {
    let mut found = Found { arguments: given, file: None, from_environment: Vec::new() };
    let on_line = |name: &str| -> Option<Option<OsString>> { value_of(&found.arguments, name) };
    let said = |name: &str| on_line(name).flatten().or_else(|| environment(&variable(name)));
    let path = match (named(flags, "config"), said("config"), said("dir")) {
        (Some(_), Some(path), _) => Some(PathBuf::from(path)),
        (Some(_), None, Some(dir)) => Some(Path::new(&dir).join(FILE)).filter(|path| path.exists()),
        _ => None,
    };
    let mut more: Vec<OsString> = Vec::new();
    if let Some(path) = &path {
        found.file = Some(File::read(path, known)?);
        if on_line("config").is_none() {
            more.extend(["--config".into(), path.into()]);
        }
    }
    for flag in flags {
        let Some(name) = flag.get_long().filter(|name| !["config", "help"].contains(name)) else { continue };
        if on_line(name).is_some() {
            continue;
        }
        if let Some(value) = environment(&variable(name)) {
            more.extend(of_variable(flag, name, &value)?);
            found.from_environment.push(name.to_owned());
        } else if let Some(arguments) =
            found.file.as_ref().map(|file| file.arguments(flag)).transpose()?.flatten()
        {
            more.extend(arguments.into_iter().map(OsString::from));
        }
    }
    // What follows two dashes is no flag any more.
    let end = found.arguments.iter().position(|argument| argument == "--").unwrap_or(found.arguments.len());
    found.arguments.splice(end..end, more);
    Ok(found)
}

/// Whether the flag `name` is on the line, and with which value.
fn value_of(line: &[OsString], name: &str) -> Option<Option<OsString>> {
    let flag = format!("--{name}");
    let mut arguments = line.iter().take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        if *argument == *flag {
            return Some(arguments.next().cloned());
        }
        let value = argument.to_str().and_then(|text| text.strip_prefix(&flag)?.strip_prefix('='));
        if let Some(value) = value {
            return Some(Some(value.into()));
        }
    }
    None
}

/// A variable's value as arguments.
fn of_variable(flag: &Arg, name: &str, value: &OsStr) -> Result<Vec<OsString>> {
    if matches!(flag.get_action(), ArgAction::SetTrue) {
        return match value.to_str() {
            Some("1" | "true") => Ok(vec![format!("--{name}").into()]),
            Some("" | "0" | "false") => Ok(Vec::new()),
            _ => bail!("{} is '{}': it must be true or false", variable(name), value.display()),
        };
    }
    let argument = |value: &OsStr| {
        let mut argument = OsString::from(format!("--{name}="));
        argument.push(value);
        argument
    };
    match value.to_str().filter(|_| matches!(flag.get_action(), ArgAction::Append)) {
        Some(text) => {
            let values = text.split(BETWEEN).map(str::trim).filter(|value| !value.is_empty());
            Ok(values.map(|value| argument(OsStr::new(value))).collect())
        }
        None => Ok(vec![argument(value)]),
    }
}
