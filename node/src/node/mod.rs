//! The node: one loop between the network, the trainer, the disk and the core.
//!
//! ```text
//!   network events ─┐                         ┌─> network commands
//!   trainer's words ─┼─> core (swarm-protocol) ─┼─> trainer's orders
//!   time, signals   ─┘        actions          └─> files
//! ```
//!
//! The loop takes one event at a time, hands it to the core and carries out the core's actions before
//! the next. All rules are in the core; here is only what to do about them on this device.

mod access;
mod actions;
mod allowance;
mod book;
mod files;
#[cfg(feature = "train")]
mod genesis;
mod guest;
mod recent;
mod restore;
mod setup;
mod signals;
mod thrift;
mod watched;

pub(crate) use allowance::Allowed;
pub(crate) use book::{Book, unix_time};
pub(crate) use files::take_out;
#[cfg(feature = "train")]
pub(crate) use genesis::{Around, fetch_genesis, fetch_tokenizer};

pub(crate) use setup::{Ended, Rounds, Setup};
pub(crate) use signals::asked_to_stop;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use swarm_protocol::peer::Peer;
use tokio::sync::mpsc::Receiver;

use self::allowance::Allowance;
use self::recent::Recent;
use self::restore::{Doubt, Restored};
use self::thrift::Thrift;
use crate::bounds::Bounds;
use crate::events::{Event, Events, Printed};
use crate::governor::{self, Governor, Rules, State, When};
use crate::net;
use crate::status::RoundRecord;
use crate::store::Store;
use crate::store::snapshot::Totals;
use crate::trainer::{Examination, Order, Told, Trainer, TrainerState};

/// Time between two writes of status.json.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two writes of the book of peers, if it changes.
const BOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A finishing node that still disagrees with a neighbour after this and three rounds' time gives up: a
/// slow neighbour may have a round and more to go.
const FINISH_TIMEOUT: Duration = Duration::from_secs(90);
/// A finishing node does not wait longer than this for a neighbour whose settled history differs: that
/// does not change by waiting.
const PARTED_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the trainer may take to hand over its state when the node stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(120);
/// How good the model is, is measured every so many rounds.
const MEASURE_EVERY: u64 = 5;
/// The least time between two looks at the held-out part of the device's own data.
const OWN_EVERY: Duration = Duration::from_secs(10);
/// Windows of each text that are measured when all rounds are done.
const EXAMINED_WINDOWS: usize = 256;
/// The same when somebody stops the node.
const HASTY_WINDOWS: usize = 16;

struct Node {
    store: Store,
    /// Bytes of settled rounds that are kept for ledgers.
    keep_history: u64,
    peer: Peer,
    network: net::Handle,
    trainer: Option<Trainer>,
    /// What a trainer left here, kept by a node that does not train.
    kept: Option<TrainerState>,
    rounds: Option<Rounds>,
    target: Option<u64>,
    validates: bool,
    began: Instant,
    totals: Totals,
    /// Totals when this run began.
    before: Totals,
    /// Of the last own delta: coefficients, of a full tile at most, bits each.
    sent_coefficients: u64,
    last_k: Option<u32>,
    last_bits: Option<f64>,
    history: Vec<RoundRecord>,
    told: Events,
    /// Rounds below this have been told of there.
    told_rounds: u64,
    /// When the held-out part of the device's own data was last looked at.
    own_measured: Option<Instant>,
    examination: Option<Examination>,
    listening: Vec<String>,
    looking: String,
    saving: bool,
    /// A state that the trainer is about to hand over must not be saved.
    stale_save: bool,
    /// What has gone back to the residual (`true`) or out of it since the trainer was asked for its state.
    corrections: Vec<(Arc<[u8]>, bool)>,
    ended: Option<Ended>,
    finishing_since: Option<Instant>,
    digests: Option<((u64, u64), String, String)>,
    folds: u64,
    disk_warned: bool,
    join_trouble: &'static str,
    /// What this identity signed last is not known: nothing is signed for a while.
    doubt: Option<Doubt>,
    /// When the user asked for this run; `None` once the first delta of somebody else has been folded, and said.
    asked: Option<Instant>,
    book: Book,
    allowance: Allowance,
    /// That hold at the moment.
    limits: net::Limits,
    /// The swarm's, that of the limits of peers.
    scale: net::Watch,
    /// The one whose mesh gossip was started with.
    mesh: net::Scale,
    thrift: Thrift,
    recent: Recent,
    /// How often what is known about who may take part had changed when it was put on disk.
    access_kept: u64,
    governor: Governor,
    /// What it last said.
    guest: State,
}

/// Runs a node until its rounds are done or somebody stops it.
///
/// `train` makes the trainer from what the snapshot held; without it the node replicates.
///
/// # Errors
/// Anything that keeps it from going on; the text says what to do. What was shared is on disk then.
pub(crate) async fn run(
    setup: Setup,
    train: Option<impl FnOnce(Option<TrainerState>) -> Result<Trainer>>,
) -> Result<Ended> {
    let began = Instant::now();
    let stop = asked_to_stop();
    let Setup {
        store,
        genesis,
        listen,
        bootstrap,
        mdns,
        rounds,
        validates,
        snapshot_interval,
        keep_history,
        allowed,
        relay,
        upnp,
        key,
        governor,
        json,
        ..
    } = setup;
    let told = Events::open(store.dir(), json.then(|| Printed::to(std::io::stdout())).transpose()?);
    let mut governor = match governor {
        Some(governor) => governor,
        None => governor::start(store.dir(), Rules::of(When::Always), None)?,
    };
    let guest = governor.state();
    let mut book = Book::read(store.dir());
    book.end_bans(unix_time());
    let mut allowance = Allowance::read(store.dir(), allowed, unix_time());
    let limits = allowance.update(net::Traffic::default(), unix_time());
    let identity = store.identity()?;
    let secret = identity.secret();
    let Restored { mut peer, totals, trainer: state, doubt } = restore::restore(
        &store,
        &genesis,
        identity,
        &bootstrap,
        mdns || !book.known.is_empty(),
        train.is_some(),
    )?;
    if let Some(pinned) = &genesis.tokenizer
        && let Some(bytes) = store.tokenizer(pinned)?
    {
        peer.serve_tokenizer(bytes.into());
    }
    let config = net::Config {
        mdns,
        limits,
        relay,
        upnp,
        key,
        known: book.addresses(),
        peers: peer.estimated_peers(),
        ..net::Config::new(secret, genesis.swarm_id().0, listen, bootstrap)
    };
    let scale = net::Watch::new(config.peers);
    let (network, mut events, service) = net::start(config).await?;
    let (kept, trainer) = match train {
        Some(train) => (None, Some(train(state)?)),
        None => (state, None),
    };
    let target = match rounds {
        Some(Rounds::Until(target)) => Some(target),
        _ => None,
    };
    let mut node = Node {
        store,
        keep_history,
        peer,
        network,
        trainer,
        kept,
        rounds,
        target,
        validates,
        began,
        totals,
        before: totals,
        sent_coefficients: 0,
        last_k: None,
        last_bits: None,
        history: Vec::new(),
        told,
        told_rounds: 0,
        own_measured: None,
        examination: None,
        listening: Vec::new(),
        looking: String::new(),
        saving: false,
        stale_save: false,
        corrections: Vec::new(),
        ended: None,
        finishing_since: None,
        digests: None,
        folds: 0,
        disk_warned: false,
        join_trouble: "",
        doubt,
        asked: Some(setup.asked),
        book,
        allowance,
        limits,
        mesh: scale.scale(),
        scale,
        thrift: Thrift::default(),
        recent: Recent::default(),
        access_kept: 0,
        governor,
        guest,
    };
    for (peer, duration, reason) in node.book.bans(unix_time()) {
        if let Some(peer) = net::peer_key(&peer) {
            node.network.send(net::Command::Ban { peer, duration, reason }).await?;
        }
    }
    tracing::info!(
        "swarm {:.16} ({}), {} parameters, peer {}, folder {}",
        genesis.swarm_id(),
        genesis.name,
        node.peer.layout().len(),
        node.network.local_peer_id(),
        node.store.dir().display()
    );
    node.tell_start();
    let bounds = Bounds::new(&genesis, snapshot_interval)?.keeping(keep_history);
    tracing::info!("whatever the others do: {bounds}");
    node.peer.set_stop(target);
    if let Some(pin) = setup.pin {
        node.peer.pin(pin);
    }
    node.start_access(&setup.statements)?;
    node.heed(None).await?;
    if !node.peer.has_state() {
        node.looking = "this swarm is a fork: looking for a peer that has its starting model".into();
        tracing::info!(
            "this swarm is a fork, and its starting model is not in this folder: it is fetched from the first peer \
             that has it. The node in the folder that swarm fork made is one; name its address with --bootstrap"
        );
    }
    let ended = node.drive(&mut events, snapshot_interval, stop).await;
    let closed = node.close(ended).await;
    let _ = node.network.send(net::Command::Shutdown).await;
    let _ = tokio::time::timeout(Duration::from_secs(5), service).await;
    closed
}

impl Node {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    async fn drive(
        &mut self,
        events: &mut Receiver<net::Event>,
        save_every: Duration,
        stop: impl Future<Output = ()>,
    ) -> Result<Ended> {
        let mut status = tokio::time::interval(STATUS_INTERVAL);
        let mut snapshots = tokio::time::interval(save_every);
        snapshots.reset();
        let mut book = tokio::time::interval(BOOK_INTERVAL);
        let mut stop = std::pin::pin!(stop);
        self.peer.handle_wake(self.now());
        loop {
            self.act().await?;
            if let Some(ended) = self.ended {
                return Ok(ended);
            }
            let wake = self.peer.next_event().map(|at| tokio::time::Instant::from_std(self.began + at));
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.on_network(event)?,
                    None => bail!("the network has stopped"),
                },
                told = next_told(&mut self.trainer) => match told {
                    Some(told) => self.on_trainer(told)?,
                    None => bail!("the trainer has stopped"),
                },
                () = sleep_until(wake) => self.peer.handle_wake(self.now()),
                () = self.governor.changed() => self.look_at_governor().await?,
                _ = status.tick() => {
                    self.look_at_governor().await?;
                    self.look_at_access();
                    // A trainer does so at the end of each of its rounds.
                    self.tell_folded(self.peer.round().saturating_sub(1));
                    self.write_status("", "");
                }
                _ = snapshots.tick() => self.start_saving(),
                _ = book.tick() => {
                    self.write_book();
                    self.keep_to_limits().await?;
                    self.keep_to_scale().await?;
                }
                () = &mut stop => return Ok(Ended::Stopped),
            }
            self.check_finish()?;
        }
    }

    /// A node whose neighbours never come to agree says so instead of staying for ever.
    fn check_finish(&mut self) -> Result<()> {
        if self.peer.role() != swarm_protocol::wire::Role::Finishing {
            self.finishing_since = None;
            return Ok(());
        }
        let since = *self.finishing_since.get_or_insert_with(Instant::now);
        if let Some(peer) = self.peer.differing_neighbour()
            && since.elapsed() > PARTED_TIMEOUT
        {
            bail!(
                "all rounds are done, and what was trained is saved, but peer {peer:.8} holds another history and so \
                 another model: one of the two was cut off for longer than the swarm's window"
            );
        }
        let round = Duration::from_millis(self.peer.genesis().rounds.round_ms.into());
        let patience = FINISH_TIMEOUT + 3 * round;
        if since.elapsed() > patience {
            bail!(
                "all rounds are done, but after {} s a neighbour still holds other deltas or has not finished; \
                 what was trained is saved",
                patience.as_secs()
            );
        }
        Ok(())
    }

    fn order(&self, order: Order) -> Result<()> {
        match &self.trainer {
            Some(trainer) => {
                trainer.orders.try_send(order).map_err(|_| anyhow::anyhow!("the trainer does not answer"))
            }
            None => Ok(()),
        }
    }

    fn on_trainer(&mut self, told: Told) -> Result<()> {
        let now = self.now();
        match told {
            Told::Trained => self.peer.handle_trained(now),
            Told::Extracted(extracted, coefficients) => {
                self.sent_coefficients = coefficients;
                self.peer.handle_extracted(now, extracted);
            }
            Told::Saved(mut state) => {
                self.saving = false;
                if std::mem::take(&mut self.stale_save) {
                    self.start_saving();
                    return Ok(());
                }
                let saved = self.make_corrections(&mut state).and_then(|()| self.save(Some(*state)));
                if let Err(error) = saved {
                    tracing::error!("{error:#}");
                }
            }
            Told::Examined(examination) => self.examination = Some(examination),
            Told::Measured(losses) => {
                if let Some(record) = self.history.last_mut() {
                    record.validation_loss = losses.validation;
                }
                self.told.write(&Event::Measured { round: self.peer.round(), losses });
            }
            Told::Failed(why) => bail!("training failed: {why}"),
        }
        Ok(())
    }

    /// Stops the trainer, saves everything, writes the report. `ended` is how the loop ended.
    async fn close(&mut self, ended: Result<Ended>) -> Result<Ended> {
        if let Ok(Ended::Stopped) = ended {
            tracing::info!("stopping: saving what was trained");
        }
        let phase = if ended.is_err() { "failed" } else { "finishing" };
        self.write_status(phase, "saving");
        // Somebody who pressed Ctrl-C gets a rough measurement, not a long wait.
        let windows = if matches!(ended, Ok(Ended::Finished)) { EXAMINED_WINDOWS } else { HASTY_WINDOWS };
        let saved = match tokio::time::timeout(STOP_TIMEOUT, self.last_words(windows)).await {
            Ok(saved) => saved,
            Err(_) => Err(anyhow::anyhow!("the trainer did not hand over its state in time")),
        };
        let phase = match (&ended, &saved) {
            (Ok(Ended::Finished), Ok(())) => "done",
            (Ok(Ended::Stopped), Ok(())) => "stopped",
            _ => "failed",
        };
        self.allowance.update(self.network.traffic(), unix_time());
        self.write_book();
        let reported = self.write_report(matches!(ended, Ok(Ended::Finished)));
        self.write_status(phase, "");
        self.told.write(&Event::Stopped { round: self.peer.round(), phase: phase.to_owned() });
        let ended = ended?;
        saved?;
        reported?;
        Ok(ended)
    }

    /// The last snapshot, and after it, because it matters less, the trainer's final measurement.
    async fn last_words(&mut self, windows: usize) -> Result<()> {
        let Some(trainer) = &self.trainer else {
            let kept = self.kept.take();
            return self.save(kept);
        };
        for order in [Order::Save, Order::Examine(windows), Order::Stop] {
            let _ = trainer.orders.try_send(order);
        }
        let (mut saved, mut unsigned): (bool, Option<Vec<u8>>) = (false, None);
        while let Some(told) = next_told(&mut self.trainer).await {
            match told {
                // Asked for before the history changed; the next one is right.
                Told::Saved(_) if std::mem::take(&mut self.stale_save) => {}
                Told::Saved(mut state) => {
                    if let Some(body) = &unsigned {
                        // Extracted before this state but never signed: it goes back, or it is lost.
                        files::give_back(&self.peer, &mut state, body)?;
                    }
                    self.make_corrections(&mut state)?;
                    self.save(Some(*state))?;
                    saved = true;
                }
                Told::Examined(examination) => self.examination = Some(examination),
                Told::Failed(why) => bail!("training failed: {why}"),
                Told::Trained | Told::Measured(_) => {}
                Told::Extracted(extracted, _) => unsigned = Some(extracted.body),
            }
        }
        if let (Some(record), Some(losses)) = (self.history.last_mut(), &self.examination) {
            record.validation_loss = losses.shared.map(|measured| measured.loss);
        }
        anyhow::ensure!(saved, "the trainer ended without handing over its state; the last snapshot stays");
        Ok(())
    }
}

/// What the trainer says next; `None` if it has ended, never if there is none.
async fn next_told(trainer: &mut Option<Trainer>) -> Option<Told> {
    match trainer {
        Some(trainer) => trainer.told.recv().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
