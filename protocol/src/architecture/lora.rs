//! Low-rank adapters for a frozen model (LoRA, Hu et al., arXiv 2106.09685): the swarm shares these and nothing else.
//!
//! A target matrix W `[out, in]` of the base is used as `W + (alpha / rank) B A`, with A `[rank, in]` and B
//! `[out, rank]`. A starts normally distributed and B at zero, so that the start is the base itself, and both are drawn
//! from the seed as in any other swarm. The base has to be at hand wherever somebody trains or generates. The genesis
//! names it by the digest of its coefficients, which are integers and so the same everywhere.

use serde::{Deserialize, Serialize};

use super::{Init, LlamaConfig, Parameter, real, within};
use crate::digest::Digest;

/// Upper limit of the rank.
const MAX_RANK: u32 = 1024;

/// Matrices of a block that can have an adapter, in the order of the layout.
pub const LORA_TARGETS: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Adapters for a llama-style transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rows of A and columns of B.
    pub rank: u32,
    /// The product of B and A counts `alpha / rank` times.
    pub alpha: f64,
    /// Which matrices of each block have one: some of [`LORA_TARGETS`], in that order.
    pub targets: Vec<String>,
    /// State digest of the base's coefficients.
    pub base: Digest,
    /// The base.
    pub llama: LlamaConfig,
}

/// An adapter: where its parts lie among the shared parameters, and what it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// The first scalar of the matrix that it changes, in the base's flat vector.
    pub base: usize,
    /// The first scalar of A among the adapters'; B follows A.
    pub start: usize,
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns of the matrix.
    pub columns: usize,
}

impl LoraConfig {
    /// `targets` in the order of the layout; unknown ones are kept for `validate` to name.
    pub fn in_order(mut targets: Vec<String>) -> Vec<String> {
        let place = |target: &String| LORA_TARGETS.iter().position(|known| known == target);
        targets.sort_by_key(|target| place(target).unwrap_or(usize::MAX));
        targets
    }

    /// What the product of B and A is multiplied by.
    pub fn scale(&self) -> f64 {
        self.alpha / f64::from(self.rank)
    }

    /// The adapters in layout order.
    pub fn adapters(&self) -> Vec<Adapter> {
        let (mut all, mut base, mut start) = (Vec::new(), 0, 0);
        for parameter in self.llama.parameters() {
            if let ([rows, columns], true) = (&parameter.shape[..], self.is_target(&parameter.name)) {
                all.push(Adapter { base, start, rows: *rows, columns: *columns });
                start += self.rank as usize * (rows + columns);
            }
            base += parameter.shape.iter().product::<usize>();
        }
        all
    }

    /// Whether the parameter of this name has an adapter.
    fn is_target(&self, name: &str) -> bool {
        let module = name.strip_suffix(".weight").and_then(|name| name.rsplit('.').next());
        module.is_some_and(|module| self.targets.iter().any(|target| target == module))
    }

    /// Checks every value; the error names the offending key.
    pub(super) fn validate(&self) -> Result<(), String> {
        self.llama.validate()?;
        let smallest = [self.llama.dim, self.llama.query_rows(), self.llama.key_rows(), self.llama.ffn];
        within("lora.rank", self.rank, 1, smallest.into_iter().min().unwrap_or(1).min(MAX_RANK))?;
        real("lora.alpha", self.alpha, 1e-3, 1e6)?;
        let unknown = self.targets.iter().find(|target| !LORA_TARGETS.contains(&target.as_str()));
        if let Some(unknown) = unknown {
            return Err(format!(
                "model.lora.targets: {unknown:?} is no matrix of a block; choose from {}",
                LORA_TARGETS.join(", ")
            ));
        }
        if self.targets.is_empty() || !LORA_TARGETS.iter().filter(|known| self.has(known)).eq(&self.targets) {
            return Err(format!(
                "model.lora.targets = {:?}: at least one, each once, in the order {}",
                self.targets,
                LORA_TARGETS.join(", ")
            ));
        }
        Ok(())
    }

    fn has(&self, target: &str) -> bool {
        self.targets.iter().any(|other| other == target)
    }

    /// All parameters in layout order: A and B of each adapter. Their names are those of Hugging Face's PEFT.
    pub fn parameters(&self) -> Vec<Parameter> {
        let rank = self.rank as usize;
        let mut all = Vec::new();
        for parameter in self.llama.parameters() {
            let ([rows, columns], true) = (&parameter.shape[..], self.is_target(&parameter.name)) else {
                continue;
            };
            let name = parameter.name.trim_end_matches(".weight");
            // The variance of the uniform distribution that PEFT draws from, 1 / (3 * columns).
            let std = (1_000_000_000_000 / (3 * (*columns).max(1) as u64)).isqrt();
            let init = Init::Normal { std_millionths: u32::try_from(std).unwrap_or(u32::MAX) };
            let mut add = |part: &str, shape: [usize; 2], init| {
                all.push(Parameter {
                    name: format!("{name}.lora_{part}.weight"),
                    shape: shape.to_vec(),
                    init,
                    hidden: false,
                });
            };
            add("A", [rank, *columns], init);
            add("B", [*rows, rank], Init::Zeros);
        }
        all
    }

    /// The table as TOML, with what people need to know.
    pub(super) fn to_toml(&self) -> String {
        let Self { rank, alpha, targets, base, llama } = self;
        let count = super::count(&self.parameters());
        format!(
            "# Adapters for a model that stays as it is. Whoever trains needs that model, too.\n\
             [model.lora]            # {count} parameters\n\
             rank = {rank}\n\
             alpha = {alpha:?}            # the product counts alpha / rank times\n\
             targets = {targets:?}\n\
             # BLAKE3 of the base's coefficients, 32-bit little-endian integers\n\
             base = \"{base}\"\n\n\
             {}",
            llama.to_toml().replacen("[model.llama]", "[model.lora.llama]", 1)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use crate::genesis::Genesis;

    fn config() -> LoraConfig {
        LoraConfig {
            rank: 8,
            alpha: 16.0,
            targets: vec!["q_proj".into(), "v_proj".into()],
            base: Digest::of_bytes(b"base"),
            llama: LlamaConfig { kv_heads: 2, ..LlamaConfig::preset("nano").unwrap() },
        }
    }

    #[test]
    fn a_swarm_of_adapters_reads_back() {
        let genesis = Genesis::new("lora", Architecture::Lora(config()), 1);
        let text = genesis.to_toml();
        let read = Genesis::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!((&read, read.swarm_id()), (&genesis, genesis.swarm_id()));
        assert_eq!(Genesis::from_canonical_bytes(&genesis.canonical_bytes()).unwrap(), genesis);
    }

    #[test]
    fn adapters_lie_where_the_layout_has_them() {
        let config = config();
        let (adapters, parameters) = (config.adapters(), config.parameters());
        assert_eq!((adapters.len(), parameters.len()), (2 * 4, 2 * 2 * 4));
        let mut start = 0;
        for (adapter, pair) in adapters.iter().zip(parameters.chunks(2)) {
            assert_eq!(adapter.start, start);
            assert_eq!(pair[0].shape, [8, adapter.columns]);
            assert_eq!(pair[1].shape, [adapter.rows, 8]);
            start += 8 * (adapter.rows + adapter.columns);
        }
        assert_eq!(parameters[2].name, "model.layers.0.self_attn.v_proj.lora_A.weight");
        // The second adapter's matrix begins after embedding, norm, queries and keys.
        let sizes = [256 * 128, 128, 128 * 128, 64 * 128];
        assert_eq!(adapters[1].base, sizes.iter().sum::<usize>());
        assert_eq!((adapters[1].rows, adapters[1].columns), (64, 128));
    }

    #[test]
    fn errors_name_the_key() {
        let targets = |targets: &[&str]| targets.iter().map(|target| (*target).to_owned()).collect();
        for (config, words) in [
            (LoraConfig { rank: 0, ..config() }, "model.lora.rank = 0"),
            (LoraConfig { rank: 65, ..config() }, "model.lora.rank = 65"),
            (LoraConfig { alpha: f64::NAN, ..config() }, "model.lora.alpha"),
            (LoraConfig { targets: targets(&["qkv"]), ..config() }, "\"qkv\" is no matrix"),
            (LoraConfig { targets: targets(&["v_proj", "q_proj"]), ..config() }, "model.lora.targets"),
            (LoraConfig { targets: targets(&["q_proj", "q_proj"]), ..config() }, "model.lora.targets"),
            (LoraConfig { targets: vec![], ..config() }, "model.lora.targets"),
        ] {
            let error = Architecture::Lora(config).validate().unwrap_err();
            assert!(error.contains(words), "{words}: {error}");
        }
        let sorted = LoraConfig::in_order(targets(&["down_proj", "q_proj", "v_proj"]));
        assert_eq!(sorted, ["q_proj", "v_proj", "down_proj"]);
    }
}
