//! The text that a model is measured on, piece by piece.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Piece;
use crate::data::{Corpus, read_text, text_files};
use crate::tokens::Tokenizer;

/// Bytes of a piece.
const PIECE: usize = 64 << 10;
/// More files than this are a mistake.
const MAX_FILES: usize = 100_000;
/// Bytes of a file in a folder that decide whether it is text.
const PROBE: u64 = 1024;

/// Files, and how many bytes they have together.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    pub(crate) bytes: u64,
}

impl Files {
    /// Those named, and all text files in folders that are named.
    ///
    /// # Errors
    /// A path that is not there; none that is text.
    pub(crate) fn find(named: &[PathBuf]) -> Result<Self> {
        let mut paths = text_files(named, MAX_FILES)?;
        // What is named is measured on whatever it is.
        paths.retain(|path| named.contains(path) || read_text(path, PROBE).is_some());
        ensure!(!paths.is_empty(), "there is no text in what --data names");
        let mut bytes = 0;
        for path in &paths {
            bytes +=
                std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
        }
        Ok(Self { paths, bytes })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.paths.len()
    }

    /// All of them, one after the other.
    pub(crate) fn pieces<'a>(&'a self, tokenizer: &'a Tokenizer) -> impl Iterator<Item = Result<Piece>> + 'a {
        self.paths.iter().flat_map(move |path| of_file(path, tokenizer))
    }
}

fn of_file<'a>(path: &'a Path, tokenizer: &'a Tokenizer) -> Box<dyn Iterator<Item = Result<Piece>> + 'a> {
    let failed = move || format!("cannot read {}", path.display());
    let mut file = match File::open(path).with_context(failed) {
        Ok(file) => file,
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    let (mut begins, mut rest) = (true, Vec::new());
    Box::new(std::iter::from_fn(move || {
        let mut bytes: Vec<u8> = std::mem::take(&mut rest);
        let read = match file.by_ref().take(PIECE as u64).read_to_end(&mut bytes).with_context(failed) {
            Ok(0) if bytes.is_empty() => return None,
            Ok(read) => read,
            Err(error) => return Some(Err(error)),
        };
        // A word that is cut is other tokens.
        if read > 0
            && matches!(tokenizer, Tokenizer::Json(_))
            && let Some(cut) = bytes.iter().rposition(u8::is_ascii_whitespace).filter(|cut| *cut > 0)
        {
            rest = bytes.split_off(cut);
        }
        Some(piece(&bytes, std::mem::take(&mut begins), tokenizer))
    }))
}

/// What a corpus keeps back of its text, as one.
pub(crate) fn held_out<'a>(
    corpus: &'a Corpus,
    tokenizer: &'a Tokenizer,
) -> impl Iterator<Item = Result<Piece>> + 'a {
    let all = corpus.held_out_tokens();
    (0..all).step_by(PIECE).map(move |start| {
        let mut tokens = vec![0; (all - start).min(PIECE as u64) as usize];
        corpus.read_held_out(start, &mut tokens)?;
        let bytes = match tokenizer {
            Tokenizer::Bytes => tokens.len(),
            Tokenizer::Json(_) => tokenizer.decode(&tokens)?.len(),
        };
        Ok(Piece { tokens, bytes: bytes as u64, begins: start == 0 })
    })
}

fn piece(bytes: &[u8], begins: bool, tokenizer: &Tokenizer) -> Result<Piece> {
    let tokens = match tokenizer {
        Tokenizer::Bytes => bytes.iter().map(|&byte| byte.into()).collect(),
        Tokenizer::Json(_) => {
            let mut tokens = Vec::new();
            tokenizer.encode(&String::from_utf8_lossy(bytes), &mut tokens)?;
            tokens
        }
    };
    Ok(Piece { tokens, bytes: bytes.len() as u64, begins })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::CorpusOptions;

    fn bytes(pieces: impl Iterator<Item = Result<Piece>>) -> (Vec<u8>, usize) {
        let pieces: Vec<Piece> = pieces.collect::<Result<_>>().unwrap();
        let begins = pieces.iter().filter(|piece| piece.begins).count();
        assert!(pieces.iter().all(|piece| piece.bytes == piece.tokens.len() as u64));
        (pieces.iter().flat_map(|piece| piece.tokens.iter().map(|&token| token as u8)).collect(), begins)
    }

    #[test]
    fn all_files_are_read_in_order_and_binary_ones_only_if_they_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let long = vec![b'x'; PIECE + 10];
        write("a.txt", &long);
        write("b.txt", b"bees");
        let binary = write("c.bin", b"\0\x01\x02\0");
        let folder = Files::find(&[dir.path().to_owned()]).unwrap();
        assert_eq!((folder.count(), folder.bytes), (2, PIECE as u64 + 14));
        assert_eq!(bytes(folder.pieces(&Tokenizer::Bytes)), ([&long[..], b"bees"].concat(), 2));
        let named = Files::find(&[binary]).unwrap();
        assert_eq!(bytes(named.pieces(&Tokenizer::Bytes)).0, b"\0\x01\x02\0");
        let none = Files::find(&[dir.path().join("none")]).unwrap_err();
        assert!(format!("{none:#}").contains("none"), "{none:#}");
    }

    #[test]
    fn what_is_held_out_is_what_training_leaves_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        let text: Vec<u8> = (0..2000u32).map(|i| b'a' + (i % 23) as u8).collect();
        std::fs::write(&path, &text).unwrap();
        let mut options = CorpusOptions::new(8);
        options.held_out_fraction = 0.1;
        let corpus = Corpus::open(&[path], options).unwrap();
        let (held, begins) = bytes(held_out(&corpus, &Tokenizer::Bytes));
        assert_eq!((held.len() as u64, begins), (corpus.held_out_tokens(), 1));
        assert!(held.len() >= 190, "{}", held.len());
        let tail = [&text[..], b"\n"].concat();
        assert!(tail.ends_with(&held), "a small corpus holds out its end");
    }
}
