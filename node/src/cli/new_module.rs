//! `swarm new --model FILE.pt`: a swarm that trains a TorchScript module, beginning with the module's own parameters.
//!
//! A description in TOML stands beside the file, with the same name but for its end:
//!
//! ```toml
//! loss = "cross_entropy"     # or "mse"
//! batch = 16                 # examples a step; --batch overrides it
//!
//! [inputs.tokens]            # or [inputs.images], or [inputs.vectors]
//! vocabulary = 256
//! context = 32
//! ```

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use swarm_optimizer::coefficients::Coefficients;
use swarm_optimizer::given::Given;
use swarm_optimizer::layout::Layout;
use swarm_protocol::architecture::{Architecture, Inputs, Loss};
use swarm_protocol::genesis::{Genesis, InnerOptimizer};

use crate::model::module;
use crate::store::{read_limited, write_atomically};

/// A description is a dozen lines.
const MAX_DESCRIPTION: u64 = 1 << 20;
/// Largest file of a module.
const MAX_MODULE: u64 = 64 << 30;

/// The table that describes a module.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    loss: Loss,
    inputs: Inputs,
    batch: Option<u32>,
}

/// A module that has been read: the default rules for it, its starting point, and its file.
pub(super) struct NewModule {
    pub(super) genesis: Genesis,
    pub(super) start: Coefficients,
    file: Vec<u8>,
}

impl NewModule {
    /// Reads the module at `path` and the description beside it. `[parent]` is still missing in the genesis.
    ///
    /// # Errors
    /// A file that is missing, is no module, or cannot be trained like this; the text says what to do.
    pub(super) fn read(path: &Path, name: &str, seed: u64) -> Result<Self> {
        let shown = path.display();
        let description = description(&path.with_extension("toml"))?;
        let file = read_limited(path, MAX_MODULE)?;
        let (config, values) = module::describe(&file, description.inputs, description.loss)
            .map_err(|error| anyhow!("the module {shown} cannot be used: {error:#}"))?;
        let mut genesis = Genesis::new(name, Architecture::Module(config), seed);
        // Nothing is known about its matrices, so Muon would find none.
        genesis.training.optimizer = InnerOptimizer::Adamw;
        genesis.training.learning_rate = InnerOptimizer::Adamw.learning_rate();
        genesis.training.batch = description.batch.unwrap_or(genesis.training.batch);
        let layout = genesis.layout()?;
        let start = coefficients(&layout, &values)
            .with_context(|| format!("the parameters of {shown} make no starting point"))?;
        Ok(Self { genesis, start, file })
    }

    /// Puts a copy of the module into the founder's folder.
    ///
    /// # Errors
    /// A disk that does not take it.
    pub(super) fn keep(&self, dir: &Path) -> Result<()> {
        write_atomically(&dir.join(super::given::MODULE), &self.file)
    }
}

fn description(path: &Path) -> Result<Description> {
    let shown = path.display();
    let bytes = read_limited(path, MAX_DESCRIPTION).with_context(|| {
        format!(
            "{shown} has to say what the module takes and what is minimised (loss and inputs; see the README)"
        )
    })?;
    let text = String::from_utf8(bytes).map_err(|_| anyhow!("{shown} is not text"))?;
    toml::from_str(&text).map_err(|error| anyhow!("{shown}: {error}"))
}

/// The coefficients of parameters in layout order.
fn coefficients(layout: &Layout, values: &[f32]) -> Result<Coefficients> {
    let mut units = vec![0; layout.len()];
    let mut given = Given::default();
    for place in layout.parameters() {
        let (rows, columns) = place.shape;
        for top in (0..rows).step_by(layout.side()) {
            let height = layout.side().min(rows - top);
            let band = place.offset + top * columns..place.offset + (top + height) * columns;
            given
                .band(layout.side(), columns, &values[band.clone()], &mut units[band])
                .with_context(|| format!("the parameter {}", place.name))?;
        }
    }
    Ok(Coefficients::new(units))
}
