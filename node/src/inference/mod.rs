//! Using a language model that was trained: continuing texts and conversations.
//!
//! - [`answer()`]: continues a prompt, piece by piece, until there is enough;
//! - [`sampling`]: how a token is drawn;
//! - [`talk`]: a conversation as a text;
//! - [`text`]: text to tokens and back.
//!
//! What predicts is a [`crate::model::Sequence`]. Commands that use it are in [`crate::cli`]; answering other programs
//! over HTTP is [`crate::serve`].

mod answer;
mod sampling;
pub(crate) mod talk;

pub(crate) use crate::tokens::Tokenizer;
pub(crate) use answer::{Finish, Outcome, Request, TooLong, answer};
pub(crate) use sampling::Sampling;

/// A model that is ready, and how to speak with it.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The model.
    pub(crate) sequence: crate::model::Sequence,
    /// Of the text that it was trained on.
    pub(crate) tokenizer: Tokenizer,
    /// Which model it is, in words.
    pub(crate) about: String,
}
