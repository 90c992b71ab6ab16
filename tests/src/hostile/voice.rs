//! One identity with a connection to the node that is attacked.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::request_response::{self, Message, OutboundRequestId, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{PeerId, StreamProtocol, Swarm, gossipsub, identify, identity, noise, tcp, yamux};
use swarm_protocol::digest::Digest;
use swarm_protocol::wire::{MAX_GOSSIP, Request, Response, Status};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::Target;
use crate::frames::Frames;

/// What is answered to the node's own questions; `None`: nothing, ever.
pub(super) type Answer = Arc<dyn Fn(Request) -> Option<Vec<u8>> + Send + Sync>;

/// Bytes for a stream of its own.
#[derive(Clone, Debug)]
pub(super) struct Spill {
    /// At once.
    pub(super) bytes: Vec<u8>,
    /// Then one byte so often, for ever: a stream that is neither used nor given up.
    pub(super) drip: Option<Duration>,
}

enum Order {
    Ask(Vec<u8>, oneshot::Sender<Option<Vec<u8>>>),
    Gossip(Vec<u8>, oneshot::Sender<Result<(), gossipsub::PublishError>>),
    Spill(Spill),
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    gossip: gossipsub::Behaviour,
    requests: request_response::Behaviour<Frames>,
    spills: request_response::Behaviour<Spiller>,
}

/// A connected identity. Dropping it closes the connection.
pub(super) struct Voice {
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Voice {
    /// Connects; the node has said that it takes part in the swarm's gossip when this returns.
    pub(super) async fn new(target: &Target) -> Result<Self> {
        Self::with(target, Arc::new(|_| None), "/spill").await
    }

    /// One that answers, and spills into streams of the protocol `spills`.
    pub(super) async fn with(target: &Target, answer: Answer, spills: &str) -> Result<Self> {
        let secret = target.forger.identity().secret();
        let keypair = identity::Keypair::ed25519_from_bytes(secret)?;
        let name = format!("swarm/1/{}", target.forger.swarm);
        let topic = gossipsub::IdentTopic::new(format!("/{name}/gossip"));
        let requests = StreamProtocol::try_from_owned(format!("/{name}/request"))?;
        let spills = StreamProtocol::try_from_owned(spills.to_owned())?;
        let mut swarm = libp2p::SwarmBuilder::with_existing_identity(keypair)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
            .with_behaviour(|key| {
                let mut gossip = gossip()?;
                gossip.subscribe(&topic)?;
                Ok(Behaviour {
                    identify: identify::Behaviour::new(identify::Config::new(name.clone(), key.public())),
                    gossip,
                    requests: request_response::Behaviour::with_codec(
                        Frames,
                        [(requests, ProtocolSupport::Full)],
                        request_response::Config::default(),
                    ),
                    spills: request_response::Behaviour::with_codec(
                        Spiller,
                        [(spills, ProtocolSupport::Outbound)],
                        request_response::Config::default().with_request_timeout(Duration::from_secs(3600)),
                    ),
                })
            })
            .map_err(|error| anyhow!("no behaviour: {error}"))?
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
            .build();
        swarm.dial(target.address.clone())?;
        let (orders, inbox) = mpsc::channel(64);
        let (ready, connected) = oneshot::channel();
        let peer = target.peer;
        let task = tokio::spawn(speak(swarm, peer, topic, answer, inbox, ready));
        let voice = Self { orders, task };
        connected.await.context("the node does not let a stranger in")?;
        Ok(voice)
    }

    /// Asks; `None` if there is no answer.
    pub(super) async fn ask(&self, question: &Request) -> Option<Response> {
        let answer = self.ask_bytes(question.encode()).await?;
        Response::decode(&answer).ok()
    }

    /// Asks anything.
    pub(super) async fn ask_bytes(&self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(Order::Ask(bytes, reply)).await.ok()?;
        answer.await.ok()?
    }

    /// Where the node is.
    pub(super) async fn status(&self) -> Result<Status> {
        let nobody = Status {
            access: None,
            round: 0,
            your_next_round: 0,
            settled: 0,
            log_digest: Default::default(),
            open: Vec::new(),
            checkpoint: None,
            role: swarm_protocol::wire::Role::Joining,
        };
        match self.ask(&Request::Status(nobody)).await {
            Some(Response::Status(status)) => Ok(status),
            other => Err(anyhow!("the node does not tell where it is, but {other:?}")),
        }
    }

    /// Gossips.
    pub(super) async fn gossip(&self, bytes: Vec<u8>) -> Result<()> {
        let (reply, left) = oneshot::channel();
        let gone = "the node has hung up";
        self.orders.send(Order::Gossip(bytes, reply)).await.ok().context(gone)?;
        left.await.context(gone)?.map_err(|why| anyhow!("{why}"))
    }

    /// Writes into a stream of its own.
    pub(super) async fn spill(&self, spill: Spill) {
        // Whoever is cut off cannot, which is as good.
        let _ = self.orders.send(Order::Spill(spill)).await;
    }
}

fn gossip() -> Result<gossipsub::Behaviour> {
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(gossipsub::ValidationMode::Anonymous)
        .flood_publish(true)
        .max_transmit_size(MAX_GOSSIP + (64 << 10))
        .heartbeat_initial_delay(Duration::ZERO)
        .message_id_fn(|message: &gossipsub::Message| {
            gossipsub::MessageId::new(&Digest::of_bytes(&message.data).0[..20])
        })
        .build()?;
    gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Anonymous, config).map_err(|why| anyhow!(why))
}

/// Carries orders out, and answers what the node asks, until the connection is closed.
async fn speak(
    mut swarm: Swarm<Behaviour>,
    node: PeerId,
    topic: gossipsub::IdentTopic,
    answer: Answer,
    mut orders: mpsc::Receiver<Order>,
    ready: oneshot::Sender<()>,
) {
    let mut ready = Some(ready);
    let mut asked: HashMap<OutboundRequestId, oneshot::Sender<Option<Vec<u8>>>> = HashMap::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Ask(bytes, reply)) => {
                    asked.insert(swarm.behaviour_mut().requests.send_request(&node, bytes), reply);
                }
                Some(Order::Gossip(bytes, reply)) => {
                    let left = swarm.behaviour_mut().gossip.publish(topic.clone(), bytes);
                    let _ = reply.send(left.map(drop));
                }
                Some(Order::Spill(spill)) => {
                    swarm.behaviour_mut().spills.send_request(&node, spill);
                }
                None => return,
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionClosed { num_established: 0, .. } | SwarmEvent::OutgoingConnectionError { .. } => return,
                SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Subscribed { .. })) => {
                    if let Some(ready) = ready.take() {
                        let _ = ready.send(());
                    }
                }
                SwarmEvent::Behaviour(BehaviourEvent::Requests(event)) => match event {
                    request_response::Event::Message { message: Message::Request { request, channel, .. }, .. } => {
                        if let Some(bytes) = Request::decode(&request).ok().and_then(|request| answer(request)) {
                            let _ = swarm.behaviour_mut().requests.send_response(channel, bytes);
                        }
                    }
                    request_response::Event::Message { message: Message::Response { request_id, response }, .. } => {
                        if let Some(reply) = asked.remove(&request_id) {
                            let _ = reply.send(Some(response));
                        }
                    }
                    request_response::Event::OutboundFailure { request_id, .. } => {
                        asked.remove(&request_id);
                    }
                    _ => {}
                },
                _ => {}
            },
        }
    }
}

/// Writes bytes as they are. What comes back is not read.
#[derive(Clone)]
struct Spiller;

impl request_response::Codec for Spiller {
    type Protocol = StreamProtocol;
    type Request = Spill;
    type Response = ();

    async fn read_request<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<Spill>
    where
        T: AsyncRead + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut bytes = [0; 256];
        while io.read(&mut bytes).await? > 0 {}
        Ok(())
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, spill: Spill) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&spill.bytes).await?;
        io.flush().await?;
        while let Some(pause) = spill.drip {
            tokio::time::sleep(pause).await;
            io.write_all(&[0]).await?;
            io.flush().await?;
        }
        Ok(())
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }
}
