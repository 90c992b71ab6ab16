//! What a node needs besides the genesis and no peer sends: the program that a swarm's model is, or the model that a
//! swarm's adapters are for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use swarm_optimizer::residual::whole_model;
use swarm_protocol::architecture::{Architecture, LlamaConfig, LoraConfig, ModuleConfig};
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Genesis;

use crate::model::{self, Given, lora};
use crate::store::{self, read_limited, write_atomically};

/// What a node's folder calls its copy of the module.
pub(super) const MODULE: &str = "module.pt";
/// And that of the model that adapters are for.
const BASE: &str = "base";
/// A module's file has its parameters, 4 bytes each, and code; this is for the latter.
const MAX_CODE: u64 = 256 << 20;

/// Flags for what the genesis names and no peer sends.
#[derive(Args, Default)]
pub(super) struct GivenArgs {
    /// The TorchScript file of a swarm that trains a module: the very file that its genesis names. It is a program:
    /// take it from somebody you trust. The node keeps a copy in its folder, so it is needed once.
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,

    /// The model that a swarm's adapters are for: the folder of a swarm that begins with it, or that folder's file
    /// start. The node keeps a copy in its folder, so it is needed once.
    #[arg(long, value_name = "PATH")]
    base: Option<PathBuf>,
}

impl GivenArgs {
    /// Reads and checks what a model needs; `dir` is the node's folder, which gets a copy.
    ///
    /// # Errors
    /// Something that is missing, or not what the genesis names.
    pub(super) fn read(&self, genesis: &Genesis, dir: &Path) -> Result<Given> {
        let model = &genesis.model;
        for (flag, given, fits) in [
            ("--module", &self.module, matches!(model, Architecture::Module(_))),
            ("--base", &self.base, matches!(model, Architecture::Lora(_))),
        ] {
            ensure!(
                given.is_none() || fits,
                "{flag}: this swarm's model ({}) needs none; leave the flag out",
                model.label()
            );
        }
        Ok(match model {
            Architecture::Module(config) => {
                Given { module: Some(self.read_module(config, dir)?), base: None }
            }
            Architecture::Lora(config) => {
                let base = read_base(genesis, config, self.base.as_deref(), dir)?;
                Given { module: None, base: Some(base) }
            }
            Architecture::Llama(_) | Architecture::Resnet(_) => Given::default(),
        })
    }

    fn read_module(&self, config: &ModuleConfig, dir: &Path) -> Result<Vec<u8>> {
        let copy = dir.join(MODULE);
        let path = match &self.module {
            Some(path) => path,
            None if copy.is_file() => &copy,
            None => bail!(
                "this swarm trains a TorchScript module, which peers do not send because it is a program: get the file \
                 with BLAKE3 {:.16}... from whoever made the swarm, and name it with --module FILE",
                config.file
            ),
        };
        let bytes = read_module(path, config)?;
        if *path != copy {
            make_folder(dir)?;
            write_atomically(&copy, &bytes)?;
        }
        Ok(bytes)
    }
}

/// The language model that the `parameters` of this swarm are: their own architecture, or the base that they adapt,
/// merged with them. `dir` is the node's folder.
///
/// # Errors
/// Another kind of model; a base that is missing.
pub(super) fn language_model(
    genesis: &Genesis,
    dir: &Path,
    parameters: Vec<f32>,
) -> Result<(LlamaConfig, Vec<f32>)> {
    match &genesis.model {
        Architecture::Lora(config) => {
            let base = read_base(genesis, config, None, dir)?;
            Ok((config.llama, lora::merged(config, &base, &parameters)?))
        }
        model => Ok((*model::language_model(model)?, parameters)),
    }
}

/// The parameters of the model that the adapters are for, in layout order, from `given` or the node's own copy.
fn read_base(genesis: &Genesis, config: &LoraConfig, given: Option<&Path>, dir: &Path) -> Result<Vec<f32>> {
    let copy = dir.join(BASE);
    let path = match given {
        Some(path) if path.is_dir() => path.join(store::START),
        Some(path) => path.to_owned(),
        None if copy.is_file() => copy.clone(),
        None => bail!(
            "this swarm trains adapters for a model that stays as it is, and peers do not send that: get it (state \
             {:.16}...) from whoever made the swarm, and name it with --base PATH",
            config.base
        ),
    };
    let layout = Genesis { rule: genesis.rule, ..Genesis::new("base", config.llama, 0) }.layout()?;
    let coefficients = store::read_state(&path, layout.len())
        .with_context(|| format!("{} is not the base of the swarm's adapters", path.display()))?;
    let state = Digest::of_state(coefficients.values());
    ensure!(
        state == config.base,
        "{} is not the base that the genesis names: its state is {state:.16}..., and the genesis has {:.16}...; ask whoever \
         made the swarm for it",
        path.display(),
        config.base
    );
    if !copy.is_file() {
        make_folder(dir)?;
        let partial = dir.join("base.partial");
        let failed = || format!("cannot copy {} to {}", path.display(), copy.display());
        std::fs::copy(&path, &partial).with_context(failed)?;
        std::fs::rename(&partial, &copy).with_context(failed)?;
    }
    Ok(whole_model(&layout, &coefficients, None))
}

fn make_folder(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))
}

/// Reads the file of the module that the genesis names.
fn read_module(path: &Path, config: &ModuleConfig) -> Result<Vec<u8>> {
    let parameters: u64 = Architecture::Module(config.clone()).parameter_count();
    let bytes = read_limited(path, parameters.saturating_mul(4).saturating_add(MAX_CODE))?;
    let digest = Digest::of_bytes(&bytes);
    ensure!(
        digest == config.file,
        "{} is not the module that the genesis names: its BLAKE3 is {digest:.16}..., and the genesis has {:.16}...; ask \
         whoever made the swarm for the file",
        path.display(),
        config.file
    );
    Ok(bytes)
}
