//! Text to tokens and back.
//!
//! A token is a number below the model's vocabulary. By default tokens are bytes, which needs no preparation and
//! knows every language, at the price of long sequences. A swarm may instead name a Hugging Face `tokenizer.json` in
//! its genesis, by the hash of the file (see `swarm_protocol::genesis::Tokenizer`): the ids in a model mean something
//! only with the very tokenizer that it was trained with.
//!
//! - [`Tokenizer`]: encodes and decodes;
//! - [`stream`]: decoding token by token, without halves of characters;
//! - [`mod@train`]: a new byte-level BPE from the user's own text.
//!
//! A `tokenizer.json` may come from anywhere, a peer included. What reads it is a library that was not written for
//! hostile input, so the file's size and its ids are bounded here, and a panic in the library is an error here.

mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod train;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use swarm_protocol::architecture::BYTE_VOCABULARY;
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::{self, MAX_TOKENIZER};

use crate::store::read_limited;

pub(crate) use stream::Stream;
pub(crate) use train::train;

/// Token ids beyond this are refused; it is what a genesis may ask for.
const MAX_VOCABULARY: u32 = 1 << 20;
/// What tokenizers call the end of a document, the usual ones first.
const ENDS: [&str; 6] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]", "<|im_end|>"];

/// How text becomes tokens.
#[derive(Clone, Debug)]
pub(crate) enum Tokenizer {
    /// Tokens are bytes.
    Bytes,
    /// A `tokenizer.json`.
    Json(Arc<Json>),
}

/// A `tokenizer.json` that was read.
#[derive(Debug)]
pub(crate) struct Json {
    inner: tokenizers::Tokenizer,
    digest: Digest,
    vocabulary: u32,
    /// What stands after a document.
    end: Option<u32>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`; also gives its bytes.
    ///
    /// # Errors
    /// A file that cannot be read or is too large; see [`Tokenizer::parse`].
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<u8>)> {
        let bytes = read_limited(path, MAX_TOKENIZER)?;
        let tokenizer = Self::parse(&bytes).with_context(|| {
            format!(
                "{}: give a Hugging Face tokenizer.json, or make one with swarm tokenizer train",
                path.display()
            )
        })?;
        Ok((tokenizer, bytes))
    }

    /// Reads the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// Not a tokenizer, or one with ids out of range.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(bytes))
            .context("this is not a tokenizer that can be used")?;
        // Lengths are this program's business.
        inner.with_truncation(None).map_err(|error| anyhow!("{error}"))?;
        inner.with_padding(None);
        let vocab = inner.get_vocab(true);
        let largest = vocab.values().copied().max().context("the tokenizer has no tokens")?;
        ensure!(
            largest < MAX_VOCABULARY,
            "the tokenizer's largest token id is {largest}: it must be below {MAX_VOCABULARY}"
        );
        let end = ENDS.iter().find_map(|name| vocab.get(*name).copied());
        let (digest, vocabulary) = (Digest::of_bytes(bytes), largest + 1);
        let json = Json { inner, digest, vocabulary, end };
        let tokenizer = Self::Json(Arc::new(json));
        // Some faults show only in use: better now than in the middle of the data.
        tokenizer.encode("a b\n", &mut Vec::new()).context("the tokenizer does not encode")?;
        Ok(tokenizer)
    }

    /// Checks that this is the tokenizer that a genesis names, or bytes if it names none. `name` is the file's.
    ///
    /// # Errors
    /// It is another one; the text says what to do.
    pub(crate) fn check(&self, pinned: Option<&genesis::Tokenizer>, name: &str) -> Result<()> {
        match (self, pinned) {
            (Self::Bytes, None) => Ok(()),
            (Self::Bytes, Some(_)) => {
                bail!("this swarm's text is read with a tokenizer: give it with --tokenizer FILE")
            }
            (Self::Json(_), None) => {
                bail!(
                    "{name}: this swarm's text is read as bytes, without a tokenizer: leave --tokenizer out"
                )
            }
            (Self::Json(json), Some(pinned)) => {
                ensure!(
                    json.digest == pinned.blake3,
                    "{name} is not the tokenizer of this swarm: its hash is {:.16}, and the genesis names {:.16}. Give \
                     the very file that swarm new was given, or leave --tokenizer out to fetch it from peers",
                    json.digest,
                    pinned.blake3
                );
                ensure!(
                    json.vocabulary == pinned.vocabulary,
                    "{name} has {} token ids, and the genesis says {}: the genesis was not written for it; make a new \
                     one with swarm new --tokenizer",
                    json.vocabulary,
                    pinned.vocabulary
                );
                Ok(())
            }
        }
    }

    /// How a genesis names it; `None` for bytes.
    pub(crate) fn pin(&self) -> Option<genesis::Tokenizer> {
        match self {
            Self::Bytes => None,
            Self::Json(json) => Some(genesis::Tokenizer { blake3: json.digest, vocabulary: json.vocabulary }),
        }
    }

    /// Number of token ids: one more than the largest.
    pub(crate) fn vocabulary(&self) -> u32 {
        match self {
            Self::Bytes => BYTE_VOCABULARY,
            Self::Json(json) => json.vocabulary,
        }
    }

    /// BLAKE3 of the file; `None` for bytes.
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.pin().map(|pin| pin.blake3)
    }

    /// Adds the tokens of `text` to `tokens`.
    ///
    /// # Errors
    /// A tokenizer that does not know what to do with it (most know everything).
    pub(crate) fn encode(&self, text: &str, tokens: &mut Vec<u32>) -> Result<()> {
        match self {
            Self::Bytes => tokens.extend(text.bytes().map(u32::from)),
            Self::Json(json) => {
                let encoding = guarded(|| json.inner.encode_fast(text, false))
                    .context("the tokenizer cannot encode a piece of the text")?;
                tokens.extend_from_slice(encoding.get_ids());
            }
        }
        Ok(())
    }

    /// As [`Tokenizer::encode`], of several texts at once, on all cores.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub(crate) fn encode_all(&self, texts: Vec<String>) -> Result<Vec<Vec<u32>>> {
        match self {
            Self::Bytes => Ok(texts.into_iter().map(|text| text.bytes().map(u32::from).collect()).collect()),
            Self::Json(json) => {
                let encodings = guarded(|| json.inner.encode_batch_fast(texts, false))
                    .context("the tokenizer cannot encode a piece of the text")?;
                Ok(encodings.iter().map(|encoding| encoding.get_ids().to_vec()).collect())
            }
        }
    }

    /// Adds what stands between two documents: the tokenizer's end of text if it has one, else a newline.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub(crate) fn end_document(&self, tokens: &mut Vec<u32>) -> Result<()> {
        match self {
            Self::Json(json) if let Some(end) = json.end => tokens.push(end),
            _ => self.encode("\n", tokens)?,
        }
        Ok(())
    }

    /// The token after which a text is over, if there is one.
    pub(crate) fn end(&self) -> Option<u32> {
        match self {
            Self::Bytes => None,
            Self::Json(json) => json.end,
        }
    }

    /// The text of these tokens. What is no UTF-8 becomes U+FFFD; an id that the tokenizer does not have, nothing.
    ///
    /// # Errors
    /// A tokenizer that cannot decode.
    pub(crate) fn decode(&self, tokens: &[u32]) -> Result<String> {
        match self {
            Self::Bytes => {
                let bytes: Vec<u8> = tokens.iter().filter_map(|&token| u8::try_from(token).ok()).collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Self::Json(json) => {
                guarded(|| json.inner.decode(tokens, true)).context("the tokenizer cannot decode")
            }
        }
    }

    /// Decodes token by token.
    pub(crate) fn stream(&self) -> Stream<'_> {
        Stream::new(self)
    }
}

/// Runs the library; what goes wrong there, however it does, is an error.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(anyhow!("{}", shortened(&error.to_string()))),
        Err(_) => bail!("it is damaged in a way that the library which reads it does not expect"),
    }
}

/// Errors of the library quote their input.
fn shortened(error: &str) -> String {
    error.chars().take(200).collect()
}
