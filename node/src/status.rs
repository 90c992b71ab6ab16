//! What a node says about itself in files: `status.json` while it runs, `report.json` when it stops.

use serde::Serialize;
use swarm_protocol::checkpoint::Name;

/// Where a process is. Rewritten about twice a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Status {
    /// When this was written, in seconds since 1970.
    pub(crate) time: f64,
    /// The program's version.
    pub(crate) version: &'static str,
    /// The swarm's name.
    pub(crate) name: String,
    /// The model's preset or name.
    pub(crate) model: String,
    /// Shared scalars.
    pub(crate) parameters: u64,
    /// What it is doing: waiting for peers, joining, training, paused, finishing, done, stopped, failed.
    pub(crate) phase: String,
    /// The same in more words, or empty.
    pub(crate) detail: String,
    /// Process id.
    pub(crate) pid: u32,
    /// The node's name on the network.
    pub(crate) peer_id: String,
    /// The swarm, in hex.
    pub(crate) swarm_id: String,
    /// Addresses at which others reach it.
    pub(crate) listen: Vec<String>,
    /// The round it trains for.
    pub(crate) round: u64,
    /// The round before which it stops.
    pub(crate) rounds_target: Option<u64>,
    /// Training loss of the round, nats per token.
    pub(crate) loss: Option<f64>,
    /// Tokens trained on in this run.
    pub(crate) tokens: u64,
    /// Tokens a second of training time.
    pub(crate) tokens_per_second: f64,
    /// Connected peers of the same swarm.
    pub(crate) peers: usize,
    /// About how many peers the swarm has, this one included.
    pub(crate) estimated_peers: usize,
    /// Which limits of peers that makes: small, hundreds, thousands.
    pub(crate) scale: &'static str,
    /// The same for gossip's mesh, as it was when the node started.
    pub(crate) mesh: &'static str,
    /// Bytes sent, all protocols.
    pub(crate) bytes_sent: u64,
    /// Bytes received.
    pub(crate) bytes_received: u64,
    /// BLAKE3 of C.
    pub(crate) state_digest: String,
    /// Digest of all sets that C is made of.
    pub(crate) log_digest: String,
    /// Deltas held.
    pub(crate) open_deltas: usize,
    /// The newest checkpoint.
    pub(crate) checkpoint: Option<Checkpoint>,
    /// What goes over the line.
    pub(crate) meter: Meter,
    /// Neighbours whose settled history is this node's.
    pub(crate) agreement: Agreement,
    /// Dropped messages, by kind.
    pub(crate) refusals: std::collections::BTreeMap<&'static str, u64>,
    /// Who is connected how, and how others reach it.
    pub(crate) network: crate::net::Picture,
    /// Whether the device may be used for training now; `None` if this node does not train.
    pub(crate) guest: Option<Guest>,
}

/// How many neighbours hold the same settled history, as far as their last word tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Agreement {
    /// The same.
    pub(crate) same: usize,
    /// Another one.
    pub(crate) differ: usize,
    /// They have not said.
    pub(crate) unknown: usize,
}

impl From<swarm_protocol::peer::Agreement> for Agreement {
    fn from(found: swarm_protocol::peer::Agreement) -> Self {
        let swarm_protocol::peer::Agreement { same, differ, unknown } = found;
        Self { same, differ, unknown }
    }
}

/// What the governor has decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Guest {
    /// Whether it may train.
    pub(crate) trains: bool,
    /// In which share of the time.
    pub(crate) share: f64,
    /// The same in words, with what would change it.
    pub(crate) words: String,
    /// What forbids it.
    pub(crate) objections: Vec<crate::governor::Objection>,
}

/// Traffic beside what the user allows, and the own deltas beside what they have to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Meter {
    /// Bytes sent a second, over the last ten.
    pub(crate) sent_a_second: u64,
    /// Bytes received a second, over the last ten.
    pub(crate) received_a_second: u64,
    /// Most bytes a second that may be sent now.
    pub(crate) upload_limit: Option<u64>,
    /// Most bytes a second that may be received now.
    pub(crate) download_limit: Option<u64>,
    /// Bytes sent since midnight (UTC), as far as this folder knows.
    pub(crate) sent_today: u64,
    /// Bytes received since midnight (UTC).
    pub(crate) received_today: u64,
    /// Coefficients of the last own delta.
    pub(crate) coefficients: u64,
    /// What one of them took, in bits.
    pub(crate) bits_a_coefficient: Option<f64>,
    /// What positions and signs take at least if all choices are equally likely: log2 C(area, k) / k + 1.
    pub(crate) bits_bound: Option<f64>,
}

/// A checkpoint, as invites pin it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Checkpoint {
    /// Number of rounds settled in it.
    pub(crate) settled: u64,
    /// BLAKE3 of its manifest, in hex.
    pub(crate) manifest: String,
}

impl From<Name> for Checkpoint {
    fn from(name: Name) -> Self {
        Self { settled: name.settled, manifest: name.manifest.to_string() }
    }
}

/// One round of a node's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct RoundRecord {
    /// The round.
    pub(crate) round: u64,
    /// Seconds since the process started.
    pub(crate) seconds: f64,
    /// Tokens trained on so far in this run.
    pub(crate) tokens: u64,
    /// Training loss over the round, nats per token.
    pub(crate) loss: Option<f64>,
    /// The shared model's loss on the validation text, where it was measured.
    pub(crate) validation_loss: Option<f64>,
}

/// What a node did. The keys are the testnet report's.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Report {
    /// The node's name on the network.
    pub(crate) peer_id: String,
    /// The model's preset or name.
    pub(crate) model: String,
    /// Shared scalars.
    pub(crate) parameters: u64,
    /// The round reached.
    pub(crate) rounds: u64,
    /// Own deltas published.
    pub(crate) deltas_published: u64,
    /// Deltas folded into C, own ones included.
    pub(crate) deltas_folded: u64,
    /// Of these, how many after their round had been folded without them.
    pub(crate) late_deltas: u64,
    /// Tokens trained on.
    pub(crate) tokens: u64,
    /// Training loss over the first round.
    pub(crate) loss_first: Option<f64>,
    /// Training loss over the last round.
    pub(crate) loss_last: Option<f64>,
    /// The shared model's loss on the validation text.
    pub(crate) validation_loss: Option<f64>,
    /// The personal model's.
    pub(crate) personal_validation_loss: Option<f64>,
    /// The shared model's loss on the held-out part of the device's own text.
    pub(crate) held_out_loss: Option<f64>,
    /// The personal model's.
    pub(crate) personal_held_out_loss: Option<f64>,
    /// Share of the validation pictures that the shared model tells right, of a classifier; the next three likewise.
    pub(crate) validation_accuracy: Option<f64>,
    /// The personal model's.
    pub(crate) personal_validation_accuracy: Option<f64>,
    /// The shared model's on the held-out part of the device's own pictures.
    pub(crate) held_out_accuracy: Option<f64>,
    /// The personal model's.
    pub(crate) personal_held_out_accuracy: Option<f64>,
    /// Bytes sent, all protocols.
    pub(crate) bytes_sent: u64,
    /// Bytes received.
    pub(crate) bytes_received: u64,
    /// Mean length of an own delta's body.
    pub(crate) delta_bytes_mean: Option<f64>,
    /// Bits of body per sent coefficient, scales included.
    pub(crate) bits_per_coefficient: Option<f64>,
    /// Digest of all sets that C is made of.
    pub(crate) log_digest: String,
    /// BLAKE3 of C.
    pub(crate) state_digest: String,
    /// Time in inner steps.
    pub(crate) seconds_training: f64,
    /// Time in transforms, extraction, packing and folding.
    pub(crate) seconds_optimizing: f64,
    /// Time the trainer waited for the other authors.
    pub(crate) seconds_waiting: f64,
    /// Tokens a second of training time.
    pub(crate) tokens_per_second: f64,
    /// Largest resident memory.
    pub(crate) peak_memory_bytes: Option<u64>,
    /// Dropped messages, by kind.
    pub(crate) refusals: std::collections::BTreeMap<&'static str, u64>,
    /// Network events dropped because the node was too busy to read them.
    pub(crate) events_dropped: u64,
    /// Training steps skipped because something was not finite.
    pub(crate) steps_skipped: u64,
    /// Windows of the text that could not be read.
    pub(crate) windows_unreadable: u64,
    /// Euclidean norm of the residual at the end: what this device has not told.
    pub(crate) residual_norm: f64,
    /// Whether it finished and all its neighbours held the same.
    pub(crate) finished: bool,
    /// Round by round.
    pub(crate) history: Vec<RoundRecord>,
}

/// The process' largest resident memory so far, in bytes, where the system tells.
pub(crate) fn peak_memory() -> Option<u64> {
    #[cfg(unix)]
    {
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
        let peak = u64::try_from(usage.max_rss()).ok()?;
        // macOS counts bytes, the others kilobytes.
        Some(if cfg!(target_os = "macos") { peak } else { peak * 1024 })
    }
    #[cfg(not(unix))]
    {
        None
    }
}

/// `a / b`, or 0 if there was nothing.
pub(crate) fn rate(a: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { a as f64 / seconds } else { 0.0 }
}
