//! Fetching a swarm's genesis from its peers, when all that is known is the swarm's id, and the tokenizer that the
//! genesis names.
//!
//! Both are known by their hash, so it does not matter who sends them. Whoever sends anything else is left out.
//! This is done by a node that lives for as long as it takes and has a key of its own: nothing is on disk before
//! the genesis is here.
//!
//! All who are there are asked for the beginning. Whoever answers first is asked for the rest, piece by piece; if it
//! does not go on, all are asked again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use libp2p::Multiaddr;
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::{self, Genesis, MAX_TOKENIZER};
use swarm_protocol::identity::PeerKey;
use swarm_protocol::wire::{self, MAX_CHUNK, Request, Response};

use super::asked_to_stop;
use crate::net::{self, Command, Event};

/// Pause before peers that had no answer are asked again.
const AGAIN: Duration = Duration::from_secs(2);
/// How long the next piece may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long somebody who sends something else is refused.
const BAN: Duration = Duration::from_secs(600);

/// Where peers are looked for.
#[derive(Clone, Debug)]
pub(crate) struct Around {
    /// At these addresses.
    pub(crate) bootstrap: Vec<Multiaddr>,
    /// On the local network.
    pub(crate) mdns: bool,
    /// With the key of a private network.
    pub(crate) key: Option<net::NetworkKey>,
}

/// Fetches the genesis of `swarm` from any peer that is found at `bootstrap` or, if `mdns`, on the local network.
/// Goes on until somebody has it or the user stops it.
///
/// # Errors
/// Stopped; or the genesis is one that this build cannot use.
pub(crate) async fn fetch_genesis(swarm: Digest, around: Around) -> Result<Genesis> {
    let wanted = Wanted { hash: swarm, most: MAX_CHUNK.into(), what: "its genesis" };
    let bytes = fetch(swarm, wanted, around).await?;
    let genesis = Genesis::from_canonical_bytes(&bytes).context(
        "the swarm's genesis came as the invite names it, but this build of swarm cannot use it: its peers run \
         another version",
    )?;
    tracing::info!("the genesis of {} is checked", genesis.name);
    Ok(genesis)
}

/// As [`fetch_genesis`], the tokenizer that the genesis names.
///
/// # Errors
/// Stopped.
pub(crate) async fn fetch_tokenizer(
    swarm: Digest,
    pinned: &genesis::Tokenizer,
    around: Around,
) -> Result<Vec<u8>> {
    let wanted = Wanted { hash: pinned.blake3, most: MAX_TOKENIZER, what: "its tokenizer" };
    fetch(swarm, wanted, around).await
}

/// What is fetched.
#[derive(Clone, Copy)]
struct Wanted {
    hash: Digest,
    /// Bytes that it has at most.
    most: u64,
    what: &'static str,
}

async fn fetch(swarm: Digest, wanted: Wanted, around: Around) -> Result<Vec<u8>> {
    let Around { bootstrap, mdns, key } = around;
    let what = wanted.what;
    tracing::info!("swarm {swarm:.16}: fetching {what} from {} given address(es)", bootstrap.len());
    let config =
        net::Config { mdns, key, ..net::Config::new(rand::random(), swarm.0, Vec::new(), bootstrap) };
    let (network, mut events, service) = net::start(config).await?;
    let mut peers = BTreeSet::new();
    let mut pieces = Pieces::new(wanted);
    let mut again = tokio::time::interval(AGAIN);
    let mut stop = std::pin::pin!(asked_to_stop());
    let began = Instant::now();
    let found = loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Connected { peer }) => {
                    peers.insert(peer);
                    if pieces.source.is_none() {
                        ask(&network, peer, &wanted, 0).await?;
                    }
                }
                Some(Event::Disconnected { peer }) => {
                    peers.remove(&peer);
                    pieces.gone(&peer);
                }
                Some(Event::RequestFailed { peer, .. }) => pieces.gone(&peer),
                Some(Event::Response { peer, bytes, .. }) => match pieces.arrived(peer, &bytes, Instant::now()) {
                    Answer::Whole(bytes) => break bytes,
                    Answer::More(offset) => ask(&network, peer, &wanted, offset).await?,
                    Answer::NotNow => pieces.gone(&peer),
                    Answer::SomethingElse => {
                        tracing::warn!("peer {peer:.8} sent something else than {what}: asking others");
                        peers.remove(&peer);
                        pieces.gone(&peer);
                        let reason = format!("it sent something else for {what}");
                        network.send(Command::Ban { peer, duration: BAN, reason }).await?;
                    }
                },
                Some(Event::BootstrapFailed { address, reason, retry_in }) => tracing::warn!(
                    "{address}: {reason}; trying again in {:.0} s (Ctrl-C stops)", retry_in.as_secs_f64()
                ),
                Some(Event::OtherSwarm { address, theirs, .. }) => tracing::warn!(
                    "the peer at {address} belongs to another swarm ({theirs:.16}): is the invite an old one?"
                ),
                Some(Event::Fatal { reason }) => bail!("the network cannot go on: {reason}"),
                Some(_) => {}
                None => bail!("the network has stopped"),
            },
            _ = again.tick() => if pieces.is_stuck(Instant::now()) {
                for peer in peers.clone() {
                    ask(&network, peer, &wanted, 0).await?;
                }
            },
            () = &mut stop => bail!("stopped before anybody had sent {what}; nothing was written"),
        }
    };
    let _ = network.send(Command::Shutdown).await;
    let _ = tokio::time::timeout(Duration::from_secs(5), service).await;
    tracing::info!("{what} is here after {:.1} s: {} bytes", began.elapsed().as_secs_f64(), found.len());
    Ok(found)
}

async fn ask(network: &net::Handle, peer: PeerKey, wanted: &Wanted, offset: u64) -> Result<()> {
    let bytes = Request::Blob { hash: wanted.hash, offset, length: MAX_CHUNK }.encode();
    network.send(Command::Request { peer, id: 0, bytes }).await
}

/// What a peer answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// All of it is here.
    Whole(Vec<u8>),
    /// It is to be asked for what begins there.
    More(u64),
    NotNow,
    SomethingElse,
}

/// What has arrived.
struct Pieces {
    wanted: Wanted,
    /// Who sends it, and when it sent something last.
    source: Option<(PeerKey, Instant)>,
    bytes: Vec<u8>,
}

impl Pieces {
    fn new(wanted: Wanted) -> Self {
        Self { wanted, source: None, bytes: Vec::new() }
    }

    /// `peer` sends no more.
    fn gone(&mut self, peer: &PeerKey) {
        if self.source.is_some_and(|(source, _)| source == *peer) {
            self.source = None;
            self.bytes = Vec::new();
        }
    }

    /// Whether nobody sends anything: all are to be asked again.
    fn is_stuck(&mut self, now: Instant) -> bool {
        if let Some((source, last)) = self.source
            && now.duration_since(last) > PATIENCE
        {
            self.gone(&source);
        }
        self.source.is_none()
    }

    fn arrived(&mut self, peer: PeerKey, response: &[u8], now: Instant) -> Answer {
        let (total, piece) = match wire::Response::decode(response) {
            Ok(Response::Blob { total, bytes }) => (total, bytes),
            Ok(Response::Refused(_)) => return Answer::NotNow,
            _ => return Answer::SomethingElse,
        };
        match self.source {
            Some((source, _)) if source != peer => return Answer::NotNow,
            _ => self.source = Some((peer, now)),
        }
        let length = (self.bytes.len() + piece.len()) as u64;
        if piece.is_empty() || total > self.wanted.most || length > total {
            return Answer::SomethingElse;
        }
        self.bytes.extend_from_slice(&piece);
        if length < total {
            return Answer::More(length);
        }
        if Digest::of_bytes(&self.bytes) != self.wanted.hash {
            return Answer::SomethingElse;
        }
        Answer::Whole(std::mem::take(&mut self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_protocol::architecture::Sizes;
    use swarm_protocol::wire::Refusal;

    const A: PeerKey = PeerKey([1; 32]);
    const B: PeerKey = PeerKey([2; 32]);

    fn blob(total: usize, bytes: &[u8]) -> Vec<u8> {
        Response::Blob { total: total as u64, bytes: bytes.to_vec() }.encode()
    }

    #[test]
    fn only_the_very_bytes_count() {
        let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
        let genesis = Genesis::new("ours", model, 1);
        let (swarm, bytes) = (genesis.swarm_id(), genesis.canonical_bytes());
        let answer = |response: &[u8]| {
            let wanted = Wanted { hash: swarm, most: MAX_CHUNK.into(), what: "the genesis" };
            Pieces::new(wanted).arrived(A, response, Instant::now())
        };
        let whole = |bytes: &[u8]| answer(&blob(bytes.len(), bytes));
        assert_eq!(whole(&bytes), Answer::Whole(bytes.clone()));
        assert_eq!(whole(&bytes[1..]), Answer::SomethingElse);
        assert_eq!(whole(&Genesis::new("theirs", genesis.model, 1).canonical_bytes()), Answer::SomethingElse);
        assert_eq!(answer(&Response::Refused(Refusal::NotHeld).encode()), Answer::NotNow);
        assert_eq!(answer(b""), Answer::SomethingElse);
        assert_eq!(answer(&blob(0, b"")), Answer::SomethingElse);
        assert_eq!(answer(&blob(1 << 40, &bytes)), Answer::SomethingElse);
    }

    #[test]
    fn the_pieces_of_one_peer_add_up_and_others_are_asked_when_it_goes() {
        let bytes: Vec<u8> = (0..100).collect();
        let wanted = Wanted { hash: Digest::of_bytes(&bytes), most: 100, what: "it" };
        let (mut pieces, now) = (Pieces::new(wanted), Instant::now());
        assert!(pieces.is_stuck(now));
        assert_eq!(pieces.arrived(A, &blob(100, &bytes[..60]), now), Answer::More(60));
        assert!(!pieces.is_stuck(now));
        assert_eq!(pieces.arrived(B, &blob(100, &bytes[..60]), now), Answer::NotNow);
        pieces.gone(&B);
        assert!(!pieces.is_stuck(now));
        // It is gone, or silent for too long: from the beginning, with somebody else.
        assert!(pieces.is_stuck(now + PATIENCE + AGAIN));
        assert_eq!(pieces.arrived(B, &blob(100, &bytes[..60]), now), Answer::More(60));
        assert_eq!(pieces.arrived(B, &blob(100, &bytes[60..]), now), Answer::Whole(bytes.clone()));
        let mut pieces = Pieces::new(wanted);
        assert_eq!(pieces.arrived(A, &blob(100, &bytes[..60]), now), Answer::More(60));
        assert_eq!(pieces.arrived(A, &blob(100, &bytes[..60]), now), Answer::SomethingElse);
    }
}
