//! Learning from the device's own text: gradients, the inner optimizer, and the loop around them.
//!
//! - [`adamw`]: AdamW over the flat parameter vector;
//! - [`learner`]: model, optimizer and data together: one call, one step;
//! - [`worker`]: the thread that lets a learner train between the swarm's folds.
//!
//! To all but the worker a [`Learner`] is a flat f32 vector that it may read and overwrite between two
//! steps; only the worker knows of the residual and of C.

mod adamw;
mod learner;
#[cfg(test)]
mod tests;
pub(crate) mod worker;

#[cfg(test)]
pub(crate) use adamw::{AdamW, AdamWConfig, AdamWState, Outcome};
#[cfg(test)]
pub(crate) use learner::StepReport;
pub(crate) use learner::{Learner, LearnerConfig, set_threads};
