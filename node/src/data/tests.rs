//! The corpus on real folders.

use super::*;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use tempfile::tempdir;

const CONTEXT: usize = 16;

fn open(path: &Path) -> Result<Corpus, CorpusError> {
    Corpus::open(&[path.to_path_buf()], CorpusOptions::new(CONTEXT))
}

/// Both parts in full, read in windows of `width`.
fn held_out(corpus: &Corpus, width: usize) -> Vec<u8> {
    let mut all = vec![0; corpus.held_out_tokens() as usize];
    let mut start = 0;
    for window in all.chunks_mut(width) {
        corpus.read_held_out(start, window).unwrap();
        start += window.len() as u64;
    }
    bytes(&all)
}

/// Tokens of a byte-level model as bytes.
fn bytes(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().map(|token| u8::try_from(*token).unwrap()).collect()
}

#[test]
fn folders_are_read_in_order_with_a_newline_after_each_file() {
    let folder = tempdir().unwrap();
    fs::create_dir_all(folder.path().join("b/inner")).unwrap();
    fs::create_dir_all(folder.path().join(".git")).unwrap();
    for (name, text) in [
        ("b/inner/x.txt", "third".to_string()),
        ("a.txt", "first".to_string()),
        ("b/a.txt", "second".to_string()),
        ("c.txt", "-".repeat(1000)),
        ("empty.txt", String::new()),
        (".git/config", "hidden".to_string()),
        (".hidden", "hidden".to_string()),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    fs::write(folder.path().join("image.png"), b"\x89PNG\r\n\0\0").unwrap();
    let mut corpus = open(folder.path()).unwrap();
    assert_eq!(corpus.summary(), "4 files, 1.0 kB of text; 5 % held out; 1 binary file skipped");
    assert_eq!(corpus.training_tokens() + corpus.held_out_tokens(), 5 + 6 + 5 + 1000 + 4);
    let mut window = [0; 19];
    let mut sampler = Sampler::new(1);
    // The stream of windows visits the beginning sooner or later.
    while !bytes(&window).starts_with(b"first") {
        corpus.sample(&mut sampler, &mut window).unwrap();
    }
    assert_eq!(bytes(&window), b"first\nsecond\nthird\n");
}

#[test]
fn held_out_text_is_never_sampled_and_nothing_is_lost() {
    // A base-26 counter of four letters a number: no eight bytes occur twice.
    let distinct: Vec<u8> = (0..100_000_u32)
        .flat_map(|i| [17_576, 676, 26, 1].map(|unit| b'a' + (i / unit % 26) as u8))
        .collect();
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("text"), &distinct).unwrap();
    let corpus = open(folder.path()).unwrap();
    assert_eq!(corpus.held_out_tokens(), 20_000 / 64 * 64);
    let held = held_out(&corpus, 1000);
    assert_eq!(held, held_out(&corpus, 37), "windows of any width show the same bytes");
    let held_words: HashSet<&[u8]> = held.windows(8).collect();
    let mut corpus = corpus;
    let (mut sampler, mut window) = (Sampler::new(3), [0; CONTEXT + 1]);
    let mut seen = 0;
    for _ in 0..20_000 {
        corpus.sample(&mut sampler, &mut window).unwrap();
        // Where a window crosses a held-out piece, it joins the text before it and after it.
        assert!(bytes(&window).windows(8).all(|word| !held_words.contains(word)));
        seen += 1;
    }
    assert_eq!(seen, 20_000);
    // The held-out pieces are spread over the text, not taken from one place.
    let quarter = |i: usize| &distinct[i * distinct.len() / 4..(i + 1) * distinct.len() / 4];
    for i in 0..4 {
        let there = quarter(i).windows(8).filter(|word| held_words.contains(word)).count();
        assert!((4000..6000).contains(&there), "quarter {i}: {there}");
    }
}

#[test]
fn the_stream_of_windows_is_reproducible_and_resumable() {
    let folder = tempdir().unwrap();
    let text: Vec<u8> = (0..50_000_u32).map(|i| b' ' + (i * i % 89) as u8).collect();
    fs::write(folder.path().join("text"), text).unwrap();
    let mut corpus = open(folder.path()).unwrap();
    let mut draw = |sampler: &mut Sampler| {
        let mut windows = vec![0; 50 * (CONTEXT + 1)];
        for window in windows.chunks_mut(CONTEXT + 1) {
            corpus.sample(sampler, window).unwrap();
        }
        windows
    };
    let mut sampler = Sampler::new(7);
    let first = draw(&mut sampler);
    let state = sampler.state();
    assert_eq!(state, SamplerState { seed: 7, drawn: 50 });
    let second = draw(&mut sampler);
    assert_eq!(draw(&mut Sampler::new(7)), first);
    assert_eq!(draw(&mut Sampler::restore(state)), second);
    assert_ne!(first, second);
    assert_ne!(draw(&mut Sampler::new(8)), first);
}

#[test]
fn draws_are_uniform() {
    let mut sampler = Sampler::new(1);
    let mut counts = [0_u32; 7];
    for _ in 0..70_000 {
        counts[sampler.below(7) as usize] += 1;
    }
    assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
    assert_eq!(sampler.below(0), 0);
}

#[test]
fn large_files_are_read_from_disk_and_may_shrink() {
    let folder = tempdir().unwrap();
    let text: Vec<u8> = (0..3_000_000_u32).map(|i| b' ' + (i.wrapping_mul(i) % 83) as u8).collect();
    let path = folder.path().join("large");
    fs::write(&path, &text).unwrap();
    let mut corpus = open(&path).unwrap();
    let held = held_out(&corpus, 8192);
    assert!(text.windows(1000).any(|window| window == &held[..1000]));
    let (mut sampler, mut window) = (Sampler::new(5), [0; CONTEXT + 1]);
    for _ in 0..100 {
        corpus.sample(&mut sampler, &mut window).unwrap();
        assert!(window.iter().all(|byte| (32..32 + 83).contains(byte)));
    }
    assert_eq!(corpus.failed_reads(), 0);
    // Half of the file goes away: its windows are passed over.
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1_500_000).unwrap();
    for _ in 0..100 {
        corpus.sample(&mut sampler, &mut window).unwrap();
    }
    assert!(corpus.failed_reads() > 20, "{}", corpus.failed_reads());
    fs::remove_file(&path).unwrap();
    let error = corpus.sample(&mut sampler, &mut window).unwrap_err().to_string();
    assert!(error.contains("large"), "{error}");
}

#[test]
fn too_little_text_says_how_much_is_needed() {
    let folder = tempdir().unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("no text in the data: 0 files"), "{error}");

    fs::write(folder.path().join("short"), "x".repeat(200)).unwrap();
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("held-out part has 10 bytes") && error.contains("takes 17"), "{error}");
    // What the message asks for is enough.
    let needed: usize = error.split("about ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    fs::write(folder.path().join("short"), "x".repeat(needed)).unwrap();
    open(folder.path()).unwrap();

    let half = CorpusOptions { held_out_fraction: 0.9, ..CorpusOptions::new(CONTEXT) };
    fs::write(folder.path().join("short"), "x".repeat(100)).unwrap();
    let error = Corpus::open(&[folder.path().to_path_buf()], half).unwrap_err().to_string();
    assert!(error.contains("the training part has"), "{error}");
}

#[test]
fn unusable_paths_are_named() {
    let folder = tempdir().unwrap();
    let missing = folder.path().join("missing.txt");
    let error = open(&missing).unwrap_err().to_string();
    assert!(error.contains("missing.txt"), "{error}");
    assert!(matches!(Corpus::open(&[], CorpusOptions::new(CONTEXT)), Err(CorpusError::NoPaths)));
    for fraction in [0.0, 1.0, -0.5, f64::NAN] {
        let options = CorpusOptions { held_out_fraction: fraction, ..CorpusOptions::new(CONTEXT) };
        let result = Corpus::open(&[folder.path().to_path_buf()], options);
        assert!(matches!(result, Err(CorpusError::Fraction { .. })));
    }
    for name in ["1", "2", "3"] {
        fs::write(folder.path().join(name), "x".repeat(1000)).unwrap();
    }
    let few = CorpusOptions { max_files: 2, ..CorpusOptions::new(CONTEXT) };
    let result = Corpus::open(&[folder.path().to_path_buf()], few);
    assert!(matches!(result, Err(CorpusError::TooManyFiles { max_files: 2, .. })));
    #[cfg(unix)]
    assert!(matches!(open(Path::new("/dev/null")), Err(CorpusError::NotFileOrFolder { .. })));
}

#[test]
fn a_file_given_twice_counts_once() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("text");
    fs::write(&file, "x".repeat(1000)).unwrap();
    let paths = [folder.path().to_path_buf(), file, folder.path().join("../").join(folder.path())];
    let corpus = Corpus::open(&paths, CorpusOptions::new(CONTEXT)).unwrap();
    assert!(corpus.summary().starts_with("1 file, "), "{}", corpus.summary());
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_not_in_circles() {
    use std::os::unix::fs::symlink;
    let (folder, elsewhere) = (tempdir().unwrap(), tempdir().unwrap());
    fs::write(elsewhere.path().join("linked"), "y".repeat(1000)).unwrap();
    fs::write(folder.path().join("text"), "x".repeat(1000)).unwrap();
    symlink(elsewhere.path(), folder.path().join("link")).unwrap();
    symlink(folder.path(), folder.path().join("circle")).unwrap();
    symlink(folder.path().join("text"), folder.path().join("again")).unwrap();
    symlink("/nowhere/at/all", folder.path().join("broken")).unwrap();
    let corpus = open(folder.path()).unwrap();
    let summary = corpus.summary();
    assert!(summary.starts_with("2 files, 2.0 kB"), "{summary}");
    assert!(summary.contains("1 could not be read, the first: ") && summary.contains("broken"), "{summary}");
}

#[cfg(unix)]
#[test]
fn unreadable_files_are_counted_and_the_first_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("text"), "x".repeat(1000)).unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "y".repeat(1000)).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&secret).is_ok() {
        // The superuser reads everything; the broken link in the test above takes the same path.
        return;
    }
    let summary = open(folder.path()).unwrap().summary();
    assert!(summary.contains("1 could not be read, the first: ") && summary.contains("secret"), "{summary}");
}
