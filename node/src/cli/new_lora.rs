//! `swarm new --train lora:r=8`: a swarm that shares adapters for a model that stays as it is.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use swarm_protocol::architecture::{Architecture, LoraConfig};
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::{Genesis, InnerOptimizer};

use crate::store;

/// Which matrices have adapters unless others are named, as in the paper.
const DEFAULT_TARGETS: [&str; 2] = ["q_proj", "v_proj"];

/// What of a model is trained, as the flag says it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Train {
    rank: u32,
    alpha: f64,
    targets: Vec<String>,
}

impl FromStr for Train {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "such as lora:r=8 or lora:r=8,alpha=16,targets=q_proj+v_proj";
        let wrong = |what: &str| format!("'{text}': {what}; write it {FORM}");
        let settings = text.strip_prefix("lora:").ok_or_else(|| wrong("only lora is known"))?;
        let (mut rank, mut alpha, mut targets) = (None, None, None);
        for setting in settings.split(',') {
            let (key, value) = setting.split_once('=').ok_or_else(|| wrong("a setting is key=value"))?;
            match key {
                "r" => rank = Some(value.parse().map_err(|_| wrong("r is a whole number"))?),
                "alpha" => alpha = Some(value.parse().map_err(|_| wrong("alpha is a number"))?),
                "targets" => targets = Some(value.split('+').map(str::to_owned).collect()),
                _ => return Err(wrong("the settings are r, alpha and targets")),
            }
        }
        let rank: u32 = rank.ok_or_else(|| wrong("r is missing"))?;
        let targets = targets.unwrap_or_else(|| DEFAULT_TARGETS.map(str::to_owned).to_vec());
        let targets = LoraConfig::in_order(targets);
        Ok(Self { rank, alpha: alpha.unwrap_or(2.0 * f64::from(rank)), targets })
    }
}

/// The default rules for adapters of the model in `folder`, which has a genesis and a starting point, as `swarm fork`
/// and `swarm new` write them.
///
/// # Errors
/// A folder without these; a model that is no language model; a rank that is too large for it.
pub(super) fn read(train: Train, folder: &Path, name: &str, seed: u64) -> Result<Genesis> {
    let shown = folder.display();
    let base = store::read_genesis(&folder.join("genesis.toml")).with_context(|| {
        format!(
            "--train: --model {shown} has to be the folder of a swarm that begins with the model: swarm fork makes one of a \
             node's folder"
        )
    })?;
    let Architecture::Llama(llama) = base.model else {
        anyhow::bail!("--train lora: the model of {shown} is no language model of the llama family");
    };
    let start = folder.join(store::START);
    ensure!(
        start.is_file(),
        "--train: {shown} has no file start with the model: swarm fork --dir {shown} --out BASE makes a folder that has"
    );
    let parameters = usize::try_from(base.model.parameter_count())?;
    let state = store::read_state(&start, parameters)?;
    let Train { rank, alpha, targets } = train;
    let config = LoraConfig { rank, alpha, targets, base: Digest::of_state(state.values()), llama };
    let mut genesis = Genesis::new(name, Architecture::Lora(config), seed);
    // The base's coefficients are those of its own tiles.
    genesis.rule.tile = base.rule.tile;
    // B starts at zero and both are thin: AdamW is what LoRA is known to work with.
    genesis.training.optimizer = InnerOptimizer::Adamw;
    genesis.training.learning_rate = InnerOptimizer::Adamw.learning_rate();
    Ok(genesis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_trained_is_said_in_a_word() {
        let train: Train = "lora:r=4".parse().unwrap();
        assert_eq!((train.rank, train.alpha), (4, 8.0));
        assert_eq!(train.targets, DEFAULT_TARGETS);
        let train: Train = "lora:targets=down_proj+q_proj,alpha=1.5,r=2".parse().unwrap();
        assert_eq!((train.rank, train.alpha), (2, 1.5));
        assert_eq!(train.targets, ["q_proj", "down_proj"]);
        for text in ["lora", "lora:", "lora:r", "lora:r=x", "lora:alpha=3", "lora:r=2,colour=3", "full"] {
            let error = text.parse::<Train>().unwrap_err();
            assert!(error.contains("lora:r=8"), "{text}: {error}");
        }
    }
}
