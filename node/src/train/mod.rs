//! Learning from the device's own text: gradients, the inner optimizer, and the loop around them.
//!
//! - [`adamw`]: AdamW over the flat parameter vector;
//! - [`learner`]: model, optimizer and data together: one call, one step.
//!
//! Nothing here knows of rounds or peers. To the rest of the node a [`Learner`] is a flat f32 vector that
//! it may read and overwrite between two steps.

mod adamw;
mod learner;
#[cfg(test)]
mod tests;

pub(crate) use adamw::{AdamW, AdamWConfig, AdamWState, Outcome};
pub(crate) use learner::{Learner, LearnerConfig, LearnerState, StepReport, set_threads};
