//! The trainer thread: inner steps, and between them whatever the node asks for.
//!
//! ```text
//!   a new C  fold it into the member
//!   Start    H inner steps, or as many as fit into the round's time; then `Trained`
//!   Extract  a delta of the member;  `Extracted`
//!   Return   an own delta did not enter C: back to the residual;  Take  it did after all: out again
//!   Rebase   the member keeps a share of its own way while C leaves one history for another
//! ```
//!
//! What folding and extracting are, [`super::member`] says. Orders are taken between two steps only, so a
//! step is the longest time that anything waits for.
//!
//! While the governor's throttle is closed there are no steps: orders are still obeyed, and a step that is under way is
//! left after the micro-batch in hand and gone on with later. Where it is half open, each step is followed by a rest.
//!
//! # Going ahead
//! A delta is extracted, and then its author waits a little for those of the others. If they do not come at once
//! ([`PATIENCE`]), the trainer begins with the steps of the next round. In that time the model stands where its own
//! training has brought it, and C does not yet have what has just been extracted, so folding waits for the round to
//! start: a C without it would take it from the model.
//!
//! A step ahead is a step without what the others have just learned, so it is not for nodes that are close to each
//! other: they would lose what it costs and gain nothing. Where the tenth of a round that a node waits at most is
//! gained, it pays. (`swarm lab --overlap`; nano, H = 4, seeds 1 to 3: loss 1.484 after 2 M tokens, 1.502 with one step
//! ahead in each round, 1.467 with that and the 2.2 M tokens that the same time is enough for.)

use std::sync::Arc;
#[cfg(test)]
mod tests;

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use swarm_optimizer::layout::Layout;
use swarm_optimizer::residual::Residual;
use swarm_optimizer::sparse::SparseDelta;
use swarm_protocol::genesis::{Genesis, Private};
use swarm_protocol::packing;
use swarm_protocol::peer::rounds::Extracted;
use tokio::sync::mpsc::Sender;

use super::inner::InnerState;
use super::learner::{Learner, LearnerState};
use super::member::Member;
use crate::data::{SamplerState, TestSet};
use crate::governor::Throttle;
use crate::trainer::{Examination, Losses, NewestC, Order, SharedProgress, Told, Trainer, TrainerState};

/// Windows that are measured at the end.
pub(crate) const VALIDATION_WINDOWS: usize = 256;

/// Windows of the validation text that are measured on the way.
pub(crate) const QUICK_WINDOWS: usize = 64;

/// Windows of the device's own data that are measured on the way.
const OWN_WINDOWS: usize = 16;

/// Orders that may wait: more than there are kinds of them.
const ORDER_QUEUE: usize = 16;

/// Messages to the node that may wait; the trainer sends a handful a round and waits if nobody reads.
const TOLD_QUEUE: usize = 16;

/// How the thread looks whether the node is still there while it has nothing to do.
const IDLE_CHECK: Duration = Duration::from_millis(500);

/// What a trainer starts from.
pub(crate) struct Setup {
    /// The rules.
    pub(crate) genesis: Arc<Genesis>,
    /// The tiling.
    pub(crate) layout: Arc<Layout>,
    /// R, AdamW and the sampler as a snapshot left them.
    pub(crate) state: Option<TrainerState>,
    /// Common data to measure on.
    pub(crate) validation: Option<Box<dyn TestSet>>,
    /// What this device keeps to itself, besides what the genesis says.
    pub(crate) private: Private,
    /// Threads for libtorch.
    pub(crate) threads: usize,
    /// In which share of the time there are steps.
    pub(crate) throttle: Throttle,
}

/// Starts the thread. `learner` makes the learner on it (libtorch's thread count is a thread's own).
///
/// # Errors
/// Whatever `learner` fails with, a state that does not fit the model, or no thread to be had.
pub(crate) fn spawn(
    setup: Setup,
    learner: impl FnOnce() -> Result<Learner> + Send + 'static,
) -> Result<Trainer> {
    let (orders, incoming) = std::sync::mpsc::sync_channel(ORDER_QUEUE);
    let (tell, told) = tokio::sync::mpsc::channel(TOLD_QUEUE);
    let (ready, started) = std::sync::mpsc::channel();
    let (progress, newest) = (SharedProgress::default(), NewestC::default());
    let ends = (progress.clone(), newest.clone());
    let run = move || {
        let worker = Worker::new(setup, learner, ends, tell.clone());
        match worker {
            Ok(mut worker) => {
                let _ = ready.send(Ok(()));
                if let Err(error) = worker.run(&incoming) {
                    let _ = tell.blocking_send(Told::Failed(format!("{error:#}")));
                }
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    };
    std::thread::Builder::new().name("trainer".into()).spawn(run).context("no thread for training")?;
    started.recv().map_err(|_| anyhow!("the trainer ended before it began"))??;
    Ok(Trainer { orders, newest, told, progress })
}

/// The share of a round for which deltas are waited for with nothing else to do, and the least time.
const PATIENCE: (u32, Duration) = (128, Duration::from_millis(100));

struct Worker {
    setup: Setup,
    member: Member,
    tell: Sender<Told>,
    progress: SharedProgress,
    newest: NewestC,
    round: Option<Round>,
    /// When the last one was started, and how long it took to its extraction.
    started: Option<Instant>,
    last_round: Duration,
    /// No step before this, if only a share of the time is to be used.
    rest_until: Option<Instant>,
    /// A first round has been started, and the last one not extracted.
    takes_part: bool,
    /// Tokens and first and last loss since the last delta.
    tokens: u64,
    losses: Option<(f64, f64)>,
}

/// The round being trained for.
struct Round {
    began: Instant,
    /// Share of the learning rate.
    rate: f64,
    steps: u32,
    loss_sum: f64,
    /// The core has not started it yet.
    ahead: bool,
}

impl Worker {
    fn new(
        mut setup: Setup,
        learner: impl FnOnce() -> Result<Learner>,
        (progress, newest): (SharedProgress, NewestC),
        tell: Sender<Told>,
    ) -> Result<Self> {
        super::set_threads(setup.threads)?;
        let mut learner = learner()?;
        let layout = &setup.layout;
        let parameters = setup.genesis.model.parameters();
        let everybodys = Private::new(&setup.genesis.private, &parameters).map_err(anyhow::Error::msg)?;
        let is_private = |name: &str| everybodys.picks(name) || setup.private.picks(name);
        let own = layout.as_ref().clone().with_private(is_private);
        let residual = match setup.state.take() {
            None => Residual::zeros(layout),
            Some(state) => {
                let TrainerState { residual, step, m, v, sampler_seed, sampler_drawn } = state;
                let optimizer = InnerState { step, m, v };
                let sampler = SamplerState { seed: sampler_seed, drawn: sampler_drawn };
                learner.restore(&LearnerState { optimizer, sampler })?;
                Residual::from_values(layout, residual)
                    .context("the snapshot's residual does not fit the model")?
            }
        };
        Ok(Self {
            member: Member::new(own.into(), learner, residual)?,
            tell,
            progress,
            newest,
            round: None,
            started: None,
            last_round: Duration::ZERO,
            rest_until: None,
            takes_part: false,
            tokens: 0,
            losses: None,
            setup,
        })
    }

    fn run(&mut self, orders: &Receiver<Order>) -> Result<()> {
        loop {
            let order = if let Some(nothing_to_do) = self.pause() {
                let idle = Instant::now();
                let order = orders.recv_timeout(nothing_to_do);
                if self.takes_part && !self.rests() {
                    self.progress.update(|progress| progress.waiting += idle.elapsed());
                }
                match order {
                    Ok(order) => Some(order),
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
            } else {
                match orders.try_recv() {
                    Ok(order) => Some(order),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            };
            // A step ahead is no place to fold; whatever somebody asks for is about the newest C.
            if order.is_some() || !self.is_ahead() {
                self.fold()?;
            }
            match order {
                Some(Order::Stop) => return Ok(()),
                Some(order) => self.obey(order)?,
                None => self.step()?,
            }
        }
    }

    fn is_ahead(&self) -> bool {
        self.round.as_ref().is_some_and(|round| round.ahead)
    }

    /// How long there is nothing to do but to wait for an order; `None` if there are steps to take.
    fn pause(&self) -> Option<Duration> {
        let Some(round) = &self.round else { return Some(IDLE_CHECK) };
        if self.rests() {
            let left = self.rest_until.map(|until| until.saturating_duration_since(Instant::now()));
            return Some(left.filter(|left| !left.is_zero()).unwrap_or(IDLE_CHECK).min(IDLE_CHECK));
        }
        if !round.ahead {
            return None;
        }
        if self.is_complete(round) {
            return Some(IDLE_CHECK);
        }
        let (share, least) = PATIENCE;
        let left = (self.last_round / share).max(least).saturating_sub(round.began.elapsed());
        (!left.is_zero()).then_some(left)
    }

    /// Whether the device is needed for something else.
    fn rests(&self) -> bool {
        self.setup.throttle.is_closed() || self.rest_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether a round has its steps, or its time is over.
    fn is_complete(&self, round: &Round) -> bool {
        let rules = &self.setup.genesis;
        round.steps >= rules.training.steps
            || round.began.elapsed() >= Duration::from_millis(rules.rounds.round_ms.into())
    }

    fn begin(&self, round: u64, ahead: bool) -> Round {
        let rate = self.setup.genesis.training.rate(round);
        Round { began: Instant::now(), rate, steps: 0, loss_sum: 0.0, ahead }
    }

    fn tell(&self, told: Told) -> Result<()> {
        self.tell.blocking_send(told).map_err(|_| anyhow!("the node is gone"))
    }

    fn obey(&mut self, order: Order) -> Result<()> {
        let began = Instant::now();
        match order {
            Order::Start { round } => {
                self.takes_part = true;
                self.started = Some(began);
                let fresh = self.begin(round, false);
                let round = match self.round.take() {
                    Some(begun) if begun.ahead => Round { rate: fresh.rate, ahead: false, ..begun },
                    _ => fresh,
                };
                if round.steps > 0 && self.is_complete(&round) {
                    return self.tell(Told::Trained);
                }
                self.round = Some(round);
            }
            Order::Extract { round, k, ahead } => {
                self.round = None;
                let (extracted, coefficients) = self.extract(round, k)?;
                self.progress.update(|progress| progress.optimizing += began.elapsed());
                self.takes_part = ahead;
                self.last_round = self.started.map_or(Duration::ZERO, |started| started.elapsed());
                self.round = ahead.then(|| self.begin(round + 1, true));
                return self.tell(Told::Extracted(extracted, coefficients));
            }
            Order::Return(body) => {
                if let Some(delta) = self.unpack(&body) {
                    self.member.give_back(&delta);
                }
            }
            Order::Take(body) => {
                if let Some(delta) = self.unpack(&body) {
                    self.member.take_out(&delta);
                }
            }
            Order::Rebase(histories) => self.member.rebase(&histories.0, &histories.1)?,
            Order::Save => {
                self.member.take_up()?;
                self.progress.update(|progress| progress.optimizing += began.elapsed());
                let state = self.state()?;
                return self.tell(Told::Saved(Box::new(state)));
            }
            Order::Measure { own } => return self.measure(own),
            Order::Examine(windows) => return self.examine(windows),
            Order::Stop => {}
        }
        self.progress.update(|progress| progress.optimizing += began.elapsed());
        Ok(())
    }

    /// An own body, which the core has verified.
    fn unpack(&self, body: &[u8]) -> Option<SparseDelta> {
        packing::decode(&self.setup.layout, &self.setup.genesis.rule, body).ok()
    }

    /// Takes over the newest C, if there is a newer one.
    fn fold(&mut self) -> Result<()> {
        let Some((shared, touched)) = self.newest.take() else { return Ok(()) };
        let began = Instant::now();
        self.member.fold(shared, &touched)?;
        self.progress.update(|progress| progress.optimizing += began.elapsed());
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        let Some(mut round) = self.round.take() else { return Ok(()) };
        let began = Instant::now();
        let throttle = &self.setup.throttle;
        let report = self.member.learner.step_unless(round.rate, || throttle.is_closed())?;
        let (took, share) = (began.elapsed(), throttle.share());
        self.rest_until = (share > 0.0 && share < 1.0).then(|| began + took.div_f64(share));
        let Some(report) = report else {
            self.progress.update(|progress| progress.training += took);
            self.round = Some(round);
            return Ok(());
        };
        round.steps += 1;
        if let Some(why) = &report.skipped {
            tracing::warn!("step skipped: {why}");
        } else {
            round.loss_sum += report.loss;
            self.tokens += report.tokens;
            let (before, _) = self.losses.unwrap_or((report.loss, report.loss));
            self.losses = Some((before, report.loss));
        }
        let mean = round.loss_sum / f64::from(round.steps);
        let learner = &self.member.learner;
        let done = !round.ahead && self.is_complete(&round);
        self.progress.update(|progress| {
            progress.training += took;
            if report.skipped.is_none() {
                progress.tokens += report.tokens;
                progress.loss_last = Some(mean);
            }
            progress.skipped = learner.skipped_steps();
            progress.failed_reads = learner.data().failed_reads();
            if done {
                progress.loss_first = progress.loss_first.or(Some(mean));
            }
        });
        if done {
            return self.tell(Told::Trained);
        }
        self.round = Some(round);
        Ok(())
    }

    fn extract(&mut self, round: u64, k: u32) -> Result<(Extracted, u64)> {
        let rule = &self.setup.genesis.rule;
        let delta = self.member.extract(k as usize, rule.max_exponent)?;
        let body = match packing::encode(&self.setup.layout, rule, k, &delta) {
            Ok(body) => body,
            Err(packing::PackingError::Empty) => Vec::new(),
            Err(error) => return Err(error).context("packing the delta"),
        };
        let norm = self.member.residual().norm();
        self.progress.update(|progress| progress.residual_norm = norm);
        let (loss_before, loss_after) = self.losses.take().unwrap_or((f64::NAN, f64::NAN));
        let tokens = std::mem::take(&mut self.tokens);
        Ok((Extracted { round, body, tokens, loss_before, loss_after }, delta.len() as u64))
    }

    fn state(&self) -> Result<TrainerState> {
        let LearnerState { optimizer, sampler } = self.member.learner.state()?;
        Ok(TrainerState {
            residual: self.member.residual().values().to_vec(),
            step: optimizer.step,
            m: optimizer.m,
            v: optimizer.v,
            sampler_seed: sampler.seed,
            sampler_drawn: sampler.drawn,
        })
    }

    /// Measures how training goes.
    fn measure(&mut self, own: bool) -> Result<()> {
        let set = &self.setup.validation;
        let held_out = |learner: &Learner| learner.measure_held_out(OWN_WINDOWS).map(|of| of.loss);
        let personal = own.then(|| held_out(&self.member.learner)).transpose()?;
        let shared = self.member.with_shared(|learner| {
            let given = set.as_ref().map(|set| learner.evaluate(set.as_ref(), QUICK_WINDOWS)).transpose()?;
            anyhow::Ok((given, own.then(|| held_out(learner)).transpose()?))
        })?;
        let Some((validation, shared)) = shared else { return Ok(()) };
        self.tell(Told::Measured(Losses { validation, shared, personal }))
    }

    /// Measures both models on both texts.
    fn examine(&mut self, windows: usize) -> Result<()> {
        let set = &self.setup.validation;
        let measure = |learner: &Learner| {
            let given = set.as_ref().map(|set| learner.measure(set.as_ref(), windows)).transpose()?;
            anyhow::Ok((given, learner.measure_held_out(windows)?))
        };
        let (personal, own_personal) = measure(&self.member.learner)?;
        let Some((shared, own_shared)) = self.member.with_shared(measure)? else { return Ok(()) };
        self.tell(Told::Examined(Examination { shared, personal, own_shared, own_personal }))
    }
}
