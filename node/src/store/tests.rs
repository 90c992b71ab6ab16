//! What start-up makes of a folder whose files are damaged, for every file and several kinds of damage.

use std::time::Duration;

use swarm_protocol::architecture::Sizes;
use swarm_protocol::peer::{Part, Peer};
use tempfile::TempDir;

use super::snapshot::Totals;
use super::*;

fn genesis(seed: u64) -> Genesis {
    let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
    Genesis::new("store", model, seed)
}

fn peer_snapshot(genesis: &Genesis) -> NodeSnapshot {
    let part = Part { trains: true, found_after: None, stop_before: None };
    let peer =
        Peer::new(Duration::ZERO, genesis.clone().into(), Identity::from_secret(&[1; 32]), part).unwrap();
    NodeSnapshot { core: peer.snapshot(), totals: Totals::default(), trainer: None }
}

/// A folder as a node leaves it that has signed rounds 8 to 10.
fn home() -> (TempDir, PeerKey) {
    let dir = tempfile::tempdir().unwrap();
    let (store, held) = Store::open(dir.path(), Some(genesis(1))).unwrap();
    let key = store.identity().unwrap().public();
    for round in 8..=10 {
        store.persist(round, format!("delta {round}").as_bytes()).unwrap();
    }
    store.save(&peer_snapshot(&held), 0).unwrap();
    write_atomically(&store.path("status.json"), b"{}").unwrap();
    write_atomically(&store.path("report.json"), b"{}").unwrap();
    (dir, key)
}

#[cfg(unix)]
#[test]
fn the_key_and_all_else_in_the_folder_is_the_owners() {
    use std::os::unix::fs::PermissionsExt;
    let (home, _) = home();
    let (mut folders, mut files) = (vec![home.path().to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    assert!(files.iter().any(|file| file.ends_with("identity.key")), "{files:?}");
    for file in files {
        let about = fs::metadata(&file).unwrap();
        // The lock holds nothing.
        let closed = about.permissions().mode() & 0o077 == 0 || about.len() == 0;
        assert!(closed, "{} can be read by others", file.display());
    }
}

/// Every kind of damage to the bytes of a file: what is left of them.
fn damages(good: &[u8]) -> Vec<Vec<u8>> {
    let flipped = [0, good.len() / 2, good.len() - 1].map(|at| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 0x10;
        bytes
    });
    let longer = [good, b"x"].concat();
    let cut = [0, 1, good.len() / 3, good.len() - 1].map(|length| good[..length].to_vec());
    flipped.into_iter().chain(cut).chain([longer, vec![0; good.len()]]).collect()
}

/// Opens a home of whose `file` only `bytes` are left, or nothing at all.
fn damaged(file: &str, bytes: Option<&[u8]>) -> (TempDir, PeerKey) {
    let (dir, key) = home();
    let path = dir.path().join(file);
    match bytes {
        Some(bytes) => fs::write(path, bytes).unwrap(),
        None => fs::remove_file(path).unwrap(),
    }
    (dir, key)
}

fn each_damage(file: &str, check: impl Fn(&TempDir, PeerKey, &[u8])) {
    let (dir, _) = home();
    // The key is another one in every home, so the good bytes are, too.
    for kind in 0..damages(&fs::read(dir.path().join(file)).unwrap()).len() {
        let (dir, key) = home();
        let path = dir.path().join(file);
        let bytes = damages(&fs::read(&path).unwrap()).swap_remove(kind);
        fs::write(&path, &bytes).unwrap();
        check(&dir, key, &bytes);
    }
}

fn open(dir: &TempDir) -> Result<Store> {
    Store::open(dir.path(), None).map(|(store, _)| store)
}

#[test]
fn a_folder_is_one_processes_and_one_swarms() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("node");
    let no_genesis = Store::open(&at, None).err().unwrap().to_string();
    assert!(no_genesis.contains("--genesis"), "{no_genesis}");
    let (store, _) = Store::open(&at, Some(genesis(1))).unwrap();
    let key = store.identity().unwrap().public();
    let in_use = Store::open(&at, None).err().unwrap().to_string();
    assert!(in_use.contains("in use"), "{in_use}");
    drop(store);
    let other = Store::open(&at, Some(genesis(2))).err().unwrap().to_string();
    assert!(other.contains("belongs to swarm") && other.contains("--dir"), "{other}");
    let (store, held) = Store::open(&at, None).unwrap();
    assert_eq!((held, store.identity().unwrap().public()), (genesis(1), key));
}

#[test]
fn the_newest_own_delta_stays_whatever_a_snapshot_covers() {
    let (dir, _) = home();
    let store = open(&dir).unwrap();
    let folder = store.path("outbox");
    assert_eq!(file::numbers(&folder).unwrap(), [8, 9, 10]);
    assert_eq!(store.outbox().unwrap()[2], b"delta 10");
    outbox::prune(&folder, 11).unwrap();
    assert_eq!(file::numbers(&folder).unwrap(), [10]);
}

#[test]
fn an_undamaged_home_is_as_it_was() {
    let (dir, key) = home();
    let store = open(&dir).unwrap();
    assert_eq!(store.identity().unwrap().public(), key);
    assert!(store.snapshot(&genesis(1)).unwrap().is_some());
    assert_eq!((store.outbox().unwrap().len(), store.last_signed().unwrap()), (3, Signed::Before(11)));
}

#[test]
fn a_new_home_has_signed_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), Some(genesis(1))).unwrap();
    store.identity().unwrap();
    assert_eq!(store.last_signed().unwrap(), Signed::Before(0));
}

#[test]
fn a_damaged_identity_is_an_error_and_stays_as_it_is() {
    each_damage("identity.key", |dir, _, bytes| {
        let store = open(dir).unwrap();
        let error = store.identity().err().unwrap().to_string();
        for word in ["identity.key is damaged", "backup", "--dir"] {
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(fs::read(store.path("identity.key")).unwrap(), bytes, "never replaced, never renamed");
    });
    let (dir, _) = damaged("identity.key", None);
    let error = open(&dir).unwrap().identity().err().unwrap().to_string();
    assert!(error.contains("identity.key is missing") && error.contains("backup"), "{error}");
    assert!(!dir.path().join("identity.key").exists());
}

#[test]
fn an_identity_of_the_first_builds_is_read_and_gets_its_checksum() {
    let (dir, key) = home();
    let path = dir.path().join("identity.key");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..SECRET]).unwrap();
    assert_eq!(open(&dir).unwrap().identity().unwrap().public(), key);
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_damaged_genesis_is_taken_from_the_one_given() {
    let (dir, _) = home();
    let text = fs::read_to_string(dir.path().join("genesis.toml")).unwrap();
    // Another seed is a genesis, too, but of another swarm; and the id itself may be what is damaged.
    let seed = text.replace("seed = 1", "seed = 3");
    let id = genesis(1).swarm_id().to_string();
    let other_id = text.replace(&id, &id.replace(&id[..1], "x"));
    let values = text.replace("window", "wimdow");
    for left in [&seed, &other_id, &values, &text[..200], &text[..text.len() / 2], "", "\0\0\0\0"] {
        let (dir, key) = damaged("genesis.toml", Some(left.as_bytes()));
        let error = open(&dir).err().unwrap().to_string();
        assert!(error.contains("genesis.toml is damaged") && error.contains("--genesis"), "{error}");
        let (store, held) = Store::open(dir.path(), Some(genesis(1))).unwrap();
        assert_eq!(held, genesis(1));
        assert_eq!(fs::read_to_string(store.path("genesis.toml.damaged-1")).unwrap(), *left);
        assert_eq!((read_whole_copy(dir.path()).unwrap(), store.identity().unwrap().public()), (held, key));
    }
    for left in [&seed, &values, &text[..200]] {
        let (dir, _) = damaged("genesis.toml", Some(left.as_bytes()));
        let error = Store::open(dir.path(), Some(genesis(2))).err().unwrap().to_string();
        assert!(error.contains("another swarm") && error.contains("--dir"), "{error}");
    }
    // Nothing in the file tells any more: then the snapshot does.
    let (dir, _) = damaged("genesis.toml", None);
    let (store, held) = Store::open(dir.path(), Some(genesis(2))).unwrap();
    let error = format!("{:#}", store.snapshot(&held).err().unwrap());
    assert!(error.contains("it is of swarm") && error.contains("--dir"), "{error}");
    assert!(store.path("snapshot").exists(), "nothing is wrong with it");
}

#[test]
fn a_damaged_snapshot_is_set_aside_and_what_was_signed_is_known() {
    each_damage("snapshot", |dir, key, bytes| {
        let store = open(dir).unwrap();
        assert!(store.snapshot(&genesis(1)).unwrap().is_none());
        assert_eq!(fs::read(store.path("snapshot.damaged-1")).unwrap(), bytes);
        assert!(store.snapshot(&genesis(1)).unwrap().is_none(), "once is enough");
        assert_eq!(store.identity().unwrap().public(), key);
        assert_eq!((store.outbox().unwrap().len(), store.last_signed().unwrap()), (3, Signed::Before(11)));
    });
    let (dir, _) = damaged("snapshot", None);
    assert!(open(&dir).unwrap().snapshot(&genesis(1)).unwrap().is_none());
}

#[test]
fn a_damaged_own_delta_is_set_aside_and_its_round_stays_signed() {
    each_damage("outbox/10", |dir, _, bytes| {
        // Even without the mark, and whatever is asked first.
        let store = open(dir).unwrap();
        for _ in 0..2 {
            fs::remove_file(store.path("signed")).unwrap();
            assert_eq!(store.last_signed().unwrap(), Signed::Before(11));
            assert_eq!(store.outbox().unwrap(), [b"delta 8".to_vec(), b"delta 9".to_vec()]);
            assert_eq!(fs::read(store.path("outbox/10.damaged-1")).unwrap(), bytes);
        }
    });
    let (dir, _) = damaged("outbox/10", None);
    let store = open(&dir).unwrap();
    assert_eq!((store.outbox().unwrap().len(), store.last_signed().unwrap()), (2, Signed::Before(11)));
}

#[test]
fn a_damaged_mark_is_set_aside_and_the_outbox_tells() {
    each_damage("signed", |dir, _, bytes| {
        let store = open(dir).unwrap();
        assert_eq!(store.last_signed().unwrap(), Signed::Before(11));
        assert_eq!(fs::read(store.path("signed.damaged-1")).unwrap(), bytes);
        fs::remove_dir_all(store.path("outbox")).unwrap();
        assert_eq!(store.last_signed().unwrap(), Signed::Before(11), "the mark is there again");
    });
}

#[test]
fn a_kill_between_delta_and_mark_leaves_both_as_if_it_had_come_after() {
    let (dir, _) = home();
    let store = open(&dir).unwrap();
    file::write_checked(&store.path("outbox/11"), |out| out.write_all(b"delta 11")).unwrap();
    assert_eq!(store.last_signed().unwrap(), Signed::Before(12));
    // From now on either of them is enough again.
    fs::remove_file(store.path("outbox/11")).unwrap();
    assert_eq!(store.last_signed().unwrap(), Signed::Before(12));
}

#[test]
fn without_mark_and_outbox_what_was_signed_is_unknown_until_something_is_signed() {
    let (dir, key) = damaged("signed", Some(b""));
    fs::remove_dir_all(dir.path().join("outbox")).unwrap();
    for _ in 0..2 {
        let store = open(&dir).unwrap();
        assert_eq!(store.identity().unwrap().public(), key);
        assert!(store.snapshot(&genesis(1)).unwrap().is_some());
        assert_eq!(store.last_signed().unwrap(), Signed::Unknown, "a snapshot may be older than a delta");
    }
    let store = open(&dir).unwrap();
    store.persist(50, b"after the doubt").unwrap();
    assert_eq!(store.last_signed().unwrap(), Signed::Before(51));
    // A key alone in a new folder: somebody restored it.
    let (old, dir) = (dir, tempfile::tempdir().unwrap());
    let (store, _) = Store::open(dir.path(), Some(genesis(1))).unwrap();
    fs::copy(old.path().join("identity.key"), store.path("identity.key")).unwrap();
    assert_eq!(store.identity().unwrap().public(), key);
    assert_eq!(store.last_signed().unwrap(), Signed::Unknown);
}

#[test]
fn status_and_report_are_for_others_only() {
    for file in ["status.json", "report.json", "lock"] {
        each_damage(if file == "lock" { "status.json" } else { file }, |dir, key, bytes| {
            fs::write(dir.path().join(file), bytes).unwrap();
            let store = open(dir).unwrap();
            assert_eq!(store.identity().unwrap().public(), key);
            assert!(store.snapshot(&genesis(1)).unwrap().is_some());
            assert_eq!(store.last_signed().unwrap(), Signed::Before(11));
        });
    }
}

#[test]
fn what_a_kill_left_unfinished_is_swept_away() {
    let (dir, _) = home();
    for place in [".writing-abc", "outbox/.writing-xyz"] {
        fs::write(dir.path().join(place), b"half a fi").unwrap();
    }
    let store = open(&dir).unwrap();
    for folder in [dir.path(), &store.path("outbox")] {
        assert!(file::names(folder).unwrap().iter().all(|name| !name.starts_with(".writing-")));
    }
    assert_eq!(store.outbox().unwrap().len(), 3);
}
