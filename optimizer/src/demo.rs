//! DeMo as its paper has it: decoupled momentum in floating point.
//!
//! B. Peng, J. Quesnelle, D. P. Kingma, "DeMo: Decoupled Momentum Optimization", arXiv 2411.19870,
//! Algorithm 1, in the form in which the authors' reference implementation behaves.
//!
//! Workers hold equal parameters `p`, and each its own momentum `m`. What is large in `m` is sent and
//! taken out of it; what is small stays and accumulates. The directions that matter are thus shared
//! soon, the others are never lost, and a step costs k coefficients a chunk instead of a dense tensor.
//!
//! ```text
//! extract, alone:    1. p <- p (1 - lr wd)                       4. keep the k largest magnitudes a chunk
//!                    2. m <- decay m + lr g                      5. m <- m - inverse DCT(kept), send kept
//!                    3. DCT of m, chunk by chunk
//! merge, together:   6. each coefficient: sum of the values sent / number of workers that sent it
//!                    7. inverse DCT
//! apply:             8. p <- p - lr sign(merged)
//! ```
//!
//! Two facts that surprise: the mean is taken over those who *sent* a coefficient, not over all; and
//! the learning rate is inside `m` too, so after a change of it old momentum keeps its old rate.
//!
//! The sign makes workers' parameters part as soon as two inverse DCTs round differently around zero,
//! so this rule wants one kind of machine, or a common referee. It is here as the baseline; swarms
//! agree by integers instead. Where it differs from the reference, on purpose:
//!
//! - Values that are not finite are refused. In the reference one NaN makes a chunk's momentum NaN
//!   for ever, silently.
//! - Equal magnitudes are chosen by the lowest index; the reference leaves the choice to chance.
//! - The momentum can be read and set, so that a run can be resumed; the reference does not save it.
//! - The momentum's update rounds the product and the sum; the reference uses one fused
//!   multiply-add where the machine has it. The last bit of `m` may differ, and the DCT's too.
//!
//! # Example
//! Two workers, one matrix:
//! ```
//! use swarm_optimizer::demo::{Demo, DemoConfig};
//!
//! let config = DemoConfig { decay: 0.999, k: 2, chunk: 64, weight_decay: 0.1 };
//! let mut workers = [Demo::new(&[[4, 6]], config)?, Demo::new(&[[4, 6]], config)?];
//! let mut params = [vec![0.5f32; 24], vec![0.5f32; 24]];
//! let grads = [vec![1.0f32; 24], vec![-0.25f32; 24]];
//! let lr = 0.01;
//!
//! let mut sent = Vec::new();
//! for rank in 0..2 {
//!     sent.push(workers[rank].extract(0, &mut params[rank], &grads[rank], lr)?);
//! }
//! let everyone: Vec<_> = sent.iter().collect(); // what the network carries, in rank order
//! for rank in 0..2 {
//!     workers[rank].apply(0, &mut params[rank], &everyone, lr)?;
//! }
//! assert_eq!(params[0], params[1]);
//! # Ok::<(), swarm_optimizer::demo::DemoError>(())
//! ```

mod error;
mod grid;
#[cfg(test)]
mod tests;

pub use error::DemoError;
pub use grid::{ChunkGrid, chunk_length};

use crate::dct::TileDct;
use crate::topk;

/// The settings that all workers share, under the paper's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DemoConfig {
    /// What is kept of the momentum each step (the paper's beta; `compression_decay`), in [0, 1).
    pub decay: f64,
    /// Coefficients sent a chunk (`compression_topk`), at least 1; all of a chunk that has fewer.
    pub k: usize,
    /// Target length of a chunk's sides (`compression_chunk`), at least 1; see [`chunk_length`].
    pub chunk: usize,
    /// Decoupled weight decay, at least 0; multiplied by the learning rate.
    pub weight_decay: f64,
}

/// What one worker sends for one parameter: the kept DCT coefficients of its momentum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sent {
    /// Coefficient numbers as in [`ChunkGrid`], strictly ascending, `min(k, area)` of them a chunk.
    pub indices: Vec<u32>,
    /// Their values (learning rate x gradient), in the same order.
    pub values: Vec<f32>,
}

/// One worker's state: the momentum of every parameter.
#[derive(Clone)]
pub struct Demo {
    config: DemoConfig,
    params: Vec<Param>,
    /// One transform for every chunk size that occurs.
    plans: Vec<TileDct<f32>>,
    tile: Vec<f32>,
    kept: Vec<f32>,
    chosen: Vec<u32>,
    selection: Vec<(f32, u32)>,
}

#[derive(Clone)]
struct Param {
    grid: ChunkGrid,
    plan: usize,
    momentum: Vec<f32>,
}

impl Demo {
    /// A worker for parameters of these shapes, each `[n]` or `[rows, cols]`, with zero momentum.
    /// Parameters go by their position in `shapes` from here on.
    ///
    /// # Errors
    /// A setting out of its range; a shape of another kind.
    pub fn new(shapes: &[impl AsRef<[usize]>], config: DemoConfig) -> Result<Demo, DemoError> {
        if config.k == 0 {
            return Err(DemoError::K);
        }
        if config.chunk == 0 {
            return Err(DemoError::Chunk);
        }
        if !(0.0..1.0).contains(&config.decay) {
            return Err(DemoError::Decay(config.decay));
        }
        if !(0.0..f64::INFINITY).contains(&config.weight_decay) {
            return Err(DemoError::WeightDecay(config.weight_decay));
        }
        let mut plans: Vec<TileDct<f32>> = Vec::new();
        let mut params = Vec::with_capacity(shapes.len());
        for (param, shape) in shapes.iter().enumerate() {
            let shape = shape.as_ref();
            let grid = ChunkGrid::new(shape, config.chunk)
                .ok_or_else(|| DemoError::Shape { param, shape: shape.to_vec() })?;
            let size = (grid.chunk_rows, grid.chunk_cols);
            let plan = plans.iter().position(|plan| (plan.rows(), plan.cols()) == size);
            let plan = plan.unwrap_or_else(|| {
                plans.push(TileDct::new(size.0, size.1));
                plans.len() - 1
            });
            params.push(Param { grid, plan, momentum: vec![0.0; grid.elements()] });
        }
        let largest = params.iter().map(|param| param.grid.area()).max().unwrap_or(0);
        Ok(Demo {
            config,
            params,
            plans,
            tile: vec![0.0; largest],
            kept: vec![0.0; largest],
            chosen: Vec::new(),
            selection: Vec::with_capacity(largest),
        })
    }

    /// How a parameter is cut into chunks.
    ///
    /// # Errors
    /// An unknown parameter.
    pub fn grid(&self, param: usize) -> Result<ChunkGrid, DemoError> {
        Ok(self.param(param)?.grid)
    }

    /// A parameter's momentum (learning rate x gradient), row-major: all that a worker has not yet sent.
    ///
    /// # Errors
    /// An unknown parameter.
    pub fn momentum(&self, param: usize) -> Result<&[f32], DemoError> {
        Ok(&self.param(param)?.momentum)
    }

    /// Replaces a parameter's momentum, to resume a run.
    ///
    /// # Errors
    /// An unknown parameter, another length, a value that is not finite or far too large.
    pub fn set_momentum(&mut self, param: usize, momentum: &[f32]) -> Result<(), DemoError> {
        let count = self.params.len();
        let state = self.params.get_mut(param).ok_or(DemoError::UnknownParameter { param, count })?;
        check_length(param, "momentum", momentum.len(), &state.grid)?;
        check_finite(param, "momentum", momentum.iter().map(|&m| (m, m)), &state.grid)?;
        state.momentum.copy_from_slice(momentum);
        Ok(())
    }

    /// Steps 1 to 5, for one parameter of this worker: decays the weights `params`, adds the gradient
    /// `grad` to the momentum, and takes out of the momentum what is to be sent. Both slices are
    /// row-major; `lr` is the learning rate of this parameter in this step.
    ///
    /// # Errors
    /// An unknown parameter, another length, a bad learning rate, a gradient that is not finite. On an
    /// error neither the weights nor the momentum have changed.
    pub fn extract(
        &mut self,
        param: usize,
        params: &mut [f32],
        grad: &[f32],
        lr: f64,
    ) -> Result<Sent, DemoError> {
        let count = self.params.len();
        let state = self.params.get_mut(param).ok_or(DemoError::UnknownParameter { param, count })?;
        let Param { grid, plan, momentum } = state;
        check_length(param, "weights", params.len(), grid)?;
        check_length(param, "gradient", grad.len(), grid)?;
        let rate = rate(lr)?;
        let shrink = (1.0 - lr * self.config.weight_decay) as f32;
        if !shrink.is_finite() {
            return Err(DemoError::WeightDecay(self.config.weight_decay));
        }
        let decay = self.config.decay as f32;
        let updated = |m: f32, g: f32| decay * m + rate * g;
        let outcome = momentum.iter().zip(grad).map(|(&m, &g)| (updated(m, g), g));
        check_finite(param, "gradient", outcome, grid)?;

        params.iter_mut().for_each(|p| *p *= shrink);
        momentum.iter_mut().zip(grad).for_each(|(m, &g)| *m = updated(*m, g));

        let (area, k) = (grid.area(), self.config.k.min(grid.area()));
        let (tile, kept) = (&mut self.tile[..area], &mut self.kept[..area]);
        let dct = &mut self.plans[*plan];
        let room = k * grid.chunks();
        let mut sent = Sent { indices: Vec::with_capacity(room), values: Vec::with_capacity(room) };
        for chunk in 0..grid.chunks() {
            grid.gather(chunk, momentum, tile);
            dct.forward(tile);
            topk::select(tile, k, &mut self.selection, &mut self.chosen);
            kept.fill(0.0);
            for &index in &self.chosen {
                let value = tile[index as usize];
                kept[index as usize] = value;
                sent.indices.push((chunk * area) as u32 + index);
                sent.values.push(value);
            }
            dct.inverse(kept);
            grid.scatter(chunk, kept, momentum, |m, taken| *m -= taken);
        }
        Ok(sent)
    }

    /// Steps 6 and 7, for one parameter: the mean of what the workers sent, decoded to the parameter's
    /// row-major shape (learning rate x gradient). Each coefficient's values are added in the order of
    /// `senders` in f32 and divided once, by the number that sent it; nobody's coefficient is 0.
    ///
    /// # Errors
    /// An unknown parameter; a message with an index out of range, repeated or out of order, unequal
    /// lengths, or a value that is not finite.
    pub fn merge(&mut self, param: usize, senders: &[&Sent]) -> Result<Vec<f32>, DemoError> {
        let Param { grid, plan, .. } = *self.param(param)?;
        for (sender, sent) in senders.iter().enumerate() {
            check_sent(param, sender, sent, grid.elements())?;
        }
        let mut mean = vec![0.0f32; grid.elements()];
        let mut counts = vec![0u32; grid.elements()];
        for sent in senders {
            for (&index, &value) in sent.indices.iter().zip(&sent.values) {
                mean[index as usize] += value;
                counts[index as usize] += 1;
            }
        }
        for (value, &count) in mean.iter_mut().zip(&counts) {
            if count > 0 {
                *value /= count as f32;
            }
        }
        let dct = &mut self.plans[plan];
        let mut merged = vec![0.0; grid.elements()];
        for (chunk, tile) in mean.chunks_exact_mut(grid.area()).enumerate() {
            dct.inverse(tile);
            grid.scatter(chunk, tile, &mut merged, |value, decoded| *value = decoded);
        }
        Ok(merged)
    }

    /// Steps 6 to 8, for one parameter: merges what all workers sent, this one included, moves the
    /// weights `params` by `lr` against the sign of the mean, and returns that mean as
    /// [`merge`](Demo::merge) does. A mean of 0 or NaN moves nothing.
    ///
    /// # Errors
    /// As [`merge`](Demo::merge); another length; a bad learning rate. On an error the weights have not
    /// changed.
    pub fn apply(
        &mut self,
        param: usize,
        params: &mut [f32],
        senders: &[&Sent],
        lr: f64,
    ) -> Result<Vec<f32>, DemoError> {
        check_length(param, "weights", params.len(), &self.param(param)?.grid)?;
        let rate = rate(lr)?;
        let merged = self.merge(param, senders)?;
        params.iter_mut().zip(&merged).for_each(|(p, &m)| *p -= rate * sign(m));
        Ok(merged)
    }

    fn param(&self, param: usize) -> Result<&Param, DemoError> {
        self.params.get(param).ok_or(DemoError::UnknownParameter { param, count: self.params.len() })
    }
}

/// 1, -1, or 0 for both zeros and NaN.
fn sign(value: f32) -> f32 {
    if value > 0.0 {
        1.0
    } else if value < 0.0 {
        -1.0
    } else {
        0.0
    }
}

fn rate(lr: f64) -> Result<f32, DemoError> {
    let rate = lr as f32;
    if lr >= 0.0 && rate.is_finite() { Ok(rate) } else { Err(DemoError::LearningRate(lr)) }
}

fn check_length(param: usize, what: &'static str, got: usize, grid: &ChunkGrid) -> Result<(), DemoError> {
    let want = grid.elements();
    if got == want { Ok(()) } else { Err(DemoError::Length { param, what, got, want }) }
}

/// Checks the first of each pair, reports the second. The bound leaves room for the sums inside the
/// transform, which before scaling grow to the chunk's area times the largest value.
fn check_finite(
    param: usize,
    what: &'static str,
    values: impl Iterator<Item = (f32, f32)>,
    grid: &ChunkGrid,
) -> Result<(), DemoError> {
    let bound = f32::MAX / (4.0 * grid.area() as f32);
    for (element, (outcome, value)) in values.enumerate() {
        if outcome.abs() <= bound {
            continue;
        }
        return Err(DemoError::NotFinite { param, what, element, value });
    }
    Ok(())
}

fn check_sent(param: usize, sender: usize, sent: &Sent, count: usize) -> Result<(), DemoError> {
    let (indices, values) = (sent.indices.len(), sent.values.len());
    if indices != values {
        return Err(DemoError::SentLength { param, sender, indices, values });
    }
    let mut next = 0;
    for (&index, &value) in sent.indices.iter().zip(&sent.values) {
        if index as usize >= count {
            return Err(DemoError::SentRange { param, sender, index, count });
        }
        if (index as usize) < next {
            return Err(DemoError::SentOrder { param, sender, index });
        }
        if !value.is_finite() {
            return Err(DemoError::SentNotFinite { param, sender, index, value });
        }
        next = index as usize + 1;
    }
    Ok(())
}
