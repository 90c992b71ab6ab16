//! Pulling bytes by their hash from neighbours, and serving them.
//!
//! Long ones come piece by piece, in smaller pieces and fewer at a time from a neighbour whose answers take long: what
//! it is asked for has to be here before patience ends, on a line of ten kilobytes a second too. Bodies that are small are asked for many at a time: somebody who catches up
//! needs thousands, and a question for each would take as long as the network is far. What is not asked for yet
//! waits here.

use std::collections::VecDeque;

use crate::Time;
use crate::anti_entropy::Pending;
use crate::digest::Digest;
use crate::fetch::{Piece, Progress};
use crate::identity::PeerKey;
use crate::wire::{MAX_BODIES, MAX_CHUNK, MAX_INLINE, Refusal, Request, Response};

use super::Peer;

/// Pieces that wait for one neighbour: whoever announces more than it delivers shall not take all the room. From
/// the source of a join more are wanted.
const MAX_WAITING: usize = 64;
const MAX_JOINING: usize = 512;

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
        let most = if self.join_source() == Some(piece.peer) { MAX_JOINING } else { MAX_WAITING };
        let waiting = self.pieces.entry(piece.peer).or_default();
        waiting.retain(|(other, _)| *other != hash);
        if waiting.len() < most {
            waiting.push_back((hash, piece));
        } else {
            // Passed over; each try uses a source up, so this ends.
            self.piece_failed(now, piece.peer, hash);
        }
    }

    /// Whether this piece is a whole blob, and short enough to be asked for together with others.
    fn is_small(&self, hash: &Digest, piece: &Piece) -> bool {
        let whole = self.fetcher.progress(hash) == Some((0, u64::from(piece.length)));
        whole && piece.length as usize <= MAX_INLINE
    }

    /// Asks for the pieces that wait, a few at a time of each source: on a slow link, many together would all be
    /// too late, and the questions between them too.
    pub(super) fn ask_pieces(&mut self, now: Time) {
        let peers: Vec<PeerKey> = self.pieces.keys().copied().collect();
        for peer in peers {
            // Without room they wait: as failures, they would be asked for again and again.
            while self.under_way(&peer) < u64::from(self.neighbours.window(&peer))
                && self.neighbours.has_room(&peer, true)
                && self.ask_next_piece(now, peer)
            {}
            if self.pieces.get(&peer).is_some_and(VecDeque::is_empty) {
                self.pieces.remove(&peer);
            }
        }
    }

    /// Bytes that `peer` has been asked for and has not sent yet.
    fn under_way(&self, peer: &PeerKey) -> u64 {
        let left = |hash: &Digest| {
            let (here, total) = self.fetcher.progress(hash)?;
            Some((total - here).min(MAX_CHUNK.into()))
        };
        self.neighbours.pieces_pending(peer).filter_map(left).sum()
    }

    /// Asks `peer` for the next piece, or for the next small ones together. Returns whether there may be more.
    fn ask_next_piece(&mut self, now: Time, peer: PeerKey) -> bool {
        let Some(waiting) = self.pieces.get_mut(&peer) else { return false };
        let Some((hash, piece)) = waiting.pop_front() else { return false };
        if self.fetcher.source(&hash) != Some(peer) {
            // It is no longer wanted, or somebody else is asked.
            return true;
        }
        let most = self.neighbours.window(&peer).min(MAX_CHUNK);
        let (mut hashes, mut total) = (vec![hash], piece.length);
        let request = if self.is_small(&hash, &piece) {
            while hashes.len() < MAX_BODIES
                && let Some((hash, piece)) =
                    self.pieces.get(&peer).and_then(|waiting| waiting.front()).copied()
                && self.is_small(&hash, &piece)
                && total + piece.length <= most
            {
                self.pieces.get_mut(&peer).and_then(VecDeque::pop_front);
                hashes.push(hash);
                total += piece.length;
            }
            Request::Bodies(hashes.clone())
        } else {
            let Some(piece) = self.fetcher.cut(&hash, &peer, most) else { return true };
            Request::Blob { hash, offset: piece.offset, length: piece.length }
        };
        let pending = match &request {
            Request::Bodies(_) => Pending::Bodies(hashes.clone()),
            _ => Pending::Blob(hash),
        };
        let asked = self.ask(now, peer, pending, &request);
        if !asked {
            // It is gone.
            hashes.into_iter().for_each(|hash| self.piece_failed(now, peer, hash));
        }
        true
    }

    /// `peer` answered with `bytes` of a blob of `total` bytes.
    pub(super) fn piece_arrived(&mut self, now: Time, peer: PeerKey, hash: Digest, total: u64, bytes: &[u8]) {
        let (progress, bad) = self.fetcher.arrived(hash, peer, total, bytes);
        if bad {
            // Verified by their hash, from one sender alone: there is no innocent reason.
            self.refuse("wrong bytes for a blob", peer);
            self.ban(now, "wrong bytes for a blob", peer);
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
            self.strike(now, "more bodies than were asked for", peer);
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
                if let Some(held) = self.part_arrived(now, hash, &bytes) {
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

    /// Up to `length` bytes from `offset` of a body, of a part of a checkpoint, of the genesis or of the tokenizer,
    /// and how long that is. The genesis goes by the swarm id, for those who have been told no more than that.
    fn piece(&self, hash: &Digest, offset: u64, length: usize) -> Option<(u64, Vec<u8>)> {
        let genesis = (*hash == self.swarm).then(|| self.genesis.canonical_bytes());
        let tokenizer = self.tokenizer.as_deref().filter(|_| self.is_tokenizer(hash));
        let held = genesis.as_deref().or(tokenizer).or_else(|| self.log.body(hash).map(|body| &body[..]));
        let Some(body) = held else { return self.checkpoints.blob(hash, offset, length) };
        let start = usize::try_from(offset).ok().filter(|start| *start < body.len())?;
        let end = start.saturating_add(length).min(body.len());
        Some((body.len() as u64, body[start..end].to_vec()))
    }

    /// Whether this is the hash of the tokenizer that the genesis names.
    pub(super) fn is_tokenizer(&self, hash: &Digest) -> bool {
        self.genesis.tokenizer.is_some_and(|tokenizer| tokenizer.blake3 == *hash)
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
