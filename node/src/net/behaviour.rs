//! Which libp2p protocols this node speaks, and how each is set up.
//!
//! One derived behaviour holds them all. Those that refuse connections come first, so that the others are
//! not told of a connection that is then refused. The swarm id is in the gossip topic, the request protocol
//! and the Kademlia protocol; identify is common to every libp2p node, and that is how a peer of another swarm
//! is recognised and told apart from a broken one. So are the protocols about ways in (relay, DCUtR, AutoNAT):
//! what costs something in them is for members only (see `relay`).

use std::{collections::HashSet, num::NonZeroUsize, time::Duration};

use anyhow::{Context, anyhow};
use libp2p::{
    PeerId, StreamProtocol, allow_block_list, autonat, connection_limits, dcutr, gossipsub, identify,
    identity, kad, mdns, ping, relay, request_response,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    upnp,
};

use swarm_protocol::anti_entropy::MAX_PENDING;

use super::{
    Config, address,
    codec::Codec,
    relay::{Members, Tester, server},
    scale::Scale,
};

/// How long a request may take, from asking to the last byte of the response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Open requests, both ways together, on one connection: all that the cores of both sides may ask at once, of
/// both kinds. One more would fail at once, and a join counts failures.
const REQUEST_STREAMS: usize = 4 * MAX_PENDING;
/// A payload that comes again within this time is a duplicate.
const DUPLICATE_TIME: Duration = Duration::from_secs(10 * 60);
/// Gossip control messages (what I have, what I want), in bytes: of the 5,000 ids that gossipsub tells at most
/// (`max_ihave_length`), each takes 22.
const GOSSIP_CONTROL: usize = 128 * 1024;
/// Gossip waiting for one slow peer, in bytes.
const GOSSIP_QUEUE_BYTES: usize = 16 << 20;
/// Bytes of the blake3 hash that name a payload.
const MESSAGE_ID: usize = 20;

/// Everything this node speaks.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    pub(super) blocked: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    pub(super) gossip: Gossip,
    pub(super) kad: kad::Behaviour<kad::store::MemoryStore>,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) requests: request_response::Behaviour<Codec>,
    pub(super) relay_client: relay::client::Behaviour,
    pub(super) relay: Toggle<relay::Behaviour>,
    pub(super) dcutr: dcutr::Behaviour,
    pub(super) autonat: autonat::v2::client::Behaviour,
    pub(super) tester: Tester,
    pub(super) upnp: Toggle<upnp::tokio::Behaviour>,
}

/// Gossipsub that knows one topic only.
pub(super) type Gossip =
    gossipsub::Behaviour<gossipsub::IdentityTransform, gossipsub::WhitelistSubscriptionFilter>;

/// The names that keep swarms apart.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// What identify says: `swarm/1/<hex swarm id>`.
    pub(super) identify: String,
    /// The gossip topic.
    pub(super) topic: gossipsub::IdentTopic,
    requests: String,
    kad: String,
}

/// What every swarm peer's identify protocol version starts with; the swarm id in hex follows.
pub(super) const IDENTIFY_PREFIX: &str = "swarm/1/";

impl Names {
    /// The names of the swarm `id`.
    pub(super) fn new(id: &[u8; 32]) -> Self {
        let id = blake3::Hash::from_bytes(*id).to_hex();
        Self {
            identify: format!("{IDENTIFY_PREFIX}{id}"),
            topic: gossipsub::IdentTopic::new(format!("/{IDENTIFY_PREFIX}{id}/gossip")),
            requests: format!("/{IDENTIFY_PREFIX}{id}/request"),
            kad: format!("/{IDENTIFY_PREFIX}{id}/kad"),
        }
    }
}

impl Behaviour {
    /// Sets every protocol up for the swarm and the limits of `config`, subscribed to the swarm's topic.
    pub(super) fn new(
        config: &Config,
        names: &Names,
        keypair: &identity::Keypair,
        relay_client: relay::client::Behaviour,
        members: &Members,
    ) -> anyhow::Result<Self> {
        let local = keypair.public().to_peer_id();
        let scale = Scale::of(config.peers);
        let protocol = |name: &str| {
            StreamProtocol::try_from_owned(name.to_owned()).map_err(|_| anyhow!("bad protocol name {name}"))
        };
        Ok(Self {
            limits: connection_limits::Behaviour::new(scale.connections()),
            blocked: allow_block_list::Behaviour::default(),
            gossip: gossip(config.max_gossip, scale, &names.topic)?,
            kad: kad(local, protocol(&names.kad)?),
            identify: identify::Behaviour::new(
                identify::Config::new(names.identify.clone(), keypair.public())
                    .with_agent_version(concat!("swarm/", env!("CARGO_PKG_VERSION")).into())
                    .with_push_listen_addr_updates(true),
            ),
            ping: ping::Behaviour::default(),
            mdns: Toggle::from(if config.mdns { mdns(local) } else { None }),
            requests: request_response::Behaviour::with_codec(
                Codec { max_request: config.max_request, max_response: config.max_response },
                [(protocol(&names.requests)?, request_response::ProtocolSupport::Full)],
                request_response::Config::default()
                    .with_request_timeout(REQUEST_TIMEOUT)
                    .with_max_concurrent_streams(REQUEST_STREAMS),
            ),
            relay_client,
            relay: Toggle::from(config.relay.then(|| server(local, members))),
            dcutr: dcutr::Behaviour::new(local),
            autonat: autonat::v2::client::Behaviour::default(),
            tester: Tester::new(members.clone()),
            upnp: Toggle::from(wants_upnp(config).then(upnp::tokio::Behaviour::default)),
        })
    }
}

/// A router can let others in only to where this node listens.
fn wants_upnp(config: &Config) -> bool {
    config.upnp && config.listen.iter().any(|listen| !address::is_loopback(listen))
}

/// Gossip with the mesh of this scale. Messages carry no author and no signature, because the payload is signed by
/// who made it; strict validation refuses any that do.
fn gossip_config(max_gossip: usize, scale: Scale) -> anyhow::Result<gossipsub::Config> {
    let max_transmit = max_gossip.checked_add(GOSSIP_CONTROL).context("max_gossip is too large")?;
    let mesh = scale.mesh();
    gossipsub::ConfigBuilder::default()
        .mesh_outbound_min(mesh.outbound)
        .mesh_n_low(mesh.low)
        .mesh_n(mesh.n)
        .mesh_n_high(mesh.high)
        .heartbeat_interval(Duration::from_secs(1))
        .heartbeat_initial_delay(Duration::ZERO)
        .history_length(scale.history())
        .history_gossip(3)
        .flood_publish(false)
        .validation_mode(gossipsub::ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message: &gossipsub::Message| {
            gossipsub::MessageId::new(&blake3::hash(&message.data).as_bytes()[..MESSAGE_ID])
        })
        .duplicate_cache_time(DUPLICATE_TIME)
        // The decoder compares its whole read buffer with the limit, so it must hold more than one payload.
        .max_transmit_size(max_transmit)
        .max_control_message_size(GOSSIP_CONTROL)
        .connection_handler_queue_len((GOSSIP_QUEUE_BYTES / max_gossip.max(1)).clamp(64, 1024))
        .build()
        .map_err(|error| anyhow!("max_gossip = {max_gossip} is unusable: {error}"))
}

fn gossip(max_gossip: usize, scale: Scale, topic: &gossipsub::IdentTopic) -> anyhow::Result<Gossip> {
    let config = gossip_config(max_gossip, scale)?;
    let mut gossip = Gossip::new_with_subscription_filter(
        gossipsub::MessageAuthenticity::Anonymous,
        config,
        gossipsub::WhitelistSubscriptionFilter(HashSet::from([topic.hash()])),
    )
    .map_err(|error| anyhow!("cannot set up gossip: {error}"))?;
    let (score, thresholds) = gossip_score(topic);
    gossip.with_peer_score(score, thresholds).map_err(|error| anyhow!("cannot set up gossip: {error}"))?;
    gossip.subscribe(topic).map_err(|error| anyhow!("cannot subscribe to the swarm's topic: {error}"))?;
    Ok(gossip)
}

/// Only breaking a rule costs score: a payload the core rejected, or a promise of gossip not kept, again and
/// again. Being quiet, slow, or one of many behind one address costs nothing. One rejected payload (-10)
/// leaves the mesh, three (-90) within half a minute and the peer's gossip is not even read for a while.
fn gossip_score(
    topic: &gossipsub::IdentTopic,
) -> (gossipsub::PeerScoreParams, gossipsub::PeerScoreThresholds) {
    let decay = gossipsub::score_parameter_decay(Duration::from_secs(300));
    let topic_score = gossipsub::TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: decay,
        ..Default::default()
    };
    let score = gossipsub::PeerScoreParams {
        topics: [(topic.hash(), topic_score)].into(),
        app_specific_weight: 0.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: decay,
        slow_peer_weight: 0.0,
        retain_score: Duration::from_secs(600),
        ..Default::default()
    };
    (score, gossipsub::PeerScoreThresholds::default())
}

/// Kademlia as an address book: peers are found through it, nothing is stored in it. It answers queries from
/// the start (on a local network no address is ever confirmed as external, which is what it would wait for).
/// Only peers identified as this swarm's enter the table.
fn kad(local: PeerId, protocol: StreamProtocol) -> kad::Behaviour<kad::store::MemoryStore> {
    let mut config = kad::Config::new(protocol);
    config
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_periodic_bootstrap_interval(None)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        .set_parallelism(NonZeroUsize::MIN.saturating_add(2))
        .set_query_timeout(Duration::from_secs(30));
    let mut kad = kad::Behaviour::with_config(local, kad::store::MemoryStore::new(local), config);
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

/// Multicast DNS, or nothing where the system offers none: the rest works without.
fn mdns(local: PeerId) -> Option<mdns::tokio::Behaviour> {
    mdns::tokio::Behaviour::new(mdns::Config::default(), local)
        .map_err(|error| tracing::warn!(%error, "no discovery on the local network: multicast DNS failed"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_holds_the_version_and_the_swarm_id() {
        let names = Names::new(&[0xab; 32]);
        let expected = format!("swarm/1/{}", "ab".repeat(32));
        assert_eq!(names.identify, expected);
        for name in [names.topic.to_string(), names.requests, names.kad] {
            assert!(name.starts_with(&format!("/{expected}/")), "{name}");
        }
    }

    #[tokio::test]
    async fn every_protocol_accepts_its_settings() {
        let keypair = identity::Keypair::generate_ed25519();
        let config = |max_gossip| Config {
            max_gossip,
            relay: true,
            ..Config::new([0; 32], [1; 32], Vec::new(), Vec::new())
        };
        let client = || relay::client::new(keypair.public().to_peer_id()).1;
        let members = Members::default();
        let names = Names::new(&[1; 32]);
        for size in [0, 1, 64 * 1024, 1 << 20] {
            for peers in [2, 300, 5_000] {
                let config = Config { peers, ..config(size) };
                let mut made = Behaviour::new(&config, &names, &keypair, client(), &members).unwrap();
                let (limits, scale) = (made.limits.limits_mut(), Scale::of(peers));
                assert_eq!(format!("{limits:?}"), format!("{:?}", scale.connections()));
                let gossip = gossip_config(size, scale).unwrap();
                let mesh = (gossip.mesh_n_low(), gossip.mesh_n(), gossip.mesh_n_high());
                assert_eq!(mesh, (scale.mesh().low, scale.mesh().n, scale.mesh().high));
                // Two peers that judge the swarm's size differently understand each other.
                assert_eq!(gossip.max_transmit_size(), size + GOSSIP_CONTROL);
            }
        }
        assert!(Behaviour::new(&config(usize::MAX), &names, &keypair, client(), &members).is_err());
    }
}
