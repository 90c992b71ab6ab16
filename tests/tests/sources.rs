//! A checkpoint comes from several nodes at once, and some of them fail.
#![cfg(unix)]

use anyhow::{Context, Result};
use swarm_protocol::wire::MAX_CHUNK;
use swarm_tests::liar::{Liar, name_in_logs};
use swarm_tests::place::{Changes, WINDOW};
use swarm_tests::report::{address, agreed, number, text};
use swarm_tests::{Place, Process, Signal, program};

/// 1.6 M parameters: a checkpoint of seven chunks; and deltas so small that they travel inside gossip.
const WIDE: Changes<'static> =
    &[("dim", "256"), ("heads", "4"), ("kv_heads", "4"), ("head_dim", "64"), ("ffn", "640"), ("k", "16")];

/// Bytes of a model that are here, and of how many, while it is fetched.
fn progress(process: &Process) -> Option<(u64, u64)> {
    let status = process.status()?;
    let bytes = status["detail"].as_str()?.strip_prefix("fetching the model: ")?.strip_suffix(" bytes")?;
    let (here, all) = bytes.split_once(" of ")?;
    Some((here.parse().ok()?, all.parse().ok()?))
}

fn sent(process: &Process) -> Option<u64> {
    number(&process.status()?, "bytes_sent").ok()
}

/// Three sources: one serves wrong bytes, one is killed half-way, one is honest and slow.
#[test]
fn a_newcomer_gets_the_model_though_one_source_lies_and_another_is_killed() -> Result<()> {
    const ROUNDS: u64 = 2 * WINDOW + 12;
    let place = Place::new()?;
    place.genesis("genesis.toml", WIDE)?;
    let mut author = place.node("author")?.rounds(&ROUNDS.to_string()).start()?;
    let there = address(&mut author, "/tcp/")?;
    let replica = |name: &str, upload: &str| {
        let node = place.bootstrap(name, program::swarm()?).bootstrap(&there);
        node.arg("--max-upload").arg(upload).start()
    };
    // At its rate, what is asked second of the one that is killed takes five seconds: it is owing then.
    let (mut steady, mut doomed) = (replica("steady", "1MB")?, replica("doomed", "200kB")?);
    for source in [&mut author, &mut steady, &mut doomed] {
        source.wait_for_round(2 * WINDOW + 2)?;
    }
    // Without it the swarm stands still: it shall not be done before somebody has joined.
    author.signal(Signal::Stop)?;
    let status = steady.status().context("no status")?;
    let liar = Liar::start(text(&status, "swarm_id")?, &address(&mut steady, "/tcp/")?)?;
    let before = (sent(&steady).context("no status")?, sent(&doomed).context("no status")?);
    let mut late = place.node("late")?.talkative().rounds(&ROUNDS.to_string());
    for source in [&address(&mut steady, "/tcp/")?, &address(&mut doomed, "/tcp/")?, liar.address()] {
        late = late.bootstrap(source);
    }
    let mut late = late.start()?;

    let chunk = u64::from(MAX_CHUNK);
    let (here, all) = late.until("a part of the model, of two sources", |late| {
        let enough = sent(&doomed)? > before.1 + chunk;
        progress(late).filter(|(here, all)| enough && *here > chunk && here < all)
    })?;
    doomed.kill()?;
    assert_eq!(all.div_ceil(chunk), 7, "{here} of {all} bytes");
    // It had been asked for more, and that has to come from elsewhere.
    let name = name_in_logs(text(&doomed.status().context("no status")?, "peer_id")?)?;
    let failed = format!("request to {name} failed: ");
    late.until("a question that was cut off", |late| {
        let log = late.log().ok()?;
        let mut reasons = log.lines().filter_map(|line| line.split_once(&failed));
        reasons.any(|(_, reason)| reason.contains("connection")).then_some(())
    })?;
    late.wait_for_log("joined the swarm at round")?;
    author.signal(Signal::Continue)?;
    let status = late.wait_for("its first round", |status| status["tokens"].as_u64() > Some(0))?;

    // The liar is named, it alone, and cut off.
    let log = late.log()?;
    let named = |words: &str| log.contains(&words.replace("LIAR", liar.name()));
    assert!(named("dropped a message from LIAR: wrong bytes for a blob"), "{log}");
    assert!(named("peer LIAR is cut off for 600 s: wrong bytes for a blob"), "{log}");
    assert_eq!(log.matches(" is cut off for ").count(), 1, "{log}");
    // One honest source is enough to get in at the first try.
    assert!(!log.contains("cannot join yet"), "{log}");
    // What was wrong was fetched once more, and what the killed one had sent of the two chunks it was asked for:
    // nothing that had been verified. The rest is less than another chunk.
    let (received, lies) = (number(&status, "bytes_received")?, liar.damaged());
    assert!((all + 1..all + lies + 3 * chunk).contains(&received), "{received} of {all}, {lies} of lies");
    // What the liar damages comes from the honest source, too; what is more went to the newcomer.
    let served = sent(&steady).context("no status")? - before.0;
    assert!(lies > 0 && served > lies + chunk, "{served} bytes, {lies} of lies");
    drop(liar);

    let reports = agreed(&mut [&mut author, &mut late], ROUNDS)?;
    for report in &reports {
        let (published, folded) = (number(report, "deltas_published")?, number(report, "deltas_folded")?);
        assert!(published > 0 && folded > published, "it folds its own and the other's: {report}");
    }
    // It had been asked for two chunks when the first one was wrong.
    let refused = reports[1]["refusals"]["wrong bytes for a blob"].as_u64();
    assert!(refused.is_some_and(|refused| (1..=2).contains(&refused)), "{refused:?}");
    steady.interrupt()?;
    Ok(())
}
