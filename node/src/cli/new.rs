//! `swarm new`: writes a genesis; for a model from elsewhere also what it begins with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use swarm_optimizer::coefficients::Coefficients;
use swarm_protocol::architecture::Architecture;
#[cfg(feature = "train")]
use swarm_protocol::architecture::BYTE_VOCABULARY;
use swarm_protocol::checkpoint::Held;
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::{Genesis, Parent};
use swarm_protocol::round_log::RoundLog;

use super::access::{self, AccessArgs};
use super::rules::RuleArgs;
use crate::interop::{self, Imported};
use crate::store::{self, read_limited, write_atomically};

/// An architecture is a table of a dozen numbers.
const MAX_ARCHITECTURE: u64 = 64 * 1024;
/// Tokens that a model from elsewhere is trained on at a time, unless more are asked for: memory grows with it.
const DEFAULT_CONTEXT: u32 = 1024;
const GENESIS: &str = "genesis.toml";
/// What pickled checkpoints are called.
const PICKLES: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

/// Write a genesis: the rules of a new swarm. Every peer needs the very same file. With a Hugging Face folder as
/// --model the swarm goes on with that model: its founder then has a folder with the genesis and the model.
#[derive(Args)]
pub(super) struct New {
    /// The file to write (default: genesis.toml); with a Hugging Face folder or a TorchScript module as --model, the
    /// folder to make for the new swarm's first node: its genesis, its starting model, and the module.
    #[arg(long, value_name = "FILE or DIR")]
    out: Option<PathBuf>,

    /// A name for the swarm, for people.
    #[arg(long, default_value = "swarm")]
    name: String,

    /// The model. Of language: nano (about 1 M parameters), micro (10 M) or small (100 M). Of pictures, ten classes:
    /// digits (8 x 8 grey), mnist (28 x 28 grey), cifar (32 x 32 in colour). Or a TOML file with a table of sizes, such
    /// as [llama] or [resnet], as in the [model.llama] of a genesis. Or a Hugging Face folder with a llama or qwen2
    /// model: config.json and model.safetensors (or several files and model.safetensors.index.json). Or FILE.pt, a
    /// TorchScript module, described by FILE.toml.
    #[arg(long, default_value = "nano", value_name = "MODEL")]
    model: String,

    /// A Hugging Face tokenizer.json (or one that swarm tokenizer train wrote): the genesis names it by its hash, and the
    /// model has a vocabulary for it. Default: the one in the model's folder; without one, text is read as bytes.
    #[cfg(feature = "train")]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,

    /// Train on so many tokens at a time, at most as many as the model is made for: fewer take less memory. Default:
    /// the model's own, and at most 1024 of a Hugging Face folder's.
    #[arg(long, value_name = "TOKENS")]
    context: Option<u32>,

    /// Share only adapters for a model that stays as it is (LoRA): lora:r=8, or with more settings
    /// lora:r=8,alpha=16,targets=q_proj+v_proj (alpha is 2 r unless given; targets of q_proj, k_proj, v_proj, o_proj,
    /// gate_proj, up_proj, down_proj). --model is then the folder of a swarm that begins with the model, which swarm
    /// fork and swarm new make.
    #[cfg(feature = "train")]
    #[arg(long, value_name = "WHAT")]
    train: Option<super::new_lora::Train>,

    /// The common starting point is drawn from this number, unless the model comes from a folder.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Parameters that everybody trains for themselves and nobody shares: those whose names match PATTERN (* stands
    /// for anything), such as '*norm*'. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    private: Vec<String>,

    #[command(flatten)]
    access: AccessArgs,

    #[command(flatten)]
    rules: RuleArgs,

    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
}

impl New {
    pub(super) fn execute(self) -> Result<()> {
        let path = Path::new(&self.model);
        #[cfg(feature = "train")]
        if let Some(train) = self.train.clone() {
            let genesis = super::new_lora::read(train, path, &self.name, self.seed)?;
            self.write(genesis, &format!(" --base {}", self.model))?;
            println!(
                "whoever trains needs the model, too: --base names {0} or a copy of its file start",
                self.model
            );
            return Ok(());
        }
        match Architecture::preset(&self.model) {
            Some(model) => self.begin_with(model),
            None if path.is_dir() => self.go_on_with(path),
            None if self.model.ends_with(".toml") => self.begin_with(read_architecture(path)?),
            None if self.model.ends_with(".pt") && path.with_extension("toml").is_file() => {
                self.begin_with_module(path)
            }
            None => Err(unknown(path)),
        }
    }

    /// A swarm whose starting point is drawn from the seed.
    fn begin_with(&self, mut model: Architecture) -> Result<()> {
        if let Some(context) = self.context {
            cut_context(&mut model, context)?;
        }
        let genesis = Genesis::new(&self.name, model, self.seed);
        #[cfg(feature = "train")]
        let genesis = self.pin_tokenizer(genesis)?;
        self.write(genesis, "")
    }

    /// Writes a genesis with the rules that flags were given for; `flags` are what a node needs more than usual.
    fn write(&self, mut genesis: Genesis, flags: &str) -> Result<()> {
        self.rules.apply(&mut genesis)?;
        let out = self.out.clone().unwrap_or_else(|| GENESIS.into());
        if out.exists() && !self.force {
            bail!("{} exists already: choose another --out, or --force to replace it", out.display());
        }
        self.access.apply(&mut genesis)?;
        genesis.private.clone_from(&self.private);
        genesis.validate().map_err(anyhow::Error::msg)?;
        write_atomically(&out, genesis.to_toml().as_bytes())?;
        println!("swarm id: {}", genesis.swarm_id());
        println!("wrote {}: give this file to every peer, unchanged", out.display());
        println!(
            "start with: swarm run --genesis {}{flags} --data PATH{}",
            out.display(),
            self.tokenizer_flag()
        );
        access::explain(&genesis);
        Ok(())
    }

    /// Names the tokenizer in the genesis.
    #[cfg(feature = "train")]
    fn pin_tokenizer(&self, mut genesis: Genesis) -> Result<Genesis> {
        let Some(path) = &self.tokenizer else { return Ok(genesis) };
        let (tokenizer, _) = crate::tokens::Tokenizer::open(path)?;
        genesis.tokenizer = tokenizer.pin();
        // A model has a place for every byte at least.
        let Architecture::Llama(config) = &mut genesis.model else {
            bail!("--tokenizer: the model ({}) has none of its own; leave it out", genesis.model.label());
        };
        config.vocabulary = tokenizer.vocabulary().max(BYTE_VOCABULARY);
        Ok(genesis)
    }

    /// What to add to a command line for the tokenizer.
    fn tokenizer_flag(&self) -> String {
        #[cfg(feature = "train")]
        if let Some(path) = &self.tokenizer {
            return format!(" --tokenizer {}", path.display());
        }
        String::new()
    }

    /// A swarm that trains the TorchScript module in `path`.
    #[cfg(feature = "train")]
    fn begin_with_module(&self, path: &Path) -> Result<()> {
        let out = self.out.as_ref().with_context(|| {
            format!(
                "--model {} is a module: name the folder to make for the new swarm's first node with --out DIR",
                self.model
            )
        })?;
        let module = super::new_module::NewModule::read(path, &self.name, self.seed)?;
        let mut genesis = module.genesis.clone();
        let state = Digest::of_state(module.start.values());
        genesis.parent = Some(Parent { swarm: None, settled: 0, state });
        self.rules.apply(&mut genesis)?;
        self.access.apply(&mut genesis)?;
        genesis.private.clone_from(&self.private);
        genesis.validate().map_err(anyhow::Error::msg)?;
        let start = Held::new(0, RoundLog::new(&genesis).recent_digests(), module.start.clone());
        store::write_successor(out, &genesis, &start)?;
        module.keep(out)?;
        let (out, file) = (out.display(), path.display());
        println!("read {file}: {} parameters", genesis.model.parameter_count());
        println!("swarm id: {}", genesis.swarm_id());
        println!("wrote {out}/{GENESIS}, {out}/start, the model that it names, and a copy of the module");
        println!("start it with: swarm run --dir {out} --data PATH");
        println!(
            "others need {out}/{GENESIS}, the module (a program: peers do not send it), and the address of a node that \
             has the model: swarm run --genesis {GENESIS} --module {file} --data PATH --bootstrap ADDRESS"
        );
        access::explain(&genesis);
        Ok(())
    }

    #[cfg(not(feature = "train"))]
    fn begin_with_module(&self, path: &Path) -> Result<()> {
        bail!("--model {}: this build of swarm has no libtorch, which reads modules", path.display())
    }

    /// A swarm that goes on with the model in a Hugging Face folder.
    fn go_on_with(&self, folder: &Path) -> Result<()> {
        let out = self.out.as_ref().with_context(|| {
            format!(
                "--model {} is a folder: name the folder to make for the new swarm's first node with --out DIR",
                self.model
            )
        })?;
        // What is written in the end is refused first.
        store::ensure_empty(out)?;
        // The tile does not depend on the model.
        let plan = |config: &_| {
            let model = Architecture::Llama(*config);
            Genesis::new(&self.name, model, self.seed).layout().context("the model has no layout")
        };
        let imported = interop::import(folder, self.context, DEFAULT_CONTEXT, plan)?;
        let genesis = self.write_founder(folder, out, &imported)?;
        let out = out.display();
        let config = imported.config;
        println!(
            "read {}: {} parameters, {} tokens of {} at a time{}",
            self.model,
            config.parameter_count(),
            config.context,
            imported.whole_context,
            if config.context < imported.whole_context { " (--context N for another number)" } else { "" }
        );
        match &genesis.tokenizer {
            Some(tokenizer) => println!("text is read with its tokenizer ({} tokens)", tokenizer.vocabulary),
            None => println!("text is read as bytes, which are its tokens 0 to 255: no tokenizer was given"),
        }
        println!("swarm id: {}", genesis.swarm_id());
        println!("wrote {out}/{GENESIS}, and {out}/start, the model that it names");
        println!("start it with: swarm run --dir {out} --data PATH");
        println!(
            "others need {out}/{GENESIS} only, and the address of a node that has the model: \
             swarm run --genesis {GENESIS} --data PATH --bootstrap ADDRESS"
        );
        access::explain(&genesis);
        Ok(())
    }

    fn write_founder(&self, folder: &Path, out: &Path, imported: &Imported) -> Result<Genesis> {
        let mut genesis = Genesis::new(&self.name, imported.config, self.seed);
        let c0: &Coefficients = &imported.coefficients;
        genesis.parent = Some(Parent { swarm: None, settled: 0, state: Digest::of_state(c0.values()) });
        #[cfg(feature = "train")]
        let tokenizer = self.tokenizer_of(folder, &mut genesis)?;
        #[cfg(not(feature = "train"))]
        ensure!(
            !folder.join("tokenizer.json").exists(),
            "{} has a tokenizer, which this build of swarm cannot read: use one that trains",
            folder.display()
        );
        self.rules.apply(&mut genesis)?;
        self.access.apply(&mut genesis)?;
        genesis.private.clone_from(&self.private);
        genesis.validate().map_err(anyhow::Error::msg)?;
        let start = Held::new(0, RoundLog::new(&genesis).recent_digests(), c0.clone());
        store::write_successor(out, &genesis, &start)?;
        #[cfg(feature = "train")]
        if let Some(bytes) = tokenizer {
            store::write_tokenizer(out, &bytes)?;
        }
        Ok(genesis)
    }

    /// Names the tokenizer of a model in a folder in the genesis: the one given, or the folder's own. Its bytes.
    #[cfg(feature = "train")]
    fn tokenizer_of(&self, folder: &Path, genesis: &mut Genesis) -> Result<Option<Vec<u8>>> {
        let own = folder.join("tokenizer.json");
        let Some(path) = self.tokenizer.as_ref().or(own.exists().then_some(&own)) else { return Ok(None) };
        let (tokenizer, bytes) = crate::tokens::Tokenizer::open(path)?;
        let vocabulary = genesis.model.vocabulary().unwrap_or(0);
        ensure!(
            tokenizer.vocabulary() <= vocabulary,
            "{}: it has {} tokens, and the model in {} knows {vocabulary}: this is another model's tokenizer; name the \
             right one with --tokenizer",
            path.display(),
            tokenizer.vocabulary(),
            folder.display()
        );
        genesis.tokenizer = tokenizer.pin();
        Ok(Some(bytes))
    }
}

/// The architecture in a TOML file.
fn read_architecture(path: &Path) -> Result<Architecture> {
    let bytes = read_limited(path, MAX_ARCHITECTURE)?;
    let text = String::from_utf8(bytes).map_err(|_| anyhow!("{} is not text", path.display()))?;
    let model: Architecture = toml::from_str(&text)
        .map_err(|error| anyhow!("{}: no architecture can be read from it: {error}", path.display()))?;
    model.validate().map_err(|error| anyhow!("{}: {error}", path.display()))?;
    Ok(model)
}

/// Shortens the context of a language model.
fn cut_context(model: &mut Architecture, context: u32) -> Result<()> {
    let config = model.llama().with_context(|| format!("--context: {} has no context", model.label()))?;
    ensure!(
        (2..=config.context).contains(&context),
        "--context {context}: must be between 2 and the model's own context, {}",
        config.context
    );
    let mut cut = *config;
    cut.context = context;
    *model = cut.into();
    Ok(())
}

/// What is no model, and what to give instead.
fn unknown(path: &Path) -> anyhow::Error {
    let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_lowercase();
    let given = path.display();
    if PICKLES.contains(&end.as_str()) {
        anyhow!(
            "--model {given}: a pickled checkpoint is not read, because it can run code: convert it to safetensors, and \
             name the folder that has this and its config.json. If it is a TorchScript module: {} has to say what the \
             module takes and what is minimised (loss and inputs; see the README)",
            path.with_extension("toml").display()
        )
    } else if end == "safetensors" || path.ends_with("config.json") {
        anyhow!("--model {given}: name the folder that it is in, with config.json and the weights")
    } else {
        anyhow!(
            "--model {given}: it is no preset ({}), no file that ends with .toml or .pt and no folder",
            Architecture::PRESETS.join(", ")
        )
    }
}
