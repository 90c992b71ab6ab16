//! A Hugging Face folder turned into what a swarm begins with: its architecture, and its weights as coefficients.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use swarm_optimizer::coefficients::Coefficients;
use swarm_optimizer::given::{Given, GivenError};
use swarm_optimizer::layout::Layout;
use swarm_protocol::architecture::LlamaConfig;

use super::config;
use super::weights::Weights;

/// The output layer of a model that is not tied, and what takes its place in one that is.
const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";
/// Constants that old checkpoints hold beside their weights; they follow from the configuration.
const CONSTANT: &str = ".rotary_emb.inv_freq";

/// A model from elsewhere.
pub(crate) struct Imported {
    /// Its architecture; the context is the swarm's.
    pub(crate) config: LlamaConfig,
    /// Its own context in tokens.
    pub(crate) whole_context: u32,
    /// Its weights, for tiles of the side that was asked for.
    pub(crate) coefficients: Coefficients,
}

/// Reads the model in `folder`; `context` is what the swarm trains it with: at most the model's own, which is cut to
/// `default_context` where nothing is said. `layout_of` says where the parameters of an architecture lie.
///
/// Memory: four bytes a parameter for the coefficients, and a few rows of one tensor.
///
/// # Errors
/// What is missing, damaged or not supported; the text names the file and the tensor.
pub(crate) fn import(
    folder: &Path,
    context: Option<u32>,
    default_context: u32,
    layout_of: impl FnOnce(&LlamaConfig) -> Result<Layout>,
) -> Result<Imported> {
    let mut config = config::read(&folder.join("config.json"))?;
    let whole_context = config.context;
    config.context = match context {
        Some(asked) => {
            ensure!(
                (2..=whole_context).contains(&asked),
                "--context {asked}: must be between 2 and the model's own context, {whole_context}"
            );
            asked
        }
        None => whole_context.min(default_context),
    };
    let mut weights = Weights::open(folder)?;
    check(&config, &mut weights)?;
    let layout = layout_of(&config)?;
    let mut values = vec![0i32; layout.len()];
    let (mut given, mut rows) = (Given::default(), Vec::new());
    for place in layout.parameters() {
        let (height, cols) = place.shape;
        for top in (0..height).step_by(layout.side()) {
            let first = top * cols;
            let count = layout.side().min(height - top) * cols;
            rows.resize(count, 0.0);
            weights.read(&place.name, first, &mut rows)?;
            let out = values.get_mut(place.offset + first..).and_then(|out| out.get_mut(..count));
            let out = out.context("the layout and the architecture disagree")?;
            given
                .band(layout.side(), cols, &rows, out)
                .map_err(|error| unusable(&weights, &place.name, first, error))?;
        }
    }
    Ok(Imported { config, whole_context, coefficients: Coefficients::new(values) })
}

/// A tensor whose values cannot be used.
fn unusable(weights: &Weights, name: &str, first: usize, error: GivenError) -> anyhow::Error {
    let file = weights.file_of(name);
    match error {
        GivenError::NotFinite { index, value } => anyhow!(
            "{file}: the tensor {name} holds {value} (scalar {}): the model is broken; use another version of it",
            first + index
        ),
        error => anyhow!("{file}: the tensor {name} cannot be used, {error}; use another model"),
    }
}

/// Fails unless the tensors are exactly those of the architecture.
fn check(config: &LlamaConfig, weights: &mut Weights) -> Result<()> {
    let parameters = config.parameters();
    for parameter in &parameters {
        if parameter.name == HEAD && !weights.has(HEAD) {
            return Err(anyhow!(
                "{} has no tensor {HEAD}, but config.json says tie_word_embeddings = false: if the output layer is the \
                 embedding, say true there",
                weights.file_of(EMBEDDING)
            ));
        }
        weights.check(&parameter.name, &parameter.shape)?;
    }
    if config.tied && weights.has(HEAD) {
        let shape = [config.vocabulary as usize, config.dim as usize];
        weights.check(HEAD, &shape)?;
        check_same(weights, shape)?;
    }
    let known = |name: &str| {
        name.ends_with(CONSTANT) || name == HEAD || parameters.iter().any(|known| known.name == name)
    };
    match weights.names().find(|name| !known(name)) {
        Some(name) => Err(anyhow!(
            "{}: the tensor {name} is none of a {} model as config.json describes it: are they of the same model?",
            weights.file_of(name),
            config::family(config)
        )),
        None => Ok(()),
    }
}

/// Fails unless the output layer that a tied model has all the same is its embedding.
fn check_same(weights: &mut Weights, [rows, cols]: [usize; 2]) -> Result<()> {
    const ROWS: usize = 64;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for top in (0..rows).step_by(ROWS) {
        let count = ROWS.min(rows - top) * cols;
        a.resize(count, 0.0f32);
        b.resize(count, 0.0f32);
        weights.read(EMBEDDING, top * cols, &mut a)?;
        weights.read(HEAD, top * cols, &mut b)?;
        let same = a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits());
        ensure!(
            same,
            "{}: the tensor {HEAD} differs from {EMBEDDING}, but config.json says tie_word_embeddings = true: say false \
             there if they are meant to differ",
            weights.file_of(HEAD)
        );
    }
    Ok(())
}
