//! Reading what nodes report.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::Process;

/// A whole number in a status or a report.
///
/// # Errors
/// There is none of this name.
pub fn number(of: &Value, key: &str) -> Result<u64> {
    of[key].as_u64().with_context(|| format!("no number '{key}' in {of}"))
}

/// A text in a status or a report.
///
/// # Errors
/// There is none of this name.
pub fn text<'a>(of: &'a Value, key: &str) -> Result<&'a str> {
    of[key].as_str().with_context(|| format!("no text '{key}' in {of}"))
}

/// Waits until the node listens, and returns its first address that holds `kind` (`/tcp/`, `/udp/`), with
/// its `/p2p/` part.
///
/// # Errors
/// As [`Process::wait_for`].
pub fn address(process: &mut Process, kind: &str) -> Result<String> {
    let find = |status: &Value| {
        let addresses = status["listen"].as_array()?.iter().filter_map(Value::as_str);
        addresses.filter(|address| address.contains(kind)).map(str::to_owned).next()
    };
    let status = process.wait_for("an address", |status| find(status).is_some())?;
    find(&status).context("no address")
}

/// An address without the peer id at its end.
pub fn without_peer_id(address: &str) -> &str {
    address.split_once("/p2p/").map_or(address, |(before, _)| before)
}

/// Checks that all processes have ended well, at round `rounds` and with one model and one history, bit
/// for bit; returns their reports.
///
/// # Errors
/// They have not.
pub fn agreed(processes: &mut [&mut Process], rounds: u64) -> Result<Vec<Value>> {
    let mut reports: Vec<Value> = Vec::new();
    for process in processes.iter_mut() {
        process.success()?;
        let report = process.report()?;
        ensure!(number(&report, "rounds")? == rounds, "not at round {rounds}: {report}");
        ensure!(report["finished"] == true, "not finished: {report}");
        if let Some(first) = reports.first() {
            for key in ["state_digest", "log_digest"] {
                ensure!(text(first, key)? == text(&report, key)?, "{key} differs:\n{first}\n{report}");
            }
        }
        reports.push(report);
    }
    Ok(reports)
}
