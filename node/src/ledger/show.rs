//! A ledger as a table, as CSV and as JSON: the same numbers, digit for digit, on every peer.
//!
//! What is a claim is called so: `claimed_tokens`, `claimed_loss_...`. Everything else follows from what was signed.
//! Numbers are written from integers, so no machine rounds them in another way.

use std::fmt::Write;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use swarm_protocol::contributions::{Ledger, Row, Standing, Total};
use swarm_protocol::genesis::Genesis;
use swarm_protocol::identity::PeerKey;

use crate::net::peer_id;

/// How a ledger is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// A line an author (with --rounds: an author of a round), after a line of names.
    Csv,
    /// One object; shares and agreement are numbers.
    Json,
}

impl Format {
    /// All there are.
    pub(crate) const ALL: [Self; 3] = [Self::Table, Self::Csv, Self::Json];
}

/// The format's name and version in JSON.
const JSON: &str = "swarm ledger 1";
/// What is said about the columns, in JSON.
const FACTS: &str = "rounds, counted, left_out, void, shared, share, agreement and confirms follow from the signed \
                     deltas, and are the same for everybody who has them";
const CLAIMS: &str =
    "claimed_tokens and claimed_loss_* are what the authors say about themselves; nobody can check them";

/// A ledger as text.
///
/// # Errors
/// None that is known of: the writers write into memory.
pub(crate) fn written(ledger: &Ledger, genesis: &Genesis, format: Format, rounds: bool) -> Result<String> {
    match (format, rounds) {
        (Format::Table, false) => Ok(heading(ledger, genesis) + &authors_table(ledger)),
        (Format::Table, true) => Ok(heading(ledger, genesis) + &rounds_table(ledger)),
        (Format::Csv, false) => {
            csv(&AUTHOR_COLUMNS, ledger.totals.iter().map(|total| author_cells(ledger, total)))
        }
        (Format::Csv, true) => csv(&ROUND_COLUMNS, ledger.rows.iter().map(|row| round_cells(ledger, row))),
        (Format::Json, rounds) => json(ledger, genesis, rounds),
    }
}

/// What a decimal number of `digits` places after the point is written as: `value` is that number without the point.
fn decimal(value: i64, digits: usize) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let text = format!("{:0>width$}", value.unsigned_abs(), width = digits + 1);
    let (whole, part) = text.split_at(text.len() - digits);
    format!("{sign}{whole}.{part}")
}

fn agreement(thousandths: Option<i16>) -> String {
    thousandths.map(|value| decimal(value.into(), 3)).unwrap_or_default()
}

/// A share of all bodies that are folded.
fn share(millionths: u32) -> String {
    decimal(millionths.into(), 6)
}

/// A fixed-point loss in ten thousandths of a nat.
fn ten_thousandths(fixed: u32) -> i64 {
    (i64::from(fixed) * 10_000 + 32_768) >> 16
}

fn loss(fixed: Option<u32>) -> String {
    fixed.map(|fixed| decimal(ten_thousandths(fixed), 4)).unwrap_or_default()
}

/// A loss that is one: what is none is told as the largest value.
fn sensible(fixed: u32) -> Option<u32> {
    (fixed != u32::MAX).then_some(fixed)
}

/// A whole number over a power of ten: the float nearest to it, which is written with these very digits.
fn number(value: i64, unit: f64) -> f64 {
    value as f64 / unit
}

/// A peer's name on the network.
fn peer(key: &PeerKey) -> String {
    peer_id(key).map_or_else(|| key.to_string(), |peer| peer.to_string())
}

fn standing(of: Standing) -> &'static str {
    match of {
        Standing::Counted => "counted",
        Standing::LeftOut => "left_out",
        Standing::Void => "void",
    }
}

/// The first lines of a table.
fn heading(ledger: &Ledger, genesis: &Genesis) -> String {
    let Ledger { swarm, from, to, after, confirmed_to, .. } = ledger;
    let mut text = format!(
        "swarm {swarm:.16} ({}): the settled rounds from {from} to below {to}, log digest {after}\n",
        genesis.name
    );
    text += &if confirmed_to > from {
        format!(
            "most authors of a later round have signed that nothing is missing below round {confirmed_to}; of the rounds \
             from there on, they have not\n\n"
        )
    } else {
        "that nothing is missing is not signed by most authors of any later round here\n\n".to_owned()
    };
    text
}

/// Rows with columns of the width that they need: the first one to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths.iter().copied()).enumerate() {
            let _ =
                if column == 0 { write!(line, "{cell:width$}") } else { write!(line, "  {cell:>width$}") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn authors_table(ledger: &Ledger) -> String {
    let head = ["peer", "rounds", "counted", "share", "agreement", "confirms", "tokens*", "loss*", "to*", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for total in &ledger.totals {
        let notes = [(total.left_out, "left out"), (total.void, "void"), (total.shared, "shared")];
        let notes: Vec<String> = notes
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        rows.push(vec![
            peer(&total.author),
            total.rounds.to_string(),
            total.counted.to_string(),
            format!("{} %", decimal((i64::from(total.share) + 500) / 1000, 1)),
            dash(agreement(total.agreement)),
            format!("{}/{}", total.confirms, total.could_confirm),
            total.claimed_tokens.to_string(),
            dash(loss(total.claimed_loss_first)),
            dash(loss(total.claimed_loss_last)),
            notes.join(", "),
        ]);
    }
    aligned(&rows) + "\n* as the authors claim; everything else follows from what was signed\n"
}

fn rounds_table(ledger: &Ledger) -> String {
    let head = ["peer", "round", "standing", "agreement", "confirms", "tokens*", "loss*", "to*", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for row in &ledger.rows {
        let confirms = row.confirms.map_or("-", |confirms| if confirms { "yes" } else { "no" });
        let claims = row.claims;
        rows.push(vec![
            peer(&row.author),
            row.round.to_string(),
            standing(row.standing).replace('_', " "),
            dash(agreement(row.agreement)),
            confirms.to_owned(),
            claims.map_or_else(|| "-".to_owned(), |claims| claims.tokens.to_string()),
            dash(loss(claims.and_then(|claims| sensible(claims.loss_before)))),
            dash(loss(claims.and_then(|claims| sensible(claims.loss_after)))),
            if row.sharing > 1 {
                format!("the same body as {} more", row.sharing - 1)
            } else {
                String::new()
            },
        ]);
    }
    aligned(&rows) + "\n* as the authors claim; everything else follows from what was signed\n"
}

const AUTHOR_COLUMNS: [&str; 18] = [
    "author",
    "peer",
    "rounds",
    "counted",
    "left_out",
    "void",
    "shared",
    "share",
    "agreement",
    "confirms",
    "could_confirm",
    "claimed_tokens",
    "claimed_loss_first",
    "claimed_loss_last",
    "claimed_loss_mean",
    "from",
    "to",
    "log_digest",
];

fn author_cells(ledger: &Ledger, total: &Total) -> [String; 18] {
    [
        total.author.to_string(),
        peer(&total.author),
        total.rounds.to_string(),
        total.counted.to_string(),
        total.left_out.to_string(),
        total.void.to_string(),
        total.shared.to_string(),
        share(total.share),
        agreement(total.agreement),
        total.confirms.to_string(),
        total.could_confirm.to_string(),
        total.claimed_tokens.to_string(),
        loss(total.claimed_loss_first),
        loss(total.claimed_loss_last),
        loss(total.claimed_loss_mean),
        ledger.from.to_string(),
        ledger.to.to_string(),
        ledger.after.to_string(),
    ]
}

const ROUND_COLUMNS: [&str; 13] = [
    "round",
    "author",
    "peer",
    "standing",
    "sharing",
    "agreement",
    "confirms",
    "claimed_tokens",
    "claimed_loss_before",
    "claimed_loss_after",
    "from",
    "to",
    "log_digest",
];

fn round_cells(ledger: &Ledger, row: &Row) -> [String; 13] {
    let claims = row.claims;
    [
        row.round.to_string(),
        row.author.to_string(),
        peer(&row.author),
        standing(row.standing).to_owned(),
        row.sharing.to_string(),
        agreement(row.agreement),
        row.confirms.map(|confirms| confirms.to_string()).unwrap_or_default(),
        claims.map(|claims| claims.tokens.to_string()).unwrap_or_default(),
        loss(claims.and_then(|claims| sensible(claims.loss_before))),
        loss(claims.and_then(|claims| sensible(claims.loss_after))),
        ledger.from.to_string(),
        ledger.to.to_string(),
        ledger.after.to_string(),
    ]
}

fn csv<const N: usize>(columns: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> Result<String> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.write_record(columns)?;
    for row in rows {
        writer.write_record(&row)?;
    }
    let bytes = writer.into_inner().ok().context("cannot write CSV")?;
    String::from_utf8(bytes).context("cannot write CSV")
}

/// A ledger in JSON.
#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    swarm: String,
    name: &'a str,
    from: u64,
    to: u64,
    log_digest_before: String,
    log_digest: String,
    confirmed_to: u64,
    facts: &'static str,
    claims: &'static str,
    authors: Vec<Author>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rounds: Option<Vec<Part>>,
}

#[derive(Serialize)]
struct Author {
    author: String,
    peer: String,
    rounds: u64,
    counted: u64,
    left_out: u64,
    void: u64,
    shared: u64,
    share: f64,
    agreement: Option<f64>,
    confirms: u64,
    could_confirm: u64,
    claimed_tokens: u64,
    claimed_loss_first: Option<f64>,
    claimed_loss_last: Option<f64>,
    claimed_loss_mean: Option<f64>,
}

#[derive(Serialize)]
struct Part {
    round: u64,
    author: String,
    peer: String,
    standing: &'static str,
    sharing: u32,
    agreement: Option<f64>,
    confirms: Option<bool>,
    claimed_tokens: Option<u64>,
    claimed_loss_before: Option<f64>,
    claimed_loss_after: Option<f64>,
}

fn json(ledger: &Ledger, genesis: &Genesis, rounds: bool) -> Result<String> {
    let thousandths = |value: Option<i16>| value.map(|value| number(value.into(), 1e3));
    let nats = |fixed: Option<u32>| fixed.map(|fixed| number(ten_thousandths(fixed), 1e4));
    let author = |total: &Total| Author {
        author: total.author.to_string(),
        peer: peer(&total.author),
        rounds: total.rounds,
        counted: total.counted,
        left_out: total.left_out,
        void: total.void,
        shared: total.shared,
        share: number(total.share.into(), 1e6),
        agreement: thousandths(total.agreement),
        confirms: total.confirms,
        could_confirm: total.could_confirm,
        claimed_tokens: total.claimed_tokens,
        claimed_loss_first: nats(total.claimed_loss_first),
        claimed_loss_last: nats(total.claimed_loss_last),
        claimed_loss_mean: nats(total.claimed_loss_mean),
    };
    let part = |row: &Row| Part {
        round: row.round,
        author: row.author.to_string(),
        peer: peer(&row.author),
        standing: standing(row.standing),
        sharing: row.sharing,
        agreement: thousandths(row.agreement),
        confirms: row.confirms,
        claimed_tokens: row.claims.map(|claims| claims.tokens),
        claimed_loss_before: nats(row.claims.and_then(|claims| sensible(claims.loss_before))),
        claimed_loss_after: nats(row.claims.and_then(|claims| sensible(claims.loss_after))),
    };
    let document = Document {
        format: JSON,
        swarm: ledger.swarm.to_string(),
        name: &genesis.name,
        from: ledger.from,
        to: ledger.to,
        log_digest_before: ledger.before.to_string(),
        log_digest: ledger.after.to_string(),
        confirmed_to: ledger.confirmed_to,
        facts: FACTS,
        claims: CLAIMS,
        authors: ledger.totals.iter().map(author).collect(),
        rounds: rounds.then(|| ledger.rows.iter().map(part).collect()),
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_from_integers() {
        let cases = [
            (0, 3, "0.000"),
            (-7, 3, "-0.007"),
            (873, 3, "0.873"),
            (-1000, 3, "-1.000"),
            (12_345, 1, "1234.5"),
        ];
        for (value, digits, text) in cases {
            assert_eq!(decimal(value, digits), text);
        }
        // 2.5182 nats as they are signed, to the nearest ten thousandth.
        assert_eq!(loss(Some((2.5182 * 65_536.0) as u32)), "2.5182");
        assert_eq!((loss(Some(0)), loss(None)), ("0.0000".to_owned(), String::new()));
        assert_eq!(serde_json::to_string(&number(-873, 1e3)).unwrap(), "-0.873");
        assert_eq!(serde_json::to_string(&number(333_333, 1e6)).unwrap(), "0.333333");
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [["a", "1", ""], ["long", "20", "x"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "a      1\nlong  20  x\n");
    }
}
