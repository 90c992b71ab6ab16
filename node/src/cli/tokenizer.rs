//! `swarm tokenizer`: a tokenizer for a new swarm.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::data::{human_bytes, text_pieces};
use crate::store::write_atomically;
use crate::tokens;

/// Time between two words about how far it is.
const SAY: Duration = Duration::from_secs(5);

/// Make a tokenizer for a new swarm.
#[derive(Args)]
pub(super) struct Tokenizer {
    #[command(subcommand)]
    command: TokenizerCommand,
}

#[derive(Subcommand)]
enum TokenizerCommand {
    Train(Train),
    Show(Show),
}

/// Say what a tokenizer is, and how it cuts a text.
#[derive(Args)]
struct Show {
    /// The tokenizer.json.
    file: PathBuf,

    /// The text to cut.
    text: Option<String>,
}

/// Train a byte-level BPE tokenizer, as GPT-2 has it, on your own text, and write it as a tokenizer.json that
/// transformers and tokenizers read, too. At most 1 GiB of the text is used. Ctrl-C stops; nothing is written then.
///
/// A tokenizer holds frequent words and parts of words of the text that it was trained on, and everybody in the swarm
/// gets it: do not train it on text whose words are a secret.
#[derive(Args)]
struct Train {
    /// A file, or a folder in which files are found: text, JSON lines, Parquet, and .gz or .zst of these. May be
    /// repeated.
    #[arg(long, value_name = "PATH", required = true)]
    data: Vec<PathBuf>,

    /// The field of JSON lines, or the column of Parquet files, that has the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    field: String,

    /// Number of tokens: 256 bytes, the end of a document, and the rest for frequent sequences.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    vocabulary: u32,

    /// The file to write.
    #[arg(long, value_name = "FILE", default_value = "tokenizer.json")]
    out: PathBuf,

    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
}

impl Tokenizer {
    pub(super) fn execute(self) -> Result<()> {
        match self.command {
            TokenizerCommand::Train(train) => train.execute(),
            TokenizerCommand::Show(show) => show.execute(),
        }
    }
}

impl Show {
    fn execute(self) -> Result<()> {
        let (tokenizer, _) = tokens::Tokenizer::open(&self.file)?;
        let digest = tokenizer.digest().map(|digest| digest.to_string()).unwrap_or_default();
        println!("{}: {} tokens, BLAKE3 {digest}", self.file.display(), tokenizer.vocabulary());
        let Some(text) = self.text else { return Ok(()) };
        let mut tokens = Vec::new();
        tokenizer.encode(&text, &mut tokens)?;
        // What belongs to one character stays together.
        let (mut stream, mut pieces) = (tokenizer.stream(), Vec::new());
        for token in &tokens {
            pieces.push(stream.push(*token)?);
        }
        pieces.push(stream.finish()?);
        pieces.retain(|piece| !piece.is_empty());
        println!("{} bytes in {} tokens: {tokens:?}", text.len(), tokens.len());
        println!("{}", pieces.join("|"));
        Ok(())
    }
}

impl Train {
    fn execute(self) -> Result<()> {
        if self.out.exists() && !self.force {
            bail!("{} exists already: choose another --out, or --force to replace it", self.out.display());
        }
        let mut said = Instant::now();
        let trained = tokens::train(self.vocabulary, text_pieces(&self.data, self.field)?, |bytes| {
            if said.elapsed() > SAY {
                said = Instant::now();
                tracing::info!("{} of text counted", human_bytes(bytes));
            }
        })?;
        write_atomically(&self.out, &trained.json)?;
        println!(
            "wrote {}: {} tokens, from {} of text",
            self.out.display(),
            trained.vocabulary,
            human_bytes(trained.bytes)
        );
        if trained.vocabulary < self.vocabulary {
            println!("these are all: the text has no more sequences that occur twice");
        }
        println!("it holds frequent words of the text: whoever joins the swarm gets it");
        println!("use it in a new swarm: swarm new --tokenizer {}", self.out.display());
        Ok(())
    }
}
