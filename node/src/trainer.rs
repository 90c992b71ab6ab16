//! What the node and its trainer thread say to each other.
//!
//! The trainer holds everything that is private to this device: the model Q, the residual R, the inner
//! optimizer and the text. It gets the shared coefficients and gives packed deltas. A node without a
//! trainer (a replica, or a build without libtorch) only keeps the state that a trainer left behind.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use swarm_optimizer::coefficients::Coefficients;
use swarm_protocol::peer::rounds::Extracted;

/// Work for the trainer.
#[derive(Debug)]
pub(crate) enum Order {
    /// Train for this round and say so when it is done.
    Start {
        /// The round.
        round: u64,
    },
    /// Extract a delta of density `k` for this round.
    Extract {
        /// The round.
        round: u64,
        /// Coefficients of a full tile.
        k: u32,
        /// Whether to begin with the next round's steps at once. They are taken from the model as it is; C is
        /// folded again from [`Order::Start`] on.
        ahead: bool,
    },
    /// C has left one history for another: from the first of these to the second. The device's own model
    /// stays as it is.
    Rebase(Box<(Coefficients, Coefficients)>),
    /// This packed body did not enter the shared model: it goes back to the residual.
    Return(Arc<[u8]>),
    /// This one did after all: it leaves the residual again.
    Take(Arc<[u8]>),
    /// Hand over what a snapshot needs; training goes on.
    Save,
    /// Measure quickly how training goes: the shared model on the validation data, if there are any; and if `own`, both
    /// models on what is held out of the device's data.
    Measure {
        /// Whether to look at the device's own data, too.
        own: bool,
    },
    /// Measure the shared and the personal model on the validation text and on the held-out part of the
    /// device's own text, over at most so many windows of each.
    Examine(usize),
    /// End.
    Stop,
}

/// What the trainer has to say.
#[derive(Debug)]
pub(crate) enum Told {
    /// The round's steps are done.
    Trained,
    /// The delta that was asked for, and how many coefficients it sends.
    Extracted(Extracted, u64),
    /// What a snapshot needs.
    Saved(Box<TrainerState>),
    /// What was measured on the way.
    Measured(Losses),
    /// What was measured at the end.
    Examined(Examination),
    /// It cannot go on.
    Failed(String),
}

/// How good a model is on some data.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Measured {
    /// Mean loss in nats: of a text per token, of pictures per picture.
    pub(crate) loss: f64,
    /// Share of the targets that the model thinks the likeliest, of a classifier.
    pub(crate) accuracy: Option<f64>,
}

/// The shared model (inverse DCT of C) and this device's own (inverse DCT of C - R), measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Examination {
    /// The shared model on the validation data, if there are any.
    pub(crate) shared: Option<Measured>,
    /// The personal model on them.
    pub(crate) personal: Option<Measured>,
    /// The shared model on the held-out part of the device's own data.
    pub(crate) own_shared: Measured,
    /// The personal model on it.
    pub(crate) own_personal: Measured,
}

/// Losses on the way, in nats, of those that were measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Losses {
    /// The shared model on the validation data.
    pub(crate) validation: Option<f64>,
    /// The shared model on the held-out part of the device's own data.
    pub(crate) shared: Option<f64>,
    /// The personal model on it.
    pub(crate) personal: Option<f64>,
}

/// What only the trainer knows and a restart needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TrainerState {
    /// R, in coefficient order.
    pub(crate) residual: Vec<f32>,
    /// The inner optimizer's step count.
    pub(crate) step: u64,
    /// Its first moments, in parameter order.
    pub(crate) m: Vec<f32>,
    /// Its second moments, of the parameters that have one, in parameter order.
    pub(crate) v: Vec<f32>,
    /// Seed of the stream of training windows.
    pub(crate) sampler_seed: u64,
    /// Numbers drawn from it.
    pub(crate) sampler_drawn: u64,
}

/// What the trainer has done so far; written by it, read by the node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Tokens trained on.
    pub(crate) tokens: u64,
    /// Steps skipped because something was not finite.
    pub(crate) skipped: u64,
    /// Windows of the text that could not be read, because a file has shrunk or vanished.
    pub(crate) failed_reads: u64,
    /// Training loss of the first steps (mean over the first round), in nats per token.
    pub(crate) loss_first: Option<f64>,
    /// Training loss, mean over the last round or what there is of it.
    pub(crate) loss_last: Option<f64>,
    /// Time in inner steps.
    pub(crate) training: Duration,
    /// Time in transforms, extraction, packing and recomputing the model.
    pub(crate) optimizing: Duration,
    /// Time with nothing to do between the first round and the last: waiting for the other authors.
    pub(crate) waiting: Duration,
    /// Norm of the residual after the last extraction.
    pub(crate) residual_norm: f64,
}

/// The trainer's progress, shared between its thread and the node.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedProgress(Arc<Mutex<Progress>>);

impl SharedProgress {
    /// A copy of the progress as it is now.
    pub(crate) fn get(&self) -> Progress {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the progress.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The newest C and the tiles in which it differs from what the trainer has (one flag a tile). However
/// often peers change C during one long step, the trainer finds one C here, the newest.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewestC(Arc<Mutex<Option<Change>>>);

/// A C, and its changed tiles.
type Change = (Coefficients, Vec<bool>);

impl NewestC {
    /// Puts a newer C in, changed in `touched` since the last one that was put in.
    pub(crate) fn put(&self, newest: Coefficients, mut touched: Vec<bool>) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, before)) = slot.take() {
            touched.iter_mut().zip(before).for_each(|(now, before)| *now |= before);
        }
        *slot = Some((newest, touched));
    }

    /// Takes the newest C, if there is one that has not been taken.
    pub(crate) fn take(&self) -> Option<Change> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The node's end of a trainer thread.
pub(crate) struct Trainer {
    /// Orders; the trainer takes them between two steps. Each kind is under way at most once.
    pub(crate) orders: std::sync::mpsc::SyncSender<Order>,
    /// Where the trainer finds C.
    pub(crate) newest: NewestC,
    /// What it tells.
    pub(crate) told: tokio::sync::mpsc::Receiver<Told>,
    /// Its progress.
    pub(crate) progress: SharedProgress,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_c_waits_and_knows_all_that_changed() {
        let newest = NewestC::default();
        assert!(newest.take().is_none());
        newest.put(Coefficients::new(vec![1]), vec![true, false, false]);
        newest.put(Coefficients::new(vec![2]), vec![false, false, true]);
        let (c, touched) = newest.take().unwrap();
        assert_eq!((c.values(), &touched[..]), (&[2][..], &[true, false, true][..]));
        assert!(newest.take().is_none());
    }
}
