//! A network with a key: those who have it talk, nobody else gets an answer.

use super::*;
use crate::net::NetworkKey;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_has_the_key_connects() {
    let dir = tempfile::tempdir().unwrap();
    let key = |name: &str| Some(NetworkKey::create(&dir.path().join(name)).unwrap());
    let (ours, theirs) = (key("ours"), key("theirs"));
    let with = |key, config| Config { key, ..config };
    let mut a = Node::start(with(ours, config(1, LOOPBACK, &[]))).await;
    for (seed, key) in [(2, None), (3, theirs)] {
        let mut stranger = Node::start(with(key, config(seed, LOOPBACK, &[&a.address]))).await;
        stranger
            .until(|event| match event {
                Event::Connected { .. } => panic!("a stranger with key {key:?} is in"),
                Event::BootstrapFailed { .. } => Some(()),
                _ => None,
            })
            .await;
        stranger.stop().await;
    }
    let mut b = Node::start(with(ours, config(4, LOOPBACK, &[&a.address]))).await;
    b.until_connected(a.key).await;
    // Nobody was let in before.
    let first = a.until(|event| if let Event::Connected { peer } = event { Some(*peer) } else { None }).await;
    assert_eq!(first, b.key);
    a.gossip_to(&mut b, b"among ourselves").await;
    a.stop().await;
    b.stop().await;
}
