//! Optimizer.

pub mod dct;
pub mod topk;
