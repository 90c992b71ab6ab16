//! Pulling bytes by their hash from neighbours, and serving them.
//!
//! Long ones come piece by piece. Bodies that are small are asked for many at a time: somebody who catches up
//! needs thousands, and a question for each would take as long as the network is far.

use crate::Time;
use crate::anti_entropy::Pending;
use crate::digest::Digest;
use crate::fetch::{Piece, Progress};
use crate::identity::PeerKey;
use crate::wire::{MAX_BODIES, MAX_CHUNK, MAX_INLINE, Refusal, Request, Response};

use super::Peer;

impl Peer {
    /// Starts to pull `length` bytes with this hash from `source`, or adds it as a spare source.
    pub(super) fn fetch(&mut self, now: Time, hash: Digest, length: u64, source: PeerKey) {
        match self.fetcher.want(hash, length, source) {
            Some(piece) => self.ask_piece(now, hash, piece),
            None if self.fetcher.wants(&hash) => {}
            None => self.not_to_be_had(&hash),
        }
    }

    fn ask_piece(&mut self, now: Time, hash: Digest, piece: Piece) {
        let whole = self.fetcher.progress(&hash) == Some((0, u64::from(piece.length)));
        if whole && piece.length as usize <= MAX_INLINE {
            self.small.entry(piece.peer).or_default().push((hash, piece.length));
            return;
        }
        let request = Request::Blob { hash, offset: piece.offset, length: piece.length };
        if !self.ask(now, piece.peer, Pending::Blob(hash), &request) {
            // A source that takes no more questions is passed over; each try uses one up, so this ends.
            self.piece_failed(now, piece.peer, hash);
        }
    }

    /// Asks for the small ones that have come together.
    pub(super) fn ask_small(&mut self, now: Time) {
        while let Some((peer, wanted)) = self.small.pop_first() {
            let mut wanted = wanted.into_iter().peekable();
            while wanted.peek().is_some() {
                let (mut hashes, mut total) = (Vec::new(), 0);
                while hashes.len() < MAX_BODIES
                    && let Some((hash, length)) = wanted.next_if(|(_, length)| total + length <= MAX_CHUNK)
                {
                    hashes.push(hash);
                    total += length;
                }
                let request = Request::Bodies(hashes.clone());
                if !self.ask(now, peer, Pending::Bodies(hashes.clone()), &request) {
                    hashes.into_iter().for_each(|hash| self.piece_failed(now, peer, hash));
                }
            }
        }
    }

    /// `peer` answered with `bytes` of a blob of `total` bytes.
    pub(super) fn piece_arrived(&mut self, now: Time, peer: PeerKey, hash: Digest, total: u64, bytes: &[u8]) {
        let (progress, bad) = self.fetcher.arrived(hash, peer, total, bytes);
        if bad {
            // Verified by their hash, from one sender alone: there is no innocent reason.
            self.refuse("wrong bytes for a blob", peer);
            self.ban("wrong bytes for a blob", peer);
        }
        self.fetched(now, peer, hash, progress);
    }

    /// `peer` does not deliver the blob with this hash.
    pub(super) fn piece_failed(&mut self, now: Time, peer: PeerKey, hash: Digest) {
        let progress = self.fetcher.failed(hash, peer);
        self.fetched(now, peer, hash, progress);
    }

    /// `peer` answered with `bodies`, one for each of `hashes`; an empty one is not there.
    pub(super) fn bodies_arrived(
        &mut self,
        now: Time,
        peer: PeerKey,
        hashes: &[Digest],
        bodies: Vec<Vec<u8>>,
    ) {
        if bodies.len() > hashes.len() {
            self.strike("more bodies than were asked for", peer);
        }
        let mut bodies = bodies.into_iter();
        for hash in hashes {
            match bodies.next().filter(|body| !body.is_empty()) {
                Some(body) => self.piece_arrived(now, peer, *hash, body.len() as u64, &body),
                None => self.piece_failed(now, peer, *hash),
            }
        }
    }

    fn fetched(&mut self, now: Time, from: PeerKey, hash: Digest, progress: Progress) {
        match progress {
            Progress::More(piece) => self.ask_piece(now, hash, piece),
            Progress::Done(bytes) if self.bodies.contains_key(&hash) => {
                self.body_arrived(now, from, hash, bytes)
            }
            Progress::Done(bytes) => {
                if let Some(held) = self.part_arrived(hash, &bytes) {
                    self.checkpoint_arrived(now, held);
                }
            }
            Progress::Failed => self.not_to_be_had(&hash),
            Progress::Unknown => {}
        }
    }

    fn not_to_be_had(&mut self, hash: &Digest) {
        self.body_failed(hash);
        self.part_failed(hash);
    }

    /// Up to `length` bytes from `offset` of a body or a part of a checkpoint, and how long that is.
    fn piece(&self, hash: &Digest, offset: u64, length: usize) -> Option<(u64, Vec<u8>)> {
        let Some(body) = self.log.body(hash) else { return self.checkpoints.blob(hash, offset, length) };
        let start = usize::try_from(offset).ok().filter(|start| *start < body.len())?;
        let end = start.saturating_add(length).min(body.len());
        Some((body.len() as u64, body[start..end].to_vec()))
    }

    /// A piece that a neighbour asks for.
    pub(super) fn blob_response(&self, hash: &Digest, offset: u64, length: u32) -> Response {
        let piece = self.piece(hash, offset, length.min(MAX_CHUNK) as usize);
        let piece = piece.map(|(total, bytes)| Response::Blob { total, bytes });
        piece.unwrap_or(Response::Refused(Refusal::NotHeld))
    }

    /// The small ones that a neighbour asks for; empty where there is none, or no more room.
    pub(super) fn bodies_response(&self, hashes: &[Digest]) -> Response {
        let mut room = u64::from(MAX_CHUNK);
        let mut whole = |hash: &Digest| {
            let (total, bytes) = self.piece(hash, 0, MAX_INLINE)?;
            (bytes.len() as u64 == total && total <= room).then(|| {
                room -= total;
                bytes
            })
        };
        let all = hashes.iter().take(MAX_BODIES).map(|hash| whole(hash).unwrap_or_default());
        Response::Bodies(all.collect())
    }
}
