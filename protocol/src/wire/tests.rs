//! Golden bytes, round trips, and everything that is no message.

use super::*;
use crate::access::{Certificate, MAX_CERTIFICATES, MAX_REVOCATIONS, MAX_TOLD, Revocation, Signed};
use crate::delta::Header;
use crate::identity::{Identity, PeerKey};
use proptest::prelude::*;

fn digest(n: u8) -> Digest {
    Digest([n; 32])
}

fn signed(round: u64) -> SignedHeader {
    let identity = Identity::from_secret(&[3; 32]);
    let header = Header {
        version: 1,
        swarm: digest(1),
        round,
        author: identity.public(),
        base: digest(2),
        checkpoint_round: 4,
        checkpoint_digest: digest(5),
        body_hash: digest(6),
        body_length: 7,
        tokens: 8,
        loss_before: 9,
        loss_after: 10,
    };
    header.sign(&identity)
}

fn status() -> Status {
    Status {
        round: 20,
        your_next_round: 3,
        settled: 5,
        log_digest: digest(7),
        open: vec![(6, digest(8)), (7, digest(9))],
        checkpoint: Some(Checkpoint { settled: 4, manifest: digest(10), log_digest: digest(11) }),
        role: Role::Author,
        access: None,
    }
}

fn statements() -> Statements {
    let identity = Identity::from_secret(&[3; 32]);
    let (swarm, subject, issuer) = (digest(1), PeerKey([4; 32]), identity.public());
    let certificate = Certificate { swarm, subject, issuer, may_admit: true, last_round: 9 };
    let revocation = Revocation { swarm, subject, issuer, from_round: 7 };
    Statements {
        certificates: vec![Signed::new(certificate, &identity)],
        revocations: vec![Signed::new(revocation, &identity)],
    }
}

fn gossips() -> Vec<Gossip> {
    vec![
        Gossip::Delta(Box::new(signed(1)), None),
        Gossip::Delta(Box::new(signed(1)), Some(vec![1, 2, 3])),
        Gossip::Equivocation(Box::new((signed(1), signed(2)))),
        Gossip::Access(statements()),
    ]
}

fn requests() -> Vec<Request> {
    vec![
        Request::Status(status()),
        Request::Round(12),
        Request::Blob { hash: digest(1), offset: 1 << 40, length: MAX_CHUNK },
        Request::History,
        Request::Bodies(vec![digest(1), digest(2)]),
        Request::Access(statements()),
    ]
}

fn responses() -> Vec<Response> {
    vec![
        Response::Status(Status { checkpoint: None, open: Vec::new(), ..status() }),
        Response::Round(vec![signed(1)], vec![(signed(1), signed(2))]),
        Response::Blob { total: 9, bytes: vec![4, 5] },
        Response::Refused(Refusal::NotHeld),
        Response::History { first: 3, held_from: 3, digests: vec![digest(1), digest(2)] },
        Response::Bodies(vec![vec![1, 2, 3], Vec::new(), vec![4]]),
        Response::Status(Status { access: Some(digest(12)), ..status() }),
        Response::Refused(Refusal::NotAdmitted),
        Response::Access { admitted: true, statements: statements() },
    ]
}

fn all_bytes() -> Vec<Vec<u8>> {
    let gossips = gossips().iter().map(Gossip::encode).collect::<Vec<_>>();
    let requests = requests().iter().map(Request::encode).collect::<Vec<_>>();
    let responses = responses().iter().map(Response::encode).collect::<Vec<_>>();
    [gossips, requests, responses].concat()
}

#[test]
fn round_trips() {
    for message in gossips() {
        assert_eq!(Gossip::decode(&message.encode()), Ok(message));
    }
    for message in requests() {
        assert_eq!(Request::decode(&message.encode()), Ok(message));
    }
    for message in responses() {
        assert_eq!(Response::decode(&message.encode()), Ok(message));
    }
}

#[test]
fn golden_bytes() {
    // One line a message, in the order above: length and hash. A change here is a new VERSION.
    let lines: Vec<String> =
        all_bytes().iter().map(|b| format!("{} {:.16}", b.len(), Digest::of_bytes(b))).collect();
    assert_eq!(lines.join("\n"), include_str!("../../golden/wire.digests").trim());
    // And two spelled out: version, kind, then the fields, little-endian.
    assert_eq!(Request::Round(12).encode(), [1, 17, 12, 0, 0, 0, 0, 0, 0, 0]);
    let blob = Response::Blob { total: 9, bytes: vec![4, 5] };
    assert_eq!(blob.encode(), [1, 34, 9, 0, 0, 0, 0, 0, 0, 0, 4, 5]);
    assert_eq!(encode(&signed(1)).len(), SIGNED_HEADER_LEN);
}

#[test]
fn other_versions_and_kinds_are_refused_with_a_reason() {
    assert_eq!(Gossip::decode(&[2, 1]), Err(WireError::Version(2)));
    assert_eq!(Gossip::decode(&[1, 16, 0]), Err(WireError::Kind(16)));
    assert_eq!(Request::decode(&[1]), Err(WireError::Short(1)));
    assert_eq!(Response::decode(&[1, 33, 1]), Err(WireError::Malformed(33)));
}

#[test]
fn truncated_messages_are_refused() {
    for bytes in all_bytes() {
        // A delta without its body, a blob with fewer bytes, are messages; what is inside the fixed
        // part is not.
        let fixed = match bytes[1] {
            1 => 2 + SIGNED_HEADER_LEN,
            34 => 10,
            _ => bytes.len(),
        };
        for cut in 0..fixed {
            let short = &bytes[..cut];
            assert!(Gossip::decode(short).is_err() && Request::decode(short).is_err());
            assert!(Response::decode(short).is_err(), "{} cut to {cut}", bytes[1]);
        }
    }
}

#[test]
fn claimed_lengths_are_not_allocated() {
    // A round response that claims 2^60 headers.
    let mut bytes = vec![VERSION, 33];
    bytes.extend((1u64 << 60).to_le_bytes());
    assert_eq!(Response::decode(&bytes), Err(WireError::Malformed(33)));
}

#[test]
fn the_largest_messages_fit_their_frames() {
    let headers = vec![signed(1); 512];
    assert!(Response::Round(headers, Vec::new()).encode().len() < MAX_RESPONSE);
    let whole = Response::Blob { total: 1 << 30, bytes: vec![0; MAX_CHUNK as usize] };
    assert!(whole.encode().len() <= MAX_RESPONSE);
    let open = (0..3 * 256).map(|round| (round, digest(1))).collect();
    assert!(Request::Status(Status { open, ..status() }).encode().len() <= MAX_REQUEST);
    let inline = Gossip::Delta(Box::new(signed(1)), Some(vec![0; MAX_INLINE]));
    assert!(inline.encode().len() <= MAX_GOSSIP);
    let one = statements();
    let told = Gossip::Access(vec![one.certificates[0]; MAX_TOLD].into());
    assert!(told.encode().len() <= MAX_INLINE);
    let statements = Statements {
        certificates: vec![one.certificates[0]; MAX_CERTIFICATES],
        revocations: vec![one.revocations[0]; MAX_REVOCATIONS],
    };
    assert!(Response::Access { admitted: true, statements }.encode().len() < MAX_RESPONSE);
}

proptest! {
    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in any::<u8>()) {
        let framed = [&[VERSION, kind][..], &bytes].concat();
        for bytes in [&bytes[..], &framed] {
            let _ = (Gossip::decode(bytes), Request::decode(bytes), Response::decode(bytes));
        }
    }

    #[test]
    fn a_flipped_bit_breaks_a_signature(bit in 0usize..8 * 198) {
        let mut bytes = encode(&signed(77));
        bytes[bit / 8] ^= 1 << (bit % 8);
        let flipped: Option<SignedHeader> = decode(&bytes);
        prop_assert!(flipped.is_none_or(|signed| !signed.verify()));
    }
}

#[test]
fn keys_are_what_signs() {
    let mut other = signed(1);
    other.header.author = PeerKey([1; 32]);
    assert!(signed(1).verify() && !other.verify());
}
