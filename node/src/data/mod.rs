//! The user's own text: finding it, reading windows of it, holding a share of it back.
//!
//! A byte-level model needs no tokenizer and no preprocessing: its training data is bytes, and a
//! training example is a *window* of `context + 1` consecutive bytes (the last `context` of them are the
//! targets). So all that this module has to provide is a long string of bytes and a way to cut windows
//! out of it:
//!
//! - [`corpus`]: the files as one logical string, its split into a training and a held-out part, and
//!   reading windows from either;
//! - [`collect`]: which files belong to the string;
//! - [`mod@sample_text`]: made-up text for measurements;
//! - [`sampler`]: where the next training window starts, reproducibly;
//! - [`error`]: what can be wrong.
//!
//! Nothing here leaves the device, and nothing here knows about tensors.

mod collect;
mod corpus;
mod error;
mod sample_text;
mod sampler;
#[cfg(test)]
mod tests;

pub(crate) use collect::{read_text, text_files};
pub(crate) use corpus::{Corpus, CorpusOptions};
#[cfg(test)]
pub(crate) use error::CorpusError;
pub(crate) use sample_text::sample_text;
pub(crate) use sampler::{Sampler, SamplerState};
