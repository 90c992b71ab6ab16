//! What a node tells whoever watches: `events.jsonl` in its folder, an event a line.
//!
//! `status.json` says how things are; this says what has happened, over restarts, so that a curve can be drawn of it.
//! Everything that shows a node reads these two files: no view is wired into the node, each works for a node that runs
//! as a service, or does not run any more, and a slow reader holds nobody up. Like every [`rolling`](crate::rolling)
//! file it does not grow for ever.

mod printed;

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

pub(crate) use self::printed::Printed;
use crate::rolling::{Follow, Rolling};
use crate::trainer::Losses;

/// The file in a node's folder.
pub(crate) const FILE: &str = "events.jsonl";

/// Its size at most, and that of the one before: a swarm of a dozen authors fills it in a thousand rounds.
const LARGEST: u64 = 4 << 20;

/// Something that has happened. The names of events and keys are for scripts to rely on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event {
    /// The node has been started.
    Started {
        /// The program's version.
        version: &'static str,
        /// The node's name on the network.
        peer_id: String,
        /// The swarm, in hex.
        swarm_id: String,
        /// The swarm's name.
        name: String,
        /// The model's preset or name.
        model: String,
        /// Shared scalars.
        parameters: u64,
        /// The round that it goes on with.
        round: u64,
    },
    /// This device has trained for a round.
    Round {
        /// The round.
        round: u64,
        /// Seconds since the node was started.
        seconds: f64,
        /// Tokens trained on since then.
        tokens: u64,
        /// Training loss over the round, nats per token.
        loss: Option<f64>,
        /// Connected peers of the swarm.
        peers: usize,
        /// Deltas folded into the shared model since the node was started.
        deltas_folded: u64,
        /// Of these, how many after their round had been folded without them.
        deltas_late: u64,
        /// Bytes sent since then.
        bytes_sent: u64,
        /// Bytes received.
        bytes_received: u64,
        /// Bits that a coefficient of the last own delta took.
        bits_a_coefficient: Option<f64>,
        /// What positions and signs take at least if all choices are equally likely.
        bits_bound: Option<f64>,
    },
    /// What the swarm did in a round, as known one round later.
    Folded {
        /// The round.
        round: u64,
        /// Whose deltas there are.
        authors: Vec<Author>,
        /// How much each tensor of the model moved; empty if that is not known any more.
        heat: Vec<Heat>,
        /// BLAKE3 of the shared model as it is now, in hex.
        state_digest: String,
        /// Neighbours with the same settled history.
        same: usize,
        /// Neighbours with another one.
        differ: usize,
    },
    /// How good the models are, on data that nobody trains on.
    Measured {
        /// The round that was under way.
        round: u64,
        /// The losses.
        #[serde(flatten)]
        losses: Losses,
    },
    /// The governor lets the node train now, or no longer.
    Guest {
        /// Which.
        trains: bool,
        /// Why.
        words: String,
    },
    /// The node has stopped.
    Stopped {
        /// The round that it goes on with.
        round: u64,
        /// How: done, stopped, failed.
        phase: String,
    },
}

/// One author's part in a round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Author {
    /// Its peer id.
    pub(crate) author: String,
    /// Whether its delta counts.
    pub(crate) counts: bool,
    /// Tokens it trained on, as it claims.
    pub(crate) tokens: u64,
    /// Its training loss at the round's start, as it claims, in nats per token.
    pub(crate) loss_before: f32,
    /// The same at the round's end.
    pub(crate) loss_after: f32,
}

/// How much a tensor moved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Heat {
    /// Its name.
    pub(crate) name: String,
    /// Root mean square of the change of its scalars.
    pub(crate) rms: f32,
}

/// An event and when it happened.
#[derive(Serialize)]
struct Line<'a> {
    time: f64,
    #[serde(flatten)]
    event: &'a Event,
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// The node's end of the file.
pub(crate) struct Events {
    file: Option<Rolling>,
    /// Where they are told as well.
    printed: Option<Printed>,
}

impl Events {
    /// Adds to the file in the folder `dir`, and prints what it adds if there is where to. If one of them cannot be
    /// written, that is said once: a node goes on without it.
    pub(crate) fn open(dir: &Path, printed: Option<Printed>) -> Self {
        let path = dir.join(FILE);
        let file = Rolling::open(path.clone(), LARGEST)
            .inspect_err(|error| tracing::warn!("cannot write {}: {error}", path.display()));
        Self { file: file.ok(), printed }
    }

    /// Tells that `event` has happened.
    pub(crate) fn write(&mut self, event: &Event) {
        let line = match serde_json::to_string(&Line { time: now(), event }) {
            Ok(line) => line + "\n",
            Err(error) => {
                tracing::warn!("an event cannot be told: {error}");
                return;
            }
        };
        if let Some(file) = &mut self.file
            && let Err(error) = file.write(line.as_bytes())
        {
            tracing::warn!("cannot write {FILE} any more: {error}");
            self.file = None;
        }
        if let Some(printed) = &mut self.printed {
            printed.line(&line);
        }
    }
}

/// What has been told in the folder `dir`, as it comes. What is not an event, after a power cut say, is left out.
pub(crate) struct Told(Follow);

impl Told {
    /// From the first event that is kept.
    pub(crate) fn new(dir: &Path) -> Self {
        Self(Follow::new(dir.join(FILE)))
    }

    /// The events since the last call, eight megabytes of them at most.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn read(&mut self) -> std::io::Result<Vec<Value>> {
        let mut events = Vec::new();
        self.0.read(|line| {
            let event = serde_json::from_slice::<Value>(line).ok();
            events.extend(event.filter(|event| event["event"].is_string()));
        })?;
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_can_be_read_and_damage_costs_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut told = Told::new(dir.path());
        assert!(told.read().unwrap().is_empty());
        let mut events = Events::open(dir.path(), None);
        let losses = Losses { validation: None, shared: Some(2.5), personal: Some(2.25) };
        events.write(&Event::Measured { round: 7, losses });
        std::fs::OpenOptions::new()
            .append(true)
            .open(dir.path().join(FILE))
            .and_then(|mut file| std::io::Write::write_all(&mut file, b"{\"event\":\n\xff\n[1]\n"))
            .unwrap();
        drop(events);
        Events::open(dir.path(), None).write(&Event::Stopped { round: 8, phase: "done".into() });
        let read = told.read().unwrap();
        assert_eq!(read.len(), 2, "{read:?}");
        assert_eq!(read[0]["event"], "measured");
        assert_eq!((&read[0]["shared"], &read[0]["validation"]), (&2.5.into(), &Value::Null));
        assert_eq!((&read[1]["event"], &read[1]["round"]), (&"stopped".into(), &8.into()));
        assert!(
            read[0]["time"].as_f64() > Some(1.6e9) && read[0]["time"].as_f64() <= read[1]["time"].as_f64()
        );
        assert!(told.read().unwrap().is_empty());
    }
}
