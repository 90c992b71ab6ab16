//! Muon: momentum, orthogonalised, for the matrices between hidden activations.
//!
//! K. Jordan and others, "Muon: An optimizer for hidden layers in neural networks", 2024; with the scale
//! and the weight decay of J. Liu and others, arXiv 2502.16982, so that AdamW's learning rate serves:
//!
//! ```text
//!     m = mu * m + (1 - mu) * g
//!     u = mu * m + (1 - mu) * g                    Nesterov's look ahead
//!     p = p - lr * weight_decay * p - lr * 0.2 * sqrt(max(rows, columns)) * orthogonal(u)
//! ```
//!
//! `orthogonal` keeps a matrix's singular vectors and moves all its singular values to about 1, so no
//! direction of the input is learned at the cost of the others. It needs no decomposition: five steps of
//! a polynomial that pulls every value in (0, 1] into 0.7 .. 1.2 (Newton and Schulz) are matrix products
//! only. On a GPU, matrices of one shape go through them as one batch.
//!
//! Embeddings, the output layer and gains have no such geometry; AdamW keeps them, at a quarter of the
//! learning rate.

use crate::model::parameter_length;
use swarm_protocol::architecture::Parameter;
use tch::{Device, Kind, TchError, Tensor};

/// Decay of the mean of the gradients.
const MOMENTUM: f64 = 0.9;
/// Root mean square of an update's elements, in learning rates: what AdamW's updates have.
const UPDATE_RMS: f64 = 0.2;
/// AdamW's learning rate for the other parameters, as a share of Muon's.
pub(super) const OTHERS_SHARE: f64 = 0.25;
/// Coefficients of x, x^3 and x^5 in the polynomial, and how often it is applied.
const POLYNOMIAL: [f64; 3] = [3.4445, -4.7750, 2.0315];
const ITERATIONS: usize = 5;
/// Keeps a zero gradient from being divided by its norm.
const TINY: f64 = 1e-7;

/// How far a step goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) lr: f64,
    pub(super) weight_decay: f64,
}

/// Which matrices Muon updates; the momentum lies with the caller.
#[derive(Debug)]
pub(super) struct Muon {
    groups: Vec<Group>,
}

/// Matrices of one shape.
#[derive(Debug)]
struct Group {
    rows: i64,
    columns: i64,
    /// The first scalar of each in the flat vector.
    starts: Vec<i64>,
}

/// Whether Muon is meant for this parameter.
pub(super) fn is_hidden_matrix(parameter: &Parameter) -> bool {
    parameter.shape.len() == 2 && parameter.hidden
}

/// Floating point operations to make a matrix orthogonal: its gram matrix, that matrix's square, and the product
/// with it, in every iteration.
pub(super) fn flops(rows: usize, columns: usize) -> u64 {
    let (rows, columns) = (rows.min(columns) as u64, rows.max(columns) as u64);
    ITERATIONS as u64 * (4 * rows * rows * columns + 2 * rows * rows * rows)
}

/// Numbers (f32) that a step on `device` needs for a moment: [`Buffers`].
pub(super) fn scratch(layout: &[Parameter], device: Device) -> u64 {
    let group = |group: &Group| {
        let count = at_once(device, group.starts.len()) as i64;
        count * (2 * group.rows * group.columns + 3 * group.side() * group.side())
    };
    Muon::new(layout).groups.iter().map(group).max().unwrap_or_default().unsigned_abs()
}

impl Muon {
    /// For the hidden matrices of this layout.
    pub(super) fn new(layout: &[Parameter]) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        let mut start = 0;
        for parameter in layout {
            if let ([rows, columns], true) = (&parameter.shape[..], is_hidden_matrix(parameter)) {
                let (rows, columns) = (*rows as i64, *columns as i64);
                match groups.iter_mut().find(|group| (group.rows, group.columns) == (rows, columns)) {
                    Some(group) => group.starts.push(start),
                    None => groups.push(Group { rows, columns, starts: vec![start] }),
                }
            }
            start += parameter_length(parameter) as i64;
        }
        Self { groups }
    }

    /// One step: `parameters` and `m` are changed in place. All three are f32 `[parameter_count]`;
    /// `compute` is the number format of the matrix products.
    pub(super) fn step(
        &self,
        parameters: &Tensor,
        gradient: &Tensor,
        m: &Tensor,
        rates: Rates,
        compute: Kind,
    ) -> Result<(), TchError> {
        let Rates { lr, weight_decay } = rates;
        let device = parameters.device();
        for group in &self.groups {
            let at_once = at_once(device, group.starts.len());
            let scale = -lr * UPDATE_RMS * (group.rows.max(group.columns) as f64).sqrt();
            let mut buffers = Buffers::new(at_once as i64, group, compute, device)?;
            // One each, or all at once: no batch is smaller than the buffers.
            for starts in group.starts.chunks(at_once) {
                for (i, start) in (0..).zip(starts) {
                    let gradient = group.view(gradient, *start)?;
                    let mut m = group.view(m, *start)?;
                    let _ = m.f_lerp_(&gradient, 1.0 - MOMENTUM)?;
                    let _ = gradient.f_lerp_scalar_out(&buffers.updates.f_get(i)?, &m, MOMENTUM)?;
                }
                let moves = buffers.orthogonal()?;
                for (i, start) in (0..).zip(starts) {
                    let mut matrix = group.view(parameters, *start)?;
                    let _ = matrix.f_mul_scalar_(1.0 - lr * weight_decay)?;
                    let _ = matrix.f_add_(&moves.f_get(i)?.f_mul_scalar_(scale)?)?;
                }
            }
        }
        Ok(())
    }
}

/// How many matrices go through the polynomial as one batch: a CPU is faster with one, which stays in its cache,
/// and a GPU with all.
fn at_once(device: Device, members: usize) -> usize {
    if device == Device::Cpu { 1 } else { members }
}

/// Memory that the matrices of a batch go through, one batch after another.
struct Buffers {
    /// f32 `[count, rows, columns]`: what to make orthogonal; overwritten.
    updates: Tensor,
    /// `[count, rows, columns]` each, in the number format of products: before and after an iteration.
    x: [Tensor; 2],
    /// `[count, side, side]` each, `side` the smaller of the two.
    gram: Tensor,
    factor: Tensor,
    polynomial: Tensor,
}

/// Adds `value` to the diagonal of each of the matrices, in place.
fn add_to_diagonals(matrices: &Tensor, value: f64) -> Result<&Tensor, TchError> {
    let _ = matrices.f_diagonal(0, 1, 2)?.f_add_scalar_(value)?;
    Ok(matrices)
}

impl Buffers {
    fn new(count: i64, group: &Group, compute: Kind, device: Device) -> Result<Self, TchError> {
        let (rows, columns) = (group.rows, group.columns);
        let make = |kind| Tensor::f_empty([count, rows, columns], (kind, device));
        let square = || Tensor::f_empty([count, group.side(), group.side()], (compute, device));
        let updates = make(Kind::Float)?;
        let first = if compute == Kind::Float { updates.shallow_clone() } else { make(compute)? };
        let x = [first, make(compute)?];
        Ok(Self { updates, x, gram: square()?, factor: square()?, polynomial: square()? })
    }

    /// `updates`, `[count, rows, columns]`, to the same shape, f32: each matrix with singular values near 1. The
    /// polynomial is applied from the side on which its matrices are small. What comes back is one of the buffers.
    fn orthogonal(&mut self) -> Result<Tensor, TchError> {
        let [a, b, c] = POLYNOMIAL;
        let norm = self.updates.f_norm_scalaropt_dim(2, [1, 2].as_slice(), true)?;
        let _ = self.updates.f_div_(&norm.f_add_scalar(TINY)?)?;
        let tall = self.updates.size()[1] > self.updates.size()[2];
        let [x, other] = &mut self.x;
        if x.kind() != Kind::Float {
            x.f_copy_(&self.updates)?;
        }
        for _ in 0..ITERATIONS {
            // x' = (a + gram (b + c gram)) x: products that add nothing, and so copy nothing.
            let turned = x.f_transpose(1, 2)?;
            let gram = if tall { turned.f_bmm_out(&self.gram, x) } else { x.f_bmm_out(&self.gram, &turned) }?;
            let factor = gram.f_mul_scalar_out(&self.factor, c)?;
            let polynomial = gram.f_bmm_out(&self.polynomial, add_to_diagonals(&factor, b)?)?;
            let polynomial = add_to_diagonals(&polynomial, a)?;
            let _ = if tall { x.f_bmm_out(other, polynomial) } else { polynomial.f_bmm_out(other, x) }?;
            std::mem::swap(x, other);
        }
        let done = x.f_to_kind(Kind::Float)?;
        // An odd number of iterations has swapped the two; `updates` is to be the first again.
        if ITERATIONS % 2 == 1 {
            std::mem::swap(x, other);
        }
        Ok(done)
    }
}

impl Group {
    /// The smaller dimension.
    fn side(&self) -> i64 {
        self.rows.min(self.columns)
    }

    /// The matrix `[rows, columns]` that begins at `start` in the flat vector: a view.
    fn view(&self, flat: &Tensor, start: i64) -> Result<Tensor, TchError> {
        flat.f_narrow(0, start, self.rows * self.columns)?.f_view([self.rows, self.columns])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_protocol::architecture::{LlamaConfig, Sizes};

    fn orthogonal(matrices: &Tensor, compute: Kind) -> Tensor {
        let (count, rows, columns) = matrices.size3().unwrap();
        let group = Group { rows, columns, starts: Vec::new() };
        let mut buffers = Buffers::new(count, &group, compute, Device::Cpu).unwrap();
        let mut once = || {
            buffers.updates.copy_(matrices);
            buffers.orthogonal().unwrap().copy()
        };
        let first = once();
        assert!(once().equal(&first), "memory that has been used must not show");
        first
    }

    #[test]
    fn singular_values_go_to_one_and_singular_vectors_stay() {
        tch::set_num_threads(1);
        tch::manual_seed(3);
        for compute in [Kind::Float, Kind::BFloat16] {
            let matrices = Tensor::randn([3, 24, 40], (Kind::Float, tch::Device::Cpu));
            let result = orthogonal(&matrices, compute);
            for i in 0..3 {
                let (u, _, v) = matrices.get(i).svd(true, true);
                let rotated = u.tr().matmul(&result.get(i)).matmul(&v);
                let values = rotated.diag(0);
                let (low, high) = (values.min().double_value(&[]), values.max().double_value(&[]));
                assert!(low > 0.6 && high < 1.3, "{low} .. {high}");
                let beside = (&rotated - values.diag(0)).abs().max().double_value(&[]);
                assert!(beside < if compute == Kind::Float { 1e-4 } else { 0.05 }, "{beside}");
            }
        }
        // Tall matrices go through as their transposes.
        let matrices = Tensor::randn([2, 24, 40], (Kind::Float, tch::Device::Cpu));
        let turned = orthogonal(&matrices.transpose(1, 2).contiguous(), Kind::Float).transpose(1, 2);
        let differs = (turned - orthogonal(&matrices, Kind::Float)).abs().max().double_value(&[]);
        assert!(differs < 1e-4, "{differs}");
        let zero = Tensor::zeros([1, 4, 4], (Kind::Float, tch::Device::Cpu));
        assert_eq!(orthogonal(&zero, Kind::Float).abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn every_hidden_matrix_moves_as_far_as_promised() {
        tch::set_num_threads(1);
        let arch = Sizes { vocabulary: 256, dim: 16, layers: 1, heads: 2, ffn: 32, context: 16 };
        let layout = LlamaConfig::from(arch).parameters();
        let muon = Muon::new(&layout);
        let shapes: Vec<_> = muon.groups.iter().map(|g| (g.rows, g.columns, g.starts.len())).collect();
        assert_eq!(shapes, [(16, 16, 4), (32, 16, 2), (16, 32, 1)]);
        tch::manual_seed(5);
        let count = layout.iter().map(parameter_length).sum::<usize>() as i64;
        let options = (Kind::Float, tch::Device::Cpu);
        let (p, m, g) = (
            Tensor::zeros([count], options),
            Tensor::zeros([count], options),
            Tensor::randn([count], options),
        );
        muon.step(&p, &g, &m, Rates { lr: 0.1, weight_decay: 0.1 }, Kind::Float).unwrap();
        let mut start = 0;
        for parameter in &layout {
            let length = parameter_length(parameter) as i64;
            let moved = p.narrow(0, start, length);
            let change = moved.square().mean(Kind::Float).sqrt().double_value(&[]);
            if is_hidden_matrix(parameter) {
                // The root mean square that the scale promises; singular values reach 0.7 to 1.2.
                assert!((0.013..0.025).contains(&change), "{}: {change}", parameter.name);
                let along = (&moved * g.narrow(0, start, length)).sum(Kind::Float).double_value(&[]);
                assert!(along < 0.0, "{}", parameter.name);
            } else {
                assert_eq!(change, 0.0, "{}", parameter.name);
            }
            start += length;
        }
    }
}
