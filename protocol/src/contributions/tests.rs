//! A made-up history of a few authors, told in every order, with parts left out, and spoiled.

use proptest::prelude::*;
use swarm_optimizer::sparse::{self, SparseDelta, Step};

use super::*;
use crate::architecture::Sizes;
use crate::delta::Header;
use crate::identity::Identity;

const WINDOW: u32 = 2;

fn genesis() -> Arc<Genesis> {
    let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
    let mut genesis = Genesis::new("contributions", model, 1);
    genesis.rule.tile = 8;
    genesis.rule.k = 64;
    genesis.rule.publishers = 6;
    genesis.rounds.window = WINDOW;
    genesis.rounds.retention = 8;
    genesis.rounds.checkpoint_every = 1;
    genesis.validate().unwrap();
    Arc::new(genesis)
}

fn author(n: u8) -> Identity {
    Identity::from_secret(&[n; 32])
}

fn draw(seed: u64, index: u64) -> u64 {
    let mut state = (seed << 32 | index).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    state ^= state >> 29;
    state = state.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state ^ (state >> 32)
}

/// A body that mostly has the signs that all find in this round; `turned`: the opposite ones.
fn body(genesis: &Genesis, round: u64, n: u8, turned: bool) -> Vec<u8> {
    let layout = genesis.layout().unwrap();
    let mut delta = SparseDelta::default();
    for (index, tile) in layout.tiles().iter().enumerate() {
        let entries = (0..tile.area()).map(|position| {
            let at = (tile.offset + position) as u64;
            let own = draw(u64::from(n) + 1000 * (round + 1), at);
            let sign = if own % 10 < 7 { draw(round, at) } else { own >> 20 };
            sparse::Entry { position: position as u16, level: if (sign & 1 == 0) != turned { 1 } else { -1 } }
        });
        delta.push(index as u32, Step::from_code(60).unwrap(), entries);
    }
    packing::encode(&layout, &genesis.rule, genesis.rule.k, &delta).unwrap()
}

fn header(genesis: &Genesis, round: u64, n: u8, base: Digest, body: &[u8]) -> Header {
    Header {
        base,
        tokens: 100 * u64::from(n),
        loss_before: 200_000 - 1000 * round as u32,
        loss_after: 199_000 - 1000 * round as u32,
        ..Header::new(genesis.swarm_id(), round, author(n).public(), body)
    }
}

fn entry(header: Header, n: u8, body: &[u8]) -> Entry {
    Entry::Delta(Arc::new(Delta { signed: header.sign(&author(n)), id: header.id(), body: body.into() }))
}

/// Authors 1 to 4 are honest, 5 does the opposite; 4 sends what 3 has sent; 2 signs twice in round 3.
fn history(genesis: &Arc<Genesis>, rounds: u64) -> Vec<Vec<Entry>> {
    let mut log = RoundLog::new(genesis);
    let mut all = Vec::new();
    let mut digests = vec![log.log_digest()];
    for round in 0..rounds {
        let base = digests[log.settled_at(round) as usize];
        let mut entries = Vec::new();
        for n in 1..=5 {
            let body = body(genesis, round, if n == 4 { 3 } else { n }, n == 5);
            let header = header(genesis, round, n, base, &body);
            if (n, round) == (2, 3) {
                let other = Header { tokens: 7, ..header };
                entries.push(Entry::Void(Box::new((header.sign(&author(2)), other.sign(&author(2))))));
            } else {
                entries.push(entry(header, n, &body));
            }
        }
        for entry in &entries {
            match entry {
                Entry::Delta(delta) => assert_eq!(log.insert(Delta::clone(delta), round), Insert::Added),
                Entry::Void(proof) => assert!(log.insert_proof(proof, round)),
            }
        }
        log.settle_next();
        digests.push(log.log_digest());
        all.push(entries);
    }
    all
}

fn ledger(genesis: &Arc<Genesis>, history: &[Vec<Entry>]) -> Result<Ledger, NotOfTheLog> {
    let mut auditor = Auditor::new(genesis.clone(), 0, RoundLog::new(genesis).log_digest())?;
    for entries in history {
        auditor.round(entries)?;
    }
    Ok(auditor.finish())
}

fn total(ledger: &Ledger, n: u8) -> &Total {
    ledger.totals.iter().find(|total| total.author == author(n).public()).unwrap()
}

#[test]
fn everybody_gets_what_is_theirs() {
    let genesis = genesis();
    let ledger = ledger(&genesis, &history(&genesis, 6)).unwrap();
    assert_eq!((ledger.from, ledger.to, ledger.rows.len()), (0, 6, 30));
    let honest = total(&ledger, 1);
    assert_eq!((honest.rounds, honest.counted, honest.left_out, honest.shared), (6, 6, 0, 0));
    assert!(honest.agreement.unwrap() > 300, "{honest:?}");
    // What it says of itself is added up, and named a claim.
    assert_eq!(honest.claimed_tokens, 600);
    assert_eq!((honest.claimed_loss_first, honest.claimed_loss_last), (Some(200_000), Some(194_000)));
    assert_eq!(honest.claimed_loss_mean, Some(196_500));

    let hostile = total(&ledger, 5);
    assert_eq!((hostile.counted, hostile.left_out, hostile.share), (0, 6, 0));
    assert!(hostile.agreement.unwrap() < -300, "{hostile:?}");

    let twice = total(&ledger, 2);
    assert_eq!((twice.rounds, twice.counted, twice.void, twice.claimed_tokens), (6, 5, 1, 1000));
    let row = ledger.rows.iter().find(|row| row.standing == Standing::Void).unwrap();
    assert_eq!((row.round, row.author, row.agreement, row.claims), (3, author(2).public(), None, None));

    // 17 bodies are folded: six of the first, five of the second, and six that two have sent.
    for n in [3, 4] {
        let shared = total(&ledger, n);
        assert_eq!((shared.counted, shared.shared), (6, 6));
        assert_eq!(shared.share, 3_000_000 / 17);
    }
    assert_eq!((honest.share, twice.share), (6_000_000 / 17, 5_000_000 / 17));
    let order: Vec<PeerKey> = ledger.totals.iter().map(|total| total.author).collect();
    let mut copies = [author(3).public(), author(4).public()];
    copies.sort();
    assert_eq!(order, [author(1).public(), author(2).public(), copies[0], copies[1], author(5).public()]);
}

#[test]
fn nobody_agrees_with_itself_nor_with_its_copy() {
    let genesis = genesis();
    let base = RoundLog::new(&genesis).log_digest();
    let sent = |n, of| {
        let body = body(&genesis, 0, of, false);
        entry(header(&genesis, 0, n, base, &body), n, &body)
    };
    let agreement = |entries: &[Entry], n| {
        let ledger = ledger(&genesis, &[entries.to_vec()]).unwrap();
        total(&ledger, n).agreement
    };
    assert_eq!(agreement(&[sent(1, 1)], 1), None);
    assert_eq!(agreement(&[sent(1, 1), sent(2, 1)], 1), None);
    let two = agreement(&[sent(1, 1), sent(3, 3)], 1);
    assert!(two.is_some());
    let copied = [sent(1, 1), sent(2, 1), sent(3, 3)];
    assert_eq!((agreement(&copied, 1), agreement(&copied, 2)), (two, two));
}

#[test]
fn what_is_left_out_is_missed_by_those_who_come_later() {
    let genesis = genesis();
    let whole = history(&genesis, 8);
    let ledger_of = |history: &[Vec<Entry>]| ledger(&genesis, history).unwrap();
    let all = ledger_of(&whole);
    // The deltas of the last round are based on what had settled two rounds before its end.
    assert_eq!(all.confirmed_to, 8 - u64::from(WINDOW));
    assert!(all.totals.iter().all(|total| total.confirms == total.could_confirm && total.confirms > 0));
    for round in 0..8 {
        let mut less = whole.clone();
        less[round].remove(0);
        let found = ledger_of(&less);
        assert_ne!(found.after, all.after);
        assert_eq!(found.confirmed_to, (round as u64).min(all.confirmed_to), "without one of round {round}");
    }
}

#[test]
fn a_part_is_the_same_part_of_the_whole() {
    let genesis = genesis();
    let whole = history(&genesis, 8);
    let all = ledger(&genesis, &whole).unwrap();
    let before = ledger(&genesis, &whole[..3]).unwrap().after;
    let mut auditor = Auditor::new(genesis.clone(), 3, before).unwrap();
    for entries in &whole[3..] {
        auditor.round(entries).unwrap();
    }
    let part = auditor.finish();
    assert_eq!((part.before, part.after, part.confirmed_to), (before, all.after, all.confirmed_to));
    let mut rows: Vec<Row> = all.rows.iter().filter(|row| row.round >= 3).copied().collect();
    // What they are based on was before the first round.
    let early = |row: &&mut Row| row.round + 1 < 3 + u64::from(WINDOW);
    rows.iter_mut().filter(early).for_each(|row| row.confirms = None);
    assert_eq!(part.rows, rows);
    assert_eq!(Auditor::new(genesis, 0, before).unwrap_err(), NotOfTheLog::Start);
}

#[test]
fn what_is_spoiled_is_refused_by_name() {
    let genesis = genesis();
    let base = RoundLog::new(&genesis).log_digest();
    let body = body(&genesis, 0, 1, false);
    let good = header(&genesis, 0, 1, base, &body);
    let key = author(1).public();
    let refused = |entries: &[Entry]| ledger(&genesis, &[entries.to_vec()]).unwrap_err();
    let changed = |change: &dyn Fn(&mut Header)| {
        let mut header = good;
        change(&mut header);
        refused(&[entry(header, 1, &body)])
    };
    assert!(matches!(changed(&|header| header.swarm.0[0] ^= 1), NotOfTheLog::Swarm { .. }));
    assert_eq!(changed(&|header| header.round = 5), NotOfTheLog::Round { author: key, at: 0, round: 5 });
    assert_eq!(
        changed(&|header| header.version = 9),
        NotOfTheLog::Version { author: key, round: 0, version: 9 }
    );
    let other_body = NotOfTheLog::Body { author: key, round: 0 };
    assert_eq!(changed(&|header| header.body_length += 1), other_body);
    assert_eq!(changed(&|header| header.body_hash.0[5] ^= 1), other_body);
    // Signed by another one.
    assert_eq!(refused(&[entry(good, 2, &body)]), NotOfTheLog::Signature { author: key, round: 0 });
    let cut = &body[..body.len() - 1];
    let error = refused(&[entry(header(&genesis, 0, 1, base, cut), 1, cut)]);
    assert!(matches!(error, NotOfTheLog::Packing { .. }), "{error}");
    let signed = good.sign(&author(1));
    let no_proof = NotOfTheLog::Proof { author: key, round: 0 };
    assert_eq!(refused(&[Entry::Void(Box::new((signed, signed)))]), no_proof);
    let other = header(&genesis, 0, 2, base, &body).sign(&author(2));
    assert_eq!(refused(&[Entry::Void(Box::new((signed, other)))]), no_proof);
    let crowd: Vec<Entry> = (1..=7).map(|n| entry(header(&genesis, 0, n, base, &body), n, &body)).collect();
    assert_eq!(refused(&crowd), NotOfTheLog::Crowded { round: 0 });
    assert!(ledger(&genesis, &[crowd[..6].to_vec()]).is_ok());
}

#[test]
fn claims_of_any_size_are_added_up() {
    let genesis = genesis();
    let body = body(&genesis, 0, 1, false);
    let base = RoundLog::new(&genesis).log_digest();
    let rounds: Vec<Vec<Entry>> = (0..3)
        .map(|round| {
            let mut header = header(&genesis, round, 1, base, &body);
            (header.tokens, header.loss_before, header.loss_after) = (u64::MAX, u32::MAX, u32::MAX);
            vec![entry(header, 1, &body)]
        })
        .collect();
    let ledger = ledger(&genesis, &rounds).unwrap();
    let total = total(&ledger, 1);
    assert_eq!((total.claimed_tokens, total.claimed_loss_first), (u64::MAX, None));
    assert_eq!((total.claimed_loss_last, total.claimed_loss_mean), (None, None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_set_is_a_set(seed in any::<u64>()) {
        let genesis = genesis();
        let whole = history(&genesis, 4);
        let mut told = whole.clone();
        for (round, entries) in told.iter_mut().enumerate() {
            // Some twice, and all in another order.
            let again: Vec<Entry> = entries
                .iter()
                .enumerate()
                .filter(|(at, _)| draw(seed, (10 * round + at) as u64) & 1 == 0)
                .map(|(_, entry)| entry.clone())
                .collect();
            entries.extend(again);
            let order = |at: usize| draw(seed ^ 77, (100 * round + at) as u64);
            let mut keyed: Vec<(u64, Entry)> =
                entries.drain(..).enumerate().map(|(at, entry)| (order(at), entry)).collect();
            keyed.sort_by_key(|(key, _)| *key);
            entries.extend(keyed.into_iter().map(|(_, entry)| entry));
        }
        prop_assert_eq!(ledger(&genesis, &told).unwrap(), ledger(&genesis, &whole).unwrap());
    }
}
