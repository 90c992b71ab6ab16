//! A peer that lies about the model. No node can: what it serves, it has verified. So this is not one, but it
//! speaks the nodes' protocols over their transport: it hands every question on to an honest node and every
//! answer back, and damages what is fetched of a checkpoint on the way. Whoever asks sees a peer that is where
//! the swarm is, and has what it offers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self, Message, OutboundRequestId, ProtocolSupport, ResponseChannel};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identify, identity, noise, tcp, yamux};
use swarm_protocol::identity::PeerKey;
use swarm_protocol::wire::Response;
use tokio::runtime::Runtime;

use crate::GUARD;
use crate::frames::Frames;

/// A liar; dropping it closes its connections.
#[derive(Debug)]
pub struct Liar {
    address: String,
    name: String,
    damaged: Arc<AtomicU64>,
    _runtime: Runtime,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    requests: request_response::Behaviour<Frames>,
}

impl Liar {
    /// Starts one in the swarm with this id; `honest` is the address of the node whose answers it passes on.
    ///
    /// # Errors
    /// The address has no peer id, or nothing can be listened on.
    pub fn start(swarm_id: &str, honest: &str) -> Result<Self> {
        let honest: Multiaddr = honest.parse()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let damaged = Arc::new(AtomicU64::new(0));
        let (address, peer) = runtime.block_on(async {
            let (mut swarm, source) = connect(swarm_id, &honest)?;
            let listens = async {
                loop {
                    if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                        return address;
                    }
                }
            };
            let address = tokio::time::timeout(GUARD, listens).await.context("the liar does not listen")?;
            let peer = *swarm.local_peer_id();
            tokio::spawn(lie(swarm, source, damaged.clone()));
            anyhow::Ok((address, peer))
        })?;
        let name = name_in_logs(&peer.to_string())?;
        Ok(Self { address: format!("{address}/p2p/{peer}"), name, damaged, _runtime: runtime })
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it is called in a node's log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes there were in the chunks that it has damaged.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }
}

/// What a node's log calls the peer with this id: the first digits of its key.
///
/// # Errors
/// It is no id of an ed25519 key.
pub fn name_in_logs(peer_id: &str) -> Result<String> {
    let peer: PeerId = peer_id.parse()?;
    // The id of a short key is the key itself, in an envelope.
    let key = identity::PublicKey::try_decode_protobuf(peer.as_ref().digest())?.try_into_ed25519()?;
    Ok(format!("{:.8}", PeerKey(key.to_bytes())))
}

/// A peer that listens on loopback and is about to be connected with `honest`, and whom it finds there.
fn connect(swarm_id: &str, honest: &Multiaddr) -> Result<(Swarm<Behaviour>, PeerId)> {
    let source = honest.iter().find_map(|part| match part {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    });
    let requests = StreamProtocol::try_from_owned(format!("/swarm/1/{swarm_id}/request"))?;
    let says = format!("swarm/1/{swarm_id}");
    let mut swarm = libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key| Behaviour {
            identify: identify::Behaviour::new(identify::Config::new(says, key.public())),
            requests: request_response::Behaviour::with_codec(
                Frames,
                [(requests, ProtocolSupport::Full)],
                request_response::Config::default(),
            ),
        })
        .map_err(|error| anyhow!("no behaviour: {error}"))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    swarm.dial(honest.clone())?;
    Ok((swarm, source.context("the honest node's address has no peer id")?))
}

/// Passes on questions and answers until it is dropped. `source` itself is not answered: there is nobody to ask.
async fn lie(mut swarm: Swarm<Behaviour>, source: PeerId, damaged: Arc<AtomicU64>) {
    let mut asked: HashMap<OutboundRequestId, ResponseChannel<Vec<u8>>> = HashMap::new();
    loop {
        let SwarmEvent::Behaviour(BehaviourEvent::Requests(event)) = swarm.select_next_some().await else {
            continue;
        };
        let requests = &mut swarm.behaviour_mut().requests;
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                Message::Request { request, channel, .. } if peer != source => {
                    asked.insert(requests.send_request(&source, request), channel);
                }
                Message::Request { .. } => {}
                Message::Response { request_id, response } => {
                    let Some(channel) = asked.remove(&request_id) else { continue };
                    let response = match Response::decode(&response) {
                        Ok(Response::Blob { total, mut bytes }) => {
                            bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
                            damaged.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                            Response::Blob { total, bytes }.encode()
                        }
                        _ => response,
                    };
                    // Who asked may be gone.
                    let _ = requests.send_response(channel, response);
                }
            },
            request_response::Event::OutboundFailure { request_id, .. } => {
                asked.remove(&request_id);
            }
            _ => {}
        }
    }
}
