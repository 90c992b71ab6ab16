//! Pulling bytes by their hash: delta bodies and checkpoints, piece by piece, from whoever has them.
//!
//! A want knows the exact length in advance (a signed header or the layout says it), so nothing a peer
//! sends decides what is allocated: the buffer grows with the bytes that really arrive and never
//! beyond that length. Each want has one request under way; a source that fails, refuses, answers
//! with less than was asked for or with bytes of another hash is dropped, and the next one starts.

use std::collections::{BTreeMap, VecDeque};

use crate::digest::Digest;
use crate::identity::PeerKey;
use crate::wire::MAX_CHUNK;

/// Wants at a time, at most; more are not taken up (anti-entropy asks again later).
const MAX_WANTS: usize = 512;
/// Sources remembered for one want.
const MAX_SOURCES: usize = 8;

/// A piece to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Whom to ask.
    pub peer: PeerKey,
    /// First byte.
    pub offset: u64,
    /// Bytes wanted.
    pub length: u32,
}

/// What became of a want after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Ask for this next.
    More(Piece),
    /// All bytes are here and have the hash.
    Done(Vec<u8>),
    /// No source is left.
    Failed,
    /// The answer belongs to no want.
    Unknown,
}

struct Want {
    length: u64,
    buffer: Vec<u8>,
    /// Bytes of the piece that is under way or about to be asked for.
    asked: u32,
    source: PeerKey,
    others: VecDeque<PeerKey>,
}

impl Want {
    fn piece(&mut self, most: u32) -> Piece {
        let offset = self.buffer.len() as u64;
        self.asked = (self.length - offset).min(u64::from(most)) as u32;
        Piece { peer: self.source, offset, length: self.asked }
    }
}

/// All bytes that are being pulled.
#[derive(Default)]
pub struct Fetcher {
    wants: BTreeMap<Digest, Want>,
}

impl Fetcher {
    /// Wants the `length` bytes with this hash, from `source`. Returns the first piece to ask for, or
    /// `None` if they are on their way already (the source is then a spare) or too much is wanted.
    pub fn want(&mut self, hash: Digest, length: u64, source: PeerKey) -> Option<Piece> {
        if let Some(want) = self.wants.get_mut(&hash) {
            let known = want.source == source || want.others.contains(&source);
            if !known && want.others.len() < MAX_SOURCES {
                want.others.push_back(source);
            }
            return None;
        }
        if self.wants.len() >= MAX_WANTS || length == 0 {
            return None;
        }
        let mut want = Want { length, buffer: Vec::new(), asked: 0, source, others: VecDeque::new() };
        let piece = want.piece(MAX_CHUNK);
        self.wants.insert(hash, want);
        Some(piece)
    }

    /// The next piece, with at most `most` bytes, if `peer` is the one to be asked for it.
    pub fn cut(&mut self, hash: &Digest, peer: &PeerKey, most: u32) -> Option<Piece> {
        let want = self.wants.get_mut(hash).filter(|want| want.source == *peer)?;
        Some(want.piece(most))
    }

    /// Whether these bytes are on their way.
    pub fn wants(&self, hash: &Digest) -> bool {
        self.wants.contains_key(hash)
    }

    /// Who is asked for these bytes.
    pub fn source(&self, hash: &Digest) -> Option<PeerKey> {
        self.wants.get(hash).map(|want| want.source)
    }

    /// Bytes that arrived so far for a want, and its full length.
    pub fn progress(&self, hash: &Digest) -> Option<(u64, u64)> {
        self.wants.get(hash).map(|want| (want.buffer.len() as u64, want.length))
    }

    /// `peer` answered with `bytes` of a blob of `total` bytes. Returns what comes next, and whether the
    /// peer misbehaved.
    pub fn arrived(&mut self, hash: Digest, peer: PeerKey, total: u64, bytes: &[u8]) -> (Progress, bool) {
        let Some(want) = self.wants.get_mut(&hash).filter(|want| want.source == peer) else {
            return (Progress::Unknown, false);
        };
        let room = want.asked as usize;
        // A piece is whole or wrong: one byte at a time would take for ever.
        if total != want.length || bytes.len() != room {
            return (self.failed(hash, peer), true);
        }
        want.buffer.extend_from_slice(bytes);
        if (want.buffer.len() as u64) < want.length {
            return (Progress::More(want.piece(MAX_CHUNK)), false);
        }
        if Digest::of_bytes(&want.buffer) != hash {
            return (self.failed(hash, peer), true);
        }
        let done = self.wants.remove(&hash).map(|want| want.buffer).unwrap_or_default();
        (Progress::Done(done), false)
    }

    /// `peer` cannot or does not deliver. Starts over with the next source: what has arrived may be what
    /// is wrong.
    pub fn failed(&mut self, hash: Digest, peer: PeerKey) -> Progress {
        let Some(want) = self.wants.get_mut(&hash).filter(|want| want.source == peer) else {
            return Progress::Unknown;
        };
        match want.others.pop_front() {
            Some(next) => {
                want.source = next;
                want.buffer.clear();
                Progress::More(want.piece(MAX_CHUNK))
            }
            None => {
                self.wants.remove(&hash);
                Progress::Failed
            }
        }
    }

    /// Forgets a want.
    pub fn cancel(&mut self, hash: &Digest) {
        self.wants.remove(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerKey = PeerKey([1; 32]);
    const B: PeerKey = PeerKey([2; 32]);

    #[test]
    fn pieces_add_up_and_are_verified() {
        let data: Vec<u8> = (0..u64::from(MAX_CHUNK) + 10).map(|i| i as u8).collect();
        let hash = Digest::of_bytes(&data);
        let mut fetcher = Fetcher::default();
        let total = data.len() as u64;
        assert_eq!(fetcher.want(hash, total, A), Some(Piece { peer: A, offset: 0, length: MAX_CHUNK }));
        let (progress, bad) = fetcher.arrived(hash, A, total, &data[..MAX_CHUNK as usize]);
        assert_eq!(progress, Progress::More(Piece { peer: A, offset: u64::from(MAX_CHUNK), length: 10 }));
        assert!(!bad);
        assert_eq!(fetcher.progress(&hash), Some((u64::from(MAX_CHUNK), total)));
        assert_eq!(
            fetcher.arrived(hash, A, total, &data[MAX_CHUNK as usize..]),
            (Progress::Done(data), false)
        );
        assert!(!fetcher.wants(&hash));
    }

    #[test]
    fn a_piece_can_be_cut_smaller_when_it_is_asked_for() {
        let data: Vec<u8> = (0..100).collect();
        let hash = Digest::of_bytes(&data);
        let mut fetcher = Fetcher::default();
        assert_eq!(fetcher.want(hash, 100, A), Some(Piece { peer: A, offset: 0, length: 100 }));
        assert_eq!(fetcher.cut(&hash, &B, 30), None);
        assert_eq!(fetcher.cut(&hash, &A, 30), Some(Piece { peer: A, offset: 0, length: 30 }));
        let (progress, bad) = fetcher.arrived(hash, A, 100, &data[..30]);
        assert_eq!((progress, bad), (Progress::More(Piece { peer: A, offset: 30, length: 70 }), false));
        assert_eq!(fetcher.arrived(hash, A, 100, &data[30..]), (Progress::Done(data), false));
    }

    #[test]
    fn wrong_bytes_and_lengths_go_to_the_next_source() {
        let data = vec![9u8; 100];
        let hash = Digest::of_bytes(&data);
        for (total, bytes) in [(100, vec![8; 100]), (99, data.clone()), (100, vec![9; 101]), (100, vec![])] {
            let mut fetcher = Fetcher::default();
            assert!(fetcher.want(hash, 100, A).is_some());
            assert!(fetcher.want(hash, 100, B).is_none());
            assert_eq!(fetcher.arrived(hash, B, 100, &data).0, Progress::Unknown);
            let (progress, bad) = fetcher.arrived(hash, A, total, &bytes);
            assert!(bad);
            assert_eq!(progress, Progress::More(Piece { peer: B, offset: 0, length: 100 }));
            assert_eq!(fetcher.failed(hash, B), Progress::Failed);
        }
    }

    #[test]
    fn the_number_of_wants_is_bounded() {
        let mut fetcher = Fetcher::default();
        for n in 0..2 * MAX_WANTS as u64 {
            fetcher.want(Digest::of_bytes(&n.to_le_bytes()), 10, A);
        }
        assert_eq!(fetcher.wants.len(), MAX_WANTS);
    }
}
