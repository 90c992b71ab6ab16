//! Decoding token by token: what a generating model writes is shown as it comes.
//!
//! A token may be a part of a character, and its text may depend on the tokens before it (a word's leading space). So
//! the last few tokens are decoded together again with each new one, and only what has been added is given out, once
//! it does not end in the middle of a character. No character is longer than four bytes, and no token shorter than
//! one, so what is still incomplete after [`PATIENCE`] tokens never will be, and is given out as U+FFFD.

use anyhow::Result;

use super::Tokenizer;

/// Tokens that are waited for at most until a character is whole.
const PATIENCE: usize = 4;

/// Decodes token by token.
#[derive(Debug)]
pub(crate) struct Stream<'a> {
    tokenizer: &'a Tokenizer,
    /// The last tokens given out, which the next ones are decoded with, and those that wait.
    tokens: Vec<u32>,
    /// How many of them have been given out.
    given: usize,
}

impl<'a> Stream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, tokens: Vec::new(), given: 0 }
    }

    /// The text that this token adds: empty while a character is incomplete.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub(crate) fn push(&mut self, token: u32) -> Result<String> {
        self.tokens.push(token);
        let added = self.added()?;
        let waits = self.tokens.len() - self.given;
        if added.is_empty() || added.ends_with(char::REPLACEMENT_CHARACTER) && waits < PATIENCE {
            // A token without a text of its own (a special one) must not make the rest wait for ever.
            if waits >= 2 * PATIENCE {
                self.settle();
            }
            return Ok(String::new());
        }
        self.settle();
        Ok(added)
    }

    /// What has been waiting for more, as it is.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub(crate) fn finish(&mut self) -> Result<String> {
        let added = self.added()?;
        self.tokens.clear();
        self.given = 0;
        Ok(added)
    }

    /// What all tokens decode to beyond what those given out do.
    fn added(&self) -> Result<String> {
        let before = self.tokenizer.decode(&self.tokens[..self.given])?;
        let all = self.tokenizer.decode(&self.tokens)?;
        // A decoder may change its mind about the end of what it said before; what was given out stays.
        let common = before.chars().count();
        Ok(match all.strip_prefix(before.as_str()) {
            Some(added) => added.to_owned(),
            None => all.chars().skip(common).collect(),
        })
    }

    /// Those that waited are the context of the next ones.
    fn settle(&mut self) {
        self.tokens.drain(..self.given);
        self.given = self.tokens.len();
    }
}
