//! Bytes as a vocabulary that other programs understand.
//!
//! A byte model's tokens are the bytes, 0 to 255. The vocabularies of byte-pair encoders name each byte by a visible
//! character, as GPT-2's does (Radford et al. 2019; `bytes_to_unicode` in its code): bytes that are visible in
//! Latin-1 by themselves, the others by the characters from U+0100 on. With these names, no merges and the identifiers
//! in the order of the bytes, such an encoder reads and writes plain bytes.

use serde_json::{Map, Value, json};

/// The character that stands for each byte.
pub(super) fn characters() -> [char; 256] {
    let mut next = 0x100u32;
    std::array::from_fn(|byte| {
        // It counts the bytes that were not visible before this one.
        let visible = matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        let code = if visible { byte as u32 } else { next };
        next += u32::from(!visible);
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
    })
}

/// `tokenizer.json` of a byte model, as the `tokenizers` library reads it.
pub(super) fn tokenizer_json() -> Value {
    let vocabulary: Map<String, Value> =
        (0..).zip(characters()).map(|(byte, name)| (name.to_string(), Value::from(byte))).collect();
    let bytes =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": []
        }
    })
}

/// `tokenizer_config.json` beside it.
pub(super) fn tokenizer_config(context: u32) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context,
        "clean_up_tokenization_spaces": false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        let characters = characters();
        let distinct: std::collections::BTreeSet<char> = characters.into_iter().collect();
        assert_eq!(distinct.len(), 256);
        // As in GPT-2's vocabulary.
        for (byte, character) in
            [(0, 'Ā'), (b'\n', 'Ċ'), (b' ', 'Ġ'), (b'a', 'a'), (0x7F, 'ġ'), (0xAD, 'Ń'), (0xFF, 'ÿ')]
        {
            assert_eq!(characters[usize::from(byte)], character, "{byte:#x}");
        }
    }
}
