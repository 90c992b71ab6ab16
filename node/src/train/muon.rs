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
//! only. Matrices of one shape go through them as one batch.
//!
//! Embeddings, the output layer and gains have no such geometry; AdamW keeps them, at a quarter of the
//! learning rate.

use crate::model::parameter_length;
use swarm_protocol::architecture::Parameter;
use tch::{Kind, TchError, Tensor};

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

/// Matrices of one shape, or of its transpose.
#[derive(Debug)]
struct Group {
    /// At most `columns`.
    rows: i64,
    columns: i64,
    members: Vec<Member>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    /// First scalar in the flat vector.
    start: i64,
    /// Stored with more rows than columns.
    tall: bool,
}

/// Whether Muon is meant for this parameter.
pub(super) fn is_hidden_matrix(parameter: &Parameter) -> bool {
    parameter.shape.len() == 2 && parameter.name.starts_with("model.layers.")
}

/// Floating point operations to make a matrix orthogonal: its gram matrix, that matrix's square, and the product
/// with it, in every iteration.
pub(super) fn flops(rows: usize, columns: usize) -> u64 {
    let (rows, columns) = (rows.min(columns) as u64, rows.max(columns) as u64);
    ITERATIONS as u64 * (4 * rows * rows * columns + 2 * rows * rows * rows)
}

/// Numbers (f32) that a step needs for a moment: of the largest group the updates, one by one and stacked, the
/// matrices before and after an iteration, and two gram matrices each.
pub(super) fn scratch(layout: &[Parameter]) -> u64 {
    let group =
        |group: &Group| group.members.len() as i64 * group.rows * (3 * group.columns + 2 * group.rows);
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
                let member = Member { start, tall: rows > columns };
                let (rows, columns) = (rows.min(columns), rows.max(columns));
                match groups.iter_mut().find(|group| (group.rows, group.columns) == (rows, columns)) {
                    Some(group) => group.members.push(member),
                    None => groups.push(Group { rows, columns, members: vec![member] }),
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
        for group in &self.groups {
            let updates = group.members.iter().map(|member| {
                let gradient = group.view(gradient, *member)?;
                let mut m = group.view(m, *member)?;
                let _ = m.f_lerp_(&gradient, 1.0 - MOMENTUM)?;
                gradient.f_lerp(&m, MOMENTUM)
            });
            let stacked = Tensor::f_stack(&updates.collect::<Result<Vec<_>, _>>()?, 0)?;
            let scale = -lr * UPDATE_RMS * (group.columns as f64).sqrt();
            let moves = orthogonal(&stacked, compute)?.f_mul_scalar_(scale)?;
            for (i, member) in group.members.iter().enumerate() {
                let mut matrix = group.view(parameters, *member)?;
                let _ = matrix.f_mul_scalar_(1.0 - lr * weight_decay)?;
                let _ = matrix.f_add_(&moves.f_get(i as i64)?)?;
            }
        }
        Ok(())
    }
}

impl Group {
    /// A member's matrix `[rows, columns]` in the flat vector: a view.
    fn view(&self, flat: &Tensor, member: Member) -> Result<Tensor, TchError> {
        let run = flat.f_narrow(0, member.start, self.rows * self.columns)?;
        if member.tall {
            run.f_view([self.columns, self.rows])?.f_tr()
        } else {
            run.f_view([self.rows, self.columns])
        }
    }
}

/// `[n, rows, columns]` to the same shape, f32: each matrix with singular values near 1. `rows` should be
/// at most `columns`, which makes the products small.
fn orthogonal(matrices: &Tensor, compute: Kind) -> Result<Tensor, TchError> {
    let [a, b, c] = POLYNOMIAL;
    let norm = matrices.f_square()?.f_sum_dim_intlist([1, 2].as_slice(), true, Kind::Float)?.f_sqrt()?;
    let mut x = matrices.f_div(&norm.f_add_scalar(TINY)?)?.f_to_kind(compute)?;
    for _ in 0..ITERATIONS {
        let gram = x.f_bmm(&x.f_transpose(1, 2)?)?;
        let polynomial = gram.f_baddbmm(&gram, &gram, b, c)?;
        x = x.f_baddbmm(&polynomial, &x, a, 1.0)?;
    }
    x.f_to_kind(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_protocol::architecture::Architecture;

    #[test]
    fn singular_values_go_to_one_and_singular_vectors_stay() {
        tch::set_num_threads(1);
        tch::manual_seed(3);
        for compute in [Kind::Float, Kind::BFloat16] {
            let matrices = Tensor::randn([3, 24, 40], (Kind::Float, tch::Device::Cpu));
            let result = orthogonal(&matrices, compute).unwrap();
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
        let zero = Tensor::zeros([1, 4, 4], (Kind::Float, tch::Device::Cpu));
        assert_eq!(orthogonal(&zero, Kind::Float).unwrap().abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn tall_matrices_are_their_transposes() {
        tch::set_num_threads(1);
        let arch = Architecture { vocabulary: 256, dim: 16, layers: 1, heads: 2, ffn: 32, context: 16 };
        let layout = arch.parameters();
        let muon = Muon::new(&layout);
        let shapes: Vec<_> = muon.groups.iter().map(|g| (g.rows, g.columns, g.members.len())).collect();
        assert_eq!(shapes, [(16, 16, 4), (16, 32, 3)]);
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
