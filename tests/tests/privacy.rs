//! Nothing of a node's data leaves it: everything that two training nodes send is searched for what they train on.
#![cfg(unix)]

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use swarm_tests::report::{address, agreed, number};
use swarm_tests::{Ear, Place, Signal};

const ROUNDS: u64 = 100;
/// A window of this many bytes of a secret is enough: it occurs by chance once in 2^64 places.
const WINDOW: usize = 8;

/// What is looked for: a secret in one form.
struct Needle {
    what: String,
    bytes: Vec<u8>,
}

/// A secret in every form in which it could be sent without being encoded on purpose.
fn forms(name: &str, secret: &str, tokens: &[u32], vocabulary: u32) -> Vec<Needle> {
    let numbers = |of: &[u32]| {
        let of = of.to_vec();
        [
            ("u16 LE", of.iter().flat_map(|id| (*id as u16).to_le_bytes()).collect::<Vec<u8>>()),
            ("u16 BE", of.iter().flat_map(|id| (*id as u16).to_be_bytes()).collect()),
            ("u32 LE", of.iter().flat_map(|id| id.to_le_bytes()).collect()),
            ("u32 BE", of.iter().flat_map(|id| id.to_be_bytes()).collect()),
            ("i64 LE", of.iter().flat_map(|id| i64::from(*id).to_le_bytes()).collect()),
            ("f32 LE", of.iter().flat_map(|id| (*id as f32).to_le_bytes()).collect()),
        ]
    };
    let letters: Vec<u32> = secret.bytes().map(u32::from).collect();
    let mut all = vec![("in clear".to_owned(), secret.as_bytes().to_vec())];
    all.extend(numbers(&letters).map(|(how, bytes)| (format!("as bytes, {how}"), bytes)));
    all.extend(numbers(tokens).map(|(how, bytes)| (format!("as tokens, {how}"), bytes)));
    let bits = u32::BITS - (vocabulary - 1).leading_zeros();
    for phase in 0..8 {
        for first_low in [true, false] {
            let order = if first_low { "low" } else { "high" };
            all.push((
                format!("as tokens of {bits} bits, {order} first, {phase}"),
                packed(tokens, bits, phase, first_low),
            ));
        }
    }
    all.into_iter().map(|(how, bytes)| Needle { what: format!("{name} {how}"), bytes }).collect()
}

/// Numbers of so many bits one after the other, after `phase` other bits; whole bytes of them only.
fn packed(tokens: &[u32], bits: u32, phase: usize, first_low: bool) -> Vec<u8> {
    let of = |token: &u32| {
        let token = *token;
        (0..bits).map(move |bit| token >> (if first_low { bit } else { bits - 1 - bit }) & 1 == 1)
    };
    let all: Vec<bool> = std::iter::repeat_n(false, phase).chain(tokens.iter().flat_map(of)).collect();
    let byte = |bits: &[bool]| {
        let place = |at: usize| if first_low { at } else { 7 - at };
        bits.iter().enumerate().map(|(at, bit)| u8::from(*bit) << place(at)).sum()
    };
    // The first and the last byte have neighbours' bits in them.
    let bytes: Vec<u8> = all.as_chunks::<8>().0.iter().map(|bits| byte(bits)).collect();
    bytes.get(1..).unwrap_or_default().to_vec()
}

/// Which of the needles are in what was heard: any window of one is enough. Windows are four times as long where most
/// of a needle is zeros; those that say nothing all the same (fewer than three different bytes) do not count.
fn found(heard: &[Vec<u8>], needles: &[Needle]) -> HashSet<String> {
    let telling = |window: &[u8]| window.iter().filter(|byte| **byte != 0).collect::<HashSet<_>>().len() >= 3;
    let mut all = HashSet::new();
    for length in [WINDOW, 4 * WINDOW] {
        let mut windows: HashMap<&[u8], Vec<&str>> = HashMap::new();
        for needle in needles {
            let zeros = needle.bytes.iter().filter(|byte| **byte == 0).count();
            if (zeros * 2 > needle.bytes.len()) == (length > WINDOW) {
                for window in needle.bytes.windows(length).filter(|window| telling(window)) {
                    windows.entry(window).or_default().push(&needle.what);
                }
            }
        }
        for window in heard.iter().flat_map(|bytes| bytes.windows(length)) {
            all.extend(windows.get(window).into_iter().flatten().map(|what| (*what).to_owned()));
        }
    }
    all
}

/// The ids of a text's tokens, and how many ids there are.
fn tokens(place: &Place, text: &str) -> Result<(Vec<u32>, u32)> {
    let shown = place.swarm(["tokenizer", "show", "tokenizer.json", text])?;
    shown.refused(0, &["bytes in"])?;
    let between = |from: &str, to: &str| {
        let rest = shown.log.split(from).nth(1)?;
        rest.split(to).next().map(str::to_owned)
    };
    let ids = between("tokens: [", "]").context("no tokens")?;
    let ids: Result<Vec<u32>, _> = ids.split(", ").map(str::parse).collect();
    let vocabulary = between("tokenizer.json: ", " tokens").context("no vocabulary")?;
    Ok((ids?, vocabulary.parse()?))
}

/// Two nodes train in one swarm, with a tokenizer, on text and on JSON lines that are full of secrets, and know only
/// the ear between them. They come to agree, so everything that a swarm needs has been sent; nothing of it is a
/// secret. The same search finds every secret in every form that somebody does send.
#[test]
fn nothing_of_the_data_is_in_anything_that_a_node_sends() -> Result<()> {
    let place = Place::new()?;
    // What the tokenizer is trained on is no secret: everybody gets it.
    place.text("common.txt", 1, 60_000)?;
    let train = ["tokenizer", "train", "--data", "common.txt", "--vocabulary", "300"];
    place.swarm(train)?.refused(0, &["wrote tokenizer.json"])?;
    place.genesis_with("genesis.toml", &["--tokenizer", "tokenizer.json"], &[])?;
    let secrets = [
        ("text", "qzx7-Vellamo_93 guards WJK#55 at-the%Orangery"),
        ("lines", "hbt4=Nwyfre_61 forgot YQV!27 in^the~Cellarium"),
        ("path", "kfm2-Sisyphos_17"),
        ("validation", "pvd8+Tuonela_38 burned ZXC&44 on*every`Thursday"),
        ("field", "rgn5_Ahtola_82_DLP"),
    ];
    let [text, lines, path, validation, field] = secrets.map(|(_, secret)| secret);
    let prose = |secret: &str| format!("the round of the model learns {secret} again and more\n").repeat(400);
    std::fs::create_dir(place.path(path))?;
    let data = place.file(&format!("{path}/{path}.txt"), prose(text))?;
    let line =
        |secret: &str| format!("{{\"{field}\": \"the model folds {secret} again and the peer learns\"}}\n");
    let data_lines = place.file(&format!("{path}/{path}.jsonl"), line(lines).repeat(400))?;
    let measured = place.file("measured.txt", prose(validation))?;

    let first = place.learner("first", &data)?.arg("--tokenizer").arg(place.path("tokenizer.json"));
    let mut first = first.arg("--validation").arg(&measured).rounds(&ROUNDS.to_string()).start()?;
    let ear = Ear::start(&place.swarm_id("genesis.toml")?, &address(&mut first, "/tcp/")?)?;
    first.wait_for("the ear", |status| status["peers"].as_u64() == Some(1))?;
    // Held wherever it would get too far ahead of the second, which fetches the tokenizer from it, through the ear.
    first.signal(Signal::Stop)?;
    let second = place.learner("second", &data_lines)?.arg("--field").arg(field).bootstrap(ear.address());
    let mut second = second.rounds(&ROUNDS.to_string()).start()?;
    second.wait_for_log("fetching its tokenizer")?;
    first.signal(Signal::Continue)?;
    second.wait_for_log("its tokenizer is here")?;
    first.signal(Signal::Stop)?;
    second.wait_for_phase("waiting for peers")?;
    first.signal(Signal::Continue)?;
    let reports = agreed(&mut [&mut first, &mut second], ROUNDS)?;
    let heard = ear.heard();

    // It has heard what they sent, all but what encryption adds.
    let total: usize = heard.iter().map(Vec::len).sum();
    let sent = number(&reports[0], "bytes_sent")? + number(&reports[1], "bytes_sent")?;
    ensure!(total as u64 > sent / 100 * 95, "{total} bytes heard of {sent} that were sent");
    for report in &reports {
        ensure!(number(report, "deltas_published")? > 0 && number(report, "deltas_folded")? > 0, "{report}");
    }

    let mut needles = Vec::new();
    for (name, secret) in secrets {
        let (tokens, vocabulary) = tokens(&place, secret)?;
        needles.extend(forms(name, secret, &tokens, vocabulary));
    }
    let leaked = found(&heard, &needles);
    ensure!(leaked.is_empty(), "this has left a node: {leaked:?}");
    // The tokenizer that the second fetched was heard, so what is sent in clear is found in clear.
    let tokenizer = std::fs::read(place.path("tokenizer.json"))?;
    let middle =
        tokenizer.get(tokenizer.len() / 2..).and_then(|rest| rest.get(..64)).context("a short tokenizer")?;
    let public = [Needle { what: "tokenizer".into(), bytes: middle.to_vec() }];
    ensure!(found(&heard, &public).len() == 1, "the ear did not hear the tokenizer go by");
    // And of somebody who tells them, every secret in every form is found.
    for needle in &needles {
        let heard = ear.tell(&needle.bytes)?;
        ensure!(found(&[heard], &needles).contains(&needle.what), "{} is not found where it is", needle.what);
    }
    Ok(())
}
