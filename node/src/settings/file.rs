//! A file of settings.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction};
use toml::{Table, Value};

use crate::store::read_limited;

/// A few kilobytes, comments included.
const MAX_FILE: u64 = 1 << 20;

/// A file of settings that has been read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct File {
    path: PathBuf,
    table: Table,
}

impl File {
    /// Reads `path`. Every key must be the name of one of `flags`.
    ///
    /// # Errors
    /// No such file, not TOML, a key that is no flag: the text names it.
    pub(crate) fn read(path: &Path, flags: &[Arg]) -> Result<Self> {
        let bytes = read_limited(path, MAX_FILE)?;
        let text = std::str::from_utf8(&bytes).with_context(|| format!("{} is not text", path.display()))?;
        let table: Table = text.parse().with_context(|| format!("{}", path.display()))?;
        for key in table.keys() {
            if named(flags, key).is_none() {
                bail!(
                    "{}: there is no setting '{key}'{}; the keys are the flags of swarm run (swarm config init writes a \
                     file with all of them)",
                    path.display(),
                    like(flags, key)
                );
            }
        }
        Ok(Self { path: path.to_owned(), table })
    }

    /// The settings' names.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.table.keys().map(String::as_str)
    }

    /// Which of the settings differ from those of `other`.
    pub(crate) fn changed<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        let gone = other.keys().filter(|key| !self.table.contains_key(*key));
        let differs = |key: &&str| self.table.get(*key) != other.table.get(*key);
        self.keys().filter(differs).chain(gone)
    }

    /// What it says of `flag`, as arguments of a command line; `None` if nothing. Paths are relative to the file's
    /// folder: a service has no other.
    ///
    /// # Errors
    /// A value that is not of the flag's kind.
    pub(crate) fn arguments(&self, flag: &Arg) -> Result<Option<Vec<String>>> {
        let Some(name) = flag.get_long() else { return Ok(None) };
        let Some(value) = self.table.get(name) else { return Ok(None) };
        let wrong = |what: &str| format!("{}: {name} = {value}: {what}", self.path.display());
        if matches!(flag.get_action(), ArgAction::SetTrue) {
            return match value {
                Value::Boolean(true) => Ok(Some(vec![format!("--{name}")])),
                Value::Boolean(false) => Ok(Some(Vec::new())),
                _ => bail!(wrong("must be true or false")),
            };
        }
        let one = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            Value::Integer(_) | Value::Float(_) => Ok(value.to_string()),
            _ => bail!(wrong("must be a text or a number")),
        };
        let values = match (value, flag.get_action()) {
            (Value::Array(values), ArgAction::Append) => values.iter().map(one).collect::<Result<_>>()?,
            (Value::Array(_), _) => bail!(wrong("must be a single value")),
            _ => vec![one(value)?],
        };
        // `--name=value` also takes a value that begins with a dash.
        let argument = |value: String| match self.path.parent().filter(|_| is_path(flag)) {
            Some(folder) => format!("--{name}={}", folder.join(value).display()),
            None => format!("--{name}={value}"),
        };
        Ok(Some(values.into_iter().map(argument).collect()))
    }
}

/// The flag of this name.
pub(super) fn named<'a>(flags: &'a [Arg], name: &str) -> Option<&'a Arg> {
    flags.iter().find(|flag| flag.get_long() == Some(name))
}

/// Whether a flag takes a file or a folder.
pub(super) fn is_path(flag: &Arg) -> bool {
    flag.get_value_parser().type_id() == std::any::TypeId::of::<PathBuf>()
}

/// A hint at the flag that may be meant.
fn like(flags: &[Arg], key: &str) -> String {
    let key = key.replace('_', "-");
    let mut names = flags.iter().filter_map(Arg::get_long);
    let start = key.get(..key.len().min(4)).unwrap_or_default();
    let close = names.clone().find(|name| *name == key);
    let close = close.or_else(|| names.find(|name| !start.is_empty() && name.starts_with(start)));
    close.map_or_else(String::new, |name| format!(" (is {name} meant?)"))
}
