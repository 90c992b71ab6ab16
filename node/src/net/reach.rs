//! Whether others can open connections to this node, and through whom if they cannot.
//!
//! ```text
//!                      a test, UPnP, or somebody coming in, shows a way
//!             Unknown ────────────────────────────────────────────────▶ Public: relays for others,
//!                │  ▲                                                      │    needs no relay
//!   a test fails │  │ the machine's addresses change                       │
//!                ▼  └──────────────────────────────────────────────────────┘
//!             Private
//!
//!   not Public for a while, and a member offers to relay:   Asking ──▶ Held ──▶ renewed by libp2p
//!                                                              └─ refused, lost: another, this one later
//! ```
//!
//! There are three ways to learn that an address works. A member that this node dialled **tests** it by dialling
//! back (AutoNAT v2). The router lets others in because it was asked to (**UPnP**). Or somebody **comes in**: at
//! an address of this machine's own that is enough; at one that only the others see (a port forwarded by hand)
//! it takes two from different places, as one alone could be mistaken or lie.
//!
//! Only addresses that are found from anywhere count ([`address::is_global`]), so a swarm on one local network
//! stays Unknown, offers no relays and asks for none. A node that is Public over IPv6 alone still keeps a relay
//! for those who have only IPv4, if it has IPv4 itself.
//!
//! This is bookkeeping only: time and chance are arguments, and asking is up to the service.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

use super::address;

/// Relays that this node can be called through: one, and one for when that is lost.
const RELAYS: usize = 2;
/// A relay is asked when the tests have had this long to find that none is needed ..
const PATIENCE: Duration = Duration::from_secs(10);
/// .. or this long after one has failed: others are under way.
const PATIENCE_PRIVATE: Duration = Duration::from_secs(2);
/// The pause before a relay that refused, or was lost, is asked again. It doubles ..
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// .. up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// A reservation that is no longer needed is given back only this soon after it was made or renewed: libp2p's
/// relay client does not survive that in the middle of a renewal, after three quarters of its time.
const SAFE_TO_RELEASE: Duration = Duration::from_secs(super::relay::RESERVATION_TIME.as_secs() / 2);
/// Addresses at which others say they came in and which wait for a second witness.
const WITNESSED: usize = 16;
/// Peers whose word on what they see of this node is kept.
const OBSERVERS: usize = 16;
/// Addresses known to work that are kept.
const KNOWN: usize = 16;

/// How an address is known to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// This member dialled it.
    Tested(PeerId),
    /// The router says so.
    Upnp,
    /// Others came in at it; it is this machine's own.
    Used,
    /// Two from different places came in at it.
    Witnessed,
}

/// What the router answered to the request to let others in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upnp {
    /// Not asked.
    Off,
    /// No answer yet.
    Asked,
    /// It lets others in.
    Mapped,
    /// No router answers such requests.
    NoRouter,
    /// The router itself is behind another one.
    RouterNotPublic,
}

/// What a router in between does with this node's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nat {
    /// Too few have said what they see.
    Unknown,
    /// There is none: others see an address of this machine.
    None,
    /// Everybody sees the same address and port: a direct way can be opened from inside.
    SamePort,
    /// Another port for each peer: nobody can know the next one.
    NewPorts,
}

/// What the service is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask `relay` for a reservation, over this address of it.
    Reserve {
        /// The relay.
        relay: PeerId,
        /// Its address, without its peer id.
        address: Multiaddr,
    },
    /// Give the reservation back.
    Release(PeerId),
}

#[derive(Debug)]
struct Offer {
    address: Multiaddr,
    not_before: Option<Instant>,
    failures: u32,
}

/// A relay that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Relay {
    /// Who.
    pub(super) peer: PeerId,
    /// When it last agreed; `None` while it has not answered.
    pub(super) held: Option<Instant>,
    /// What it allows on each circuit, if it says: time and bytes.
    pub(super) limit: (Option<Duration>, Option<u64>),
    releasing: bool,
}

/// What is known about ways in.
#[derive(Debug)]
pub(super) struct Reach {
    known: Vec<(Multiaddr, How)>,
    failed: Option<(Multiaddr, PeerId)>,
    witnesses: HashMap<Multiaddr, IpAddr>,
    /// What peers see this node's connections come from, and whether that is an address of this machine.
    seen: HashMap<PeerId, (Multiaddr, bool)>,
    upnp: Upnp,
    has_ipv4: bool,
    offers: HashMap<PeerId, Offer>,
    /// Since when a relay is on offer and none of this node's addresses works.
    wanting: Option<Instant>,
    relays: Vec<Relay>,
}

impl Reach {
    /// Nothing is known. `upnp`: whether the router is asked.
    pub(super) fn new(upnp: bool) -> Self {
        Self {
            known: Vec::new(),
            failed: None,
            witnesses: HashMap::new(),
            seen: HashMap::new(),
            upnp: if upnp { Upnp::Asked } else { Upnp::Off },
            has_ipv4: false,
            offers: HashMap::new(),
            wanting: None,
            relays: Vec::new(),
        }
    }

    /// The addresses that work, and how that is known.
    pub(super) fn known(&self) -> &[(Multiaddr, How)] {
        &self.known
    }

    /// An address that was tested and does not work, and who tested it.
    pub(super) fn failed(&self) -> Option<&(Multiaddr, PeerId)> {
        self.failed.as_ref()
    }

    /// What the router said.
    pub(super) fn upnp(&self) -> Upnp {
        self.upnp
    }

    /// What others see as this node's address, each once.
    pub(super) fn seen_as(&self) -> Vec<String> {
        let mut seen: Vec<String> = self.seen.values().map(|(address, _)| address.to_string()).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    /// What a router in between does, as far as what others see tells: at least two must have seen connections
    /// over the same protocol.
    pub(super) fn nat(&self) -> Nat {
        if self.seen.values().any(|(_, own)| *own) {
            return Nat::None;
        }
        let mut nat = Nat::Unknown;
        let seen: Vec<_> = self.seen.values().filter_map(|(address, _)| address::endpoint(address)).collect();
        for (at, one) in seen.iter().enumerate() {
            let (ip, tcp) = (one.ip, one.tcp);
            for other in seen.iter().skip(at + 1).filter(|other| other.ip == ip && other.tcp == tcp) {
                if one.port != other.port {
                    return Nat::NewPorts;
                }
                nat = Nat::SamePort;
            }
        }
        nat
    }

    /// `by` sees a connection from this node's listening port come from there. `own`: that is an address of this
    /// machine.
    pub(super) fn seen(&mut self, by: PeerId, address: &Multiaddr, own: bool) {
        let Some((_, address)) = address::global(address) else { return };
        if self.seen.len() < OBSERVERS || self.seen.contains_key(&by) {
            self.seen.insert(by, (address, own));
        }
    }

    /// The relays that were asked.
    pub(super) fn relays(&self) -> &[Relay] {
        &self.relays
    }

    /// Whether this node can be reached at some address of its own, and so can relay.
    pub(super) fn is_reachable(&self) -> bool {
        !self.known.is_empty()
    }

    /// Whether everybody can reach this node directly.
    fn needs_no_relay(&self) -> bool {
        let is_v4 =
            |(address, _): &(Multiaddr, How)| address::global(address).is_some_and(|(ip, _)| ip.is_ipv4());
        self.known.iter().any(is_v4) || (self.is_reachable() && !self.has_ipv4)
    }

    /// This node listens at an address of its machine.
    pub(super) fn listens(&mut self, address: &Multiaddr) {
        if let Some(address::Endpoint { ip: Some(IpAddr::V4(ip)), relayed: false, .. }) =
            address::endpoint(address)
        {
            self.has_ipv4 |= !ip.is_loopback();
        }
    }

    /// The machine lost an address: it may be on another network now. Returns the addresses that are no longer
    /// known to work.
    pub(super) fn moved(&mut self) -> Vec<Multiaddr> {
        self.failed = None;
        self.witnesses.clear();
        self.seen.clear();
        self.known.drain(..).map(|(address, _)| address).collect()
    }

    /// An address works. Returns whether that is news.
    pub(super) fn works(&mut self, address: &Multiaddr, how: How) -> bool {
        let Some((_, address)) = address::global(address) else { return false };
        if self.known.len() >= KNOWN || self.known.iter().any(|(known, _)| *known == address) {
            return false;
        }
        self.witnesses.remove(&address);
        self.known.push((address, how));
        true
    }

    /// An address does not work any more.
    pub(super) fn works_no_more(&mut self, address: &Multiaddr) {
        self.known.retain(|(known, _)| known != address);
    }

    /// `by` tried an address, and it does not work. Returns whether that is the first that is known of any.
    pub(super) fn test_failed(&mut self, address: &Multiaddr, by: PeerId) -> bool {
        let Some((_, address)) = address::global(address) else { return false };
        self.failed.replace((address, by)).is_none() && self.known.is_empty()
    }

    /// The router answered.
    pub(super) fn router_said(&mut self, upnp: Upnp) {
        self.upnp = upnp;
    }

    /// A member at `remote` opened a connection to this node. `local` is where it came to by what this machine
    /// knows, `claimed` by what the member says; `is_own` tells this machine's addresses. Returns the address
    /// that has thereby proved to work.
    pub(super) fn came_in(
        &mut self,
        remote: &Multiaddr,
        local: &Multiaddr,
        claimed: &Multiaddr,
        is_own: impl Fn(&Multiaddr) -> bool,
    ) -> Option<(Multiaddr, How)> {
        // Whoever is on the same local network proves nothing about the rest of the world.
        let (witness, _) = address::global(remote)?;
        if let Some((_, address)) = address::global(local) {
            return self.works(&address, How::Used).then_some((address, How::Used));
        }
        let (_, address) = address::global(claimed)?;
        if is_own(&address) {
            return self.works(&address, How::Used).then_some((address, How::Used));
        }
        match self.witnesses.get(&address) {
            Some(first) if *first != witness => {
                return self.works(&address, How::Witnessed).then_some((address, How::Witnessed));
            }
            Some(_) => {}
            None => {
                if self.witnesses.len() >= WITNESSED {
                    self.witnesses.clear();
                }
                self.witnesses.insert(address, witness);
            }
        }
        None
    }

    /// A connected member offers to relay; `address` is where this node reaches it.
    pub(super) fn offered(&mut self, relay: PeerId, address: Multiaddr) {
        match self.offers.get_mut(&relay) {
            Some(offer) => offer.address = address,
            None => {
                self.offers.insert(relay, Offer { address, not_before: None, failures: 0 });
            }
        }
    }

    /// A member does not offer to relay any more, or is gone.
    pub(super) fn withdrawn(&mut self, relay: &PeerId) {
        self.offers.remove(relay);
    }

    /// A relay agreed, for the first time or again. Returns whether it is the first time.
    pub(super) fn reserved(
        &mut self,
        relay: PeerId,
        limit: (Option<Duration>, Option<u64>),
        now: Instant,
    ) -> bool {
        if let Some(offer) = self.offers.get_mut(&relay) {
            offer.failures = 0;
        }
        let Some(entry) = self.relays.iter_mut().find(|entry| entry.peer == relay) else { return false };
        entry.limit = limit;
        entry.held.replace(now).is_none()
    }

    /// A reservation ended, or was refused. Returns whether it had been held and was not given back. `chance` is
    /// uniform in 0..1.
    pub(super) fn lost(&mut self, relay: &PeerId, now: Instant, chance: f64) -> bool {
        let Some(at) = self.relays.iter().position(|entry| entry.peer == *relay) else { return false };
        let entry = self.relays.swap_remove(at);
        if entry.releasing {
            return false;
        }
        if let Some(offer) = self.offers.get_mut(relay) {
            let pause = FIRST_PAUSE.saturating_mul(1 << offer.failures.min(6)).min(LONGEST_PAUSE);
            offer.not_before = Some(now + pause.mul_f64(0.75 + 0.5 * chance.clamp(0.0, 1.0)));
            offer.failures = offer.failures.saturating_add(1);
        }
        entry.held.is_some()
    }

    /// What to do now. `chance` is uniform in 0..1.
    pub(super) fn due(&mut self, now: Instant, chance: f64) -> Vec<Step> {
        if self.needs_no_relay() {
            self.wanting = None;
            return self.release(now);
        }
        if self.offers.is_empty() {
            self.wanting = None;
            return Vec::new();
        }
        let waited = now.saturating_duration_since(*self.wanting.get_or_insert(now));
        if waited < if self.failed.is_some() { PATIENCE_PRIVATE } else { PATIENCE } {
            return Vec::new();
        }
        let mut steps = Vec::new();
        while self.relays.len() < RELAYS {
            let free = |(peer, offer): &(&PeerId, &Offer)| {
                offer.not_before.is_none_or(|at| at <= now)
                    && !self.relays.iter().any(|relay| relay.peer == **peer)
            };
            let mut candidates: Vec<(&PeerId, &Offer)> = self.offers.iter().filter(free).collect();
            // The most reliable; among equals by chance, so that not all nodes ask the same.
            candidates.sort_by_key(|(peer, offer)| (offer.failures, peer.to_bytes()));
            let best = candidates.first().map_or(0, |(_, first)| {
                candidates.iter().filter(|(_, offer)| offer.failures == first.failures).count()
            });
            let pick = ((best as f64 * chance) as usize).min(best.saturating_sub(1));
            let Some((peer, offer)) = candidates.get(pick) else { break };
            steps.push(Step::Reserve { relay: **peer, address: offer.address.clone() });
            let relay = Relay { peer: **peer, held: None, limit: (None, None), releasing: false };
            self.relays.push(relay);
        }
        steps
    }

    fn release(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        for relay in &mut self.relays {
            let safe = relay.held.is_some_and(|held| now.saturating_duration_since(held) < SAFE_TO_RELEASE);
            if safe && !relay.releasing {
                relay.releasing = true;
                steps.push(Step::Release(relay.peer));
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests;
