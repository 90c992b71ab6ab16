//! What is known about each neighbour, and what to ask it next.
//!
//! Gossip is fast but promises nothing. Once a second a peer tells each neighbour its status and hears
//! theirs; where two digests of an open round stay different for a moment, it asks for that round's
//! headers and pulls the bodies it lacks. Both sides do so, so both end up with the union.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::Time;
use crate::digest::Digest;
use crate::identity::PeerKey;
use crate::wire::{Role, Status};

/// How often neighbours exchange their status.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// A request for bytes without an answer for so long has failed.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The same for a question whose answer is small. One that was asked again and answered twice does no harm.
pub const QUESTION_TIMEOUT: Duration = Duration::from_secs(3);
/// Neighbours talked to at most.
pub const MAX_NEIGHBOURS: usize = 128;
/// Requests under way to one neighbour at most, for bytes and others each.
pub const MAX_PENDING: usize = 16;

/// Bytes that one neighbour is asked for at a time, at first ..
const FIRST_WINDOW: u32 = 128 << 10;
/// .. at the least: at ten kilobytes a second that is here before patience ends ..
const SMALLEST_WINDOW: u32 = 32 << 10;
/// .. and at the most.
const LARGEST_WINDOW: u32 = 4 << 20;
/// An answer that is here sooner had room for more ..
const SOON: Duration = Duration::from_millis(750);
/// .. and one that takes longer had too much in it.
const LATE: Duration = Duration::from_secs(3);

/// A question that awaits its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// A status.
    Status,
    /// The headers of a round.
    Round(u64),
    /// A piece of the bytes with this hash.
    Blob(Digest),
    /// Small bodies with these hashes.
    Bodies(Vec<Digest>),
    /// Log digests.
    History,
}

impl Pending {
    fn is_for_bytes(&self) -> bool {
        matches!(self, Self::Blob(_) | Self::Bodies(_))
    }

    fn timeout(&self) -> Duration {
        if self.is_for_bytes() { REQUEST_TIMEOUT } else { QUESTION_TIMEOUT }
    }
}

/// One connected peer.
pub struct Neighbour {
    /// The last status heard, and when.
    pub status: Option<(Status, Time)>,
    /// How many statuses have been heard.
    pub heard: u64,
    next_status: Time,
    /// Since when an open round's digest has differed.
    differs: BTreeMap<u64, Time>,
    /// Whether a differing history has been reported.
    pub diverged: bool,
    /// The checkpoint of its that was found to be wrong.
    pub disputed: Option<Digest>,
    /// Whether it has been asked for what it knows of us and we do not.
    pub claim_heard: bool,
    /// Attempts to join at it that led nowhere.
    pub failed_joins: u32,
    /// Bytes that it is asked for at a time.
    window: u32,
}

/// All connected peers and the requests under way.
#[derive(Default)]
pub struct Neighbours {
    all: BTreeMap<PeerKey, Neighbour>,
    pending: BTreeMap<u64, (PeerKey, Pending, Time)>,
    next_id: u64,
}

impl Neighbours {
    /// A peer connected; ignored beyond [`MAX_NEIGHBOURS`].
    pub fn connected(&mut self, now: Time, peer: PeerKey) {
        if self.all.len() < MAX_NEIGHBOURS {
            self.all.entry(peer).or_insert_with(|| Neighbour {
                status: None,
                heard: 0,
                next_status: now,
                differs: BTreeMap::new(),
                diverged: false,
                disputed: None,
                claim_heard: false,
                failed_joins: 0,
                window: FIRST_WINDOW,
            });
        }
    }

    /// A peer is gone. Returns the questions it leaves unanswered.
    pub fn disconnected(&mut self, peer: &PeerKey) -> Vec<Pending> {
        self.all.remove(peer);
        let lost: Vec<u64> =
            self.pending.iter().filter(|(_, (to, ..))| to == peer).map(|(id, _)| *id).collect();
        lost.into_iter().filter_map(|id| self.pending.remove(&id)).map(|(_, pending, _)| pending).collect()
    }

    /// The neighbour `peer`.
    pub fn get(&self, peer: &PeerKey) -> Option<&Neighbour> {
        self.all.get(peer)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, peer: &PeerKey) -> Option<&mut Neighbour> {
        self.all.get_mut(peer)
    }

    /// All neighbours, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerKey, &Neighbour)> {
        self.all.iter()
    }

    /// Up to `count` neighbours that take part, other than `peer`.
    pub fn others(&self, peer: &PeerKey, count: usize) -> Vec<PeerKey> {
        let takes_part = |neighbour: &Neighbour| {
            neighbour.status.as_ref().is_some_and(|(status, _)| status.role != Role::Joining)
        };
        let fit = self.all.iter().filter(|(other, neighbour)| *other != peer && takes_part(neighbour));
        fit.map(|(other, _)| *other).take(count).collect()
    }

    /// A join has succeeded: what failed before is forgotten.
    pub fn forgive(&mut self) {
        self.all.values_mut().for_each(|neighbour| neighbour.failed_joins = 0);
    }

    /// Number of connected peers.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The neighbours that are due for a status now; marks them asked.
    pub fn due(&mut self, now: Time) -> Vec<PeerKey> {
        let mut due: Vec<PeerKey> = Vec::new();
        for (peer, neighbour) in &mut self.all {
            if neighbour.next_status <= now {
                neighbour.next_status = now + STATUS_INTERVAL;
                due.push(*peer);
            }
        }
        due.retain(|peer| !self.is_pending(peer, &Pending::Status));
        due.sort_unstable();
        due
    }

    /// When `due` or `expired` next has something.
    pub fn next_event(&self) -> Option<Time> {
        let status = self.all.values().map(|neighbour| neighbour.next_status).min();
        let timeout = self.pending.values().map(|(_, pending, sent)| *sent + pending.timeout()).min();
        [status, timeout].into_iter().flatten().min()
    }

    /// Registers a question and gives it an id, or `None` if `peer` has too many unanswered ones.
    pub fn ask(&mut self, now: Time, peer: PeerKey, pending: Pending) -> Option<u64> {
        if !self.all.contains_key(&peer) {
            return None;
        }
        if !self.has_room(&peer, pending.is_for_bytes()) {
            return None;
        }
        let id = self.next_id();
        self.pending.insert(id, (peer, pending, now));
        Some(id)
    }

    /// An id for a question, also for one that is not kept here.
    pub fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Whether `peer` has room for another question, or another one for bytes: neither kind keeps the other from
    /// being asked.
    pub fn has_room(&self, peer: &PeerKey, for_bytes: bool) -> bool {
        let same = |to: &PeerKey, what: &Pending| to == peer && what.is_for_bytes() == for_bytes;
        self.pending.values().filter(|(to, what, _)| same(to, what)).count() < MAX_PENDING
    }

    /// Takes the question that `peer` has answered, or `None` if there is no such question. How long bytes took
    /// says how many it should be asked for at a time.
    pub fn answered(&mut self, now: Time, peer: &PeerKey, id: u64) -> Option<Pending> {
        if self.pending.get(&id).is_none_or(|(asked, ..)| asked != peer) {
            return None;
        }
        let (_, pending, sent) = self.pending.remove(&id)?;
        let took = now.saturating_sub(sent);
        if pending.is_for_bytes()
            && let Some(neighbour) = self.all.get_mut(peer)
        {
            if took <= SOON {
                neighbour.window = neighbour.window.saturating_mul(2).min(LARGEST_WINDOW);
            } else if took >= LATE {
                neighbour.window = (neighbour.window / 2).max(SMALLEST_WINDOW);
            }
        }
        Some(pending)
    }

    /// Bytes did not come from `peer`: its line, or its patience, is short.
    pub fn slow_down(&mut self, peer: &PeerKey) {
        if let Some(neighbour) = self.all.get_mut(peer) {
            neighbour.window = (neighbour.window / 4).max(SMALLEST_WINDOW);
        }
    }

    /// How many bytes `peer` may be asked for at a time.
    pub fn window(&self, peer: &PeerKey) -> u32 {
        self.all.get(peer).map_or(SMALLEST_WINDOW, |neighbour| neighbour.window)
    }

    /// Whether this question is under way.
    pub fn is_pending(&self, peer: &PeerKey, pending: &Pending) -> bool {
        self.pending.values().any(|(to, what, _)| to == peer && what == pending)
    }

    /// The hashes of all bytes that `peer` has been asked for.
    pub fn pieces_pending(&self, peer: &PeerKey) -> impl Iterator<Item = &Digest> {
        let of = self.pending.values().filter(move |(to, ..)| to == peer);
        of.flat_map(|(_, what, _)| match what {
            Pending::Blob(hash) => std::slice::from_ref(hash),
            Pending::Bodies(hashes) => hashes,
            _ => &[],
        })
    }

    /// Takes all questions that have waited for too long.
    pub fn expired(&mut self, now: Time) -> Vec<(PeerKey, Pending)> {
        let old: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, (_, pending, sent))| *sent + pending.timeout() <= now)
            .map(|(id, _)| *id)
            .collect();
        let mut expired: Vec<_> = old
            .into_iter()
            .filter_map(|id| self.pending.remove(&id))
            .map(|(peer, pending, _)| (peer, pending))
            .collect();
        expired.sort_unstable_by_key(|(peer, _)| *peer);
        expired
    }
}

impl Neighbour {
    /// Notes which of the neighbour's open rounds among `rounds` differ from `ours` (the digest of a
    /// round's set, `None` for an empty one) and returns those that have differed for `patience`.
    pub fn differing(
        &mut self,
        now: Time,
        status: &Status,
        rounds: RangeInclusive<u64>,
        ours: impl Fn(u64) -> Option<Digest>,
        patience: Duration,
    ) -> Vec<u64> {
        let differing: Vec<u64> = status
            .open
            .iter()
            .filter(|(round, digest)| rounds.contains(round) && ours(*round) != Some(*digest))
            .map(|(round, _)| *round)
            .collect();
        if differing.is_empty() {
            self.differs.clear();
            return differing;
        }
        self.differs.retain(|round, _| differing.contains(round));
        differing
            .into_iter()
            .filter(|round| now.saturating_sub(*self.differs.entry(*round).or_insert(now)) >= patience)
            .collect()
    }
}
