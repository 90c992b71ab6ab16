//! A genesis as text, as bytes and as an id; what is refused names its key.

use super::*;

fn nano() -> Genesis {
    Genesis::new("garden", Architecture::preset("nano").unwrap(), 5)
}

#[test]
fn toml_round_trip_keeps_the_swarm_id() {
    let mut genesis = nano();
    genesis.name = "quote \" and \\ backslash".into();
    let text = genesis.to_toml();
    let read = Genesis::parse(&text).unwrap();
    assert_eq!(read, genesis);
    assert_eq!(read.swarm_id(), genesis.swarm_id());
    assert_eq!(Genesis::parse(&format!("# a comment\n{text}")).unwrap().swarm_id(), genesis.swarm_id());
}

#[test]
fn the_swarm_id_is_pinned() {
    // Golden: this changes only together with VERSION, from the first release on. The bytes were written by
    // this test. They end with the number of keys that may admit others, whether there is a parent, and
    // (since a swarm can have one) whether there is a tokenizer: none.
    let bytes = nano().canonical_bytes();
    let model = 4 + 6 * 4 + 2 * (1 + 4) + 2 * (1 + 8) + 2 * (1 + 1);
    assert_eq!(
        bytes.len(),
        16 + 4 + (8 + 6) + 8 + model + 8 + (3 * 4 + 1) + (5 * 4 + 5 * 8) + 6 * 4 + 8 + 1 + 1
    );
    assert_eq!(&bytes[..24], b"swarm genesis 1\n\x01\0\0\0\x06\0\0\0");
    assert_eq!(format!("{:.16}", nano().swarm_id()), include_str!("../../golden/nano.swarm-id").trim());
}

#[test]
fn canonical_bytes_are_read_back() {
    let bytes = nano().canonical_bytes();
    assert_eq!(Genesis::from_canonical_bytes(&bytes).unwrap(), nano());
    assert!(Genesis::from_canonical_bytes(&bytes[..bytes.len() - 1]).is_err());
    assert!(Genesis::from_canonical_bytes(&bytes[1..]).is_err());
    let mut none = nano();
    none.rule.k = 0;
    let error = Genesis::from_canonical_bytes(&none.canonical_bytes()).unwrap_err().to_string();
    assert!(error.contains("rule.k"), "{error}");
}

#[test]
fn every_value_counts() {
    let base = nano();
    let id = base.swarm_id();
    let mut other = base.clone();
    other.training.learning_rate = f64::from_bits(base.training.learning_rate.to_bits() + 1);
    assert_ne!(other.swarm_id(), id);
    let mut other = base.clone();
    other.rounds.grace_ms += 1;
    assert_ne!(other.swarm_id(), id);
    let mut other = base;
    other.seed += 1;
    assert_ne!(other.swarm_id(), id);
}

#[test]
fn errors_name_the_key() {
    let text = nano().to_toml();
    let swapped = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        Genesis::parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
    };
    for (from, to, word) in [
        ("version = 1", "version = 2", "version = 2"),
        ("k = 1024", "k = 0", "rule.k"),
        ("k = 1024", "k = -3", "k"),
        ("k = 1024", "", "missing field `k`"),
        ("k = 1024", "k = 1024\ncolour = 3", "colour"),
        ("tile = 64", "tile = 63", "rule.tile"),
        ("publishers = 64", "publishers = 8192", "rule.publishers"),
        ("max_exponent = 18", "max_exponent = 25", "rule.max_exponent"),
        ("learning_rate = 0.016", "learning_rate = nan", "training.learning_rate"),
        ("learning_rate = 0.016", "learning_rate = \"fast\"", "learning_rate"),
        ("weight_decay = 0.1", "weight_decay = -0.0", "training.weight_decay"),
        ("retention = 64", "retention = 63", "rounds.retention"),
        ("kv_heads = 4", "kv_heads = 3", "model.llama.kv_heads"),
        ("name = \"garden\"", "name = \"\"", "name"),
        ("seed = 5", "seed = -1", "seed"),
    ] {
        let error = swapped(from, to);
        assert!(error.contains(word), "{from} -> {to}: {error}");
    }
    assert!(matches!(Genesis::parse("not toml at all ["), Err(GenesisError::Syntax(_))));
}
