//! Checkpoints: C at a settled round, in chunks that can be fetched from several peers at once.
//!
//! A checkpoint is named by the hash of its *manifest*, which authors put into the headers that they sign.
//! The manifest names everything else: the hash of every chunk, so that each is verified by itself and a
//! wrong one costs one chunk and its sender's good name; the state digest of the whole; and the log digests
//! of the last two windows, by which a newcomer can tell whether another history is its own.
//!
//! ```text
//!   version 1 | settled u64 | state digest 32 | n u64 | n log digests of 32 | m u64 | m chunk hashes of 32
//! ```
//! Integers are little-endian. `n` is `min(settled, 2 window) + 1`: the digests after `settled + 1 - n` to
//! `settled` rounds. A chunk holds 2^18 coefficients (1 MiB), the last one the rest, each a little-endian
//! `i32`, in coefficient order. So a manifest's length is known before it is fetched, and peers with the same
//! history write the same bytes.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use swarm_optimizer::coefficients::Coefficients;

use crate::codec;
use crate::digest::Digest;
use crate::wire::{Checkpoint, MAX_CHUNK};

/// The version of the format.
const VERSION: u8 = 1;
/// Coefficients in a chunk.
pub const CHUNK: usize = MAX_CHUNK as usize / 4;
/// Checkpoints kept: the newest, and the one before for those who are still fetching it.
pub const KEPT: usize = 2;

/// What a checkpoint consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u8,
    /// Number of settled rounds.
    pub settled: u64,
    /// The state digest of the whole.
    pub state: Digest,
    /// Log digests, the last one after `settled` rounds.
    pub digests: Vec<Digest>,
    /// BLAKE3 of each chunk.
    pub chunks: Vec<Digest>,
}

/// What headers say of a checkpoint: enough to tell it from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Number of settled rounds.
    pub settled: u64,
    /// BLAKE3 of its manifest.
    pub manifest: Digest,
}

impl Checkpoint {
    /// What headers say of it.
    pub fn name(&self) -> Name {
        Name { settled: self.settled, manifest: self.manifest }
    }
}

/// How many log digests the manifest after `settled` rounds has.
fn digests_at(settled: u64, window: u64) -> usize {
    // Two windows are 512 rounds at most.
    settled.min(2 * window) as usize + 1
}

/// Bytes of the manifest of `coefficients` coefficients after `settled` rounds.
pub fn manifest_len(coefficients: usize, settled: u64, window: u64) -> u64 {
    let hashes = digests_at(settled, window) + coefficients.div_ceil(CHUNK);
    1 + 8 + 32 + 8 + 8 + 32 * hashes as u64
}

fn chunk_bytes(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

impl Manifest {
    /// The manifest of `values` after `settled` rounds; `digests` are the log digests up to there.
    pub fn of(settled: u64, digests: Vec<Digest>, values: &[i32]) -> Self {
        let chunks = values.chunks(CHUNK).map(Digest::of_state).collect();
        Self { version: VERSION, settled, state: Digest::of_state(values), digests, chunks }
    }

    /// The manifest's bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the manifest of `coefficients` coefficients; `None` if it is not the one of this name.
    pub fn decode(bytes: &[u8], name: &Name, coefficients: usize, window: u64) -> Option<Self> {
        let manifest: Self = codec::decode(bytes)?;
        let fits = Digest::of_bytes(bytes) == name.manifest
            && manifest.version == VERSION
            && manifest.settled == name.settled
            && manifest.digests.len() == digests_at(name.settled, window)
            && manifest.chunks.len() == coefficients.div_ceil(CHUNK);
        fits.then_some(manifest)
    }

    /// What others are told of it.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            settled: self.settled,
            manifest: Digest::of_bytes(&self.encode()),
            log_digest: self.digests.last().copied().unwrap_or_default(),
        }
    }
}

/// A checkpoint that is here.
#[derive(Clone, Debug)]
pub struct Held {
    /// What others are told of it.
    pub checkpoint: Checkpoint,
    /// What it consists of.
    pub manifest: Manifest,
    /// The manifest's bytes.
    pub bytes: Vec<u8>,
    /// C after its rounds.
    pub state: Coefficients,
}

impl Held {
    /// A checkpoint of `state` after `settled` rounds; `digests` are the log digests up to there.
    pub fn new(settled: u64, digests: Vec<Digest>, state: Coefficients) -> Self {
        let manifest = Manifest::of(settled, digests, state.values());
        Self { checkpoint: manifest.checkpoint(), bytes: manifest.encode(), manifest, state }
    }

    /// A checkpoint as it was kept on disk: the bytes of its manifest, and C. `None` if they do not belong
    /// together.
    pub fn restore(bytes: Vec<u8>, state: Coefficients) -> Option<Self> {
        let manifest: Manifest = codec::decode(&bytes)?;
        let same = manifest == Manifest::of(manifest.settled, manifest.digests.clone(), state.values());
        same.then(|| Self { checkpoint: manifest.checkpoint(), manifest, bytes, state })
    }
}

impl Held {
    /// Whether C here still is what the manifest says.
    pub fn is_intact(&self) -> bool {
        Digest::of_state(self.state.values()) == self.manifest.state
    }
}

/// The last few checkpoints, in order.
#[derive(Clone, Debug, Default)]
pub struct Checkpoints {
    held: VecDeque<Held>,
}

impl Checkpoints {
    /// Keeps a checkpoint, and drops what is too many.
    pub fn push(&mut self, held: Held) {
        self.held.retain(|old| old.checkpoint.settled < held.checkpoint.settled);
        self.held.push_back(held);
        if self.held.len() > KEPT {
            self.held.pop_front();
        }
    }

    /// The newest.
    pub fn newest(&self) -> Option<&Held> {
        self.held.back()
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Held> {
        self.held.iter()
    }

    /// Puts `held` in the place of the one after `settled` rounds, and drops those after it.
    pub fn replace(&mut self, settled: u64, held: Held) {
        self.held.retain(|old| old.checkpoint.settled < settled);
        self.held.push_back(held);
    }

    /// Drops all but those after at most `settled` rounds.
    pub fn rewind(&mut self, settled: u64) {
        self.held.retain(|held| held.checkpoint.settled <= settled);
    }

    /// The manifest or chunk with this hash: its length, and up to `length` bytes of it from `offset`.
    /// `None` if it is not here or `offset` is not inside.
    pub fn blob(&self, hash: &Digest, offset: u64, length: usize) -> Option<(u64, Vec<u8>)> {
        let slice = |bytes: &[u8]| {
            let start = usize::try_from(offset).ok().filter(|start| *start < bytes.len())?;
            Some((bytes.len() as u64, bytes[start..start.saturating_add(length).min(bytes.len())].to_vec()))
        };
        for held in &self.held {
            if held.checkpoint.manifest == *hash {
                return slice(&held.bytes);
            }
            if let Some(index) = held.manifest.chunks.iter().position(|chunk| chunk == hash) {
                return slice(&chunk_bytes(held.state.values().chunks(CHUNK).nth(index)?));
            }
        }
        None
    }
}

/// A checkpoint that is being put together from chunks, in any order.
#[derive(Clone, Debug)]
pub struct Assembly {
    /// What it consists of.
    pub manifest: Manifest,
    coefficients: usize,
    parts: BTreeMap<usize, Vec<i32>>,
}

impl Assembly {
    /// Nothing yet of what `manifest` names; `coefficients` is the number of coefficients of the layout.
    pub fn new(manifest: Manifest, coefficients: usize) -> Self {
        Self { manifest, coefficients, parts: BTreeMap::new() }
    }

    fn chunk_len(&self, index: usize) -> usize {
        self.coefficients.saturating_sub(index * CHUNK).min(CHUNK)
    }

    /// The chunks that are missing: hash and length in bytes. Equal chunks are named once.
    pub fn missing(&self) -> Vec<(Digest, u64)> {
        let missing = (0..self.manifest.chunks.len()).filter(|index| !self.parts.contains_key(index));
        let mut all: Vec<(Digest, u64)> = Vec::new();
        for index in missing {
            let chunk = self.manifest.chunks[index];
            if all.last().is_none_or(|(last, _)| *last != chunk) {
                all.push((chunk, self.chunk_len(index) as u64 * 4));
            }
        }
        all
    }

    /// A chunk whose bytes have this hash.
    pub fn insert(&mut self, hash: &Digest, bytes: &[u8]) {
        for index in 0..self.manifest.chunks.len() {
            if self.manifest.chunks[index] == *hash && bytes.len() == self.chunk_len(index) * 4 {
                let values = bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                self.parts.insert(index, values.collect());
            }
        }
    }

    /// Bytes here, and of how many.
    pub fn progress(&self) -> (u64, u64) {
        let here: usize = self.parts.values().map(Vec::len).sum();
        (here as u64 * 4, self.coefficients as u64 * 4)
    }

    /// Whether all chunks are here.
    pub fn is_complete(&self) -> bool {
        self.parts.len() == self.manifest.chunks.len()
    }

    /// C, if all chunks are here and make the state that the manifest names.
    pub fn finish(&self) -> Option<Coefficients> {
        if !self.is_complete() {
            return None;
        }
        let values: Vec<i32> = self.parts.values().flatten().copied().collect();
        let whole = values.len() == self.coefficients && Digest::of_state(&values) == self.manifest.state;
        whole.then(|| Coefficients::new(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 4;

    fn held(coefficients: usize) -> Held {
        let values = (0..coefficients as i32).map(|i| i.wrapping_mul(77_777)).collect();
        let digests = (0..9).map(|n| Digest::of_bytes(&[n])).collect();
        Held::new(8, digests, Coefficients::new(values))
    }

    #[test]
    fn a_manifest_is_as_long_as_expected_and_reads_back() {
        let held = held(2 * CHUNK + 5);
        assert_eq!(held.bytes.len() as u64, manifest_len(2 * CHUNK + 5, 8, WINDOW));
        let read = Manifest::decode(&held.bytes, &held.checkpoint.name(), 2 * CHUNK + 5, WINDOW);
        assert_eq!(read.as_ref(), Some(&held.manifest));
        assert_eq!(Held::restore(held.bytes.clone(), held.state.clone()).unwrap().manifest, held.manifest);
    }

    #[test]
    fn manifests_that_lie_are_refused() {
        let held = held(CHUNK + 5);
        let decode = |manifest: &Manifest| {
            // Even one that is vouched for must be about what it is fetched for.
            let name = Name { settled: held.checkpoint.settled, ..manifest.checkpoint().name() };
            Manifest::decode(&manifest.encode(), &name, CHUNK + 5, WINDOW)
        };
        assert!(decode(&held.manifest).is_some());
        let lies: [fn(&mut Manifest); 5] = [
            |manifest| manifest.version = 2,
            |manifest| manifest.settled += 1,
            |manifest| manifest.digests.truncate(8),
            |manifest| manifest.chunks.push(Digest::default()),
            |manifest| manifest.chunks.clear(),
        ];
        for lie in lies {
            let mut manifest = held.manifest.clone();
            lie(&mut manifest);
            assert_eq!(decode(&manifest), None);
        }
        let mut longer = held.bytes.clone();
        longer.push(0);
        assert_eq!(Manifest::decode(&longer, &held.checkpoint.name(), CHUNK + 5, WINDOW), None);
        let mut other = held.state.values().to_vec();
        other[CHUNK] ^= 1;
        assert!(Held::restore(held.bytes, Coefficients::new(other)).is_none());
    }

    #[test]
    fn chunks_in_any_order_make_the_whole() {
        let held = held(3 * CHUNK + 7);
        let mut checkpoints = Checkpoints::default();
        checkpoints.push(held.clone());
        let mut assembly = Assembly::new(held.manifest.clone(), 3 * CHUNK + 7);
        for (hash, length) in assembly.missing().into_iter().rev() {
            assert_eq!(assembly.finish().map(drop), None);
            let (total, bytes) = checkpoints.blob(&hash, 0, usize::MAX).unwrap();
            assert_eq!((total, bytes.len() as u64), (length, length));
            assert_eq!(Digest::of_bytes(&bytes), hash);
            // A chunk of a wrong length is not taken, whatever it claims to be.
            assembly.insert(&hash, &bytes[4..]);
            assembly.insert(&hash, &bytes);
        }
        assert_eq!(assembly.finish().unwrap().values(), held.state.values());
        assert_eq!(assembly.progress().0, (3 * CHUNK as u64 + 7) * 4);
        let (_, some) = checkpoints.blob(&held.checkpoint.manifest, 3, 5).unwrap();
        assert_eq!(some, held.bytes[3..8]);
        assert!(checkpoints.blob(&held.checkpoint.manifest, held.bytes.len() as u64, 5).is_none());
    }
}
