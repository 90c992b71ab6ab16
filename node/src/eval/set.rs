//! Loss and accuracy on examples that are no text: pictures, rows of numbers.

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use crate::data::TestSet;
use crate::model::Network;

/// Examples that are measured at once.
const AT_ONCE: u64 = 64;

/// What was measured on a set of examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Measured {
    /// Mean over the examples, in nats or what the module's loss is in.
    pub(crate) loss: f64,
    /// Share of the examples that are told right; `None` where nothing is told apart.
    pub(crate) accuracy: Option<f64>,
    /// How many.
    pub(crate) examples: u64,
}

/// Measures `model` on all of `set`. `go_on` is told the examples so far, and says whether to.
///
/// # Errors
/// A set without examples; data that cannot be read; a failure of the device; `go_on` says no.
pub(crate) fn measure(
    model: &dyn Network,
    set: &dyn TestSet,
    mut go_on: impl FnMut(u64) -> bool,
) -> Result<Measured> {
    let examples = set.len();
    ensure!(examples > 0, "there is nothing to measure on: {}", set.amount());
    let (mut loss, mut hits) = (0.0, Some(0.0));
    for start in (0..examples).step_by(AT_ONCE as usize) {
        if !go_on(start) {
            bail!("stopped before all of the data were measured");
        }
        let batch = set.read(start..examples.min(start + AT_ONCE), examples)?;
        let batch = batch.part(0, batch.len(), model.device())?;
        let (here, told) = tch::no_grad(|| anyhow::Ok((model.loss(&batch)?, model.hits(&batch)?)))?;
        loss += here.f_double_value(&[])? * batch.len() as f64;
        hits = hits.zip(told).map(|(before, told)| before + told);
    }
    let count = examples as f64;
    Ok(Measured { loss: loss / count, accuracy: hits.map(|hits| hits / count), examples })
}
