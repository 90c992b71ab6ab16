//! Fetching a swarm's genesis from its peers, when all that is known is the swarm's id.
//!
//! The id is the hash of the genesis, so it does not matter who sends it. Whoever sends anything else is left out.
//! This is done by a node that lives for as long as it takes and has a key of its own: nothing is on disk before
//! the genesis is here.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use libp2p::Multiaddr;
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::identity::PeerKey;
use swarm_protocol::wire::{self, MAX_CHUNK, Request, Response};

use super::asked_to_stop;
use crate::net::{self, Command, Event};

/// Pause before peers that had no answer are asked again.
const AGAIN: Duration = Duration::from_secs(2);
/// How long somebody who sends something else is refused.
const BAN: Duration = Duration::from_secs(600);

/// Fetches the genesis of `swarm` from any peer that is found at `bootstrap` or, if `mdns`, on the local network.
/// Goes on until somebody has it or the user stops it.
///
/// # Errors
/// Stopped; or the genesis is one that this build cannot use.
pub(crate) async fn fetch_genesis(swarm: Digest, bootstrap: Vec<Multiaddr>, mdns: bool) -> Result<Genesis> {
    tracing::info!("swarm {swarm:.16}: fetching its genesis from {} given address(es)", bootstrap.len());
    let config = net::Config { mdns, ..net::Config::new(rand::random(), swarm.0, Vec::new(), bootstrap) };
    let (network, mut events, service) = net::start(config).await?;
    let mut peers = BTreeSet::new();
    let mut again = tokio::time::interval(AGAIN);
    let mut stop = std::pin::pin!(asked_to_stop());
    let began = Instant::now();
    let found = loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Connected { peer }) => {
                    peers.insert(peer);
                    ask(&network, peer, swarm).await?;
                }
                Some(Event::Disconnected { peer }) => {
                    peers.remove(&peer);
                }
                Some(Event::Response { peer, bytes, .. }) => match genesis_in(&bytes, &swarm) {
                    Answer::Genesis(bytes) => break Genesis::from_canonical_bytes(&bytes),
                    Answer::NotNow => {}
                    Answer::SomethingElse => {
                        tracing::warn!("peer {peer:.8} did not send the genesis of this swarm: asking others");
                        peers.remove(&peer);
                        let reason = "it sent something else for the genesis".to_owned();
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
            _ = again.tick() => for peer in peers.clone() {
                ask(&network, peer, swarm).await?;
            },
            () = &mut stop => bail!("stopped before anybody had sent the genesis; nothing was written"),
        }
    };
    let _ = network.send(Command::Shutdown).await;
    let _ = tokio::time::timeout(Duration::from_secs(5), service).await;
    let genesis = found.context(
        "the swarm's genesis came as the invite names it, but this build of swarm cannot use it: its peers run \
         another version",
    )?;
    tracing::info!("the genesis of {} is here after {:.1} s", genesis.name, began.elapsed().as_secs_f64());
    Ok(genesis)
}

async fn ask(network: &net::Handle, peer: PeerKey, swarm: Digest) -> Result<()> {
    let bytes = Request::Blob { hash: swarm, offset: 0, length: MAX_CHUNK }.encode();
    network.send(Command::Request { peer, id: 0, bytes }).await
}

/// What a peer answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The canonical bytes of the genesis.
    Genesis(Vec<u8>),
    NotNow,
    SomethingElse,
}

fn genesis_in(response: &[u8], swarm: &Digest) -> Answer {
    match wire::Response::decode(response) {
        Ok(Response::Blob { bytes, .. }) if Digest::of_bytes(&bytes) == *swarm => Answer::Genesis(bytes),
        Ok(Response::Refused(_)) => Answer::NotNow,
        _ => Answer::SomethingElse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_protocol::architecture::Architecture;
    use swarm_protocol::wire::Refusal;

    #[test]
    fn only_the_very_bytes_count() {
        let model = Architecture { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
        let genesis = Genesis::new("ours", model, 1);
        let (swarm, bytes) = (genesis.swarm_id(), genesis.canonical_bytes());
        let blob =
            |bytes: &[u8]| Response::Blob { total: bytes.len() as u64, bytes: bytes.to_vec() }.encode();
        assert_eq!(genesis_in(&blob(&bytes), &swarm), Answer::Genesis(bytes.clone()));
        assert_eq!(genesis_in(&blob(&bytes[1..]), &swarm), Answer::SomethingElse);
        let other = Genesis::new("theirs", genesis.model, 1).canonical_bytes();
        assert_eq!(genesis_in(&blob(&other), &swarm), Answer::SomethingElse);
        assert_eq!(genesis_in(&Response::Refused(Refusal::NotHeld).encode(), &swarm), Answer::NotNow);
        assert_eq!(genesis_in(b"", &swarm), Answer::SomethingElse);
    }
}
