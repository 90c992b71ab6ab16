//! Which files belong to the data: the folder walk and its rules.
//!
//! Folders are searched recursively in the order of their names, so that the same files give the same
//! string of bytes on every run. Symbolic links are followed; a link that leads back to one of its own
//! parents is not, and a file that is reachable in two ways counts once (otherwise its held-out part
//! could be trained on under its other name). Hidden files and folders below a given path are left out;
//! a hidden path that the user names is not. Anything that is not a regular file (a pipe, a device) is
//! ignored, and so is a node's own folder that lies inside: it is no text of the user's.
//!
//! Unreadable folders and files are counted and the first is named: one bad permission should not stop
//! a node, but must not pass silently either.

use super::error::CorpusError;
use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// A regular file.
#[derive(Debug)]
pub(super) struct FoundFile {
    /// How it was found.
    pub(super) path: PathBuf,
    /// Where it is, without links.
    pub(super) real: PathBuf,
    /// The user has named the very file.
    pub(super) named: bool,
}

/// What a search found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Regular files, each once, in the order of the string.
    pub(super) files: Vec<FoundFile>,
    /// Files or folders that could not be examined.
    pub(super) unreadable: Unreadable,
}

/// How many things could not be read, and the first of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Unreadable {
    /// How many.
    pub(super) count: usize,
    /// The first, with the reason in words.
    pub(super) first: Option<String>,
}

impl Unreadable {
    /// Counts one more.
    pub(super) fn add(&mut self, path: &Path, reason: impl std::fmt::Display) {
        self.note(format_args!("{}: {reason}", path.display()));
    }

    /// Counts one more, described in words.
    pub(super) fn note(&mut self, what: impl std::fmt::Display) {
        self.count += 1;
        self.first.get_or_insert_with(|| what.to_string());
    }
}

/// Finds the files below `paths`.
///
/// # Errors
/// A path that does not exist or is neither a file nor a folder; more than `max_files` files.
pub(super) fn collect(paths: &[PathBuf], max_files: usize) -> Result<Found, CorpusError> {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    for root in paths {
        let kind = fs::metadata(root)
            .map_err(|source| CorpusError::Open { path: root.clone(), source })?
            .file_type();
        if !kind.is_file() && !kind.is_dir() {
            return Err(CorpusError::NotFileOrFolder { path: root.clone() });
        }
        let walk = WalkDir::new(root).follow_links(true).sort_by_file_name().into_iter();
        for entry in
            walk.filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry.path()) && !is_node(entry))
        {
            let named = entry.as_ref().is_ok_and(|entry| entry.depth() == 0);
            let path = match entry {
                Ok(entry) if entry.file_type().is_file() => entry.into_path(),
                Ok(_) => continue,
                // A circle of links: everything on it is found by its straight path.
                Err(error) if error.loop_ancestor().is_some() => continue,
                Err(error) => {
                    let path = error.path().unwrap_or(root).to_path_buf();
                    match error.into_io_error() {
                        Some(reason) => found.unreadable.add(&path, reason),
                        None => found.unreadable.add(&path, "cannot be examined"),
                    }
                    continue;
                }
            };
            let real = match fs::canonicalize(&path) {
                Ok(real) => real,
                Err(reason) => {
                    found.unreadable.add(&path, reason);
                    continue;
                }
            };
            if !seen.insert(real.clone()) {
                continue;
            }
            if found.files.len() == max_files {
                return Err(CorpusError::TooManyFiles { path: root.clone(), max_files });
            }
            found.files.push(FoundFile { path, real, named });
        }
    }
    Ok(found)
}

/// The files that a search below `paths` finds, each once, in the order of their names.
///
/// # Errors
/// As for a corpus: a path that is not there; more than `max_files` files.
pub(crate) fn text_files(paths: &[PathBuf], max_files: usize) -> Result<Vec<PathBuf>, CorpusError> {
    collect(paths, max_files).map(|found| found.files.into_iter().map(|file| file.path).collect())
}

/// The first `limit` bytes of a text file, or `None` if it is binary or cannot be read.
pub(crate) fn read_text(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    content_inspector::inspect(&bytes).is_text().then_some(bytes)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Whether it is the folder of a node.
fn is_node(entry: &walkdir::DirEntry) -> bool {
    let has = |name| entry.path().join(name).is_file();
    entry.file_type().is_dir() && has("identity.key") && has("genesis.toml")
}
