//! What a node keeps in its folder: snapshots, status, report.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, anyhow};
use swarm_optimizer::residual::Residual;
use swarm_optimizer::sparse::SparseDelta;
use swarm_protocol::packing;
use swarm_protocol::peer::Peer;
use swarm_protocol::peer::snapshot::own_deltas;

use super::{Node, unix_time};
use crate::status::{Checkpoint, Meter, Report, Status, peak_memory, rate};
use crate::store::snapshot::NodeSnapshot;
use crate::store::write_atomically;
use crate::trainer::{Order, Progress, TrainerState};
use crate::{events, net};

/// Takes out of a saved residual what was published after it was saved: deltas for rounds from
/// `next_to_sign` on.
///
/// # Errors
/// A residual that does not fit the model.
pub(crate) fn take_out(
    peer: &Peer,
    state: &mut TrainerState,
    outbox: &[Vec<u8>],
    next_to_sign: u64,
) -> Result<()> {
    let outbox = own_deltas(outbox);
    let later = outbox.iter().filter(|(signed, _)| signed.header.round >= next_to_sign);
    let bodies: Vec<&[u8]> = later.map(|(_, body)| &body[..]).collect();
    change(peer, state, &bodies, Residual::take_out)
}

/// Puts a delta that was extracted but not signed back into a residual that was saved after that.
///
/// # Errors
/// A residual that does not fit the model.
pub(super) fn give_back(peer: &Peer, state: &mut TrainerState, body: &[u8]) -> Result<()> {
    change(peer, state, &[body], Residual::give_back)
}

fn change(
    peer: &Peer,
    state: &mut TrainerState,
    bodies: &[&[u8]],
    how: impl Fn(&mut Residual, &swarm_optimizer::layout::Layout, &SparseDelta),
) -> Result<()> {
    let layout = peer.layout();
    let mut residual = Residual::from_values(layout, std::mem::take(&mut state.residual))
        .ok_or_else(|| anyhow!("the snapshot's residual does not fit the model"))?;
    for body in bodies {
        if let Ok(delta) = packing::decode(layout, &peer.genesis().rule, body) {
            how(&mut residual, layout, &delta);
        }
    }
    state.residual = residual.values().to_vec();
    Ok(())
}

impl Node {
    /// Asks the trainer for its state; the snapshot is written when it comes. A node without a trainer
    /// writes it at once.
    pub(super) fn start_saving(&mut self) {
        if self.trainer.is_some() {
            if !self.saving && self.order(Order::Save).is_ok() {
                self.saving = true;
                self.corrections.clear();
            }
            return;
        }
        let kept = self.kept.clone();
        if let Err(error) = self.save(kept) {
            tracing::error!("{error:#}");
        }
    }

    /// Notes that a body goes back to the residual (`back`) or leaves it: a state of the trainer that is on
    /// its way does not know.
    pub(super) fn correct(&mut self, body: Arc<[u8]>, back: bool) {
        if self.saving {
            self.corrections.push((body, back));
        }
    }

    /// Brings a state that the trainer handed over up to date with the core's books.
    ///
    /// # Errors
    /// A residual that does not fit the model.
    pub(super) fn make_corrections(&mut self, state: &mut TrainerState) -> Result<()> {
        for (body, back) in std::mem::take(&mut self.corrections) {
            let how = if back { Residual::give_back } else { Residual::take_out };
            change(&self.peer, state, &[&body], how)?;
        }
        Ok(())
    }

    /// Writes a snapshot with this state of the trainer.
    pub(super) fn save(&mut self, trainer: Option<TrainerState>) -> Result<()> {
        let mut totals = self.totals;
        totals.tokens = self.before.tokens + self.progress().tokens;
        let core = self.peer.snapshot();
        // What may yet come back must not be lost with its file.
        let from = self.peer.oldest_open().unwrap_or(core.position.next_to_sign);
        self.store.save(&NodeSnapshot { core, totals, trainer }, from)
    }

    fn progress(&self) -> Progress {
        self.trainer.as_ref().map(|trainer| trainer.progress.get()).unwrap_or_default()
    }

    /// State and log digest, computed anew only after a fold or a new round.
    pub(super) fn current_digests(&mut self) -> (String, String) {
        let at = (self.folds, self.peer.round());
        if self.digests.as_ref().is_none_or(|(then, ..)| *then != at) {
            self.digests =
                Some((at, self.peer.state_digest().to_string(), self.peer.log_digest().to_string()));
        }
        self.digests.as_ref().map(|(_, state, log)| (state.clone(), log.clone())).unwrap_or_default()
    }

    /// Rewrites status.json. An empty `phase` is what the core says.
    pub(super) fn write_status(&mut self, phase: &str, detail: &str) {
        let progress = self.progress();
        let (state_digest, log_digest) = self.current_digests();
        let traffic = self.network.traffic();
        let meter = self.meter(traffic);
        let detail = match (detail, self.peer.join_progress()) {
            ("", Some((have, total))) => format!("fetching the model: {have} of {total} bytes"),
            ("", None) if !self.peer.is_admitted() => self.how_to_be_admitted(),
            ("", None) if self.peer.neighbours() == 0 => self.looking.clone(),
            (detail, _) => detail.to_owned(),
        };
        let guest = self.told_guest();
        let paused = guest.as_ref().filter(|guest| !guest.trains && self.peer.doing() == "replicating");
        let (doing, detail) = match paused {
            Some(guest) if phase.is_empty() => ("paused", guest.words.clone()),
            _ => (self.peer.doing(), detail),
        };
        let genesis = self.peer.genesis();
        let status = Status {
            time: events::now(),
            version: env!("CARGO_PKG_VERSION"),
            name: genesis.name.clone(),
            model: genesis.model.label().to_owned(),
            parameters: self.peer.layout().len() as u64,
            phase: if phase.is_empty() { doing } else { phase }.to_owned(),
            detail,
            pid: std::process::id(),
            peer_id: self.network.local_peer_id().to_string(),
            swarm_id: self.peer.swarm_id().to_string(),
            listen: self.listening.clone(),
            round: self.peer.round(),
            rounds_target: self.target,
            loss: progress.loss_last,
            tokens: progress.tokens,
            tokens_per_second: rate(progress.tokens, progress.training.as_secs_f64()),
            peers: self.peer.neighbours(),
            estimated_peers: self.peer.estimated_peers(),
            scale: self.scale.scale().name(),
            mesh: self.mesh.name(),
            bytes_sent: traffic.sent,
            bytes_received: traffic.received,
            state_digest,
            log_digest,
            open_deltas: self.peer.held_deltas(),
            checkpoint: self.peer.newest_checkpoint().map(Checkpoint::from),
            meter,
            agreement: self.peer.agreement().into(),
            refusals: self.peer.refusals().clone(),
            network: self.network.picture(),
            guest,
        };
        if let Err(error) = self.write_json("status.json", &status)
            && !std::mem::replace(&mut self.disk_warned, true)
        {
            tracing::warn!("{error:#}");
        }
    }

    /// Spreads what is left of the day's amounts anew.
    pub(super) async fn keep_to_limits(&mut self) -> Result<()> {
        let mut limits = self.allowance.update(self.network.traffic(), unix_time());
        if self.guest.verdict.quiet {
            // As when a day's amount is used up: next to nothing.
            let nothing = Some(net::Rate::new(1));
            limits = net::Limits { upload: nothing, download: nothing };
        }
        if limits != self.limits {
            self.limits = limits;
            self.network.send(net::Command::Limit(limits)).await?;
        }
        Ok(())
    }

    /// Has as many neighbours as suit a swarm of its size.
    pub(super) async fn keep_to_scale(&mut self) -> Result<()> {
        let peers = self.peer.estimated_peers();
        if let Some(scale) = self.scale.look(peers) {
            let later =
                if scale == self.mesh { "" } else { "; gossip's mesh follows when the node is next started" };
            tracing::info!("the swarm has about {peers} peers: limits are those for {scale} now{later}");
            self.network.send(net::Command::Scale(scale)).await?;
        }
        Ok(())
    }

    /// What goes over the line, beside what may and what has to.
    fn meter(&mut self, traffic: net::Traffic) -> Meter {
        self.recent.note(traffic, Instant::now());
        let (sent, received) = self.recent.a_second();
        let limit = |rate: Option<net::Rate>| rate.map(net::Rate::bytes_a_second);
        let used = self.allowance.used();
        Meter {
            sent_a_second: sent,
            received_a_second: received,
            upload_limit: limit(self.limits.upload),
            download_limit: limit(self.limits.download),
            sent_today: used.sent,
            received_today: used.received,
            coefficients: self.sent_coefficients,
            bits_a_coefficient: self.last_bits,
            bits_bound: self.bits_bound(),
        }
    }

    /// Bits that a coefficient of the last own delta takes at least if all choices are equally likely.
    pub(super) fn bits_bound(&self) -> Option<f64> {
        let area = self.peer.genesis().rule.tile.pow(2) as usize;
        self.last_k.map(|k| packing::uniform_bits(area, k as usize) / f64::from(k))
    }

    /// Rewrites the book of peers, and what a day has used, if anything has changed.
    pub(super) fn write_book(&mut self) {
        let written = self.book.write(self.store.dir()).and_then(|()| self.allowance.write(self.store.dir()));
        if let Err(error) = written
            && !std::mem::replace(&mut self.disk_warned, true)
        {
            tracing::warn!("{error:#}");
        }
    }

    fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        write_atomically(&self.store.path(name), &serde_json::to_vec_pretty(value)?)
    }

    /// Writes report.json.
    pub(super) fn write_report(&mut self, finished: bool) -> Result<()> {
        let progress = self.progress();
        let (state_digest, log_digest) = self.current_digests();
        let traffic = self.network.traffic();
        let (deltas_folded, late_deltas) = self.peer.folded_counts();
        let per = |what: u64, of: u64| (of > 0).then(|| what as f64 / of as f64);
        let (published, body_bytes) =
            (self.totals.published - self.before.published, self.totals.body_bytes - self.before.body_bytes);
        let coefficients = self.totals.coefficients - self.before.coefficients;
        let report = Report {
            peer_id: self.network.local_peer_id().to_string(),
            model: self.peer.genesis().model.label().to_owned(),
            parameters: self.peer.layout().len() as u64,
            rounds: self.peer.round(),
            deltas_published: published,
            deltas_folded,
            late_deltas,
            tokens: progress.tokens,
            loss_first: progress.loss_first,
            loss_last: progress.loss_last,
            validation_loss: self.examination.and_then(|of| of.shared).map(|of| of.loss),
            personal_validation_loss: self.examination.and_then(|of| of.personal).map(|of| of.loss),
            held_out_loss: self.examination.map(|of| of.own_shared.loss),
            personal_held_out_loss: self.examination.map(|of| of.own_personal.loss),
            validation_accuracy: self.examination.and_then(|of| of.shared?.accuracy),
            personal_validation_accuracy: self.examination.and_then(|of| of.personal?.accuracy),
            held_out_accuracy: self.examination.and_then(|of| of.own_shared.accuracy),
            personal_held_out_accuracy: self.examination.and_then(|of| of.own_personal.accuracy),
            bytes_sent: traffic.sent,
            bytes_received: traffic.received,
            delta_bytes_mean: per(body_bytes, published),
            bits_per_coefficient: per(body_bytes * 8, coefficients),
            log_digest,
            state_digest,
            seconds_training: progress.training.as_secs_f64(),
            seconds_optimizing: progress.optimizing.as_secs_f64(),
            seconds_waiting: progress.waiting.as_secs_f64(),
            tokens_per_second: rate(progress.tokens, progress.training.as_secs_f64()),
            peak_memory_bytes: peak_memory(),
            refusals: self.peer.refusals().clone(),
            events_dropped: self.network.dropped(),
            steps_skipped: progress.skipped,
            windows_unreadable: progress.failed_reads,
            residual_norm: progress.residual_norm,
            finished,
            history: self.history.clone(),
        };
        self.write_json("report.json", &report)
    }
}
