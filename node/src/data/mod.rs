//! The user's own data: finding it, turning it into tokens, reading windows of it, holding a share of it back.
//!
//! A training example is a *window* of `context + 1` consecutive tokens (the last `context` of them are the
//! targets). So all that this module has to provide is a long string of tokens and a way to cut windows
//! out of it:
//!
//! - [`corpus`]: the files as one logical string, its split into a training and a held-out part, and
//!   reading windows from either;
//! - [`examples`]: what a learner draws batches from, and what it is measured on;
//! - [`images`]: pictures with labels, for swarms that learn to tell them apart;
//! - [`vectors`]: rows of numbers, for modules of any kind;
//! - [`collect`]: which files belong to the string; [`format`](mod@format): what kind each is;
//! - [`documents`], [`jsonl`], [`table`]: the text in them, as a stream;
//! - [`cache`]: the tokens of what cannot be read as it is; [`segment`]: reading tokens;
//! - [`intake`]: what is new; [`ledger`]: what was there, and which of it is held out;
//! - [`mod@sample_text`]: made-up text for measurements;
//! - [`sampler`]: where the next training window starts, reproducibly;
//! - [`error`]: what can be wrong.
//!
//! Nothing here leaves the device, and only [`examples`] knows about tensors.

mod cache;
mod collect;
mod corpus;
mod documents;
mod error;
#[cfg(feature = "train")]
mod examples;
mod format;
#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod growth_tests;
mod images;
mod intake;
mod jsonl;
mod ledger;
mod pieces;
mod sample_text;
mod sampler;
mod segment;
mod table;
#[cfg(test)]
mod tests;
#[cfg(feature = "train")]
mod vectors;

pub(crate) use collect::{read_text, text_files};
pub(crate) use corpus::{Corpus, CorpusOptions, MAX_KEPT};
#[cfg(test)]
pub(crate) use error::CorpusError;
#[cfg(feature = "train")]
pub(crate) use examples::{Examples, TestSet, Text, TextExamples};
pub(crate) use images::ImageExamples;
pub(crate) use pieces::{encode_file, text_pieces};
pub(crate) use sample_text::sample_text;
pub(crate) use sampler::{Sampler, SamplerState};
pub(crate) use vectors::VectorExamples;

/// A size in decimal units, to two digits or more.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}
