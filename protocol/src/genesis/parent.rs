//! Where a forked swarm comes from: the table `[parent]` of its genesis.
//!
//! A fork goes on with the model of another swarm under new rules. Its starting point C0 is then not drawn
//! from the seed but is that swarm's C, which the genesis names by its digest: whoever has bytes with this
//! digest has C0, wherever they come from.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;

/// The swarm, and the state of it, that a fork begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// The parent's swarm id.
    #[serde(with = "hex")]
    pub swarm: Digest,
    /// Number of the parent's rounds that are in it.
    pub settled: u64,
    /// State digest of C0.
    #[serde(with = "hex")]
    pub state: Digest,
}

impl Parent {
    /// Checks every value; the error names the key.
    ///
    /// # Errors
    /// The first value out of its range.
    pub(super) fn validate(&self) -> Result<(), String> {
        // TOML's integers end at 2^63 - 1.
        if i64::try_from(self.settled).is_err() {
            return Err(format!("parent.settled = {}: must be below 2^63", self.settled));
        }
        Ok(())
    }

    /// The table as TOML, with a comment for every key.
    pub(super) fn to_toml(self) -> String {
        let Self { swarm, settled, state } = self;
        format!(
            "\n[parent]                # the start is this swarm's model: [model] and tile must stay as they are\n\
             swarm = \"{swarm}\"\n\
             settled = {settled}            # its rounds that are in the model\n\
             # BLAKE3 of the coefficients, 32-bit little-endian integers\n\
             state = \"{state}\"\n"
        )
    }
}

/// Digests as people write them in text; as they are in canonical bytes.
mod hex {
    use super::{Deserialize, Deserializer, Digest, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(digest)
        } else {
            digest.serialize(serializer)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            Digest::deserialize(deserializer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use crate::genesis::Genesis;

    fn fork() -> Genesis {
        let mut genesis = Genesis::new("fork", Architecture::preset("nano").unwrap(), 5);
        let (swarm, state) = (Digest::of_bytes(b"parent"), Digest::of_bytes(b"state"));
        genesis.parent = Some(Parent { swarm, settled: 24, state });
        genesis
    }

    #[test]
    fn a_fork_reads_back_and_its_id_covers_the_parent() {
        let fork = fork();
        let text = fork.to_toml();
        let read = Genesis::parse(&text).unwrap();
        assert_eq!((&read, read.swarm_id()), (&fork, fork.swarm_id()));
        let changes: [fn(&mut Parent); 3] =
            [|parent| parent.swarm.0[0] ^= 1, |parent| parent.settled += 1, |parent| parent.state.0[31] ^= 1];
        for change in changes {
            let mut other = fork.clone();
            other.parent.as_mut().map(change).unwrap();
            assert_ne!(other.swarm_id(), fork.swarm_id());
        }
    }

    #[test]
    fn canonical_bytes_say_whether_there_is_a_parent() {
        let fork = fork();
        let plain = Genesis { parent: None, ..fork.clone() };
        let (with, without) = (fork.canonical_bytes(), plain.canonical_bytes());
        let parent = fork.parent.unwrap();
        let (none, before) = without.split_last().unwrap();
        assert_eq!(*none, 0);
        let some = [&[1][..], &parent.swarm.0, &24u64.to_le_bytes(), &parent.state.0].concat();
        assert_eq!(with, [before, &some].concat());
        assert_eq!(Genesis::from_canonical_bytes(&with).unwrap(), fork);
    }

    #[test]
    fn errors_name_the_key() {
        let text = fork().to_toml();
        let id = Digest::of_bytes(b"parent").to_string();
        for (from, to, words) in [
            ("settled = 24", "settled = -1", &["settled = -1"][..]),
            ("settled = 24", "", &["missing field `settled`"]),
            ("settled = 24", "settled = 24\ncolour = 3", &["colour"]),
            (&id, "garden", &["swarm", "\"garden\" is not a digest", "64 hexadecimal digits"]),
            ("state = \"", "state = \"00", &["state", "is not a digest"]),
        ] {
            assert!(text.contains(from), "{from}");
            let error = Genesis::parse(&text.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{from} -> {to}: {error}");
        }
        let mut genesis = fork();
        genesis.parent.as_mut().unwrap().settled = 1 << 63;
        assert!(genesis.validate().unwrap_err().contains("parent.settled"));
    }
}
