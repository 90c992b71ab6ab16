//! `swarm export`: the model in a node's folder, as other programs open it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::load::{Provenance, load_model};
use crate::interop::{Model, Number, folder, gguf};
use crate::store::read_limited;

/// Tokenizers of a few hundred thousand tokens are tens of MB.
const MAX_TOKENIZER: u64 = 256 << 20;

/// Write the model in a node's folder as other programs open it: the shared one, or the personal one. Works offline,
/// also while the node is running (with its newest snapshot).
#[derive(Args)]
pub(super) struct Export {
    /// The node's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// The format.
    #[arg(long, value_enum)]
    format: Format,

    /// What to write: a folder for safetensors, a file for GGUF. It must not be there yet.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,

    /// Write the personal model, with what only this device has learned. Default: the shared one.
    #[arg(long)]
    personal: bool,

    /// How numbers are written. With q8_0 and q4_0 the file is smaller and the model a little worse; for GGUF only.
    #[arg(long, value_enum, default_value = "f32", value_name = "NUMBERS")]
    quantize: Number,

    /// Also write PATH.example.json: the tokens of TEXT, this program's own logits for the next token, and the
    /// tokens that follow if the likeliest is taken each time. Whoever opens the export can check that it computes
    /// the same.
    #[cfg(feature = "train")]
    #[arg(long, value_name = "TEXT")]
    example: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A folder that `transformers` opens: config.json, model.safetensors, tokenizer.json.
    Safetensors,
    /// A file that llama.cpp opens.
    Gguf,
}

impl Export {
    pub(super) fn execute(self) -> Result<()> {
        let (genesis, values, provenance) = load_model(&self.dir, !self.personal)?;
        let config = genesis.model.llama().with_context(|| {
            format!(
                "the swarm's model ({}) is none that can be exported: only llama is",
                genesis.model.label()
            )
        })?;
        let tokenizer = self.dir.join("tokenizer.json");
        let tokenizer = tokenizer.exists().then(|| read_limited(&tokenizer, MAX_TOKENIZER)).transpose()?;
        let said = provenance.pairs(&genesis.name);
        let model = Model {
            config,
            parameters: &config.parameters(),
            values: &values,
            name: &genesis.name,
            provenance: &said,
            tokenizer: tokenizer.as_deref(),
        };
        match self.format {
            Format::Safetensors => folder::write(&self.out, &model, self.quantize)?,
            Format::Gguf => gguf::write(&self.out, &model, self.quantize)?,
        }
        let which = if provenance.personal { "personal" } else { "shared" };
        println!(
            "wrote {}: the {which} model of swarm {:.16} ({}) after {} rounds, in {}",
            self.out.display(),
            provenance.swarm,
            genesis.name,
            provenance.round,
            self.quantize.name()
        );
        if self.personal && !provenance.personal {
            println!("nothing was trained in {}, so its model is the shared one", self.dir.display());
        }
        #[cfg(feature = "train")]
        if let Some(text) = &self.example {
            example::write(&self.out, config, &values, text)?;
        }
        Ok(())
    }
}

impl Provenance {
    /// What is said of the model in a file of it.
    fn pairs(&self, name: &str) -> Vec<(&'static str, String)> {
        vec![
            ("name", name.to_owned()),
            ("id", self.swarm.to_string()),
            ("round", self.round.to_string()),
            ("state", self.state.to_string()),
            ("model", if self.personal { "personal" } else { "shared" }.to_owned()),
        ]
    }
}

#[cfg(feature = "train")]
mod example {
    //! What this program itself computes, for comparison.

    use std::path::Path;

    use anyhow::{Context, Result, ensure};
    use serde_json::json;
    use swarm_protocol::architecture::LlamaConfig;
    use tch::{Device, Kind, Tensor};

    use crate::model::{Llama, Network};
    use crate::store::write_atomically;

    /// Tokens that follow the text.
    const FOLLOWING: usize = 24;

    pub(super) fn write(out: &Path, config: &LlamaConfig, values: &[f32], text: &str) -> Result<()> {
        let mut tokens: Vec<i64> = text.bytes().map(i64::from).collect();
        let context = config.context as usize;
        ensure!(
            (1..=context).contains(&tokens.len()),
            "--example: a text of {} tokens does not fit the context of {context}, or is empty",
            tokens.len()
        );
        let mut llama = Llama::new(config, Device::Cpu)?;
        llama.set_parameters(values)?;
        let prompt = tokens.len();
        let mut first = Vec::new();
        while tokens.len() < (prompt + FOLLOWING).min(context) || first.is_empty() {
            let logits = tch::no_grad(|| llama.next_logits(&Tensor::from_slice(&tokens).f_unsqueeze(0)?))?;
            if first.is_empty() {
                first = vec![0.0f32; config.vocabulary as usize];
                let count = first.len();
                logits.f_to_kind(Kind::Float)?.f_reshape([-1])?.f_copy_data(&mut first, count)?;
            }
            tokens.push(logits.f_argmax(-1, false)?.f_int64_value(&[0])?);
        }
        let following = tokens.split_off(prompt);
        let value = json!({ "text": text, "tokens": tokens, "logits": first, "following": following });
        let mut path = out.as_os_str().to_owned();
        path.push(".example.json");
        let path = Path::new(&path);
        write_atomically(path, serde_json::to_string(&value).context("cannot write JSON")?.as_bytes())?;
        println!("wrote {}: what this program computes after the text", path.display());
        Ok(())
    }
}
