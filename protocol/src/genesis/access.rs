//! Who may take part: the table `[access]` of a genesis.
//!
//! Without the table everybody may. With `mode = "invite"` only those may who have a certificate of one of
//! `keys`, or of somebody whom these let admit others (see [`crate::access`]). The keys are part of the swarm id,
//! as all rules are: who holds them can never be changed, only a fork can have others.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::identity::PeerKey;

/// Most keys that a genesis may name.
pub const MAX_KEYS: usize = 16;

/// Who may take part. In canonical bytes: the keys, none in an open swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Who may admit others, in ascending order; empty if everybody may take part.
    keys: Vec<PeerKey>,
}

/// The table as people write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    mode: String,
    #[serde(default)]
    keys: Vec<String>,
}

impl Access {
    /// Only those take part whom these admit. Their order does not matter.
    pub fn invite(keys: impl IntoIterator<Item = PeerKey>) -> Self {
        let mut keys: Vec<PeerKey> = keys.into_iter().collect();
        keys.sort_unstable();
        keys.dedup();
        Self { keys }
    }

    /// Whether everybody may take part.
    pub fn is_open(&self) -> bool {
        self.keys.is_empty()
    }

    /// Who may admit others, in ascending order.
    pub fn keys(&self) -> &[PeerKey] {
        &self.keys
    }

    /// Checks every value; the error names the key.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.keys.len() > MAX_KEYS {
            return Err(format!("access.keys: {} keys are more than {MAX_KEYS}", self.keys.len()));
        }
        if !self.keys.is_sorted_by(|a, b| a < b) {
            return Err("access.keys: a key is there twice, or they are not in order".into());
        }
        match self.keys.iter().find(|key| !key.is_usable()) {
            Some(key) => Err(format!("access.keys: {key} is not an ed25519 public key")),
            None => Ok(()),
        }
    }

    /// The table as TOML, with a comment for every key; nothing for an open swarm.
    pub(super) fn to_toml(&self) -> String {
        if self.is_open() {
            return String::new();
        }
        let keys: Vec<String> = self.keys.iter().map(|key| format!("    \"{key}\",\n")).collect();
        format!(
            "\n[access]\n\
             mode = \"invite\"         # only those take part who have been admitted, with swarm admit\n\
             # The public keys, in hexadecimal, of those who may admit others.\n\
             keys = [\n{}]\n",
            keys.concat()
        )
    }
}

impl TryFrom<Table> for Access {
    type Error = String;

    fn try_from(Table { mode, keys }: Table) -> Result<Self, String> {
        match (mode.as_str(), keys.as_slice()) {
            ("open", []) => Ok(Self::default()),
            ("open", _) => Err("access.keys: in an open swarm nobody is admitted; leave them out".into()),
            ("invite", []) => {
                Err("access.keys: name those who may admit others; swarm new --access invite does".into())
            }
            ("invite", keys) => {
                let read: Result<Vec<PeerKey>, String> = keys.iter().map(|key| key.parse()).collect();
                let read = read.map_err(|why| format!("access.keys: {why}"))?;
                let access = Self::invite(read);
                let twice = access.keys.len() < keys.len();
                if twice { Err("access.keys: a key is there twice".into()) } else { Ok(access) }
            }
            (mode, _) => Err(format!("access.mode = {mode:?}: must be \"open\" or \"invite\"")),
        }
    }
}

impl Serialize for Access {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.keys.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Access {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            Table::deserialize(deserializer)?.try_into().map_err(D::Error::custom)
        } else {
            Ok(Self { keys: Vec::deserialize(deserializer)? })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use crate::codec;
    use crate::genesis::Genesis;
    use crate::identity::Identity;

    fn key(n: u8) -> PeerKey {
        Identity::from_secret(&[n; 32]).public()
    }

    fn genesis(access: Access) -> Genesis {
        Genesis { access, ..Genesis::new("garden", Architecture::preset("nano").unwrap(), 5) }
    }

    #[test]
    fn a_closed_genesis_reads_back_and_its_id_covers_the_keys() {
        let closed = genesis(Access::invite([key(2), key(1)]));
        let text = closed.to_toml();
        let read = Genesis::parse(&text).unwrap();
        assert_eq!((&read, read.swarm_id()), (&closed, closed.swarm_id()));
        assert_eq!(read.access, Access::invite([key(1), key(2)]), "their order does not matter");
        let others = [Access::default(), Access::invite([key(1)]), Access::invite([key(1), key(3)])];
        for other in others {
            assert_ne!(genesis(other).swarm_id(), closed.swarm_id());
        }
        let bytes = codec::encode(&closed.access);
        assert_eq!(codec::decode(&bytes), Some(closed.access));
    }

    #[test]
    fn an_open_genesis_says_nothing_about_access_and_may_say_that_it_is_open() {
        let open = genesis(Access::default());
        let text = open.to_toml();
        assert!(!text.contains("access"), "{text}");
        let said = Genesis::parse(&format!("{text}\n[access]\nmode = \"open\"\n")).unwrap();
        assert_eq!(said.swarm_id(), open.swarm_id());
    }

    #[test]
    fn errors_name_the_key() {
        let text = genesis(Access::invite([key(1)])).to_toml();
        let (hex, second) = (key(1).to_string(), key(2).to_string());
        let twice = format!("{hex}\",\n\"{hex}");
        let weak = format!("01{}", "0".repeat(62));
        for (from, to, words) in [
            ("mode = \"invite\"", "mode = \"closed\"", &["access.mode", "closed", "open", "invite"][..]),
            ("mode = \"invite\"", "mode = \"open\"", &["access.keys", "open swarm"]),
            ("mode = \"invite\"", "", &["missing field `mode`"]),
            ("mode = \"invite\"", "mode = \"invite\"\ncolour = 3", &["colour"]),
            (&hex, "abc", &["access.keys", "abc", "64 hexadecimal digits"]),
            (&hex, &twice, &["access.keys", "twice"]),
            (&hex, &weak, &["access.keys", "not an ed25519 public key"]),
        ] {
            assert!(text.contains(from), "{from}");
            let error = Genesis::parse(&text.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{from} -> {to}: {error}");
        }
        let none = text.replace(&format!("    \"{hex}\",\n"), "");
        assert!(Genesis::parse(&none).unwrap_err().to_string().contains("access.keys"));
        assert!(Genesis::parse(&text.replacen(&hex, &second, 1)).is_ok());
        let many = genesis(Access::invite((0..17).map(key)));
        assert!(many.validate().unwrap_err().contains("17 keys"));
        // As bytes that somebody else has written may have them.
        let backwards =
            genesis(Access { keys: Access::invite([key(1), key(2)]).keys.into_iter().rev().collect() });
        assert!(backwards.validate().unwrap_err().contains("not in order"));
    }
}
