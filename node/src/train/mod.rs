//! Learning from the device's own text: gradients, the inner optimizer, and the loop around them.
//!
//! - [`inner`]: AdamW over the flat parameter vector, and [`muon`] for its matrices;
//! - [`learner`]: model, optimizer and data together: one call, one step;
//! - [`member`]: a learner that follows the swarm's rule: its residual, its deltas;
//! - [`size`]: what they take of memory and arithmetic;
//! - [`worker`]: the thread that lets a learner train between the swarm's folds.
//!
//! A [`Learner`] is a flat f32 vector that may be read and overwritten between two steps; only the member
//! knows of the residual and of C.

#[cfg(test)]
mod golden;
mod inner;
mod learner;
pub(crate) mod member;
mod muon;
pub(crate) mod size;
#[cfg(test)]
mod tests;
pub(crate) mod worker;

#[cfg(test)]
pub(crate) use inner::{Inner, InnerConfig, InnerState, Outcome};
#[cfg(test)]
pub(crate) use learner::StepReport;
pub(crate) use learner::{Learner, LearnerConfig, LearnerState, set_threads};
