//! Flags that say what to train on, and how it is read.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use swarm_protocol::architecture::ExamplesOf;
use swarm_protocol::genesis::Genesis;

use super::{block_on, stop_flag};
use crate::data::{
    Corpus, CorpusOptions, Examples, ImageExamples, MAX_KEPT, TestSet, Text, TextExamples, VectorExamples,
    encode_file,
};
use crate::net::parse_bytes;
use crate::node;
use crate::store::{Store, write_tokenizer};
use crate::tokens::Tokenizer;

/// Validation text beyond this many tokens is not read.
const MAX_VALIDATION: usize = 4 << 20;
/// Time between two searches for new text.
const REFRESH: Duration = Duration::from_secs(60);

/// Flags of every command that trains.
#[derive(Args)]
pub(super) struct DataArgs {
    /// What to learn from; may be repeated. Of text, a file, or a folder in which files are found: text, JSON lines
    /// (.jsonl, .ndjson), Parquet (.parquet); all but Parquet also as .gz or .zst; files that are added later are found
    /// while training. Of pictures, a folder with a subfolder of PNG or JPEG files for each class, an IDX file of images
    /// (MNIST's format, its labels beside it), or a CSV file with a row a picture: the label, then the pixels.
    #[arg(long, value_name = "PATH", required = true)]
    pub(super) data: Vec<PathBuf>,

    /// The field of JSON lines, or the column of Parquet files, that has the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    field: String,

    /// Files called .bin hold token ids of so many bytes, little-endian: 2 or 4.
    #[arg(long, value_name = "2|4", value_parser = token_bytes)]
    token_bytes: Option<u8>,

    /// The tokenizer.json that the swarm's genesis names. Needed once: the node's folder keeps it. With swarm join, or
    /// with --bootstrap, it is fetched from peers instead.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,

    /// Text to measure the shared and the personal model on; never trained on.
    #[arg(long, value_name = "FILE")]
    validation: Option<PathBuf>,

    /// Share of the text that is held out of training. What was held out or trained on in an earlier run stays so.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    hold_out: f64,

    /// Most disk that tokens of text may take that cannot be read as it is (packed files, JSON lines, Parquet, all
    /// text with a tokenizer).
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(MAX_KEPT), value_parser = bytes)]
    max_cache: Bytes,
}

/// An amount of bytes.
#[derive(Clone, Copy, Debug)]
struct Bytes(u64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}GiB", self.0 >> 30)
    }
}

fn bytes(text: &str) -> Result<Bytes, String> {
    parse_bytes(text).map(Bytes)
}

fn token_bytes(text: &str) -> Result<u8, String> {
    match text {
        "2" => Ok(2),
        "4" => Ok(4),
        _ => Err(format!("'{text}' is not 2 or 4")),
    }
}

impl DataArgs {
    /// The tokenizer of the swarm: the one given, the one in the node's folder, or one that peers `around` have. The folder has it afterwards.
    pub(super) fn tokenizer(
        &self,
        store: &Store,
        genesis: &Genesis,
        around: node::Around,
    ) -> Result<Tokenizer> {
        let Some(pinned) = &genesis.tokenizer else { return self.given_tokenizer(genesis) };
        if let Some(path) = &self.tokenizer {
            let (tokenizer, bytes) = Tokenizer::open(path)?;
            tokenizer.check(Some(pinned), &path.display().to_string())?;
            if store.tokenizer(pinned)?.is_none() {
                write_tokenizer(store.dir(), &bytes)?;
            }
            return Ok(tokenizer);
        }
        let bytes = match store.tokenizer(pinned)? {
            Some(bytes) => bytes,
            None if around.bootstrap.is_empty() && !around.mdns => bail!(
                "this swarm's text is read with a tokenizer, and {} has none yet: give it with --tokenizer FILE, or an \
                 address of a peer that has it with --bootstrap",
                store.dir().display()
            ),
            None => {
                let fetched = node::fetch_tokenizer(genesis.swarm_id(), pinned, around);
                let bytes = block_on(fetched)?;
                write_tokenizer(store.dir(), &bytes)?;
                bytes
            }
        };
        let name = store.path("tokenizer.json").display().to_string();
        let tokenizer = Tokenizer::parse(&bytes).with_context(|| name.clone())?;
        tokenizer.check(Some(pinned), &name)?;
        Ok(tokenizer)
    }

    /// The tokenizer given, which must be the one that the genesis names; bytes if neither is.
    pub(super) fn given_tokenizer(&self, genesis: &Genesis) -> Result<Tokenizer> {
        let (tokenizer, name) = match &self.tokenizer {
            Some(path) => (Tokenizer::open(path)?.0, path.display().to_string()),
            None => (Tokenizer::Bytes, String::new()),
        };
        tokenizer.check(genesis.tokenizer.as_ref(), &name)?;
        Ok(tokenizer)
    }

    /// Opens the data and says what they are. Tokens and split are kept in `keep`.
    pub(super) fn examples(
        &self,
        genesis: &Genesis,
        tokenizer: &Tokenizer,
        keep: Option<PathBuf>,
    ) -> Result<Box<dyn Examples>> {
        match genesis.model.examples() {
            ExamplesOf::Text { vocabulary, context } => {
                let vocabulary = genesis.tokenizer.map_or(vocabulary, |pinned| pinned.vocabulary);
                let corpus = self.corpus(vocabulary, context as usize, tokenizer, keep)?;
                Ok(Box::new(TextExamples::new(corpus, context as usize)))
            }
            ExamplesOf::Images(images) => {
                let pictures = ImageExamples::open(&self.data, images, self.hold_out)?;
                tracing::info!("data: {}", pictures.summary());
                Ok(Box::new(pictures))
            }
            ExamplesOf::Vectors(vectors) => {
                let rows = VectorExamples::open(&self.data, vectors, self.hold_out)?;
                tracing::info!("data: {}", rows.summary());
                Ok(Box::new(rows))
            }
        }
    }

    fn corpus(
        &self,
        vocabulary: u32,
        context: usize,
        tokenizer: &Tokenizer,
        keep: Option<PathBuf>,
    ) -> Result<Corpus> {
        let options = CorpusOptions {
            held_out_fraction: self.hold_out,
            tokenizer: tokenizer.clone(),
            vocabulary,
            field: self.field.clone(),
            token_bytes: self.token_bytes,
            keep,
            max_kept: self.max_cache.0,
            refresh: Some(REFRESH),
            stop: stop_flag()?,
            ..CorpusOptions::new(context)
        };
        let corpus = Corpus::open(&self.data, options)?;
        tracing::info!("data: {}", corpus.summary());
        Ok(corpus)
    }

    /// Reads the validation data.
    pub(super) fn validation(
        &self,
        genesis: &Genesis,
        tokenizer: &Tokenizer,
    ) -> Result<Option<Box<dyn TestSet>>> {
        let Some(path) = &self.validation else { return Ok(None) };
        let failed = || format!("--validation {}", path.display());
        let paths = std::slice::from_ref(path);
        Ok(Some(match genesis.model.examples() {
            ExamplesOf::Text { context, .. } => {
                let tokens =
                    encode_file(path, tokenizer, &self.field, MAX_VALIDATION).context("--validation")?;
                Box::new(Text::new(tokens, context as usize).with_context(failed)?)
            }
            ExamplesOf::Images(images) => {
                Box::new(ImageExamples::test_set(paths, images).with_context(failed)?)
            }
            ExamplesOf::Vectors(vectors) => {
                Box::new(VectorExamples::test_set(paths, vectors).with_context(failed)?)
            }
        }))
    }
}
