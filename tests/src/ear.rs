//! A peer between two nodes that hears everything they send. The nodes know nobody else, so all of the swarm goes
//! through it: questions and answers are handed on, and gossip passes it on by itself. It hears below all protocols,
//! where the encryption has been taken off: whatever a node says, in whatever protocol, is here, byte by byte.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::{AsyncRead, AsyncWrite, StreamExt};
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::request_response::{self, Message, OutboundRequestId, ProtocolSupport, ResponseChannel};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, gossipsub, identify, noise, tcp, yamux};
use swarm_protocol::digest::Digest;
use swarm_protocol::wire::MAX_GOSSIP;
use tokio::runtime::Runtime;

use crate::GUARD;
use crate::frames::Frames;

/// What came in over each connection, in order.
type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

/// The one between; dropping it closes its connections.
#[derive(Debug)]
pub struct Ear {
    address: String,
    swarm_id: String,
    heard: Heard,
    runtime: Runtime,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    gossip: gossipsub::Behaviour,
    requests: request_response::Behaviour<Frames>,
}

impl Ear {
    /// Starts one in the swarm with this id, on loopback, connected with the node at this address. The other one comes
    /// by itself.
    ///
    /// # Errors
    /// Nothing can be listened on.
    pub fn start(swarm_id: &str, first: &str) -> Result<Self> {
        let first: Multiaddr = first.parse()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let heard = Heard::default();
        let address = runtime.block_on(async {
            let mut swarm = connected(swarm_id, Some(heard.clone()))?;
            swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
            swarm.dial(first)?;
            let listens = async {
                loop {
                    if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                        return address;
                    }
                }
            };
            let address = tokio::time::timeout(GUARD, listens).await.context("the ear does not listen")?;
            let peer = *swarm.local_peer_id();
            tokio::spawn(hand_on(swarm));
            anyhow::Ok(format!("{address}/p2p/{peer}"))
        })?;
        Ok(Self { address, swarm_id: swarm_id.to_owned(), heard, runtime })
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What came in so far, one connection each.
    pub fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has another peer say `secret` to it as a question, on the same transport, and returns all that it heard of that
    /// peer: what an ear that works hears.
    ///
    /// # Errors
    /// It cannot be connected with, or does not hear it.
    pub fn tell(&self, secret: &[u8]) -> Result<Vec<u8>> {
        const LOOK: Duration = Duration::from_millis(10);
        let address: Multiaddr = self.address.parse()?;
        let before = self.heard.lock().unwrap_or_else(PoisonError::into_inner).len();
        let newest = || {
            let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard
                .get(before)
                .filter(|bytes| bytes.windows(secret.len()).any(|window| window == secret))
                .cloned()
        };
        self.runtime.block_on(async {
            let mut swarm = connected(&self.swarm_id, None)?;
            swarm.dial(address)?;
            let told = async {
                loop {
                    tokio::select! {
                        event = swarm.select_next_some() => match event {
                            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                                swarm.behaviour_mut().requests.send_request(&peer_id, secret.to_vec());
                            }
                            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(anyhow!("{error}")),
                            _ => {}
                        },
                        () = tokio::time::sleep(LOOK) => {}
                    }
                    if let Some(heard) = newest() {
                        return Ok(heard);
                    }
                }
            };
            tokio::time::timeout(GUARD, told).await.context("the ear does not hear")?
        })
    }
}

/// A peer that speaks what nodes speak; it writes down what it hears, if `heard` is given.
fn connected(swarm_id: &str, heard: Option<Heard>) -> Result<Swarm<Behaviour>> {
    let name = format!("swarm/1/{swarm_id}");
    let topic = gossipsub::IdentTopic::new(format!("/{name}/gossip"));
    let requests = StreamProtocol::try_from_owned(format!("/{name}/request"))?;
    let multiplexer = move || Tapped { inner: yamux::Config::default(), heard };
    let swarm = libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, multiplexer)?
        .with_behaviour(|key| {
            let config = gossipsub::ConfigBuilder::default()
                .validation_mode(gossipsub::ValidationMode::Anonymous)
                .max_transmit_size(MAX_GOSSIP + (64 << 10))
                .heartbeat_initial_delay(Duration::ZERO)
                .message_id_fn(|message: &gossipsub::Message| {
                    gossipsub::MessageId::new(&Digest::of_bytes(&message.data).0[..20])
                })
                .build()?;
            let mut gossip = gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Anonymous, config)?;
            gossip.subscribe(&topic)?;
            Ok(Behaviour {
                identify: identify::Behaviour::new(identify::Config::new(name.clone(), key.public())),
                gossip,
                requests: request_response::Behaviour::with_codec(
                    Frames,
                    [(requests, ProtocolSupport::Full)],
                    request_response::Config::default(),
                ),
            })
        })
        .map_err(|error| anyhow!("no behaviour: {error}"))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build();
    Ok(swarm)
}

/// Hands every question on to somebody else who is there, and the answer back.
async fn hand_on(mut swarm: Swarm<Behaviour>) {
    // Who was connected before this began is there, too.
    let mut there: BTreeSet<PeerId> = swarm.connected_peers().copied().collect();
    let mut asked: HashMap<OutboundRequestId, ResponseChannel<Vec<u8>>> = HashMap::new();
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                there.insert(peer_id);
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                there.remove(&peer_id);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Requests(event)) => {
                let requests = &mut swarm.behaviour_mut().requests;
                match event {
                    request_response::Event::Message { peer, message, .. } => match message {
                        Message::Request { request, channel, .. } => {
                            if let Some(other) = there.iter().find(|other| **other != peer) {
                                asked.insert(requests.send_request(other, request), channel);
                            }
                        }
                        Message::Response { request_id, response } => {
                            if let Some(channel) = asked.remove(&request_id) {
                                // Who asked may be gone.
                                let _ = requests.send_response(channel, response);
                            }
                        }
                    },
                    request_response::Event::OutboundFailure { request_id, .. } => {
                        asked.remove(&request_id);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

/// A multiplexer that hears what it is going to take apart.
#[derive(Clone)]
struct Tapped {
    inner: yamux::Config,
    heard: Option<Heard>,
}

impl UpgradeInfo for Tapped {
    type Info = <yamux::Config as UpgradeInfo>::Info;
    type InfoIter = <yamux::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.inner.protocol_info()
    }
}

impl<C> InboundConnectionUpgrade<C> for Tapped
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = <yamux::Config as InboundConnectionUpgrade<Tap<C>>>::Output;
    type Error = <yamux::Config as InboundConnectionUpgrade<Tap<C>>>::Error;
    type Future = <yamux::Config as InboundConnectionUpgrade<Tap<C>>>::Future;

    fn upgrade_inbound(self, socket: C, info: Self::Info) -> Self::Future {
        self.inner.upgrade_inbound(Tap::new(socket, self.heard), info)
    }
}

impl<C> OutboundConnectionUpgrade<C> for Tapped
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = <yamux::Config as OutboundConnectionUpgrade<Tap<C>>>::Output;
    type Error = <yamux::Config as OutboundConnectionUpgrade<Tap<C>>>::Error;
    type Future = <yamux::Config as OutboundConnectionUpgrade<Tap<C>>>::Future;

    fn upgrade_outbound(self, socket: C, info: Self::Info) -> Self::Future {
        self.inner.upgrade_outbound(Tap::new(socket, self.heard), info)
    }
}

/// Writes down what is read.
struct Tap<C> {
    inner: C,
    /// Its place in what was heard.
    heard: Option<(Heard, usize)>,
}

impl<C> Tap<C> {
    fn new(inner: C, heard: Option<Heard>) -> Self {
        let heard = heard.map(|heard| {
            let mut all = heard.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(Vec::new());
            let at = all.len() - 1;
            drop(all);
            (heard, at)
        });
        Self { inner, heard }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Tap<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Task<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, out);
        if let (Poll::Ready(Ok(count)), Some((heard, at))) = (&read, &self.heard) {
            let mut all = heard.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some(connection), Some(bytes)) = (all.get_mut(*at), out.get(..*count)) {
                connection.extend_from_slice(bytes);
            }
        }
        read
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Tap<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}
