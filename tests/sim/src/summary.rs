//! What a run was like, in figures.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// How far a run is; handed out once a virtual second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Virtual time.
    pub time: Duration,
    /// The median round of the honest peers that are there and have joined.
    pub round: u64,
    /// The last round.
    pub rounds: u64,
    /// Peers that are there.
    pub present: usize,
    /// Events so far.
    pub events: u64,
}

/// Bytes that a peer sent and received for a round, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Flow {
    /// Sent; also what got lost on its way.
    pub sent: f64,
    /// Received; also what came before from somebody else.
    pub received: f64,
}

/// What a run was like. `Display` writes a table; `Serialize` gives the same as data.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// The command line that replays the run.
    pub replay: String,
    /// Honest peers that were there at the end, and agreed.
    pub agreed: usize,
    /// Those of them that knew it: every neighbour had said the same, twice.
    pub finished: usize,
    /// Virtual seconds that the run took.
    pub seconds: f64,
    /// Virtual seconds of a round, on average.
    pub round_seconds: f64,
    /// Events that happened.
    pub events: u64,
    /// BLAKE3 over all of them: two runs with the same trace were the same.
    pub trace: String,
    /// State digest of the coefficients that all agreed on.
    pub state: String,
    /// Digest of the sets that they are made of.
    pub log: String,
    /// Deltas that were published.
    pub published: u64,
    /// Distinct deltas that are in the final coefficients.
    pub folded: u64,
    /// Deltas of honest authors that are not, although their round had room: gossip and anti-entropy
    /// were too slow for them.
    pub missed: u64,
    /// Deltas of honest authors that are not because their round had `publishers` better-ranked ones.
    pub crowded: u64,
    /// Deltas that went back to the residuals of those who are there at the end.
    pub given_back: u64,
    /// Deltas of theirs that are lost: void, or their rounds settled while they were away for too long.
    pub forfeited: u64,
    /// Share of all folds, over all peers, that came after their round's first fold.
    pub late_share: f64,
    /// Rounds between a round's first fold anywhere and the last change of its set anywhere: the median
    /// over all rounds.
    pub median_convergence: f64,
    /// The same for the worst round.
    pub worst_convergence: f64,
    /// Settled rounds in which a peer held another history than the first that settled it.
    pub parted_settlements: u64,
    /// Messages sent, and those lost.
    pub messages: u64,
    /// Messages that did not arrive.
    pub lost: u64,
    /// Bytes that a peer sent, on average.
    pub bytes_a_peer: u64,
    /// Bytes that the busiest peer sent.
    pub bytes_busiest: u64,
    /// Bytes that a peer sent and received for a round, by kind of message: `own deltas`, those of others that
    /// it `passed on`, `statuses` (once a second to every neighbour, so with these the length of a round counts,
    /// and the time after the last one) and all other `questions`, both with their answers.
    pub traffic: BTreeMap<&'static str, Flow>,
    /// Connections of a peer at the end, on average.
    pub neighbours: f64,
    /// How many peers there are, as they judged themselves at the end: the median of the honest ones.
    pub estimated_peers: usize,
    /// How often peers left, came back with their state, and came as newcomers.
    pub left: u64,
    /// Came back with their state.
    pub returned: u64,
    /// Came with nothing.
    pub newcomers: u64,
    /// Connections cut for bad behaviour.
    pub bans: u64,
    /// Most deltas that one peer ever held.
    pub most_held: usize,
    /// The most that one peer may hold.
    pub held_bound: usize,
    /// Messages refused by honest peers that are there at the end, by kind.
    pub refusals: BTreeMap<String, u64>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: String| writeln!(f, "{name:<24} {value}");
        line("run", self.replay.clone())?;
        line("virtual time", format!("{:.0} s, {:.2} s a round", self.seconds, self.round_seconds))?;
        line("events", format!("{}, trace {:.16}", self.events, self.trace))?;
        line("agreed", format!("{} honest peers ({} knew it)", self.agreed, self.finished))?;
        line("state digest", self.state.clone())?;
        line("deltas published", self.published.to_string())?;
        line(
            "deltas folded",
            format!("{} (left out: {} crowded, {} missed)", self.folded, self.crowded, self.missed),
        )?;
        line("accounts", format!("{} given back, {} forfeited", self.given_back, self.forfeited))?;
        line("late folds", format!("{:.2} %", 100.0 * self.late_share))?;
        line(
            "rounds to convergence",
            format!("median {:.2}, worst {:.2}", self.median_convergence, self.worst_convergence),
        )?;
        line("parted settlements", self.parted_settlements.to_string())?;
        line("messages", format!("{}, {} lost", self.messages, self.lost))?;
        line(
            "bytes a peer",
            format!(
                "{:.2} MB, busiest {:.2} MB",
                self.bytes_a_peer as f64 * 1e-6,
                self.bytes_busiest as f64 * 1e-6
            ),
        )?;
        line("neighbours", format!("{:.1} on average", self.neighbours))?;
        line("peers, as they judge", self.estimated_peers.to_string())?;
        let flows = |of: fn(&Flow) -> f64| {
            let all: f64 = self.traffic.values().map(of).sum();
            let mut text = format!("{:.2} kB", all * 1e-3);
            for (at, (name, flow)) in self.traffic.iter().enumerate() {
                let lead = if at == 0 { ": " } else { ", " };
                text += &format!("{lead}{name} {:.2}", of(flow) * 1e-3);
            }
            text
        };
        line("sent, a peer and round", flows(|flow| flow.sent))?;
        line("received", flows(|flow| flow.received))?;
        line(
            "churn",
            format!("{} left, {} came back, {} newcomers", self.left, self.returned, self.newcomers),
        )?;
        line("bans", self.bans.to_string())?;
        line("deltas held at most", format!("{} of {} allowed", self.most_held, self.held_bound))?;
        for (kind, count) in &self.refusals {
            line("refused", format!("{count} x {kind}"))?;
        }
        Ok(())
    }
}
