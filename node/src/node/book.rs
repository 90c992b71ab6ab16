//! The address book: which peers this node has met and where, and whom it refuses for a while.
//!
//! It is kept as `peers.json` in the node's folder, so that a node finds the swarm again after a restart even if
//! the address it once joined through is gone, and a ban outlives the process. Text, so that people can read it
//! and take lines out. Times are seconds since 1970 (Unix time).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use crate::net::peer_in;
use crate::store::{read_limited, write_atomically};

/// The file's name.
pub(crate) const FILE: &str = "peers.json";
/// Peers and bans remembered, each. Of more, the oldest are forgotten.
const REMEMBERED: usize = 256;
/// Addresses of one peer.
const ADDRESSES: usize = 8;
/// Longest book that is read: 256 peers with 8 addresses.
const MAX_FILE: u64 = 1 << 20;

/// A peer that was met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Where it said that it can be reached, without its peer id.
    pub(crate) addresses: Vec<Multiaddr>,
    /// When it was last met.
    pub(crate) met: u64,
}

/// A peer that is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Banned {
    /// Why, in words.
    pub(crate) reason: String,
    /// Until when.
    pub(crate) until: u64,
}

/// The book. Keys are peer ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Book {
    pub(crate) known: BTreeMap<String, Known>,
    pub(crate) banned: BTreeMap<String, Banned>,
    #[serde(skip)]
    changed: bool,
}

/// Now, in seconds since 1970.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Book {
    /// The book in a node's folder; an empty one if there is none, or if it cannot be read, which is said.
    pub(crate) fn read(dir: &Path) -> Self {
        let path = dir.join(FILE);
        if !path.exists() {
            return Self::default();
        }
        let read = || -> Result<Self> { Ok(serde_json::from_slice(&read_limited(&path, MAX_FILE)?)?) };
        let mut book = read().unwrap_or_else(|error| {
            tracing::warn!("{} cannot be read ({error:#}): the book of peers begins anew", path.display());
            Self::default()
        });
        book.trim();
        book
    }

    /// Writes the book if anything in it has changed.
    ///
    /// # Errors
    /// A disk that does not take it; it is then tried again next time.
    pub(crate) fn write(&mut self, dir: &Path) -> Result<()> {
        if self.changed {
            write_atomically(&dir.join(FILE), &serde_json::to_vec_pretty(self)?)?;
            self.changed = false;
        }
        Ok(())
    }

    /// `peer` was met at `now`, and says that it can be reached at `addresses`.
    pub(crate) fn met(&mut self, peer: &PeerId, addresses: &[Multiaddr], now: u64) {
        let bare = |address: &Multiaddr| {
            let mut address = address.clone();
            if peer_in(&address).is_some() {
                address.pop();
            }
            address
        };
        let addresses = addresses.iter().take(ADDRESSES).map(bare).collect();
        self.known.insert(peer.to_string(), Known { addresses, met: now });
        self.changed = true;
        self.trim();
    }

    /// `peer` is refused until `until`.
    pub(crate) fn ban(&mut self, peer: &PeerId, reason: String, until: u64) {
        self.banned.insert(peer.to_string(), Banned { reason, until });
        self.changed = true;
        self.trim();
    }

    /// Forgets bans that are over at `now`.
    pub(crate) fn end_bans(&mut self, now: u64) {
        let before = self.banned.len();
        self.banned.retain(|_, ban| ban.until > now);
        self.changed |= self.banned.len() != before;
    }

    /// One address of each peer, those first that were met last, ending in the peer id.
    pub(crate) fn newest(&self) -> impl Iterator<Item = Multiaddr> {
        let mut known: Vec<(&String, &Known)> = self.known.iter().collect();
        known.sort_by_key(|(_, known)| Reverse(known.met));
        let address = |(peer, known): (&String, &Known)| {
            let address = known.addresses.first()?.clone();
            Some(address.with(libp2p::multiaddr::Protocol::P2p(peer.parse().ok()?)))
        };
        known.into_iter().filter_map(address).collect::<Vec<_>>().into_iter()
    }

    /// Everybody's addresses, for the network to try.
    pub(crate) fn addresses(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let known = self.known.iter();
        known.filter_map(|(peer, known)| Some((peer.parse().ok()?, known.addresses.clone()))).collect()
    }

    /// Who is refused at `now`, for how long, and why.
    pub(crate) fn bans(&self, now: u64) -> Vec<(PeerId, Duration, String)> {
        let holds = self.banned.iter().filter(|(_, ban)| ban.until > now);
        let ban = |(peer, ban): (&String, &Banned)| {
            Some((peer.parse().ok()?, Duration::from_secs(ban.until - now), ban.reason.clone()))
        };
        holds.filter_map(ban).collect()
    }

    fn trim(&mut self) {
        while self.known.len() > REMEMBERED
            && let Some(oldest) = self.known.iter().min_by_key(|(_, known)| known.met).map(first)
        {
            self.known.remove(&oldest);
        }
        while self.banned.len() > REMEMBERED
            && let Some(first) = self.banned.iter().min_by_key(|(_, ban)| ban.until).map(first)
        {
            self.banned.remove(&first);
        }
    }
}

fn first<T>((key, _): (&String, T)) -> String {
    key.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> Multiaddr {
        format!("/ip4/10.0.0.{n}/tcp/4001").parse().unwrap()
    }

    #[test]
    fn a_book_survives_and_names_the_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = Book::read(dir.path());
        let (old, new, bad) = (PeerId::random(), PeerId::random(), PeerId::random());
        book.met(&old, &[address(1), address(2)], 100);
        book.met(&new, &[address(3).with(libp2p::multiaddr::Protocol::P2p(new))], 200);
        book.ban(&bad, "floods".into(), 1000);
        book.write(dir.path()).unwrap();
        let mut read = Book::read(dir.path());
        assert_eq!(read.known, book.known);
        let newest: Vec<String> = read.newest().map(|address| address.to_string()).collect();
        assert_eq!(newest, [format!("{}/p2p/{new}", address(3)), format!("{}/p2p/{old}", address(1))]);
        assert_eq!(read.bans(990), [(bad, Duration::from_secs(10), "floods".into())]);
        assert!(read.bans(1000).is_empty());
        read.end_bans(1000);
        assert!(read.banned.is_empty());
    }

    #[test]
    fn a_book_that_is_no_book_begins_anew_and_a_full_one_forgets_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"known\": 7}").unwrap();
        let mut book = Book::read(dir.path());
        assert!(book.known.is_empty());
        let peers: Vec<PeerId> = (0..REMEMBERED + 2).map(|_| PeerId::random()).collect();
        for (at, peer) in peers.iter().enumerate() {
            book.met(peer, &vec![address(1); 2 * ADDRESSES], at as u64);
            book.ban(peer, String::new(), at as u64);
        }
        assert_eq!((book.known.len(), book.banned.len()), (REMEMBERED, REMEMBERED));
        assert!(!book.known.contains_key(&peers[1].to_string()));
        assert!(book.known.values().all(|known| known.addresses.len() == ADDRESSES));
    }
}
