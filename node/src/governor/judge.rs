//! The decision. Time and readings are arguments, so nothing here has a clock or a device.
//!
//! A rule that forbids pauses at once. What forbade lets go at another point than where it began, a little further off,
//! and training resumes only when all rules have permitted it for [`SETTLE`]: a value that trembles around a limit, or a
//! user who reads and types in turns, does not make the device start and stop all the time. What the user asks for in so
//! many words (`swarm resume`, a changed setting) takes effect at once.
//!
//! A rule that cannot be judged forbids. There are two exceptions: without a way to tell the network, it counts as one
//! that costs nothing, as most machines without NetworkManager are no phones; and without a way to tell whether a program
//! fills the screen, untouched keys are enough, if they are asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::control::Asked;
use super::hours;
use super::readings::{Memory, Readings, Source};
use super::rules::{Networks, Power, Rules};
use super::units::{Share, Span, bytes};

/// All rules have permitted it for so long before training resumes.
pub(super) const SETTLE: Duration = Duration::from_secs(5);
/// Over which time the load of other programs is averaged: one that starts is no reason yet.
const LOAD: Duration = Duration::from_secs(4);
/// A battery has to be so many points fuller than where it forbade.
const CHARGED: f64 = 5.0;
/// Degrees that a device has to cool down.
const COOLED: f64 = 5.0;
/// Other programs have to use less than this part of what forbade ..
const CALMER: f64 = 0.8;
/// .. and this program's memory has to be below this part of its limit, free memory above its inverse.
const ROOMIER: f64 = 0.9;
/// Somebody is there who has touched the device in this time, for the rules that ask only that.
const PRESENT: Duration = Duration::from_secs(180);

/// Which rule forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Why {
    /// The user said so.
    Asked,
    /// The hour.
    Hours,
    /// The battery.
    Power,
    /// A program that wants the device for itself.
    Program,
    /// A program that fills the screen.
    FullScreen,
    /// Somebody is there.
    User,
    /// Other programs need the processor.
    Processor,
    /// Other programs need memory.
    FreeMemory,
    /// This program has too much memory.
    Memory,
    /// It is too hot.
    Heat,
    /// The network costs money, or is none of those named.
    Network,
    /// No rule forbids any more, but only just.
    Settling,
}

/// A rule that forbids training now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Objection {
    /// Which.
    pub(crate) why: Why,
    /// What is the case.
    pub(crate) because: String,
    /// When or how it goes on.
    pub(crate) until: String,
}

/// Whether to train.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// In which share of the time; `None`: not at all.
    pub(crate) share: Option<Share>,
    /// What forbids it.
    pub(crate) objections: Vec<Objection>,
    /// The network is not to be used either.
    pub(crate) quiet: bool,
}

impl Verdict {
    /// Nothing forbids.
    pub(crate) fn train(share: Share) -> Self {
        Self { share: Some(share), objections: Vec::new(), quiet: false }
    }

    /// The same in words: a line for a log.
    pub(crate) fn words(&self) -> String {
        let said = |objection: &Objection| format!("{}, resumes {}", objection.because, objection.until);
        match self.share {
            Some(Share::ALL) => "training".to_owned(),
            Some(share) => format!("training in {share} of the time"),
            None => format!("paused: {}", self.objections.iter().map(said).collect::<Vec<_>>().join("; ")),
        }
    }

    /// What has to differ for a log to say it again: not every percent.
    pub(super) fn gist(&self) -> (Option<u64>, Option<Why>, bool) {
        let share = self.share.map(|share| (1000.0 * share.of_one()) as u64);
        (share, self.objections.first().map(|objection| objection.why), self.quiet)
    }
}

/// Decides, and remembers what it needs for not changing its mind all the time.
pub(crate) struct Judge {
    rules: Rules,
    /// What forbade the last time.
    forbade: BTreeSet<Why>,
    /// Since when nothing has forbidden, while it is still paused for that.
    clear_since: Option<Duration>,
    /// What other programs use, averaged, and when that was.
    load: Option<(Duration, f64)>,
}

impl Judge {
    /// With these rules.
    pub(crate) fn new(rules: Rules) -> Self {
        Self { rules, forbade: BTreeSet::new(), clear_since: None, load: None }
    }

    /// Other rules from now on: what they permit, they permit at once.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
        self.forbade.clear();
        self.clear_since = None;
    }

    /// The rules.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Decides. `now` is a time since anything.
    pub(crate) fn judge(&mut self, now: Duration, readings: &Readings, asked: Asked) -> Verdict {
        self.average(now, readings);
        let mut objections: Vec<Objection> = Vec::new();
        let mut object = |why: Why, found: Option<(String, String)>| {
            objections.extend(found.map(|(because, until)| Objection { why, because, until }));
        };
        object(Why::Asked, asked_to_pause(asked));
        object(Why::Hours, self.hours(readings));
        object(Why::Power, self.power(readings));
        object(Why::Program, self.program(readings));
        object(Why::FullScreen, self.full_screen(readings));
        object(Why::User, self.user(readings));
        object(Why::Processor, self.processor(readings));
        object(Why::FreeMemory, self.free_memory(readings));
        object(Why::Memory, self.memory(readings));
        object(Why::Heat, self.heat(readings));
        object(Why::Network, self.network(readings));
        let quiet = objections.iter().any(|objection| objection.why == Why::Network);
        let paused_by_rule = self.forbade.iter().any(|why| *why != Why::Asked);
        if objections.is_empty() && paused_by_rule {
            let since = *self.clear_since.get_or_insert(now);
            let left = SETTLE.saturating_sub(now.saturating_sub(since));
            if !left.is_zero() {
                object_settling(&mut objections, left);
                // What was let go of stays remembered: the margins hold until it trains.
                return Verdict { share: None, objections, quiet };
            }
        }
        self.clear_since = None;
        self.forbade = objections.iter().map(|objection| objection.why).collect();
        let share = objections.is_empty().then_some(self.rules.share);
        Verdict { share, objections, quiet }
    }

    fn average(&mut self, now: Duration, readings: &Readings) {
        let Ok(load) = readings.others_cpu else { return };
        let (then, before) = self.load.unwrap_or((now, load));
        let weight = 1.0 - (-now.saturating_sub(then).as_secs_f64() / LOAD.as_secs_f64()).exp();
        self.load = Some((now, before + weight * (load - before)));
    }

    /// Whether this rule forbade the last time, so that the margin counts.
    fn held(&self, why: Why) -> bool {
        self.forbade.contains(&why)
    }

    fn hours(&self, readings: &Readings) -> Option<(String, String)> {
        if self.rules.hours.is_empty() {
            return None;
        }
        match &readings.minute {
            Ok(now) if hours::open(&self.rules.hours, *now) => None,
            Ok(now) => {
                let then = hours::next_opening(&self.rules.hours, *now);
                let then = then.map_or_else(|| "never".to_owned(), |then| format!("on {then}"));
                Some((format!("{now} is outside the hours set"), then))
            }
            Err(why) => Some(untold("the local time", why, "--hours")),
        }
    }

    fn power(&self, readings: &Readings) -> Option<(String, String)> {
        let least = match self.rules.power {
            Power::Any => return None,
            Power::Ac => None,
            Power::Above(percent) => Some(f64::from(percent)),
        };
        match &readings.source {
            Ok(Source::Mains) => None,
            Ok(Source::Battery(charge)) => {
                let battery = format!("on battery {:.0} %", charge.clamp(0.0, 100.0).floor());
                let Some(least) = least else { return Some((battery, "on AC".to_owned())) };
                let enough = if self.held(Why::Power) { (least + CHARGED).min(99.0) } else { least };
                let charged = (least + CHARGED).min(99.0);
                (*charge <= enough).then(|| (battery, format!("above {charged:.0} % or on AC")))
            }
            Err(why) => Some(untold("where the current comes from", why, "--power")),
        }
    }

    fn program(&self, readings: &Readings) -> Option<(String, String)> {
        if self.rules.exclusive.is_empty() {
            return None;
        }
        match &readings.running {
            Ok(running) => {
                let first = running.iter().find(|name| self.rules.exclusive.contains(name))?;
                Some((format!("{first} is running"), "when it has ended".to_owned()))
            }
            Err(why) => Some(untold("what is running", why, "--exclusive")),
        }
    }

    fn full_screen(&self, readings: &Readings) -> Option<(String, String)> {
        match &readings.full_screen {
            _ if !self.rules.full_screen => None,
            Ok(false) => None,
            Ok(true) => Some(("a program fills the screen".to_owned(), "when it does not".to_owned())),
            // Untouched keys say enough; without that rule, nothing says that nobody is there.
            Err(_) if self.rules.idle.is_some() => None,
            Err(why) => Some(untold("whether a program fills the screen", why, "--full-screen")),
        }
    }

    fn user(&self, readings: &Readings) -> Option<(String, String)> {
        let least = self.rules.idle?;
        match &readings.untouched {
            Ok(untouched) if *untouched >= least => None,
            Ok(untouched) => Some((
                format!("somebody is using this device (touched {} s ago)", untouched.as_secs()),
                format!("when it has been left alone for {}", Span(least)),
            )),
            Err(why) => Some((
                format!(
                    "whether somebody is using this device cannot be told ({why}), which counts as somebody being there"
                ),
                "with --idle off".to_owned(),
            )),
        }
    }

    fn processor(&self, readings: &Readings) -> Option<(String, String)> {
        let most = self.rules.others_cpu?.of_one();
        let calm = CALMER * most;
        match (&readings.others_cpu, self.load) {
            (Err(why), _) => Some(untold("what other programs use of the processor", why, "--others-cpu")),
            (Ok(_), Some((_, load))) if load > if self.held(Why::Processor) { calm } else { most } => Some((
                format!("other programs use {:.0} % of the processor", 100.0 * load),
                format!("below {:.0} %", 100.0 * calm),
            )),
            _ => None,
        }
    }

    fn free_memory(&self, readings: &Readings) -> Option<(String, String)> {
        let least = self.rules.free_memory?.of_one();
        match &readings.memory {
            Ok(Memory { total, available, .. }) => {
                let free = *available as f64 / (*total).max(1) as f64;
                let enough = (least / ROOMIER).min(1.0);
                (free < if self.held(Why::FreeMemory) { enough } else { least }).then(|| {
                    let because = format!("only {:.0} % of the memory is free", 100.0 * free);
                    (because, format!("above {:.0} %", 100.0 * enough))
                })
            }
            Err(why) => Some(untold("how much memory is free", why, "--free-memory")),
        }
    }

    fn memory(&self, readings: &Readings) -> Option<(String, String)> {
        let (away, there) = self.rules.memory?;
        let left_alone = self.rules.idle.unwrap_or(PRESENT);
        let limit =
            if readings.untouched.as_ref().is_ok_and(|time| *time >= left_alone) { away } else { there };
        match &readings.memory {
            Ok(Memory { total, own, .. }) => {
                let most = limit.bytes(*total);
                let enough = (ROOMIER * most as f64) as u64;
                (*own > if self.held(Why::Memory) { enough } else { most }).then(|| {
                    let because =
                        format!("this program has {} of memory, allowed are {}", bytes(*own), bytes(most));
                    (because, format!("below {}, or with a larger --memory", bytes(enough)))
                })
            }
            Err(why) => Some(untold("how much memory this program has", why, "--memory")),
        }
    }

    fn heat(&self, readings: &Readings) -> Option<(String, String)> {
        let most = self.rules.temperature?;
        let cool = most - COOLED;
        match &readings.temperature {
            Ok(degrees) => (*degrees > if self.held(Why::Heat) { cool } else { most })
                .then(|| (format!("it is {degrees:.0} °C hot"), format!("below {cool:.0} °C"))),
            Err(why) => Some(untold("the temperature", why, "--temperature")),
        }
    }

    fn network(&self, readings: &Readings) -> Option<(String, String)> {
        match (&self.rules.networks, &readings.network) {
            (Networks::Any, _) | (Networks::Unmetered, Err(_)) => None,
            (Networks::Unmetered, Ok(network)) => network.metered.then(|| {
                (format!("bytes cost money on the network {}", network.name), "on another".to_owned())
            }),
            (Networks::Named(names), Ok(network)) => (!names.contains(&network.name))
                .then(|| (format!("the network is {}", network.name), format!("on {}", names.join(" or ")))),
            (Networks::Named(_), Err(why)) => Some(untold("the name of the network", why, "--network")),
        }
    }
}

/// What the user said.
fn asked_to_pause(asked: Asked) -> Option<(String, String)> {
    let Asked::Pause { left } = asked else { return None };
    let until = match left {
        Some(left) => format!("in {}, or with swarm resume", Span(left)),
        None => "with swarm resume".to_owned(),
    };
    Some(("by swarm pause".to_owned(), until))
}

/// A rule that cannot be judged.
fn untold(what: &str, why: &str, flag: &str) -> (String, String) {
    (format!("{what} cannot be told ({why})"), format!("without {flag}"))
}

fn object_settling(objections: &mut Vec<Objection>, left: Duration) {
    objections.push(Objection {
        why: Why::Settling,
        because: "nothing stands in the way any more".to_owned(),
        until: format!("in {} s if it stays so", left.as_secs() + 1),
    });
}
