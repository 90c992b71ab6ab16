//! Optimizer.

pub mod dct;
pub mod demo;
pub mod topk;
