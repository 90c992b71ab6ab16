//! The expensive pure functions of what comes in, as something that a driver may answer from memory.
//!
//! Whether a signature holds and what a body says depends on nothing but the bytes. A node computes
//! both, with [`Direct`]. A simulator runs thousands of peers that all look at the very same deltas: it
//! may compute each answer once and give it to all of them.

use std::fmt;
use std::sync::Arc;

use swarm_optimizer::layout::Layout;
use swarm_optimizer::sparse::SparseDelta;

use crate::delta::SignedHeader;
use crate::digest::Digest;
use crate::genesis::Rule;
use crate::packing::{self, PackingError};

/// Answers about headers and bodies. Whoever overrides a method must give the very answers that it gives
/// by itself: peers hold the same bits only if they judge alike.
pub trait Checks: fmt::Debug + Send + Sync {
    /// Whether the author really signed this, verified strictly.
    fn is_signed(&self, signed: &SignedHeader) -> bool {
        signed.verify()
    }

    /// What `body`, whose BLAKE3 hash is `hash`, says.
    ///
    /// # Errors
    /// As [`packing::decode`]: it is not the canonical encoding of a delta.
    fn unpack(
        &self,
        layout: &Layout,
        rule: &Rule,
        _hash: &Digest,
        body: &[u8],
    ) -> Result<Arc<SparseDelta>, PackingError> {
        packing::decode(layout, rule, body).map(Arc::new)
    }
}

/// Computes every answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Direct;

impl Checks for Direct {}
