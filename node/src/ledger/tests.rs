//! Folders with a made-up log, their ledgers in every format, and proofs with every byte flipped.

use std::fs;
use std::path::Path;

use anyhow::Result;
use swarm_optimizer::coefficients::Coefficients;
use swarm_optimizer::sparse::{Entry as Sparse, SparseDelta, Step};
use swarm_protocol::access::{Certificate, NEVER, Signed, Statements};
use swarm_protocol::architecture::Sizes;
use swarm_protocol::codec;
use swarm_protocol::contributions::Ledger;
use swarm_protocol::delta::{Delta, Header, fixed_loss};
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::{Access, Genesis};
use swarm_protocol::identity::Identity;
use swarm_protocol::packing;
use swarm_protocol::peer::snapshot::{Position, Snapshot};
use swarm_protocol::round_log::{Entry, RoundLog};

use super::archive;
use super::history::History;
use super::proof::{self, Proven};
use super::show::{Format, written};
use crate::net::peer_id;
use crate::store::Store;
use crate::store::snapshot::{NodeSnapshot, Totals};

/// Settled rounds of the made-up log.
const ROUNDS: u64 = 4;

fn genesis(access: Access) -> Genesis {
    let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
    let mut genesis = Genesis { access, ..Genesis::new("ledger", model, 1) };
    genesis.rule.tile = 8;
    genesis.rule.k = 4;
    genesis.rounds.window = 2;
    genesis.rounds.retention = 8;
    genesis.rounds.checkpoint_every = 1;
    genesis.validate().unwrap();
    genesis
}

fn author(n: u8) -> Identity {
    Identity::from_secret(&[n; 32])
}

/// Authors 1 and 2 in each round, with the same signs where `n` and the round say so; 3 signs twice in round 1.
fn log(genesis: &Genesis) -> RoundLog {
    log_of(genesis, ROUNDS, |_| ())
}

/// The same of so many rounds; `settled` sees it after each.
fn log_of(genesis: &Genesis, rounds: u64, mut settled: impl FnMut(&RoundLog)) -> RoundLog {
    let layout = genesis.layout().unwrap();
    let mut log = RoundLog::new(genesis);
    for round in 0..rounds {
        let base = log.digest_after(log.settled_at(round)).unwrap();
        for n in 1..=2u8 {
            let mut delta = SparseDelta::default();
            let level = if (n, round) == (2, 0) { -1 } else { 1 };
            delta.push(0, Step::nearest(64.0), (3..5).map(|position| Sparse { position, level }));
            let body = packing::encode(&layout, &genesis.rule, 4, &delta).unwrap();
            // Otherwise the two would have sent the very same body.
            let body = if n == 2 && level == 1 {
                delta.push(1, Step::nearest(64.0), [Sparse { position: 0, level: 2 }]);
                packing::encode(&layout, &genesis.rule, 4, &delta).unwrap()
            } else {
                body
            };
            let header = Header {
                base,
                tokens: 100 * u64::from(n),
                loss_before: fixed_loss(3.0 - 0.25 * round as f64),
                loss_after: fixed_loss(2.75 - 0.25 * round as f64),
                ..Header::new(genesis.swarm_id(), round, author(n).public(), &body)
            };
            let signed = header.sign(&author(n));
            log.insert(Delta { signed, id: header.id(), body: body.into() }, round);
        }
        if round == 1 {
            let one = Header::new(genesis.swarm_id(), round, author(3).public(), &[1]);
            let other = Header { tokens: 1, ..one };
            log.insert_proof(&(one.sign(&author(3)), other.sign(&author(3))), round);
        }
        log.settle_next();
        settled(&log);
    }
    log
}

/// A node's folder with the made-up log, from the round `held_from` on.
fn folder(dir: &Path, genesis: &Genesis, held_from: u64) -> Result<History> {
    hold(dir, genesis, &log(genesis), held_from)
}

/// A node's folder with this log, from the round `held_from` on.
fn hold(dir: &Path, genesis: &Genesis, log: &RoundLog, held_from: u64) -> Result<History> {
    let settled = log.settled();
    let (digests, entries) = log.contents();
    let (mut deltas, mut proofs) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry {
            Entry::Delta(delta) if delta.header().round >= held_from => {
                deltas.push((delta.signed, delta.body.clone()));
            }
            Entry::Void(proof) if proof.0.header.round >= held_from => proofs.push(**proof),
            _ => {}
        }
    }
    let position = Position {
        swarm: genesis.swarm_id(),
        round: settled,
        settled,
        held_from,
        next_to_sign: settled,
        met_others: true,
        digests,
        proofs,
        ledger: swarm_protocol::ledger::Ledger::default(),
    };
    let parameters = usize::try_from(genesis.model.parameter_count())?;
    let core = Snapshot { position, settled: Coefficients::new(vec![0; parameters]), deltas, given_up: None };
    let (store, _) = Store::open(dir, Some(genesis.clone()))?;
    store.identity()?;
    store.save(&NodeSnapshot { core, totals: Totals::default(), trainer: None }, 0)?;
    drop(store);
    History::open(dir)
}

/// A folder with the whole log, and its ledger.
fn whole(dir: &Path) -> (History, Ledger) {
    let history = folder(dir, &genesis(Access::default()), 0).unwrap();
    let ledger = history.ledger(None, None).unwrap();
    (history, ledger)
}

/// A proof's bytes without the checksum.
fn proof_of(dir: &Path, history: &History, ledger: &Ledger) -> Vec<u8> {
    let path = dir.join("proof");
    proof::write(&path, history, ledger).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes.truncate(bytes.len() - 32);
    bytes
}

fn refused(bytes: &[u8], swarm: Option<Digest>) -> String {
    format!("{:#}", proof::parse(&mut &bytes[..], swarm).unwrap_err())
}

#[test]
fn folders_that_hold_the_same_rounds_have_the_same_ledger() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (older, all) = whole(dirs[0].path());
    let newer = folder(dirs[1].path(), &genesis(Access::default()), 2).unwrap();
    assert_eq!(((older.from(), older.to()), (newer.from(), newer.to())), ((0, 4), (2, 4)));
    let [ours, theirs] = [&older, &newer].map(|history| history.ledger(Some(2), None).unwrap());
    assert_eq!(ours, theirs);
    for format in Format::ALL {
        for rounds in [false, true] {
            let text =
                |ledger, history: &History| written(ledger, history.genesis(), format, rounds).unwrap();
            assert_eq!(text(&ours, &older), text(&theirs, &newer));
            assert_ne!(text(&ours, &older), text(&all, &older));
        }
    }
    assert_eq!(ours.after, all.after);
    for (from, to, words) in [
        (Some(1), None, "--from 1: this folder holds the settled rounds from 2 to 4"),
        (None, Some(5), "--to 5: this folder holds"),
        (Some(4), Some(3), "--from 4 --to 3: the first round"),
    ] {
        let error = format!("{:#}", newer.ledger(from, to).unwrap_err());
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_ledger_is_told_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let (history, ledger) = whole(dir.path());
    let text = |format, rounds| written(&ledger, history.genesis(), format, rounds).unwrap();
    let keys = [1, 2, 3].map(|n| author(n).public());

    let csv = text(Format::Csv, false);
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let columns: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.unwrap()).collect();
    assert_eq!(rows.len(), 3);
    let cell = |key: usize, name: &str| {
        let row = rows.iter().find(|row| row[0] == keys[key].to_string()).unwrap();
        row[columns.iter().position(|column| column == name).unwrap()].to_owned()
    };
    assert_eq!(cell(0, "peer"), peer_id(&keys[0]).unwrap().to_string());
    let facts = ["rounds", "counted", "void", "shared", "share"].map(|name| cell(0, name));
    assert_eq!(facts, ["4", "4", "0", "0", "0.500000"]);
    // Opposed in the first round, and 2 / sqrt(2 * 6) in the three others.
    assert_eq!(cell(0, "agreement"), "0.183");
    let claims = ["claimed_tokens", "claimed_loss_first", "claimed_loss_last", "claimed_loss_mean"];
    assert_eq!(claims.map(|name| cell(1, name)), ["800", "3.0000", "2.0000", "2.3750"]);
    let void = ["rounds", "counted", "void", "share", "agreement", "claimed_tokens", "claimed_loss_last"];
    assert_eq!(void.map(|name| cell(2, name)), ["1", "0", "1", "0.000000", "", "0", ""]);
    assert_eq!(["from", "to", "log_digest"].map(|name| cell(2, name)), ["0", "4", &ledger.after.to_string()]);

    let csv = text(Format::Csv, true);
    assert_eq!(csv.lines().count(), 1 + 9);
    let line = csv.lines().find(|line| line.contains("void")).unwrap();
    assert!(line.starts_with(&format!("1,{}", keys[2])), "{line}");

    let json: serde_json::Value = serde_json::from_str(&text(Format::Json, false)).unwrap();
    assert_eq!(json["format"], "swarm ledger 1");
    assert_eq!(
        (json["from"].as_u64(), json["to"].as_u64(), json["confirmed_to"].as_u64()),
        (Some(0), Some(4), Some(2))
    );
    assert!(json.get("rounds").is_none());
    let authors = json["authors"].as_array().unwrap();
    let first = authors.iter().find(|entry| entry["author"] == keys[0].to_string()).unwrap();
    assert_eq!((first["agreement"].as_f64(), first["share"].as_f64()), (Some(0.183), Some(0.5)));
    let named = first.as_object().unwrap().keys().filter(|key| key.contains("token") || key.contains("loss"));
    assert!(named.into_iter().all(|key| key.starts_with("claimed_")), "{first}");
    let json: serde_json::Value = serde_json::from_str(&text(Format::Json, true)).unwrap();
    assert_eq!(json["rounds"].as_array().unwrap().len(), 9);

    let table = text(Format::Table, false);
    for words in ["nothing is missing below round 2", "50.0 %", "4/4", "1 void", "as the authors claim"] {
        assert!(table.contains(words), "{table}");
    }
    assert!(text(Format::Table, true).contains("void"));
}

#[test]
fn a_proof_holds_and_no_byte_of_it_can_be_another() {
    let dir = tempfile::tempdir().unwrap();
    let (history, ledger) = whole(dir.path());
    let bytes = proof_of(dir.path(), &history, &ledger);
    let id = history.genesis().swarm_id();
    for swarm in [None, Some(id)] {
        let Proven { genesis, ledger: proved, not_admitted } = proof::parse(&mut &bytes[..], swarm).unwrap();
        assert_eq!((genesis.swarm_id(), &proved, not_admitted.len()), (id, &ledger, 0));
    }
    let path = dir.path().join("proof");
    assert_eq!(proof::read(&path, Some(id)).unwrap().ledger, ledger);
    // With a right checksum: somebody who changes a byte can compute a new one.
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let parsed = proof::parse(&mut &flipped[..], None);
        assert!(parsed.is_err(), "byte {at} of {}", bytes.len());
    }
    // As damage does it.
    let mut damaged = fs::read(&path).unwrap();
    damaged[40] ^= 1;
    fs::write(&path, damaged).unwrap();
    let error = format!("{:#}", proof::read(&path, None).unwrap_err());
    assert!(error.contains("its checksum does not hold"), "{error}");
    for cut in (0..bytes.len()).step_by(7) {
        assert!(proof::parse(&mut &bytes[..cut], None).is_err(), "cut at {cut}");
    }
    assert!(refused(&[&bytes[..], &[0]].concat(), None).contains("bytes follow its end"));
    let mut other = genesis(Access::default());
    other.seed = 2;
    assert!(refused(&bytes, Some(other.swarm_id())).contains("which was asked for"));
    let nowhere = format!("{:#}", proof::read(&dir.path().join("nowhere"), None).unwrap_err());
    assert!(nowhere.contains("there is no such file"), "{nowhere}");
}

#[test]
fn a_lie_is_told_from_damage_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (history, ledger) = whole(dir.path());
    let bytes = proof_of(dir.path(), &history, &ledger);
    // Somebody makes more of what it claims.
    let at = bytes.windows(21).position(|part| part == b"\"claimed_tokens\": 400").unwrap();
    let mut more = bytes.clone();
    more[at + 18] = b'9';
    let error = refused(&more, None);
    assert!(error.contains("it says \"\\\"claimed_tokens\\\": 900") && error.contains("400"), "{error}");
    // Or leaves out what somebody else did, and writes the ledger accordingly.
    let log = log(history.genesis());
    let mut auditor = swarm_protocol::contributions::Auditor::new(
        history.genesis().clone(),
        0,
        log.digest_after(0).unwrap(),
    )
    .unwrap();
    for round in 0..ROUNDS {
        let entries: Vec<Entry> = log.entries(round).cloned().collect();
        let left = if round == 0 { &entries[1..] } else { &entries[..] };
        auditor.round(left).unwrap();
    }
    let less = auditor.finish();
    assert_eq!((less.confirmed_to, ledger.confirmed_to), (0, 2));
    assert_ne!(less.after, ledger.after);
}

#[test]
fn what_a_stranger_claims_allocates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (history, ledger) = whole(dir.path());
    let bytes = proof_of(dir.path(), &history, &ledger);
    let genesis = history.genesis().canonical_bytes();
    let rounds = b"swarm proof 1\n".len() + 4 + genesis.len();
    let huge = |at: usize| {
        let mut claims = bytes.clone();
        claims[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        refused(&claims, None)
    };
    assert!(huge(rounds - genesis.len() - 4).contains("claims 4294967295 bytes"));
    assert!(huge(rounds + 48).contains("4294967295 authors"));
    assert!(huge(rounds + 52).contains("claims 4294967295 bytes"));
    // More rounds than there is file for.
    let mut endless = bytes[..rounds].to_vec();
    endless.extend(codec::encode(&(5u64, u64::MAX, Digest::default())));
    endless.extend([0; 4000]);
    assert!(refused(&endless, None).contains("it ends early"));
}

#[test]
fn in_a_closed_swarm_it_says_who_was_admitted() {
    let dir = tempfile::tempdir().unwrap();
    let founder = author(9);
    let genesis = genesis(Access::invite([founder.public()]));
    let certificate = |n| Certificate {
        swarm: genesis.swarm_id(),
        subject: author(n).public(),
        issuer: founder.public(),
        may_admit: false,
        last_round: if n == 2 { 1 } else { NEVER },
    };
    let certificates: Vec<_> = [1, 2].map(|n| Signed::new(certificate(n), &founder)).into();
    folder(dir.path(), &genesis, 0).unwrap();
    let (store, _) = Store::open(dir.path(), None).unwrap();
    store.keep_access(&Statements::from(certificates)).unwrap();
    drop(store);
    let history = History::open(dir.path()).unwrap();
    let ledger = history.ledger(None, None).unwrap();
    let bytes = proof_of(dir.path(), &history, &ledger);
    let proven = proof::parse(&mut &bytes[..], Some(genesis.swarm_id())).unwrap();
    // 2 goes on after its certificate has ended, and 3 never had one.
    let mut missing = [author(2).public(), author(3).public()];
    missing.sort();
    assert_eq!(proven.not_admitted, missing);
}

/// Rounds of a log that has let go of the oldest.
const LONG: u64 = 20;

/// The ledger of the whole of it, as somebody computes it who has never let go of anything.
fn ledger_of_all(genesis: &Genesis) -> Ledger {
    let mut patient = genesis.clone();
    patient.rounds.retention = 64;
    let log = log_of(&patient, LONG, |_| ());
    // The retention is part of the swarm's id, so these deltas are of another swarm.
    assert_ne!(patient.swarm_id(), genesis.swarm_id());
    assert_eq!((log.held_from(), log.settled()), (0, LONG));
    let before = log.digest_after(0).unwrap();
    let mut auditor = swarm_protocol::contributions::Auditor::new(patient.into(), 0, before).unwrap();
    for round in 0..LONG {
        auditor.round(&log.entries(round).cloned().collect::<Vec<_>>()).unwrap();
    }
    auditor.finish()
}

fn files(dir: &Path) -> Vec<u64> {
    let names = fs::read_dir(dir.join("history")).unwrap();
    let mut names: Vec<u64> =
        names.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect();
    names.sort_unstable();
    names
}

#[test]
fn older_rounds_are_kept_and_are_in_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let genesis = genesis(Access::default());
    let log = log_of(&genesis, LONG, |log| archive::keep(dir.path(), &genesis, log, archive::KEPT).unwrap());
    // A retention of eight rounds, of which all but two windows are written.
    assert_eq!((log.held_from(), files(dir.path())), (12, (0..16).collect()));
    let history = hold(dir.path(), &genesis, &log, log.held_from()).unwrap();
    assert_eq!((history.from(), history.to()), (0, LONG));
    let (ledger, all) = (history.ledger(None, None).unwrap(), ledger_of_all(&genesis));
    let figures = |ledger: &Ledger| {
        let each =
            ledger.rows.iter().map(|row| (row.round, row.author, row.agreement, row.confirms, row.claims));
        (ledger.confirmed_to, each.collect::<Vec<_>>())
    };
    assert_eq!(figures(&ledger), figures(&all));
    assert_eq!(ledger.after, log.log_digest());
    // From anywhere, also out of the middle of what is kept, and proved.
    for (from, to) in [(3, 7), (5, 14), (12, 20), (16, 20), (0, 1)] {
        let part = history.ledger(Some(from), Some(to)).unwrap();
        assert_eq!((part.from, part.to), (from, to));
        let bytes = proof_of(dir.path(), &history, &part);
        assert_eq!(proof::parse(&mut &bytes[..], Some(genesis.swarm_id())).unwrap().ledger, part);
    }

    // What is damaged ends it; what is older is in no ledger.
    let path = dir.path().join("history/9");
    let mut bytes = fs::read(&path).unwrap();
    bytes[50] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(History::open(dir.path()).unwrap().from(), 10);
    // Without room for all, the oldest go.
    let all: u64 =
        (10..16).map(|n| fs::metadata(dir.path().join(format!("history/{n}"))).unwrap().len()).sum();
    archive::keep(dir.path(), &genesis, &log, all).unwrap();
    assert_eq!(files(dir.path()), (10..16).collect::<Vec<_>>());
    archive::keep(dir.path(), &genesis, &log, 0).unwrap();
    assert!(files(dir.path()).is_empty());
    assert_eq!(History::open(dir.path()).unwrap().from(), 12);
}

#[test]
fn what_is_kept_of_another_history_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let genesis = genesis(Access::default());
    let keep = |log: &RoundLog| archive::keep(dir.path(), &genesis, log, archive::KEPT).unwrap();
    log_of(&genesis, LONG, keep);
    // The same rounds, but nobody trained in them.
    let mut empty = RoundLog::new(&genesis);
    for _ in 0..LONG {
        empty.settle_next();
        if empty.settled() == LONG {
            keep(&empty);
        }
    }
    // Of the rounds that it holds, it has put its own in their place.
    let history = hold(dir.path(), &genesis, &empty, empty.held_from()).unwrap();
    assert_eq!((history.from(), history.to()), (12, LONG));
    assert!(history.ledger(None, None).unwrap().rows.is_empty());
    assert_eq!(crate::net::parse_bytes("256MB"), Ok(archive::KEPT));
}
