//! Whole services on the loopback interface, over real sockets. Nothing here asserts how long something
//! takes; a guard turns a hang into a failure.

mod private;

use std::{future::Future, time::Duration};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use swarm_protocol::anti_entropy::MAX_PENDING;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::{Command, Config, Event, Handle, Limits, PeerKey, Verdict, address, peer_key, start};

const SWARM: [u8; 32] = [7; 32];
const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";

struct Node {
    key: PeerKey,
    handle: Handle,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
    /// Where it listens, with `/p2p/`.
    address: Multiaddr,
}

fn config(seed: u8, listen: &str, bootstrap: &[&Multiaddr]) -> Config {
    let bootstrap = bootstrap.iter().map(|address| (*address).clone()).collect();
    let config = Config::new([seed; 32], SWARM, vec![listen.parse().unwrap()], bootstrap);
    Config { max_gossip: 64 * 1024, max_request: 1024, max_response: 1 << 20, relay: true, ..config }
}

impl Node {
    async fn start(config: Config) -> Self {
        let (handle, mut events, task) = start(config).await.unwrap();
        let address = guard(async {
            loop {
                if let Event::Listening(address) = events.recv().await.unwrap() {
                    return address;
                }
            }
        })
        .await;
        let key = peer_key(&handle.local_peer_id()).unwrap();
        Self { key, handle, events, task, address }
    }

    /// Starts without listening.
    async fn start_silent(mut config: Config) -> Self {
        config.listen.clear();
        let (handle, events, task) = start(config).await.unwrap();
        let key = peer_key(&handle.local_peer_id()).unwrap();
        Self { key, handle, events, task, address: Multiaddr::empty() }
    }

    /// The first event that `pick` picks; those before it are passed over.
    async fn until<T>(&mut self, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        guard(async {
            loop {
                let event = self.events.recv().await.expect("the service ended");
                if let Some(picked) = pick(&event) {
                    return picked;
                }
            }
        })
        .await
    }

    async fn until_connected(&mut self, peer: PeerKey) {
        self.until_all_connected(&[peer]).await;
    }

    /// In whatever order they come.
    async fn until_all_connected(&mut self, peers: &[PeerKey]) {
        let mut missing = peers.to_vec();
        self.until(|event| {
            if let Event::Connected { peer } = event {
                missing.retain(|key| key != peer);
            }
            missing.is_empty().then_some(())
        })
        .await;
    }

    async fn until_disconnected(&mut self, peer: PeerKey) {
        self.until(|event| matches!(event, Event::Disconnected { peer: p } if *p == peer).then_some(()))
            .await;
    }

    async fn send(&self, command: Command) {
        guard(self.handle.send(command)).await.unwrap();
    }

    /// Publishes, again and again while no neighbour has subscribed yet, until `receiver` has it.
    async fn gossip_to(&mut self, receiver: &mut Node, bytes: &[u8]) -> (u64, PeerKey) {
        guard(async {
            loop {
                self.send(Command::Publish(bytes.to_vec())).await;
                tokio::select! {
                    () = async {
                        while !matches!(self.events.recv().await, Some(Event::PublishFailed { .. })) {}
                    } => tokio::time::sleep(Duration::from_millis(20)).await,
                    received = receiver.until(|event| match event {
                        Event::Gossip { token, source, bytes: b } if b == bytes => Some((*token, *source)),
                        _ => None,
                    }) => return received,
                }
            }
        })
        .await
    }

    async fn stop(self) {
        self.send(Command::Shutdown).await;
        guard(self.task).await.unwrap();
    }
}

async fn guard<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("hangs")
}

fn without_p2p(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}

async fn pair(listen: &str) -> (Node, Node) {
    let mut a = Node::start(config(1, listen, &[])).await;
    let mut b = Node::start(config(2, listen, &[&a.address])).await;
    a.until_connected(b.key).await;
    b.until_connected(a.key).await;
    (a, b)
}

async fn exchange(a: &mut Node, b: &mut Node) {
    let (token, source) = a.gossip_to(b, b"from a").await;
    assert_eq!(source, a.key);
    b.send(Command::Verdict { token, verdict: Verdict::Accept }).await;
    let (_, source) = b.gossip_to(a, b"from b").await;
    assert_eq!(source, b.key);

    // Larger than one read of the socket, so that it arrives in pieces.
    let answer: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
    a.send(Command::Request { peer: b.key, id: 42, bytes: b"question".to_vec() }).await;
    let key = a.key;
    let token = b
        .until(|event| match event {
            Event::Request { peer, token, bytes } if *peer == key && bytes == b"question" => Some(*token),
            _ => None,
        })
        .await;
    b.send(Command::Respond { token, bytes: answer.clone(), bulk: true }).await;
    let key = b.key;
    let response = a
        .until(|event| match event {
            Event::Response { peer, id: 42, bytes } if *peer == key => Some(bytes.clone()),
            _ => None,
        })
        .await;
    assert_eq!(response, answer);
    assert!(b.handle.traffic().sent > 1 << 20, "{:?}", b.handle.traffic());
    assert!(a.handle.traffic().received > 1 << 20, "{:?}", a.handle.traffic());
    assert!(a.handle.traffic().sent < 1 << 20);
}

#[tokio::test]
async fn two_peers_gossip_and_ask_over_tcp_and_see_each_other_stop() {
    let (mut a, mut b) = pair(LOOPBACK).await;
    exchange(&mut a, &mut b).await;
    let key = a.key;
    a.stop().await;
    b.until_disconnected(key).await;
    b.stop().await;
}

#[tokio::test]
async fn two_peers_gossip_and_ask_over_quic() {
    let (mut a, mut b) = pair("/ip4/127.0.0.1/udp/0/quic-v1").await;
    exchange(&mut a, &mut b).await;
}

#[tokio::test]
async fn two_peers_gossip_and_ask_over_ipv6_by_tcp_and_by_quic() {
    if let Err(error) = std::net::UdpSocket::bind("[::1]:0") {
        return eprintln!("SKIPPED: no IPv6 here: {error}");
    }
    for (listen, over) in [("/ip6/::1/tcp/0", "tcp"), ("/ip6/::1/udp/0/quic-v1", "quic")] {
        let (mut a, mut b) = pair(listen).await;
        exchange(&mut a, &mut b).await;
        let picture = guard(async {
            loop {
                match a.handle.picture() {
                    picture if picture.peers.is_empty() => {
                        tokio::time::sleep(Duration::from_millis(20)).await
                    }
                    picture => return picture,
                }
            }
        })
        .await;
        let way = &picture.peers[0].routes[0];
        assert_eq!((way.route.as_str(), way.over.as_deref(), way.ip), ("direct", Some(over), Some(6)));
        // On one machine nothing is known of the rest of the world, nobody relays, and nobody is asked to.
        assert_eq!((picture.reachable.as_str(), picture.upnp.as_str()), ("unknown", "off"));
        assert!(picture.relays.is_empty() && !picture.relays_for_others);
        a.stop().await;
        b.stop().await;
    }
}

#[tokio::test]
async fn peers_that_know_one_bootstrap_find_each_other_and_outlive_it() {
    let mut b = Node::start(config(2, LOOPBACK, &[])).await;
    let mut a = Node::start(config(1, LOOPBACK, &[&b.address])).await;
    // Without /p2p/, and by a name.
    let named: Multiaddr =
        without_p2p(&b.address).replace(0, |_| Some(Protocol::Dns4("localhost".into()))).unwrap();
    let mut c = Node::start(config(3, LOOPBACK, &[&named])).await;
    b.until_all_connected(&[a.key, c.key]).await;
    a.until_connected(c.key).await;
    c.until_connected(a.key).await;
    let key = b.key;
    b.stop().await;
    a.until_disconnected(key).await;
    c.until_disconnected(key).await;
    let (_, source) = a.gossip_to(&mut c, b"still here").await;
    assert_eq!(source, a.key);
}

#[tokio::test]
async fn gossip_goes_on_only_when_it_is_accepted() {
    let mut b = Node::start(config(2, LOOPBACK, &[])).await;
    // A chain: a and c listen nowhere, so what passes between them goes through b.
    let mut a = Node::start_silent(config(1, LOOPBACK, &[&b.address])).await;
    let mut c = Node::start_silent(config(3, LOOPBACK, &[&b.address])).await;
    b.until_connected(c.key).await;
    // When c has gossip from b, c's subscription has reached b.
    b.gossip_to(&mut c, b"hello").await;

    let (token, _) = a.gossip_to(&mut b, b"accepted").await;
    b.send(Command::Verdict { token, verdict: Verdict::Accept }).await;
    let next = |event: &Event| match event {
        Event::Gossip { source, bytes, .. } => Some((*source, bytes.clone())),
        _ => None,
    };
    assert_eq!(c.until(next).await, (b.key, b"accepted".to_vec()));

    let (token, _) = a.gossip_to(&mut b, b"ignored").await;
    b.send(Command::Verdict { token, verdict: Verdict::Ignore }).await;
    let (token, _) = a.gossip_to(&mut b, b"rejected").await;
    b.send(Command::Verdict { token, verdict: Verdict::Reject }).await;
    b.send(Command::Verdict { token, verdict: Verdict::Accept }).await; // A token works once.
    b.send(Command::Verdict { token: 1 << 60, verdict: Verdict::Accept }).await;
    b.send(Command::Publish(b"the end".to_vec())).await;
    assert_eq!(c.until(next).await, (b.key, b"the end".to_vec()));
}

#[tokio::test]
async fn another_swarm_is_named_on_both_sides_and_never_connected() {
    let mut a = Node::start(config(1, LOOPBACK, &[])).await;
    let mut other = config(2, LOOPBACK, &[&a.address]);
    other.swarm_id = [9; 32];
    let mut b = Node::start(other).await;
    let (a_key, b_key) = (a.key, b.key);
    let met = |event: &Event| match event {
        Event::OtherSwarm { peer, theirs, address } => Some((*peer, theirs.clone(), address.clone())),
        Event::Connected { .. } => panic!("connected to another swarm"),
        _ => None,
    };
    let (peer, theirs, address) = b.until(met).await;
    assert_eq!((peer, theirs), (a_key, "07".repeat(32)));
    assert!(address.contains("/ip4/127.0.0.1/tcp/"), "{address}");
    let (peer, theirs, _) = a.until(met).await;
    assert_eq!((peer, theirs), (b_key, "09".repeat(32)));
    let (address, reason) = b
        .until(|event| match event {
            Event::BootstrapFailed { address, reason, .. } => Some((address.clone(), reason.clone())),
            _ => None,
        })
        .await;
    assert_eq!(address, a.address);
    assert!(reason.contains(&"07".repeat(32)), "{reason}");
    a.stop().await;
    while let Some(event) = guard(b.events.recv()).await {
        assert!(!matches!(event, Event::Connected { .. } | Event::OtherSwarm { .. }), "{event:?}");
        if matches!(event, Event::BootstrapFailed { .. }) {
            break;
        }
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_answered_fails_with_a_reason() {
    let (mut a, mut b) = pair(LOOPBACK).await;
    let reason = |wanted: u64| {
        move |event: &Event| match event {
            Event::RequestFailed { id, reason, .. } if *id == wanted => Some(reason.clone()),
            _ => None,
        }
    };
    a.send(Command::Request { peer: PeerKey([0x55; 32]), id: 1, bytes: Vec::new() }).await;
    assert!(a.until(reason(1)).await.contains("not connected"));
    a.send(Command::Request { peer: b.key, id: 2, bytes: vec![0; 1025] }).await;
    assert!(a.until(reason(2)).await.contains("limit of 1024"));
    a.send(Command::Publish(vec![0; 64 * 1024 + 1])).await;
    let refused = |event: &Event| match event {
        Event::PublishFailed { reason } => Some(reason.clone()),
        _ => None,
    };
    assert!(a.until(refused).await.contains("limit of 65536"));

    // A response above the limit is not sent, and the asker learns that none will come.
    a.send(Command::Request { peer: b.key, id: 3, bytes: Vec::new() }).await;
    let asked = |event: &Event| match event {
        Event::Request { token, .. } => Some(*token),
        _ => None,
    };
    let token = b.until(asked).await;
    b.send(Command::Respond { token, bytes: vec![0; (1 << 20) + 1], bulk: false }).await;
    assert!(a.until(reason(3)).await.contains("without a frame"));

    // Every request has its outcome, also when there are more than may be under way.
    for id in 100..300 {
        a.send(Command::Request { peer: b.key, id, bytes: Vec::new() }).await;
    }
    b.stop().await;
    let mut open: std::collections::BTreeSet<u64> = (100..300).collect();
    while !open.is_empty() {
        let id = a
            .until(|event| match event {
                Event::RequestFailed { id, .. } => Some(*id),
                _ => None,
            })
            .await;
        assert!(open.remove(&id), "{id} twice");
    }
}

#[tokio::test]
async fn two_cores_may_have_all_their_questions_open_at_once() {
    let (mut a, mut b) = pair(LOOPBACK).await;
    // Questions, and questions for bytes.
    let all = 2 * MAX_PENDING as u64;
    for id in 0..all {
        a.send(Command::Request { peer: b.key, id, bytes: Vec::new() }).await;
        b.send(Command::Request { peer: a.key, id, bytes: Vec::new() }).await;
    }
    // None is answered before all are there.
    let mut tokens = [Vec::new(), Vec::new()];
    for (node, tokens) in [&mut a, &mut b].into_iter().zip(&mut tokens) {
        for _ in 0..all {
            let asked = node.until(|event| match event {
                Event::Request { token, .. } => Some(*token),
                Event::RequestFailed { id, reason, .. } => panic!("{id}: {reason}"),
                _ => None,
            });
            tokens.push(asked.await);
        }
    }
    for (node, tokens) in [&a, &b].into_iter().zip(&tokens) {
        for token in tokens {
            node.send(Command::Respond { token: *token, bytes: Vec::new(), bulk: false }).await;
        }
    }
    for node in [&mut a, &mut b] {
        for _ in 0..all {
            node.until(|event| matches!(event, Event::Response { .. }).then_some(())).await;
        }
    }
}

#[tokio::test]
async fn bulk_waits_its_turn_and_nothing_else_does() {
    let mut b = Node::start(config(2, LOOPBACK, &[])).await;
    let limits = Limits { upload: Some("100kB".parse().unwrap()), download: None };
    let mut a = Node::start(Config { limits, ..config(1, LOOPBACK, &[&b.address]) }).await;
    b.until_connected(a.key).await;
    let began = std::time::Instant::now();
    // One that is sent at once, one that waits for a second, one that would wait for too long, a small message.
    for (id, length, bulk) in [(1, 200_000, true), (2, 50_000, true), (3, 1 << 20, true), (4, 50_000, false)]
    {
        b.send(Command::Request { peer: a.key, id, bytes: vec![id as u8] }).await;
        let asked = |event: &Event| match event {
            Event::Request { token, bytes, .. } if bytes[..] == [id as u8] => Some(*token),
            _ => None,
        };
        let token = a.until(asked).await;
        a.send(Command::Respond { token, bytes: vec![0; length], bulk }).await;
    }
    let mut outcomes = Vec::new();
    while outcomes.len() < 4 {
        let outcome = |event: &Event| match event {
            Event::Response { id, .. } => Some((*id, true)),
            Event::RequestFailed { id, .. } => Some((*id, false)),
            _ => None,
        };
        outcomes.push(b.until(outcome).await);
    }
    let when = |id| outcomes.iter().position(|(other, _)| *other == id);
    assert!(when(2) > when(1) && when(2) > when(4), "{outcomes:?}");
    outcomes.sort_unstable();
    assert_eq!(outcomes, [(1, true), (2, true), (3, false), (4, true)]);
    // 300 kB at 100 kB a second; a quarter of a second's worth may be made up for.
    assert!(began.elapsed() >= Duration::from_millis(2750), "it came after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_core_that_reads_no_events_cannot_block_its_own_commands() {
    let (mut a, mut b) = pair(LOOPBACK).await;
    // Many times the room in both queues, and nobody reads a's events meanwhile.
    for id in 0..2000 {
        a.send(Command::Request { peer: PeerKey([0x55; 32]), id, bytes: Vec::new() }).await;
    }
    // b goes, unread; then a reads on.
    let key = b.key;
    b.send(Command::Shutdown).await;
    a.until_disconnected(key).await;
    assert!(a.handle.dropped() > 0);
    a.stop().await;
    guard(&mut b.task).await.unwrap();
}

#[tokio::test]
async fn a_banned_peer_is_disconnected_and_let_in_again_when_the_ban_ends() {
    let (mut a, mut b) = pair(LOOPBACK).await;
    let ban = Command::Ban { peer: b.key, duration: Duration::from_millis(1), reason: "a test".into() };
    a.send(ban).await;
    a.until_disconnected(b.key).await;
    // b dials its bootstrap address again by itself.
    a.until_connected(b.key).await;
    b.until_connected(a.key).await;
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_says_what_to_do() {
    let a = Node::start(config(1, LOOPBACK, &[])).await;
    let taken = without_p2p(&a.address);
    let error = start(config(2, &taken.to_string(), &[])).await.err().unwrap().to_string();
    assert_eq!(
        error,
        format!("cannot listen on {taken}: address already in use; choose another port with --listen")
    );
    let q = Node::start(config(3, "/ip4/127.0.0.1/udp/0/quic-v1", &[])).await;
    let taken = without_p2p(&q.address);
    let error = start(config(4, &taken.to_string(), &[])).await.err().unwrap().to_string();
    assert!(error.contains(&format!("{taken}: address already in use; choose another port")), "{error}");
    // TEST-NET-1 (RFC 5737) is nobody's address.
    let error = start(config(5, "/ip4/192.0.2.1/tcp/0", &[])).await.err().unwrap().to_string();
    assert!(error.contains("/ip4/192.0.2.1/tcp/0: this machine has no such address"), "{error}");
    let error = start(config(6, "/ip4/127.0.0.1/udp/0", &[])).await.err().unwrap().to_string();
    assert!(error.contains("/ip4/127.0.0.1/udp/0: neither TCP nor QUIC"), "{error}");
}

#[tokio::test]
async fn a_dead_bootstrap_address_is_named_with_its_reason_and_tried_again() {
    let a = Node::start(config(1, LOOPBACK, &[])).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed: Multiaddr = format!("/ip4/127.0.0.1/tcp/{closed}").parse().unwrap();
    let nowhere: Multiaddr = "/dns4/no-such-host.invalid/tcp/4001".parse().unwrap();
    let wrong = without_p2p(&a.address).with(Protocol::P2p(PeerId::random()));
    let mut b = Node::start(config(2, LOOPBACK, &[&closed, &nowhere, &wrong])).await;
    let mut wanted = vec![(closed, "refused"), (nowhere, "cannot resolve"), (wrong, "not the one named")];
    // The refused one twice: it is tried again.
    wanted.push(wanted[0].clone());
    while !wanted.is_empty() {
        let (address, reason) = b
            .until(|event| match event {
                Event::BootstrapFailed { address, reason, .. } => Some((address.clone(), reason.clone())),
                _ => None,
            })
            .await;
        let Some(position) = wanted.iter().position(|(wanted, _)| *wanted == address) else { continue };
        let (_, expected) = wanted.remove(position);
        assert!(reason.contains(expected), "{address}: {reason}");
    }
}

#[tokio::test]
async fn a_node_ignores_its_own_address_and_meets_its_peer_once_by_two() {
    let a = Node::start(config(1, LOOPBACK, &[])).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let own: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let bare = without_p2p(&a.address);
    let mut b = Node::start(config(2, &own.to_string(), &[&own, &a.address, &bare])).await;
    let mut good = Vec::new();
    let mut connected = 0;
    while good.len() < 2 {
        match guard(b.events.recv()).await.unwrap() {
            Event::BootstrapConnected { address } => good.push(address),
            Event::Connected { .. } => connected += 1,
            Event::BootstrapFailed { address, reason, .. } => panic!("{address}: {reason}"),
            _ => {}
        }
    }
    assert!(good.contains(&a.address) && good.contains(&bare));
    assert_eq!(connected, 1);
    assert_eq!(address::peer_id(&b.key), Some(b.handle.local_peer_id()));
}
