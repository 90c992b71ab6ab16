//! Settings from three places: the command line, the environment, a file.
//!
//! There is one mechanism and one set of names: a file's keys and the environment's variables are the flags' names, and
//! what they say is appended to the command line before it is read. `max-upload = "200kB"` in the file,
//! `SWARM_MAX_UPLOAD=200kB` and `--max-upload 200kB` are the same, and whatever is wrong with a value is said by the flag's
//! own check. A flag that is given wins over the environment, and that over the file.
//!
//! * [`merge`] does it; [`template`] writes a file with every flag and its help, so that it cannot be out of date.

mod file;
mod merge;
#[cfg(feature = "train")]
mod template;
#[cfg(all(test, feature = "train"))]
mod tests;

pub(crate) use file::File;
pub(crate) use merge::{Found, merge};
#[cfg(feature = "train")]
pub(crate) use template::template;

use std::ffi::OsString;

/// The file in a node's folder.
pub(crate) const FILE: &str = "config.toml";

/// A look at the environment.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The variable of a flag.
pub(crate) fn variable(flag: &str) -> String {
    format!("SWARM_{}", flag.to_ascii_uppercase().replace('-', "_"))
}
