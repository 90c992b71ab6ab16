//! Nodes with little line keep to what they are allowed and still train together.
#![cfg(unix)]

use std::time::Instant;

use anyhow::{Context, Result};
use swarm_tests::Place;
use swarm_tests::report::{address, agreed, number};

/// Unlimited, a delta of this model takes tens of kilobytes and a round a fraction of a second.
#[test]
fn a_tight_limit_is_kept_and_the_nodes_agree() -> Result<()> {
    const ROUNDS: u64 = 60;
    const LIMIT: u64 = 60_000;
    let place = Place::with_genesis()?;
    let began = Instant::now();
    let node = |name: &str| -> Result<_> {
        let limits = ["--max-upload", "60kB", "--max-download", "60kB", "--max-upload-day", "9GB"];
        Ok(limits.iter().fold(place.node(name)?.rounds(&ROUNDS.to_string()), |node, arg| node.arg(arg)))
    };
    let mut first = node("first")?.start()?;
    let there = address(&mut first, "/tcp/")?;
    let mut second = node("second")?.bootstrap(&there).start()?;
    let status = second.wait_for_round(ROUNDS / 2).and_then(|_| second.status().context("no status"))?;
    assert_eq!(status["meter"]["upload_limit"], LIMIT, "{status}");
    assert!(number(&status["meter"], "sent_today")? > 0, "{status}");
    let reports = agreed(&mut [&mut first, &mut second], ROUNDS)?;
    // A quarter of a second's worth may be made up for, and no more.
    let allowed = LIMIT as f64 * (began.elapsed().as_secs_f64() + 0.25);
    for report in &reports {
        let (sent, received) = (number(report, "bytes_sent")?, number(report, "bytes_received")?);
        assert!((sent as f64) <= allowed && (received as f64) <= allowed, "{allowed}: {report}");
    }
    // Fewer coefficients first: the first deltas are whole, the later ones fit.
    let smaller = |report: &serde_json::Value| report["delta_bytes_mean"].as_f64();
    let mut free = place.node("free")?.rounds("3").start()?;
    free.success()?;
    let whole = smaller(&free.report()?).context("no delta")?;
    for report in &reports {
        let mean = smaller(report).context("no delta")?;
        assert!(mean < 0.8 * whole, "{mean} of {whole}: {report}");
    }
    Ok(())
}
