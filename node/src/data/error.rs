//! What can be wrong with the data that a user names, in words that say what to do.

use std::io;
use std::path::PathBuf;

/// Why there is no usable data.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CorpusError {
    /// No path was given.
    #[error("no data: name at least one text file or folder")]
    NoPaths,
    /// A path does not exist or may not be looked at.
    #[error("cannot open the data path {}", path.display())]
    Open {
        /// The path as the user gave it.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A path is a pipe, a device or a socket.
    #[error("the data path {} is neither a file nor a folder", path.display())]
    NotFileOrFolder {
        /// The path as the user gave it.
        path: PathBuf,
    },
    /// The folders hold too many files.
    #[error("more than {max_files} files below the data path {}: name a narrower folder", path.display())]
    TooManyFiles {
        /// The path that was being searched.
        path: PathBuf,
        /// The limit.
        max_files: usize,
    },
    /// The held-out share is not a share.
    #[error("the held-out share is {fraction}: it must be more than 0 and less than 1")]
    Fraction {
        /// The share that was asked for.
        fraction: f64,
    },
    /// No text at all.
    #[error("no text in the data: {summary}")]
    NoText {
        /// What was found instead.
        summary: String,
    },
    /// A file that the user has named cannot be used.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The user wants no more of it.
    #[error("stopped while the data was being read; the same command begins with it again")]
    Stopped,
    /// What is kept about the data cannot be kept.
    #[error("the data's tokens cannot be kept: {reason}")]
    Keep {
        /// Why, and what to do.
        reason: String,
    },
    /// A part is shorter than one window.
    #[error(
        "too little text: the {part} part has {have} {unit}, and a window of the model's context takes {window}; \
         about {needed} {unit} are needed in all ({summary})"
    )]
    TooShort {
        /// `training` or `held-out`.
        part: &'static str,
        /// `bytes` or `tokens`.
        unit: &'static str,
        /// Tokens in that part.
        have: u64,
        /// Tokens in one window.
        window: u64,
        /// Tokens of text that would make both parts long enough.
        needed: u64,
        /// What was found.
        summary: String,
    },
    /// Text that was there at the start can no longer be read.
    #[error("cannot read {} (was it shortened or removed while training?)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A window was asked for that lies outside its part.
    #[error(
        "a window of {length} tokens at token {start} does not fit into the {part} part of {have} tokens"
    )]
    Window {
        /// `training` or `held-out`.
        part: &'static str,
        /// First token asked for.
        start: u64,
        /// Tokens asked for.
        length: u64,
        /// Tokens in that part.
        have: u64,
    },
}
