//! A new tokenizer from the user's own text: byte-level BPE, as GPT-2 has it.
//!
//! Text is cut into words with GPT-2's expression (Radford et al. 2019, section 2.2), words are bytes at first, and
//! the most frequent pair of neighbours becomes a token again and again until there are enough (Sennrich et al.,
//! arXiv 1508.07909). Every byte is a token, so nothing is ever unknown. The last id is the end of a document.
//!
//! Counting words is most of the time and all of the progress; merging takes seconds. Words are counted in memory, so
//! at most [`MAX_TEXT`] of the text is used: more does not make a better tokenizer.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Trainer};

use super::{MAX_VOCABULARY, guarded};

/// Bytes of text that are looked at, at most.
pub(crate) const MAX_TEXT: u64 = 1 << 30;
/// The end of a document.
const END: &str = "<|endoftext|>";
/// All bytes, one merge and the end of a document.
const SMALLEST: u32 = 258;

/// A tokenizer that was trained.
#[derive(Debug)]
pub(crate) struct Trained {
    /// The bytes of its `tokenizer.json`.
    pub(crate) json: Vec<u8>,
    /// Number of its token ids.
    pub(crate) vocabulary: u32,
    /// Bytes of text that were looked at.
    pub(crate) bytes: u64,
}

/// Trains a tokenizer of at most `vocabulary` ids (fewer if the text has no more pairs) on `pieces` of text.
/// `progress` is shown how many bytes were read.
///
/// # Errors
/// A vocabulary out of range, no text, or a piece that cannot be read.
pub(crate) fn train(
    vocabulary: u32,
    pieces: impl Iterator<Item = Result<String>> + Send,
    mut progress: impl FnMut(u64) + Send,
) -> Result<Trained> {
    ensure!(
        (SMALLEST..=MAX_VOCABULARY).contains(&vocabulary),
        "--vocabulary {vocabulary}: must be between {SMALLEST} (all bytes, a pair, the end of a document) and \
         {MAX_VOCABULARY}"
    );
    let alphabet: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
    let mut trainer = TrainerWrapper::BpeTrainer(
        BpeTrainer::builder()
            // The end of a document is added to what it makes.
            .vocab_size(vocabulary as usize - 1)
            .min_frequency(2)
            .show_progress(false)
            .initial_alphabet(alphabet)
            .build(),
    );
    // As GPT-2 has it: no space before the first word, words cut by its expression.
    let byte_level = ByteLevel::new(false, true, true);
    let cut = |text: &str| {
        let mut words = PreTokenizedString::from(text);
        byte_level.pre_tokenize(&mut words)?;
        let words = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(words.into_iter().map(|(word, ..)| word.to_owned()).collect())
    };
    let (mut bytes, mut failed) = (0, None);
    let pieces = pieces.map_while(|piece| match piece {
        Ok(piece) if bytes < MAX_TEXT => {
            bytes += piece.len() as u64;
            progress(bytes);
            Some(piece)
        }
        Ok(_) => None,
        Err(error) => {
            failed = Some(error);
            None
        }
    });
    let counted = guarded(|| trainer.feed(pieces, cut));
    if let Some(error) = failed {
        return Err(error);
    }
    counted?;
    ensure!(bytes > 0, "there is no text in the data");
    let mut model = ModelWrapper::BPE(BPE::default());
    guarded(|| trainer.train(&mut model))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(byte_level));
    tokenizer.with_decoder(Some(byte_level));
    guarded(|| tokenizer.add_special_tokens([AddedToken::from(END, true)]))?;
    let json = guarded(|| tokenizer.to_string(true))? + "\n";
    Ok(Trained { json: json.into_bytes(), vocabulary: tokenizer.get_vocab_size(true) as u32, bytes })
}
