//! Chains: what holds, what does not, and that the order in which statements come does not matter.

use proptest::prelude::*;

use super::*;
use crate::architecture::Sizes;
use crate::genesis::Access;
use crate::identity::Identity;

fn identity(n: u8) -> Identity {
    Identity::from_secret(&[n + 1; 32])
}

fn key(n: u8) -> PeerKey {
    identity(n).public()
}

/// 0 and 1 hold the keys.
fn genesis() -> Genesis {
    let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
    Genesis { access: Access::invite([key(0), key(1)]), ..Genesis::new("closed", model, 1) }
}

fn certificate(issuer: u8, subject: u8, may_admit: bool, last_round: u64) -> Signed<Certificate> {
    let (swarm, subject) = (genesis().swarm_id(), key(subject));
    Signed::new(Certificate { swarm, subject, issuer: key(issuer), may_admit, last_round }, &identity(issuer))
}

fn revocation(issuer: u8, subject: u8, from_round: u64) -> Signed<Revocation> {
    let (swarm, subject) = (genesis().swarm_id(), key(subject));
    Signed::new(Revocation { swarm, subject, issuer: key(issuer), from_round }, &identity(issuer))
}

fn register(certificates: &[Signed<Certificate>], revocations: &[Signed<Revocation>]) -> Register {
    let mut register = Register::new(&genesis());
    let added =
        register.add(&Statements { certificates: certificates.to_vec(), revocations: revocations.to_vec() });
    assert_eq!(added.refused, None);
    register
}

fn refused(register: &mut Register, statements: impl Into<Statements>) -> AccessError {
    let before = (register.digest(), register.changes());
    let added = register.add(&statements.into());
    assert!(added.news.is_empty());
    assert_eq!((register.digest(), register.changes()), before, "nothing of it was kept");
    added.refused.unwrap()
}

#[test]
fn in_an_open_swarm_everybody_is_admitted_and_nobody_has_to_be() {
    let open = Genesis { access: Access::default(), ..genesis() };
    let mut register = Register::new(&open);
    assert!(register.is_open() && register.admits(&key(7), NEVER - 1) && register.trusts(&key(7), 9));
    assert_eq!(refused(&mut register, vec![certificate(0, 2, false, 9)]), AccessError::Open);
}

#[test]
fn a_chain_ends_with_the_first_of_its_certificates() {
    let chain = [certificate(0, 2, true, 900), certificate(2, 3, true, NEVER), certificate(3, 4, false, 500)];
    let register = register(&chain, &[]);
    for (who, until) in [(0, NEVER), (1, NEVER), (2, 901), (3, 901), (4, 501), (5, 0)] {
        assert_eq!(register.admitted_until(&key(who)), until, "{who}");
    }
    assert!(register.admits(&key(4), 500) && !register.admits(&key(4), 501));
    assert_eq!(register.chain(&key(4)), chain);
    assert!(register.chain(&key(0)).is_empty() && register.chain(&key(5)).is_empty());
    assert!(register.may_admit(&key(3)) && !register.may_admit(&key(4)) && register.may_admit(&key(1)));
}

#[test]
fn the_widest_chain_counts_and_the_shortest_of_equals() {
    let long = [certificate(0, 2, true, 900), certificate(2, 3, false, 800)];
    let short = certificate(1, 3, false, 700);
    let mut register = register(&[long[0], long[1], short], &[]);
    assert_eq!(register.admitted_until(&key(3)), 801);
    assert_eq!(register.chain(&key(3)), long);
    register.add(&vec![certificate(1, 3, false, 800)].into());
    assert_eq!(register.chain(&key(3)), [certificate(1, 3, false, 800)]);
    // An extension replaces, a shorter one changes nothing.
    let count = register.statements().len();
    assert!(register.add(&vec![certificate(1, 3, false, 750)].into()).news.is_empty());
    assert_eq!(register.statements().len(), count);
}

#[test]
fn certificates_come_in_any_order_and_once() {
    let backwards = [certificate(4, 5, false, 9), certificate(3, 4, true, 9), certificate(2, 3, true, 9)];
    let mut register = Register::new(&genesis());
    let unfounded = refused(&mut register, backwards.to_vec());
    assert_eq!(unfounded, AccessError::Unfounded(key(4)));
    let all = [&backwards[..], &[certificate(0, 2, true, 9)]].concat();
    assert_eq!(register.add(&all.clone().into()).news.certificates.len(), 4);
    assert!(register.admits(&key(5), 9));
    assert_eq!(register.add(&all.into()), Added::default());
}

#[test]
fn what_does_not_hold_is_refused_and_nothing_of_it_kept() {
    let mut register = register(&[certificate(0, 2, true, 100), certificate(0, 3, false, 100)], &[]);
    // Somebody who may not admit others, and somebody nobody knows.
    for issuer in [3, 9] {
        let error = refused(&mut register, vec![certificate(issuer, 5, false, 50)]);
        assert_eq!(error, AccessError::Unfounded(key(issuer)));
    }
    let good = certificate(0, 5, false, 50);
    // Forged: another signer, another field, another statement's signature.
    let mut forged = [good; 4];
    forged[0] = Signed::new(good.said, &identity(2));
    forged[1].said.last_round = 51;
    forged[2].said.subject = key(6);
    forged[3].signature = revocation(0, 5, 50).signature;
    for forged in forged {
        assert_eq!(refused(&mut register, vec![forged]), AccessError::Signature);
    }
    let swarm = Digest::of_bytes(b"another");
    let other = Signed::new(Certificate { swarm, ..good.said }, &identity(0));
    assert_eq!(refused(&mut register, vec![other]), AccessError::OtherSwarm(swarm));
    assert_eq!(refused(&mut register, vec![certificate(2, 1, false, 9)]), AccessError::Founder);
    assert_eq!(refused(&mut register, vec![revocation(0, 1, 9)]), AccessError::Founder);
    let mut unsigned = revocation(0, 3, 9);
    unsigned.said.from_round = 8;
    assert_eq!(refused(&mut register, vec![unsigned]), AccessError::Signature);
}

#[test]
fn a_chain_has_four_certificates_at_most() {
    let mut chain: Vec<_> =
        (0..4).map(|n| certificate(if n == 0 { 0 } else { n + 1 }, n + 2, true, 9)).collect();
    let mut register = register(&chain, &[]);
    assert!(register.admits(&key(5), 9) && !register.may_admit(&key(5)));
    chain.push(certificate(5, 6, false, 9));
    assert_eq!(refused(&mut register, chain), AccessError::Unfounded(key(5)));
    // A shorter way to the last of them founds what was too far before.
    register.add(&vec![certificate(1, 5, true, 9)].into());
    register.add(&vec![certificate(5, 6, false, 9)].into());
    assert!(register.admits(&key(6), 9));
    assert_eq!(register.chain(&key(6)).len(), 2);
}

#[test]
fn a_revocation_counts_from_its_round_and_is_no_longer_trusted_at_once() {
    let chain = [certificate(0, 2, true, 900), certificate(2, 3, false, 900)];
    // The other key of the genesis revokes as well as the one that admitted.
    let register = register(&chain, &[revocation(1, 2, 40)]);
    for who in [2, 3] {
        assert!(register.admits(&key(who), 39) && !register.admits(&key(who), 40), "{who}");
        assert!(!register.trusts(&key(who), 0));
        assert!(register.has_admitted(&key(who), 900) && !register.has_admitted(&key(who), 901));
    }
    assert_eq!(register.revocations_of(&key(2)), [revocation(1, 2, 40)]);
}

#[test]
fn whom_somebody_else_admitted_only_the_genesis_revokes() {
    let chain = [certificate(0, 2, true, 900), certificate(2, 3, false, 900), certificate(1, 4, false, 900)];
    let mut register = register(&chain, &[]);
    assert_eq!(refused(&mut register, vec![revocation(2, 4, 40)]), AccessError::NotTheirs(key(2)));
    assert_eq!(refused(&mut register, vec![revocation(3, 2, 40)]), AccessError::NotTheirs(key(3)));
    assert_eq!(register.add(&vec![revocation(2, 3, 40)].into()).news.len(), 1);
    assert!(!register.admits(&key(3), 40) && register.admits(&key(2), 40));
    // What one took back, another's certificate gives again.
    register.add(&vec![certificate(1, 3, false, 60)].into());
    assert!(register.admits(&key(3), 60) && register.trusts(&key(3), 60));
    // But not what a key of the genesis took back.
    register.add(&vec![revocation(0, 3, 50)].into());
    assert!(register.admits(&key(3), 49) && !register.admits(&key(3), 50) && !register.trusts(&key(3), 0));
    // The earliest counts; a later one is no news.
    assert!(register.add(&vec![revocation(0, 3, 51)].into()).news.is_empty());
    assert_eq!(register.add(&vec![revocation(0, 3, 45)].into()).news.len(), 1);
    assert!(!register.admits(&key(3), 45));
}

#[test]
fn what_the_genesis_signed_is_not_crowded_out() {
    let mut register = register(&[certificate(0, 2, true, 100), certificate(0, 3, false, 9)], &[]);
    let many = |count: usize| -> Vec<Signed<Certificate>> {
        let swarm = genesis().swarm_id();
        let of = |n: usize| {
            let mut subject = [9; 32];
            subject[..8].copy_from_slice(&n.to_le_bytes());
            let (subject, issuer) = (PeerKey(subject), key(2));
            Signed::new(
                Certificate { swarm, subject, issuer, may_admit: false, last_round: NEVER },
                &identity(2),
            )
        };
        (0..count).map(of).collect()
    };
    register.add(&many(MAX_CERTIFICATES + 10).into());
    assert_eq!(register.statements().certificates.len(), MAX_CERTIFICATES);
    assert!(register.admits(&key(3), 9) && register.may_admit(&key(2)));
    // The genesis has room all the same.
    register.add(&vec![certificate(1, 4, false, 9)].into());
    assert!(register.admits(&key(4), 9));
    assert_eq!(register.statements().certificates.len(), MAX_CERTIFICATES);
}

/// Issuer, subject, whether it may admit others, last round.
type Admits = (u8, u8, bool, u64);
/// Issuer, subject, first round.
type Revokes = (u8, u8, u64);

/// Any statements among eight people, of whom the first two hold the keys; most of them hold.
fn statements() -> impl Strategy<Value = (Vec<Admits>, Vec<Revokes>)> {
    let certificates = proptest::collection::vec((0u8..8, 2u8..8, any::<bool>(), 0u64..50), 1..16);
    let revocations = proptest::collection::vec((0u8..8, 2u8..8, 0u64..50), 0..6);
    (certificates, revocations)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn two_who_tell_each_other_what_they_kept_judge_alike(
        (certificates, revocations) in statements(), order in any::<u64>(), split in 0usize..16,
    ) {
        let certificates: Vec<_> = certificates.iter().map(|c| certificate(c.0, c.1, c.2, c.3)).collect();
        let revocations: Vec<_> = revocations.iter().map(|r| revocation(r.0, r.1, r.2)).collect();
        let mut one = Register::new(&genesis());
        one.add(&Statements { certificates: certificates.clone(), revocations: revocations.clone() });
        // The other hears them one by one, in another order, and some of them only from the first.
        let mut other = Register::new(&genesis());
        let mut shuffled = certificates;
        let length = shuffled.len();
        shuffled.rotate_left(order as usize % length);
        if order & 1 == 1 {
            shuffled.reverse();
        }
        for signed in shuffled.into_iter().skip(split) {
            other.add(&vec![signed].into());
        }
        for signed in revocations.iter().rev() {
            other.add(&vec![*signed].into());
        }
        for _ in 0..2 {
            other.add(&one.statements());
            one.add(&other.statements());
        }
        prop_assert_eq!(one.digest(), other.digest());
        for who in 0..8 {
            prop_assert_eq!(one.reach(&key(who)), other.reach(&key(who)));
            prop_assert_eq!(one.chain(&key(who)), other.chain(&key(who)));
        }
    }
}
