//! Deltas in any order, repeated, lost and fetched again, late, with a restart in between: equal sets give
//! equal bits.
//!
//! The peers are real ones without a network: each is handed the same deltas in an order of its own. What
//! one has lost it gets at the end, as anti-entropy would fetch it. Cases are cheap because the deltas are
//! signed once, and their signatures and bodies checked once. `SWARM_ORDER_CASES=10000` runs more.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use swarm_optimizer::layout::Layout;
use swarm_optimizer::sparse::{Entry, SparseDelta, Step};
use swarm_protocol::architecture::Sizes;
use swarm_protocol::checks::Checks;
use swarm_protocol::delta::{Header, SignedHeader};
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::{Genesis, Rule};
use swarm_protocol::identity::{Identity, PeerKey};
use swarm_protocol::packing::{self, PackingError};
use swarm_protocol::peer::rounds::Extracted;
use swarm_protocol::peer::{Action, Part, Peer, Report};
use swarm_protocol::wire::Gossip;

const AUTHORS: usize = 4;
const ROUNDS: u64 = 4;
/// Further than the window beyond all rounds: there everything is settled.
const END: u64 = ROUNDS + WINDOW + 1;
const WINDOW: u64 = 8;

#[derive(Debug, Default)]
struct Once(Mutex<HashMap<Digest, Arc<SparseDelta>>>);

impl Checks for Once {
    /// All deltas of this test are signed by the author that they name, and verified when they are made.
    fn is_signed(&self, _: &SignedHeader) -> bool {
        true
    }

    fn unpack(
        &self,
        layout: &Layout,
        rule: &Rule,
        hash: &Digest,
        body: &[u8],
    ) -> Result<Arc<SparseDelta>, PackingError> {
        let mut known = self.0.lock().unwrap();
        let decode = || Arc::new(packing::decode(layout, rule, body).unwrap());
        Ok(known.entry(*hash).or_insert_with(decode).clone())
    }
}

struct Stock {
    genesis: Arc<Genesis>,
    checks: Arc<Once>,
    /// Two deltas for every author and round: `[author][round][which]`.
    messages: Vec<Vec<[Vec<u8>; 2]>>,
}

static STOCK: LazyLock<Stock> = LazyLock::new(|| {
    let model = Sizes { vocabulary: 2, dim: 2, layers: 1, heads: 1, ffn: 2, context: 2 };
    let mut genesis = Genesis::new("order", model, 1);
    genesis.rule.tile = 8;
    genesis.rule.k = 16;
    // One less than there are authors: the order-free cap is part of the property.
    genesis.rule.publishers = AUTHORS as u32 - 1;
    genesis.rounds.window = WINDOW as u32;
    genesis.rounds.retention = 32;
    genesis.rounds.checkpoint_every = 4;
    genesis.validate().unwrap();
    let layout = genesis.layout().unwrap();
    let message = &|author: usize, round: u64, which: u8| {
        let identity = Identity::from_secret(&[author as u8 + 1; 32]);
        let mut delta = SparseDelta::default();
        let tile = (author + round as usize) % layout.tiles().len();
        let level = which as i8 + 1;
        delta.push(
            tile as u32,
            Step::nearest(1000.0 + 100.0 * author as f64),
            [Entry { position: 0, level }],
        );
        let body = packing::encode(&layout, &genesis.rule, genesis.rule.k, &delta).unwrap();
        let header = Header::new(genesis.swarm_id(), round, identity.public(), &body);
        let signed = header.sign(&identity);
        assert!(signed.verify());
        Gossip::Delta(Box::new(signed), Some(body)).encode()
    };
    let rounds =
        |author| (0..ROUNDS).map(move |round| [message(author, round, 0), message(author, round, 1)]);
    let messages = (0..AUTHORS).map(|author| rounds(author).collect()).collect();
    Stock { genesis: Arc::new(genesis), checks: Arc::default(), messages }
});

/// One thing that happens to a peer.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// A delta arrives: author, round, which of the two.
    Delta(usize, u64, usize),
    /// It stops, and goes on from its snapshot.
    Restart,
    /// Its round ends; what arrives for that one later is late.
    Round,
}

fn happening() -> impl Strategy<Value = Happening> {
    let which = prop_oneof![9 => Just(0usize), 1 => Just(1usize)];
    prop_oneof![
        20 => (0..AUTHORS, 0..ROUNDS, which).prop_map(|(author, round, n)| Happening::Delta(author, round, n)),
        1 => Just(Happening::Restart),
        3 => Just(Happening::Round),
    ]
}

/// A peer that listens and publishes nothing.
struct Listener {
    peer: Peer,
    now: Duration,
    token: u64,
}

const PART: Part = Part { trains: true, found_after: Some(Duration::ZERO), stop_before: None };

impl Listener {
    fn new() -> Self {
        let now = Duration::from_secs(1);
        let mut listener = Self { peer: blank(now), now, token: 0 };
        listener.peer.handle_wake(now);
        listener.act();
        listener
    }

    fn act(&mut self) {
        while let Some(action) = self.peer.poll_action() {
            match action {
                Action::Extract { round, .. } => {
                    let body = Vec::new();
                    let nothing = Extracted { round, body, tokens: 0, loss_before: 0.0, loss_after: 0.0 };
                    self.peer.handle_extracted(self.now, nothing);
                }
                Action::Report(Report::Refused { kind, .. }) if kind != "delta of a round that is full" => {
                    panic!("refused: {kind}")
                }
                _ => {}
            }
        }
    }

    fn deliver(&mut self, bytes: &[u8]) {
        self.token += 1;
        self.peer.handle_gossip(self.now, PeerKey([9; 32]), self.token, bytes);
        self.act();
    }

    fn happens(&mut self, what: Happening) {
        match what {
            Happening::Delta(author, round, which) => {
                self.deliver(&STOCK.messages[author][round as usize][which]);
            }
            Happening::Restart => {
                let snapshot = self.peer.snapshot();
                self.peer = blank(self.now);
                self.peer.restore(self.now, snapshot, &[]).unwrap();
                self.peer.handle_wake(self.now);
                self.act();
            }
            // Beyond this one, what is still to come would be too late.
            Happening::Round if self.peer.round() + 1 < WINDOW => self.round(),
            Happening::Round => {}
        }
    }

    /// The current round ends.
    fn round(&mut self) {
        self.peer.handle_trained(self.now);
        self.act();
        self.now += Duration::from_secs(1);
        self.peer.handle_wake(self.now);
        self.act();
    }

    /// Goes on until `round`; returns the digests of the sets and of C there.
    fn digests(&mut self, round: u64) -> (Digest, Digest) {
        while self.peer.round() < round {
            self.round();
        }
        assert_eq!(self.peer.round(), round);
        (self.peer.log_digest(), self.peer.state_digest())
    }
}

fn blank(now: Duration) -> Peer {
    let identity = Identity::from_secret(&[77; 32]);
    let mut peer = Peer::new(now, STOCK.genesis.clone(), identity, PART).unwrap();
    peer.set_checks(STOCK.checks.clone());
    peer
}

fn cases() -> u32 {
    std::env::var("SWARM_ORDER_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn equal_sets_give_equal_bits(
        lives in proptest::collection::vec(proptest::collection::vec(happening(), 0..24), 2..4),
        rotate in 0usize..64,
    ) {
        let mut union: Vec<(usize, u64, usize)> = lives.iter().flatten().filter_map(|what| match what {
            Happening::Delta(author, round, which) => Some((*author, *round, *which)),
            _ => None,
        }).collect();
        union.sort_unstable();
        union.dedup();
        // Who hears everything once, in order, and before its rounds end.
        let mut reference = Listener::new();
        for (author, round, which) in &union {
            reference.deliver(&STOCK.messages[*author][*round as usize][*which]);
        }
        let open = reference.digests(WINDOW - 1);
        let settled = reference.digests(END);
        for life in &lives {
            let mut listener = Listener::new();
            for what in life {
                listener.happens(*what);
            }
            // What is missing is fetched, in any order; what is there comes once more.
            let turn = rotate % union.len().max(1);
            union.rotate_left(turn);
            for (author, round, which) in &union {
                listener.deliver(&STOCK.messages[*author][*round as usize][*which]);
            }
            prop_assert_eq!(listener.digests(WINDOW - 1), open);
            prop_assert_eq!(listener.digests(END), settled);
        }
    }
}
