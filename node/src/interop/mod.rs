//! Models as other programs hold them: in from a Hugging Face folder, out to one or to a GGUF file.
//!
//! - [`config`]: the architecture as `config.json` says it, in both directions;
//! - [`weights`]: the tensors of a folder's safetensors files, read a piece at a time;
//! - [`mod@import`]: a folder turned into an architecture and its coefficients;
//! - [`export`]: what is written; [`folder`]: as a folder; [`gguf`]: as a GGUF file;
//! - [`numbers`]: the number formats of weights; [`vocabulary`]: bytes as a vocabulary that others understand.
//!
//! Nothing here runs a model, so none of it needs libtorch. Whatever is read is somebody else's file: sizes are
//! checked before anything is allocated, and what is refused is named with its file, its tensor and a remedy.

mod config;
mod export;
pub(crate) mod folder;
pub(crate) mod gguf;
mod import;
mod numbers;
#[cfg(test)]
mod tests;
mod vocabulary;
mod weights;

pub(crate) use export::Model;
pub(crate) use import::{Imported, import};
pub(crate) use numbers::Number;
