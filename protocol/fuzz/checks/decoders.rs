//! Files and parts of checkpoints as an enemy makes them: what is read is what would have been written, and nothing is
//! allocated by what they claim.
//!
//! The first byte chooses the format.

use swarm_protocol::checkpoint::{Assembly, Manifest, Name};
use swarm_protocol::codec;
use swarm_protocol::delta::{Header, SignedHeader};
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::peer::snapshot::Position;

/// Coefficients of a model whose checkpoint has three chunks.
const COEFFICIENTS: usize = 600_000;
const WINDOW: u64 = 4;

/// Tries `data`.
pub fn run(data: &[u8]) {
    let [choice, rest @ ..] = data else { return };
    match choice % 4 {
        0 => genesis(rest),
        1 => manifest(rest),
        2 => headers(rest),
        _ => {
            // From a node's own folder: read, or not.
            let _: Option<Position> = codec::decode(rest);
        }
    }
}

/// A genesis that is taken has one name, however it is written.
fn genesis(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(genesis) = Genesis::parse(text) else { return };
    let again = Genesis::parse(&genesis.to_toml()).expect("what was taken can be written");
    assert_eq!(again.swarm_id(), genesis.swarm_id());
}

/// A manifest whose hash is right may still be anybody's.
fn manifest(bytes: &[u8]) {
    let [settled, bytes @ ..] = bytes else { return };
    let name = Name { settled: u64::from(*settled), manifest: Digest::of_bytes(bytes) };
    let Some(manifest) = Manifest::decode(bytes, &name, COEFFICIENTS, WINDOW) else { return };
    assert_eq!(manifest.encode(), bytes);
    assert_eq!(manifest.checkpoint().manifest, name.manifest);
    let mut assembly = Assembly::new(manifest, COEFFICIENTS);
    for (hash, length) in assembly.missing() {
        assert!(length <= 1 << 20);
        // Not the bytes with this hash, nor of this length.
        assembly.insert(&hash, &bytes[..bytes.len().min(64)]);
    }
    let _ = assembly.is_complete().then(|| assembly.finish());
}

fn headers(bytes: &[u8]) {
    if let Some(header) = codec::decode::<Header>(bytes) {
        assert_eq!(codec::encode(&header), bytes);
    }
    if let Some(signed) = codec::decode::<SignedHeader>(bytes) {
        assert_eq!(codec::encode(&signed), bytes);
        let _ = signed.verify();
    }
}
