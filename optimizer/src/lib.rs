//! DCT-domain decoupled momentum: the arithmetic of a swarm, without I/O.
//!
//! How one learner's gradient becomes everyone's parameters, in this crate's words:
//!
//! 1. A device trains for a few steps; its [`residual::Residual`] takes up the transform of what moved.
//! 2. The residual gives its largest components away as a [`sparse::SparseDelta`]: small
//!    multiples of one step a tile.
//! 3. Every peer folds the same set of deltas into the same integers, [`coefficients::Coefficients`]; by
//!    their [`sum::Sum`], so that a late one costs no more than itself.
//!    The deltas of a round judge each other first: [`panel`] says which count, and for how much, and
//!    [`agreement`], afterwards, how far each pointed where the others did.
//! 4. [`residual::model`] turns the integers (and a device's own residual) back into parameters.
//!
//! Only step 3 is shared, and it is integer addition: order, hardware and kernels cannot part two
//! peers. [`layout`] says where every scalar lies; [`kernels`] does the work a tile at a time, with [`dct`] and [`topk`]; [`demo`] is
//! the paper's float optimizer (arXiv 2411.19870), the baseline that everything is measured against.

pub mod agreement;
pub mod coefficients;
pub mod dct;
pub mod demo;
pub mod given;
pub mod kernels;
mod lanes;
pub mod layout;
pub mod panel;
pub mod residual;
pub mod sparse;
pub mod sum;
pub mod topk;
