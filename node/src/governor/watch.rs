//! The governor's thread: looks, decides, and tells, four times a second.
//!
//! The trainer is told directly, through a [`Throttle`] that it looks at between two steps: a pause does not wait for the
//! node's loop. The node is told for the swarm, the log and `status.json`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::control::{Asked, Control};
use super::judge::{Judge, Objection, Verdict, Why};
use super::rules::Rules;
use super::sensors::{Device, Sensors};
use super::units::Share;
use crate::node::unix_time;

/// Time between two looks.
const TICK: Duration = Duration::from_millis(250);
/// Time between two looks at the settings.
const SETTINGS: Duration = Duration::from_secs(1);
/// How long the first decision may take.
const FIRST: Duration = Duration::from_secs(3);
/// A governor that has not decided for so long is stuck in some sensor.
const STUCK: Duration = Duration::from_secs(5);

/// In which share of the time the trainer works; it looks at it between two steps.
#[derive(Clone, Debug)]
pub(crate) struct Throttle(Arc<AtomicU32>);

impl Default for Throttle {
    /// All the time.
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(Self::WHOLE)))
    }
}

impl Throttle {
    const WHOLE: u32 = 1000;

    /// `None` is not at all.
    pub(crate) fn set(&self, share: Option<Share>) {
        let thousandths = share.map_or(0, |share| ((share.of_one() * f64::from(Self::WHOLE)) as u32).max(1));
        self.0.store(thousandths, Ordering::Relaxed);
    }

    /// From 0, not at all, to 1.
    pub(crate) fn share(&self) -> f64 {
        f64::from(self.0.load(Ordering::Relaxed)) / f64::from(Self::WHOLE)
    }

    /// Not at all, for now.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// Settings that are looked at while a node runs.
pub(crate) struct Reload {
    /// The file.
    pub(crate) path: PathBuf,
    /// Reads it anew: the governor's rules, and what else has changed that takes a restart.
    pub(crate) read: Box<dyn FnMut() -> Result<(Rules, Vec<String>)> + Send>,
}

/// What the node has to know.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    /// Whether to train.
    pub(crate) verdict: Verdict,
    /// Whether to end.
    pub(crate) stop: bool,
}

/// The node's end of the governor's thread.
pub(crate) struct Governor {
    state: watch::Receiver<State>,
    throttle: Throttle,
    beat: Arc<AtomicU64>,
    /// The last beat that was seen, when it was new, and when it was last looked.
    heard: (u64, Instant, Instant),
}

impl Governor {
    /// What the trainer looks at.
    pub(crate) fn throttle(&self) -> Throttle {
        self.throttle.clone()
    }

    /// What was decided last; to be asked twice a second. A governor that is stuck in some sensor knows nothing of the
    /// user any more.
    pub(crate) fn state(&mut self) -> State {
        let State { verdict, stop } = self.state.borrow_and_update().clone();
        let (now, beat) = (Instant::now(), self.beat.load(Ordering::Relaxed));
        let (before, since, looked) = self.heard;
        // Nobody looks while the whole process is held; then neither has the other thread had its time.
        let new = beat != before || now.saturating_duration_since(looked) > STUCK / 2;
        self.heard = (beat, if new { now } else { since }, now);
        let silent = now.saturating_duration_since(self.heard.1);
        if silent < STUCK || verdict.share.is_none() {
            return State { verdict, stop };
        }
        self.throttle.set(None);
        let stuck = Objection {
            why: Why::User,
            because: format!("a sensor of this device has not answered for {} s", silent.as_secs()),
            until: "when it does".to_owned(),
        };
        State { verdict: Verdict { share: None, objections: vec![stuck], quiet: false }, stop }
    }

    /// Waits for another decision; for ever, if there will be none.
    pub(crate) async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Starts the thread for the node in the folder `dir`, with a first decision made.
///
/// # Errors
/// No thread to be had.
pub(crate) fn start(dir: &Path, rules: Rules, reload: Option<Reload>) -> Result<Governor> {
    // One that asks another process to stop, with whose number this one may have come to life.
    if let Ok(mut control) = Control::read(dir)
        && control.forget_stop()
    {
        control.write(dir)?;
    }
    let (watcher, governor) = watcher(dir, rules, reload);
    let (ready, decided) = std::sync::mpsc::channel();
    let run = move || watcher.run(&mut Device::default(), &ready);
    std::thread::Builder::new().name("governor".into()).spawn(run).context("no thread for the governor")?;
    // Whoever is late is heard later; until then nothing is trained.
    let _ = decided.recv_timeout(FIRST);
    Ok(governor)
}

/// The two ends, with nothing decided.
fn watcher(dir: &Path, rules: Rules, reload: Option<Reload>) -> (Watcher, Governor) {
    let undecided = Objection {
        why: Why::Settling,
        because: "this device has not been looked at yet".to_owned(),
        until: "when it has".to_owned(),
    };
    let undecided = Verdict { share: None, objections: vec![undecided], quiet: false };
    let (tell, state) = watch::channel(State { verdict: undecided, stop: false });
    let (throttle, beat, began) = (Throttle::default(), Arc::new(AtomicU64::new(0)), Instant::now());
    throttle.set(None);
    let watcher = Watcher {
        dir: dir.to_owned(),
        judge: Judge::new(rules),
        reload: reload.map(|reload| (stamp(&reload.path), reload)),
        control: Ok(Control::default()),
        throttle: throttle.clone(),
        beat: beat.clone(),
        began,
        tell,
    };
    (watcher, Governor { state, throttle, beat, heard: (0, began, began) })
}

struct Watcher {
    dir: PathBuf,
    judge: Judge,
    reload: Option<(Stamp, Reload)>,
    /// The last one that could be read; `Err` once that has been said.
    control: Result<Control, Control>,
    throttle: Throttle,
    beat: Arc<AtomicU64>,
    began: Instant,
    tell: watch::Sender<State>,
}

impl Watcher {
    fn run(mut self, sensors: &mut dyn Sensors, ready: &std::sync::mpsc::Sender<()>) {
        let mut looked_at_settings = Instant::now();
        let mut warned = false;
        let mut gist = Verdict::train(Share::ALL).gist();
        while !self.tell.is_closed() {
            let now = self.began.elapsed();
            if looked_at_settings.elapsed() >= SETTINGS {
                looked_at_settings = Instant::now();
                warned &= !self.reload();
            }
            let asked = self.look_at_control();
            let readings = sensors.read(now, &self.judge.rules().needs());
            if !std::mem::replace(&mut warned, true) {
                self.judge.rules().never(&readings).iter().for_each(|warning| tracing::warn!("{warning}"));
            }
            let verdict = self.judge.judge(now, &readings, asked);
            self.throttle.set(verdict.share);
            self.beat.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
            if std::mem::replace(&mut gist, verdict.gist()) != verdict.gist() {
                tracing::info!("{}", verdict.words());
            }
            let control = self.control.as_ref().unwrap_or_else(|last| last);
            let state = State { verdict, stop: control.stops(std::process::id()) };
            self.tell.send_if_modified(|last| {
                let differs = *last != state;
                *last = state;
                differs
            });
            let _ = ready.send(());
            std::thread::sleep(TICK);
        }
    }

    /// What the user asks for; a file that cannot be read changes nothing.
    fn look_at_control(&mut self) -> Asked {
        match Control::read(&self.dir) {
            Ok(control) => self.control = Ok(control),
            Err(error) => {
                if let Ok(last) = &self.control {
                    tracing::warn!("{error:#}");
                    self.control = Err(last.clone());
                }
            }
        }
        self.control.as_ref().unwrap_or_else(|last| last).asked(unix_time())
    }

    /// Takes up settings that have changed. Returns whether there were any.
    fn reload(&mut self) -> bool {
        let Some((before, reload)) = &mut self.reload else { return false };
        let now = stamp(&reload.path);
        if std::mem::replace(before, now) == now {
            return false;
        }
        match (reload.read)() {
            Ok((rules, others)) => {
                for name in others {
                    tracing::warn!(
                        "{}: {name} takes effect when the node is next started",
                        reload.path.display()
                    );
                }
                if rules == *self.judge.rules() {
                    return false;
                }
                tracing::info!("{}: new rules on when to train", reload.path.display());
                if rules.low_priority != self.judge.rules().low_priority {
                    tracing::warn!("the priority of this process changes when the node is next started");
                }
                self.judge.set_rules(rules);
                true
            }
            Err(error) => {
                tracing::error!("{error:#}; what was set before stays");
                false
            }
        }
    }
}

/// By what a file that has changed is known.
type Stamp = Option<(SystemTime, u64)>;

fn stamp(path: &Path) -> Stamp {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_survives_the_throttle() {
        let throttle = Throttle::default();
        assert!((throttle.share() - 1.0).abs() < 1e-9 && !throttle.is_closed());
        throttle.set(Some("25%".parse().unwrap()));
        assert!((throttle.share() - 0.25).abs() < 1e-9);
        // However small, it is something.
        throttle.set(Some("0.01%".parse().unwrap()));
        assert!(!throttle.is_closed());
        throttle.set(None);
        assert!(throttle.is_closed() && throttle.share() == 0.0);
    }

    #[test]
    fn a_pause_and_a_stop_reach_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let mut governor = start(dir.path(), Rules::of(super::super::When::Always), None).unwrap();
        assert_eq!(governor.state().verdict, Verdict::train(Share::ALL));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut control = Control::default();
        control.pause(unix_time(), None);
        control.write(dir.path()).unwrap();
        runtime.block_on(governor.changed());
        let state = governor.state();
        assert!(
            state.verdict.words().contains("paused: by swarm pause, resumes with swarm resume"),
            "{state:?}"
        );
        assert!(governor.throttle().is_closed() && !state.stop);
        control.resume();
        control.stop(std::process::id());
        control.write(dir.path()).unwrap();
        runtime.block_on(governor.changed());
        let state = governor.state();
        assert!(state.stop && state.verdict.share.is_some() && !governor.throttle().is_closed(), "{state:?}");
    }

    #[test]
    fn settings_are_read_again_when_they_change_and_bad_ones_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings");
        std::fs::write(&path, "100%").unwrap();
        let file = path.clone();
        let read = move || {
            let share = std::fs::read_to_string(&file)?.parse().map_err(anyhow::Error::msg)?;
            Ok((Rules { share, ..Rules::of(super::super::When::Always) }, Vec::new()))
        };
        let reload = Reload { path: path.clone(), read: Box::new(read) };
        let rules = Rules::of(super::super::When::Always);
        let (mut watcher, _governor) = watcher(dir.path(), rules.clone(), Some(reload));
        assert!(!watcher.reload(), "nothing has changed");
        std::fs::write(&path, "this is no share").unwrap();
        assert!(!watcher.reload());
        assert_eq!(*watcher.judge.rules(), rules);
        std::fs::write(&path, "40%").unwrap();
        assert!(watcher.reload());
        assert_eq!(watcher.judge.rules().share, "40%".parse().unwrap());
        assert!(!watcher.reload(), "once");
    }

    #[test]
    fn a_governor_that_is_stuck_lets_nobody_train() {
        let dir = tempfile::tempdir().unwrap();
        let (watcher, mut governor) = watcher(dir.path(), Rules::of(super::super::When::Always), None);
        watcher.tell.send(State { verdict: Verdict::train(Share::ALL), stop: false }).unwrap();
        governor.throttle.set(Some(Share::ALL));
        assert!(governor.state().verdict.share.is_some());
        governor.heard.1 -= 2 * STUCK;
        let words = governor.state().verdict.words();
        assert!(words.contains("has not answered for 10 s") && governor.throttle.is_closed(), "{words}");
        // A process that was held all that time is given some.
        governor.heard.2 -= STUCK;
        assert!(governor.state().verdict.share.is_some());
    }
}
