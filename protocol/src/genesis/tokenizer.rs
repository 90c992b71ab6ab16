//! How a swarm's text becomes tokens, where bytes are not what it reads: the table `[tokenizer]` of its genesis.
//!
//! The genesis holds the hash of a Hugging Face `tokenizer.json` and not the file, which has megabytes. Whoever has
//! bytes with this hash has the tokenizer, wherever they come from; peers serve it as they serve the genesis itself.
//! What the file says is for the nodes that train: nothing here reads it.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The largest `tokenizer.json` that is read or fetched, in bytes: those of common models have up to 35 million.
pub const MAX_TOKENIZER: u64 = 64 << 20;

/// The tokenizer that all peers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokenizer {
    /// BLAKE3 of the file's bytes.
    pub blake3: Digest,
    /// Number of token ids: one more than the largest.
    pub vocabulary: u32,
}

impl Tokenizer {
    /// Checks every value against the model's vocabulary; the error names the key.
    ///
    /// # Errors
    /// The first value out of its range.
    pub(super) fn validate(&self, model_vocabulary: u32) -> Result<(), String> {
        if (2..=model_vocabulary).contains(&self.vocabulary) {
            return Ok(());
        }
        Err(format!(
            "tokenizer.vocabulary = {}: must be between 2 and model.vocabulary ({model_vocabulary})",
            self.vocabulary
        ))
    }

    /// The table as TOML, with a comment for every key.
    pub(super) fn to_toml(self) -> String {
        let Self { blake3, vocabulary } = self;
        format!(
            "\n[tokenizer]             # a tokenizer.json; without this table text is read as bytes\n\
             # BLAKE3 of the file\n\
             blake3 = \"{blake3}\"\n\
             vocabulary = {vocabulary}       # token ids; model.vocabulary is at least this\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::LlamaConfig;
    use crate::genesis::Genesis;

    fn with_tokenizer() -> Genesis {
        let mut model = LlamaConfig::preset("nano").unwrap();
        model.vocabulary = 1000;
        let mut genesis = Genesis::new("words", model, 5);
        genesis.tokenizer = Some(Tokenizer { blake3: Digest::of_bytes(b"{}"), vocabulary: 999 });
        genesis
    }

    #[test]
    fn it_reads_back_and_the_id_covers_it() {
        let genesis = with_tokenizer();
        let read = Genesis::parse(&genesis.to_toml()).unwrap();
        assert_eq!((&read, read.swarm_id()), (&genesis, genesis.swarm_id()));
        let changes: [fn(&mut Tokenizer); 2] =
            [|tokenizer| tokenizer.blake3.0[0] ^= 1, |tokenizer| tokenizer.vocabulary -= 1];
        for change in changes {
            let mut other = genesis.clone();
            other.tokenizer.as_mut().map(change).unwrap();
            assert_ne!(other.swarm_id(), genesis.swarm_id());
        }
    }

    #[test]
    fn canonical_bytes_end_with_it() {
        let genesis = with_tokenizer();
        let (with, without) =
            (genesis.canonical_bytes(), Genesis { tokenizer: None, ..genesis.clone() }.canonical_bytes());
        let (none, before) = without.split_last().unwrap();
        assert_eq!(*none, 0);
        let some = [&[1][..], &Digest::of_bytes(b"{}").0, &999u32.to_le_bytes()].concat();
        assert_eq!(with, [before, &some].concat());
        assert_eq!(Genesis::from_canonical_bytes(&with).unwrap(), genesis);
    }

    #[test]
    fn errors_name_the_key() {
        let text = with_tokenizer().to_toml();
        for (from, to, words) in [
            ("vocabulary = 999", "vocabulary = 1001", &["tokenizer.vocabulary = 1001", "1000"][..]),
            ("vocabulary = 999", "vocabulary = 1", &["tokenizer.vocabulary = 1"]),
            ("vocabulary = 999", "", &["missing field `vocabulary`"]),
            ("vocabulary = 999", "vocabulary = 999\ncolour = 3", &["colour"]),
            ("blake3 = \"", "blake3 = \"00", &["blake3", "is not a digest"]),
        ] {
            assert!(text.contains(from), "{from}");
            let error = Genesis::parse(&text.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{from} -> {to}: {error}");
        }
    }
}
