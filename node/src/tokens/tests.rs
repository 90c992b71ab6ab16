//! Tokenizers, good and bad.

use super::*;

/// A tokenizer of 300 ids, trained on a few words.
pub(crate) fn small() -> (Tokenizer, Vec<u8>) {
    let text = "the swarm learns a round of many small steps, the swarm shares what is large. ".repeat(20);
    let trained = train(300, [Ok(text)].into_iter(), |_| {}).unwrap();
    (Tokenizer::parse(&trained.json).unwrap(), trained.json)
}

#[test]
fn a_trained_tokenizer_is_shorter_than_bytes_and_loses_nothing() {
    let (tokenizer, json) = small();
    assert_eq!(tokenizer.vocabulary(), 300);
    assert_eq!(tokenizer.digest(), Some(Digest::of_bytes(&json)));
    for text in ["the swarm learns", "  Grüße,\n\tλ 雪 🦀\r\n", "\u{0}\u{7f}", ""] {
        let mut tokens = Vec::new();
        tokenizer.encode(text, &mut tokens).unwrap();
        assert_eq!(tokenizer.decode(&tokens).unwrap(), text);
        assert!(tokens.iter().all(|token| *token < 300));
    }
    let mut tokens = Vec::new();
    tokenizer.encode("the swarm learns", &mut tokens).unwrap();
    assert!(tokens.len() < 8, "{tokens:?}");
    tokenizer.end_document(&mut tokens).unwrap();
    assert_eq!(tokens.last(), Some(&299));
    // The same text makes the same file: its hash names a swarm.
    assert_eq!(small().1, json);
}

#[test]
fn bytes_are_tokens_by_default() {
    let mut tokens = Vec::new();
    Tokenizer::Bytes.encode("aü", &mut tokens).unwrap();
    Tokenizer::Bytes.end_document(&mut tokens).unwrap();
    assert_eq!(tokens, [97, 0xc3, 0xbc, 10]);
    assert_eq!(Tokenizer::Bytes.decode(&tokens).unwrap(), "aü\n");
    assert_eq!((Tokenizer::Bytes.vocabulary(), Tokenizer::Bytes.pin()), (256, None));
}

#[test]
fn a_stream_never_gives_out_half_a_character() {
    let (json, _) = small();
    for tokenizer in [Tokenizer::Bytes, json] {
        let text = "the swarm 雪 says 🦀🦀 ü\u{301} end";
        let mut tokens = Vec::new();
        tokenizer.encode(text, &mut tokens).unwrap();
        let mut stream = tokenizer.stream();
        let mut out = String::new();
        for token in tokens {
            let added = stream.push(token).unwrap();
            assert!(!added.contains(char::REPLACEMENT_CHARACTER), "{added:?}");
            out += &added;
        }
        out += &stream.finish().unwrap();
        assert_eq!(out, text);
        // What is no character does not hold up what follows, and the end is not lost.
        let bad = |byte: u32| match &tokenizer {
            Tokenizer::Bytes => byte,
            // Ids of bytes above 127 in GPT-2's alphabet: found by encoding a character that has them.
            Tokenizer::Json(_) => {
                let mut tokens = Vec::new();
                tokenizer.encode("🦀", &mut tokens).unwrap();
                tokens[1]
            }
        };
        let mut stream = tokenizer.stream();
        let mut out = String::new();
        for _ in 0..40 {
            out += &stream.push(bad(0x9f)).unwrap();
        }
        let mut tokens = Vec::new();
        tokenizer.encode(" the end", &mut tokens).unwrap();
        for token in tokens {
            out += &stream.push(token).unwrap();
        }
        out += &stream.finish().unwrap();
        assert!(out.ends_with(" the end"), "{out:?}");
        assert_eq!(out.matches(char::REPLACEMENT_CHARACTER).count(), 40, "{out:?}");
    }
}

#[test]
fn what_is_no_tokenizer_is_refused_and_nothing_panics() {
    let (_, good) = small();
    for bad in
        [&b""[..], b"{}", b"[]", b"null", b"\xff\xfe", b"{\"version\":\"1.0\"}", &good[..good.len() / 2]]
    {
        assert!(Tokenizer::parse(bad).is_err());
    }
    // Every part of it is damaged somewhere: an error or a tokenizer, never a panic.
    let mut refused = 0;
    for at in (0..good.len()).step_by(good.len() / 200) {
        let mut bad = good.clone();
        bad[at] = b'~';
        refused += usize::from(Tokenizer::parse(&bad).is_err());
    }
    assert!(refused > 20, "{refused}");
    let text = String::from_utf8(good).unwrap();
    let far = text.replacen("\"!\": 0", "\"!\": 4000000000", 1);
    assert_ne!(far, text);
    let error = Tokenizer::parse(far.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("4000000000"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pickle.json");
    std::fs::write(&path, b"\x80\x04}q\x00.").unwrap();
    let error = format!("{:#}", Tokenizer::open(&path).unwrap_err());
    assert!(error.contains("pickle.json") && error.contains("swarm tokenizer train"), "{error}");
}

#[test]
fn another_tokenizer_than_the_genesis_names_is_refused_with_the_remedy() {
    let (tokenizer, _) = small();
    let pin = tokenizer.pin().unwrap();
    tokenizer.check(Some(&pin), "t.json").unwrap();
    Tokenizer::Bytes.check(None, "").unwrap();
    let refused = |tokenizer: &Tokenizer, pin: Option<genesis::Tokenizer>| {
        tokenizer.check(pin.as_ref(), "t.json").unwrap_err().to_string()
    };
    let other = genesis::Tokenizer { blake3: Digest::of_bytes(b"other"), ..pin };
    let error = refused(&tokenizer, Some(other));
    assert!(
        error.contains("t.json is not the tokenizer of this swarm") && error.contains("swarm new"),
        "{error}"
    );
    let error = refused(&tokenizer, Some(genesis::Tokenizer { vocabulary: 301, ..pin }));
    assert!(error.contains("t.json has 300 token ids, and the genesis says 301"), "{error}");
    assert!(refused(&tokenizer, None).contains("leave --tokenizer out"));
    assert!(refused(&Tokenizer::Bytes, Some(pin)).contains("--tokenizer FILE"));
}

#[test]
fn training_says_what_is_wrong() {
    let error = train(257, std::iter::empty(), |_| {}).unwrap_err().to_string();
    assert!(error.contains("--vocabulary 257") && error.contains("258"), "{error}");
    let error = train(300, std::iter::empty(), |_| {}).unwrap_err().to_string();
    assert!(error.contains("no text"), "{error}");
    let broken = [Ok("text".to_owned()), Err(anyhow!("the disk is gone"))].into_iter();
    assert_eq!(train(300, broken, |_| {}).unwrap_err().to_string(), "the disk is gone");
    // A text with few pairs makes a small tokenizer.
    let few = train(5000, [Ok("aaaa aaaa".to_owned())].into_iter(), |_| {}).unwrap();
    assert!((257..270).contains(&few.vocabulary), "{}", few.vocabulary);
}
