//! The bookkeeping of ways in, with time and chance as arguments.

use super::*;

const FIRST: f64 = 0.0;
const NEVER_MIND: f64 = 0.5;

fn at(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn ours() -> Multiaddr {
    at("/ip4/198.51.100.9/tcp/4001")
}

/// A node on IPv4 that `relays` members offer to relay for.
fn offered(relays: usize) -> (Reach, Vec<PeerId>, Instant) {
    let mut reach = Reach::new(false);
    reach.listens(&at("/ip4/192.168.1.7/tcp/4001"));
    let mut peers: Vec<PeerId> = (0..relays).map(|_| PeerId::random()).collect();
    peers.sort_by_key(|peer| peer.to_bytes());
    for peer in &peers {
        reach.offered(*peer, at("/ip4/198.51.100.1/tcp/1"));
    }
    (reach, peers, Instant::now())
}

fn asked(steps: Vec<Step>) -> Vec<PeerId> {
    let relay = |step| match step {
        Step::Reserve { relay, address } => {
            assert_eq!(address, at("/ip4/198.51.100.1/tcp/1"));
            relay
        }
        Step::Release(_) => panic!("nothing to give back"),
    };
    steps.into_iter().map(relay).collect()
}

#[test]
fn without_an_offer_no_relay_is_asked_however_long_it_takes() {
    let (mut reach, _, now) = offered(0);
    reach.test_failed(&ours(), PeerId::random());
    let private = at("/ip4/192.168.1.7/tcp/4001");
    assert!(!reach.works(&private, How::Tested(PeerId::random())) && !reach.is_reachable());
    assert!(reach.due(now, FIRST).is_empty());
    assert!(reach.due(now + LONGEST_PAUSE, FIRST).is_empty());
}

#[test]
fn two_relays_are_asked_when_no_way_in_has_been_found_for_a_while() {
    let (mut reach, peers, now) = offered(3);
    assert!(reach.due(now, FIRST).is_empty());
    assert!(reach.due(now + PATIENCE / 2, FIRST).is_empty());
    assert_eq!(asked(reach.due(now + PATIENCE, FIRST)), peers[..2]);
    assert!(reach.due(now + PATIENCE, FIRST).is_empty(), "each once");
}

#[test]
fn a_failed_test_shortens_the_wait_and_one_of_a_private_address_says_nothing() {
    let (mut reach, _, now) = offered(1);
    reach.due(now, FIRST);
    assert!(!reach.test_failed(&at("/ip4/192.168.1.7/tcp/4001"), PeerId::random()));
    assert!(reach.due(now + PATIENCE_PRIVATE, FIRST).is_empty());
    assert!(reach.test_failed(&ours(), PeerId::random()));
    assert!(!reach.test_failed(&ours(), PeerId::random()), "news once");
    assert_eq!(reach.due(now + PATIENCE_PRIVATE, FIRST).len(), 1);
}

#[test]
fn who_is_reachable_asks_no_relay_and_gives_back_what_it_has_while_that_is_safe() {
    let (mut reach, peers, now) = offered(1);
    reach.due(now, FIRST);
    let now = now + PATIENCE;
    assert_eq!(asked(reach.due(now, FIRST)), peers);
    assert!(reach.works(&ours(), How::Upnp));
    assert!(!reach.works(&ours(), How::Used), "news once");
    assert!(reach.due(now, FIRST).is_empty(), "it has not answered yet");
    assert!(reach.reserved(peers[0], (None, None), now));
    assert!(reach.due(now + 2 * SAFE_TO_RELEASE, FIRST).is_empty(), "a renewal may be under way");
    assert!(!reach.reserved(peers[0], (None, None), now + 2 * SAFE_TO_RELEASE), "a renewal");
    let now = now + 2 * SAFE_TO_RELEASE;
    assert_eq!(reach.due(now, FIRST), [Step::Release(peers[0])]);
    assert!(reach.due(now, FIRST).is_empty(), "once");
    assert!(!reach.lost(&peers[0], now, NEVER_MIND), "it was given back");
    assert!(reach.relays().is_empty());
}

#[test]
fn a_relay_that_refuses_is_asked_again_after_growing_pauses_and_another_takes_its_place() {
    let (mut reach, peers, now) = offered(3);
    reach.due(now, FIRST);
    let mut now = now + PATIENCE;
    assert_eq!(asked(reach.due(now, FIRST)), peers[..2]);
    assert!(!reach.lost(&peers[0], now, NEVER_MIND), "it was not held");
    assert_eq!(asked(reach.due(now, FIRST)), peers[2..]);
    // Now only the one that refused is left, and then it refuses again and again.
    let mut pauses = Vec::new();
    reach.lost(&peers[2], now, NEVER_MIND);
    reach.withdrawn(&peers[2]);
    for _ in 0..9 {
        let began = now;
        while asked(reach.due(now, FIRST)).is_empty() {
            now += Duration::from_secs(1);
        }
        pauses.push((now - began).as_secs());
        reach.lost(&peers[0], now, NEVER_MIND);
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
}

#[test]
fn a_relay_that_was_held_and_is_lost_is_news() {
    let (mut reach, peers, now) = offered(1);
    reach.due(now, FIRST);
    let now = now + PATIENCE;
    reach.due(now, FIRST);
    assert!(reach.reserved(peers[0], (None, Some(7)), now));
    assert_eq!(reach.relays()[0].limit.1, Some(7));
    assert!(reach.lost(&peers[0], now, NEVER_MIND));
    assert!(!reach.lost(&peers[0], now, NEVER_MIND), "once");
    assert!(!reach.reserved(PeerId::random(), (None, None), now), "nobody asked this one");
}

#[test]
fn chance_chooses_among_relays_that_are_as_good() {
    let (mut reach, peers, now) = offered(4);
    reach.due(now, FIRST);
    assert_eq!(asked(reach.due(now + PATIENCE, 0.999)), [peers[3], peers[2]]);
}

#[test]
fn one_who_comes_in_proves_this_machines_own_address_but_only_two_prove_another() {
    let mut reach = Reach::new(false);
    let remote = at("/ip4/203.0.113.5/tcp/50000");
    let neighbour = at("/ip4/192.168.1.9/tcp/50000");
    let private = at("/ip4/192.168.1.7/tcp/4001");
    let nobody = |_: &Multiaddr| false;
    assert_eq!(reach.came_in(&neighbour, &ours(), &ours(), nobody), None, "a neighbour proves nothing");
    // The socket itself says so.
    assert_eq!(reach.came_in(&remote, &ours(), &private, nobody), Some((ours(), How::Used)));
    assert_eq!(reach.came_in(&remote, &ours(), &private, nobody), None, "news once");
    // QUIC's socket does not, but the address is in the list.
    let quic = at("/ip4/198.51.100.9/udp/4001/quic-v1");
    let any = at("/ip4/0.0.0.0/udp/4001/quic-v1");
    assert_eq!(reach.came_in(&remote, &any, &quic, |own| *own == quic), Some((quic, How::Used)));
    // Forwarded by a router.
    let outside = at("/ip4/198.51.100.10/tcp/4001");
    assert_eq!(reach.came_in(&remote, &private, &outside, nobody), None);
    assert_eq!(reach.came_in(&remote, &private, &outside, nobody), None, "the same one again");
    let second = at("/ip4/203.0.113.6/tcp/50000");
    let proven = reach.came_in(&second, &private, &outside, nobody);
    assert_eq!(proven, Some((outside, How::Witnessed)));
    assert!(reach.is_reachable());
}

#[test]
fn what_several_see_tells_what_the_router_does() {
    let mut reach = Reach::new(false);
    let tcp = |port| at(&format!("/ip4/198.51.100.10/tcp/{port}"));
    let mut see = |address: Multiaddr, own| {
        reach.seen(PeerId::random(), &address, own);
        reach.nat()
    };
    assert_eq!(see(at("/ip4/192.168.1.7/tcp/4001"), true), Nat::Unknown, "a neighbour on the local network");
    assert_eq!(see(tcp(4001), false), Nat::Unknown);
    assert_eq!(see(at("/ip4/198.51.100.10/udp/7/quic-v1"), false), Nat::Unknown, "another protocol");
    assert_eq!(see(tcp(4001), false), Nat::SamePort);
    assert_eq!(see(tcp(4002), false), Nat::NewPorts);
    assert_eq!(see(tcp(4001), true), Nat::None);
    for port in 1..1000 {
        see(tcp(port), false);
    }
    assert_eq!(reach.seen.len(), OBSERVERS);
    assert_eq!(reach.seen_as().len(), reach.seen.len() - 2, "each once");
}

#[test]
fn claims_of_addresses_are_bounded() {
    let mut reach = Reach::new(false);
    let private = at("/ip4/192.168.1.7/tcp/4001");
    for port in 1..1000 {
        let claimed = at(&format!("/ip4/198.51.100.10/tcp/{port}"));
        reach.came_in(&at("/ip4/203.0.113.5/tcp/1"), &private, &claimed, |_| false);
        reach.works(&at(&format!("/ip4/198.51.100.11/tcp/{port}")), How::Upnp);
    }
    assert!(reach.witnesses.len() <= WITNESSED && reach.known.len() <= KNOWN);
}

#[test]
fn reachable_over_ipv6_alone_still_keeps_a_relay_for_those_without() {
    let (mut reach, peers, now) = offered(1);
    reach.works(&at("/ip6/2001:db8::1/tcp/4001"), How::Tested(PeerId::random()));
    assert!(reach.is_reachable());
    reach.due(now, FIRST);
    assert_eq!(asked(reach.due(now + PATIENCE, FIRST)), peers);
    // But not if it has no IPv4 itself.
    let mut reach = Reach::new(false);
    reach.works(&at("/ip6/2001:db8::1/tcp/4001"), How::Tested(PeerId::random()));
    reach.offered(peers[0], at("/ip4/198.51.100.1/tcp/1"));
    reach.due(now, FIRST);
    assert!(reach.due(now + PATIENCE, FIRST).is_empty());
}

#[test]
fn another_network_means_starting_over() {
    let (mut reach, peers, now) = offered(1);
    reach.works(&ours(), How::Upnp);
    assert!(reach.due(now + PATIENCE, FIRST).is_empty());
    assert_eq!(reach.moved(), [ours()]);
    assert!(!reach.is_reachable());
    reach.due(now, FIRST);
    assert_eq!(asked(reach.due(now + PATIENCE, FIRST)), peers);
    reach.works(&ours(), How::Upnp);
    reach.works_no_more(&ours());
    assert!(!reach.is_reachable());
}
