//! Text that comes later: what was trained on is never held out, and what is held out is never trained on.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use proptest::prelude::*;
use tempfile::tempdir;

use super::*;

const CONTEXT: usize = 8;

fn options(keep: Option<&Path>) -> CorpusOptions {
    CorpusOptions { held_out_fraction: 0.2, keep: keep.map(Path::to_owned), ..CorpusOptions::new(CONTEXT) }
}

/// Numbers that occur once: four letters each, so that the four from any one on tell which text it is.
fn numbers(range: std::ops::Range<u32>) -> Vec<u8> {
    range
        .flat_map(|i| [b'A' + (i / 676 % 26) as u8, b'a' + (i / 26 % 26) as u8, b'a' + (i % 26) as u8, b'.'])
        .collect()
}

/// The numbers of which every byte is in the part: of those that are cut in two, nothing is known.
fn whole(pieces: &[Vec<u32>]) -> HashSet<Vec<u32>> {
    let fours = pieces.iter().flat_map(|tokens| tokens.windows(4));
    let is_number = |four: &&[u32]| (65..91).contains(&four[0]) && four[3] == u32::from(b'.');
    fours.filter(is_number).map(<[u32]>::to_vec).collect()
}

fn parts(corpus: &Corpus) -> (HashSet<Vec<u32>>, HashSet<Vec<u32>>) {
    let [training, held_out] = corpus.parts().unwrap();
    (whole(&training), whole(&held_out))
}

#[derive(Clone, Debug)]
enum Change {
    /// So many numbers at the end of a file, which may be new.
    Grow(usize, u32),
    /// Text at the beginning of a file.
    Edit(usize, u32),
    /// A new file of JSON lines.
    Lines(usize, u32),
    /// A file goes.
    Remove(usize),
    Refresh,
    /// The program starts again.
    Restart,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => (0..4usize, 1..1200u32).prop_map(|(file, count)| Change::Grow(file, count)),
        1 => (0..4usize, 1..50u32).prop_map(|(file, count)| Change::Edit(file, count)),
        2 => (0..3usize, 1..1000u32).prop_map(|(file, count)| Change::Lines(file, count)),
        1 => (0..4usize).prop_map(Change::Remove),
        4 => Just(Change::Refresh),
        3 => Just(Change::Restart),
    ];
    prop::collection::vec(change, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn held_out_text_was_never_trained_on(changes in changes()) {
        let folder = tempdir().unwrap();
        let (data, keep) = (folder.path().join("data"), folder.path().join("keep"));
        fs::create_dir(&data).unwrap();
        let mut next = 2000;
        let mut more = |count: u32| {
            next += count;
            numbers(next - count..next)
        };
        fs::write(data.join("0.txt"), numbers(0..2000)).unwrap();
        let paths = [data.clone()];
        let mut corpus = Corpus::open(&paths, options(Some(&keep))).unwrap();
        let (mut trained, _) = parts(&corpus);
        for change in changes {
            match change {
                Change::Grow(file, count) => {
                    let path = data.join(format!("{file}.txt"));
                    fs::File::options().create(true).append(true).open(path).unwrap().write_all(&more(count)).unwrap();
                }
                Change::Edit(file, count) => {
                    let path = data.join(format!("{file}.txt"));
                    let before = fs::read(&path).unwrap_or_default();
                    fs::write(path, [more(count), before].concat()).unwrap();
                }
                Change::Lines(file, count) => {
                    let text = String::from_utf8(more(count)).unwrap();
                    let line = serde_json::json!({ "text": text });
                    let path = data.join(format!("{file}.jsonl"));
                    writeln!(fs::File::options().create(true).append(true).open(path).unwrap(), "{line}").unwrap();
                }
                Change::Remove(file) => {
                    let _ = fs::remove_file(data.join(format!("{file}.txt")));
                }
                Change::Refresh => {
                    let _ = corpus.refresh().unwrap();
                }
                Change::Restart => {
                    drop(corpus);
                    // Without enough text there is nothing to train on.
                    let Ok(again) = Corpus::open(&paths, options(Some(&keep))) else { return Ok(()) };
                    if again.split_anew() {
                        return Ok(());
                    }
                    corpus = again;
                }
            }
            let (training, held_out) = parts(&corpus);
            prop_assert!(training.is_disjoint(&held_out));
            prop_assert!(held_out.is_disjoint(&trained), "trained on before, and held out now");
            trained.extend(training);
        }
    }
}

#[test]
fn a_growing_folder_is_taken_up_while_training() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), numbers(0..1000)).unwrap();
    let paths = [folder.path().to_owned()];
    let refresh = Some(std::time::Duration::ZERO);
    let mut corpus = Corpus::open(&paths, CorpusOptions { refresh, ..options(None) }).unwrap();
    let before = parts(&corpus);
    let held_out = corpus.held_out_tokens();
    assert_eq!(corpus.refresh().unwrap(), 0);
    fs::write(folder.path().join("b.txt"), numbers(1000..3000)).unwrap();
    fs::write(folder.path().join("c.jsonl"), "{\"text\": \"Zzz.\"}\n{\"text\": \"Zz").unwrap();
    // Sampling looks for it by itself.
    corpus.sample(&mut Sampler::new(1), &mut [0; CONTEXT + 1]).unwrap();
    let after = parts(&corpus);
    assert!(after.0.is_superset(&before.0) && after.1.is_superset(&before.1));
    assert!(corpus.held_out_tokens() > held_out + 1000, "a large addition gives to both parts");
    assert!(corpus.summary().starts_with("3 files, "), "{}", corpus.summary());
    // A line that is still being written is left until it is complete.
    let lines = format!("{{\"text\": \"Zzz.\"}}\n{{\"text\": \"Zzy.{}\"}}\n", " ".repeat(5000));
    fs::write(folder.path().join("c.jsonl"), lines).unwrap();
    assert!(corpus.refresh().unwrap() > 4000);
    let zzy = b"Zzy.".map(u32::from).to_vec();
    let (training, held_out) = parts(&corpus);
    assert!(training.contains(&zzy) != held_out.contains(&zzy));
}

#[test]
fn a_restart_draws_the_windows_that_would_have_been_drawn() {
    let folder = tempdir().unwrap();
    let (data, keep) = (folder.path().join("data"), folder.path().join("keep"));
    fs::create_dir(&data).unwrap();
    fs::write(data.join("m.txt"), numbers(0..2000)).unwrap();
    let paths = [data.clone()];
    let mut corpus = Corpus::open(&paths, options(Some(&keep))).unwrap();
    // Before the other in the order of names, after it in time.
    fs::write(data.join("a.txt"), numbers(2000..4000)).unwrap();
    assert!(corpus.refresh().unwrap() > 0);
    let mut sampler = Sampler::new(3);
    let draw = |corpus: &mut Corpus, sampler: &mut Sampler| {
        let mut windows = vec![0; 50 * (CONTEXT + 1)];
        for window in windows.chunks_mut(CONTEXT + 1) {
            corpus.sample(sampler, window).unwrap();
        }
        windows
    };
    draw(&mut corpus, &mut sampler);
    let state = sampler.state();
    let expected = draw(&mut corpus, &mut sampler);
    drop(corpus);
    let mut again = Corpus::open(&paths, options(Some(&keep))).unwrap();
    assert_eq!(draw(&mut again, &mut Sampler::restore(state)), expected);
}

#[test]
fn an_edited_file_gives_nothing_to_the_held_out_part() {
    let folder = tempdir().unwrap();
    let (data, keep) = (folder.path().join("data"), folder.path().join("keep"));
    fs::create_dir(&data).unwrap();
    for (name, range) in [("a.txt", 0..1000), ("b.txt", 1000..2000)] {
        fs::write(data.join(name), numbers(range)).unwrap();
    }
    let corpus = Corpus::open(std::slice::from_ref(&data), options(Some(&keep))).unwrap();
    let (_, before) = parts(&corpus);
    drop(corpus);
    let edited = [numbers(5000..5010), numbers(1000..2000)].concat();
    fs::write(data.join("b.txt"), edited).unwrap();
    let corpus = Corpus::open(std::slice::from_ref(&data), options(Some(&keep))).unwrap();
    let (training, held_out) = parts(&corpus);
    assert!(held_out.is_subset(&before));
    let in_b = |number: &Vec<u32>| {
        numbers(1000..2000)
            .chunks(4)
            .any(|four| number.iter().copied().eq(four.iter().copied().map(u32::from)))
    };
    assert!(!held_out.iter().any(in_b) && training.iter().filter(|number| in_b(number)).count() > 900);
    drop(corpus);
    // If nothing is left to be held out, the split is made anew.
    for name in ["a.txt", "b.txt"] {
        let text = fs::read(data.join(name)).unwrap();
        fs::write(data.join(name), [b"edited ", &text[..]].concat()).unwrap();
    }
    let corpus = Corpus::open(&[data], options(Some(&keep))).unwrap();
    assert!(corpus.held_out_tokens() > 500 && corpus.split_anew());
}

#[test]
fn a_damaged_ledger_is_replaced() {
    let folder = tempdir().unwrap();
    let (data, keep) = (folder.path().join("a.txt"), folder.path().join("keep"));
    fs::write(&data, numbers(0..1000)).unwrap();
    let held = Corpus::open(std::slice::from_ref(&data), options(Some(&keep))).unwrap().held_out_tokens();
    let path = keep.join("split.json");
    let good = fs::read_to_string(&path).unwrap();
    for bad in [
        String::new(),
        good[..good.len() / 2].into(),
        good.replacen("\"held\":[[", "\"held\":[[9999999,1],[", 1),
    ] {
        assert_ne!(bad, good);
        fs::write(&path, bad).unwrap();
        assert_eq!(
            Corpus::open(std::slice::from_ref(&data), options(Some(&keep))).unwrap().held_out_tokens(),
            held
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), good);
    }
}
