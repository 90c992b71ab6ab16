//! What one peer has checked, the others need not check again: same bytes, same answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use swarm_optimizer::layout::Layout;
use swarm_optimizer::sparse::SparseDelta;
use swarm_protocol::checks::Checks;
use swarm_protocol::codec;
use swarm_protocol::delta::SignedHeader;
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Rule;
use swarm_protocol::packing::{self, PackingError};

/// Answers kept of each kind; beyond, all are forgotten and computed again when asked for.
const MOST: usize = 1 << 20;

type Unpacked = Result<Arc<SparseDelta>, PackingError>;

/// Computes an answer once and remembers it. Nothing ever iterates over what is remembered.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    signatures: Mutex<HashMap<Digest, bool>>,
    bodies: Mutex<HashMap<Digest, Unpacked>>,
}

fn make_room<K, V>(answers: &Mutex<HashMap<K, V>>) -> MutexGuard<'_, HashMap<K, V>> {
    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    if answers.len() >= MOST {
        answers.clear();
    }
    answers
}

impl Checks for Remembered {
    fn is_signed(&self, signed: &SignedHeader) -> bool {
        let key = Digest::of_bytes(&codec::encode(signed));
        *make_room(&self.signatures).entry(key).or_insert_with(|| signed.verify())
    }

    fn unpack(&self, layout: &Layout, rule: &Rule, hash: &Digest, body: &[u8]) -> Unpacked {
        let mut bodies = make_room(&self.bodies);
        bodies.entry(*hash).or_insert_with(|| packing::decode(layout, rule, body).map(Arc::new)).clone()
    }
}
