//! Where a swarm's model comes from, if it is not drawn from the seed: the table `[parent]` of its genesis.
//!
//! A fork goes on with the model of another swarm under new rules; other swarms begin with a model that somebody
//! had in a file. The starting point C0 is then that model, which the genesis names by its digest: whoever has
//! bytes with this digest has C0, wherever they come from.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The state that a swarm begins with, and the swarm that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// The parent's swarm id; `None` if the model comes from a file.
    #[serde(default)]
    pub swarm: Option<Digest>,
    /// Number of the parent's rounds that are in it.
    pub settled: u64,
    /// State digest of C0.
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
        if self.swarm.is_none() && self.settled > 0 {
            return Err(format!("parent.settled = {}: must be 0 without parent.swarm", self.settled));
        }
        Ok(())
    }

    /// The table as TOML, with a comment for every key.
    pub(super) fn to_toml(self) -> String {
        let Self { swarm, settled, state } = self;
        let from = swarm.map_or_else(
            || "# a model that came from a file".to_owned(),
            |swarm| format!("# this swarm's model\nswarm = \"{swarm}\""),
        );
        format!(
            "\n[parent]                # where the start comes from: [model] and tile must stay as they are\n\
             {from}\n\
             settled = {settled}            # rounds of that swarm that are in the model\n\
             # BLAKE3 of the coefficients, 32-bit little-endian integers\n\
             state = \"{state}\"\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use crate::genesis::Genesis;

    fn fork() -> Genesis {
        let mut genesis = Genesis::new("fork", Architecture::preset("nano").unwrap(), 5);
        let (swarm, state) = (Some(Digest::of_bytes(b"parent")), Digest::of_bytes(b"state"));
        genesis.parent = Some(Parent { swarm, settled: 24, state });
        genesis
    }

    #[test]
    fn a_fork_reads_back_and_its_id_covers_the_parent() {
        let fork = fork();
        let text = fork.to_toml();
        let read = Genesis::parse(&text).unwrap();
        assert_eq!((&read, read.swarm_id()), (&fork, fork.swarm_id()));
        let changes: [fn(&mut Parent); 3] = [
            |parent| parent.swarm = Some(Digest::of_bytes(b"other")),
            |parent| parent.settled += 1,
            |parent| parent.state.0[31] ^= 1,
        ];
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
        // What follows says that there is no tokenizer.
        let before = without.strip_suffix(&[0, 0]).unwrap();
        let swarm = parent.swarm.unwrap();
        let some = [&[1, 1][..], &swarm.0, &24u64.to_le_bytes(), &parent.state.0, &[0]].concat();
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
