//! What a user may ask of the governor, and what cannot be meant.

use std::str::FromStr;
use std::time::Duration;

use super::hours::Window;
use super::readings::{Memory, Reading, Readings};
use super::units::{Amount, Share, bytes};

/// Rules by name: a start from which single ones are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum When {
    /// Whatever the device does
    Always,
    /// While nobody uses the device, as BOINC does it: on AC, untouched for 3 min, other programs below 25 % of the
    /// processor, no program filling the screen, memory to spare, no metered network
    Idle,
    /// The same, from 22:00 to 07:00 only
    Night,
}

/// On which current.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Power {
    /// Any.
    Any,
    /// On AC only.
    Ac,
    /// Also on a battery that is fuller than this, in percent.
    Above(u8),
}

impl FromStr for Power {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "any" => Ok(Self::Any),
            "ac" => Ok(Self::Ac),
            _ => match text.strip_suffix('%').and_then(|number| number.parse::<u8>().ok()) {
                Some(percent @ 0..100) => Ok(Self::Above(percent)),
                Some(_) => {
                    Err(format!("'{text}': no battery is ever fuller than that; write ac for AC only"))
                }
                None => Err(format!("'{text}' is not any, ac, or a charge such as 80%")),
            },
        }
    }
}

/// On which networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Networks {
    /// Any.
    Any,
    /// Where bytes cost nothing.
    Unmetered,
    /// On these only.
    Named(Vec<String>),
}

impl FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "any" => Ok(Self::Any),
            "unmetered" => Ok(Self::Unmetered),
            _ => {
                let names: Vec<String> = text
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect();
                if names.is_empty() {
                    return Err("name a network, or write any or unmetered".to_owned());
                }
                Ok(Self::Named(names))
            }
        }
    }
}

/// What has to hold for training to go on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    /// On which current.
    pub(crate) power: Power,
    /// For how long nobody may have touched the device.
    pub(crate) idle: Option<Duration>,
    /// Not while a program fills the screen.
    pub(crate) full_screen: bool,
    /// Other programs use no more than this share of all cores.
    pub(crate) others_cpu: Option<Share>,
    /// So much of all memory is available to programs.
    pub(crate) free_memory: Option<Share>,
    /// This program has no more than that; the second one while somebody is there.
    pub(crate) memory: Option<(Amount, Amount)>,
    /// No sensor is hotter, in degrees Celsius.
    pub(crate) temperature: Option<f64>,
    /// Hours of the week; none are all.
    pub(crate) hours: Vec<Window>,
    /// On which networks.
    pub(crate) networks: Networks,
    /// Not while one of these programs is running.
    pub(crate) exclusive: Vec<String>,
    /// Share of the time in which it trains.
    pub(crate) share: Share,
    /// The system gives the processor to any other program first.
    pub(crate) low_priority: bool,
}

/// What a sensor has to find out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Where the current comes from.
    pub(crate) source: bool,
    /// Since when nobody has touched the device.
    pub(crate) untouched: bool,
    /// Whether a program fills the screen.
    pub(crate) full_screen: bool,
    /// What other programs take of the processor.
    pub(crate) others_cpu: bool,
    /// Memory.
    pub(crate) memory: bool,
    /// Heat.
    pub(crate) temperature: bool,
    /// The network.
    pub(crate) network: bool,
    /// Which of these programs are running.
    pub(crate) running: Vec<String>,
    /// The local time.
    pub(crate) minute: bool,
}

impl Rules {
    /// The rules of this name.
    pub(crate) fn of(when: When) -> Self {
        let always = Self {
            power: Power::Any,
            idle: None,
            full_screen: false,
            others_cpu: None,
            free_memory: None,
            memory: None,
            temperature: None,
            hours: Vec::new(),
            networks: Networks::Any,
            exclusive: Vec::new(),
            share: Share::ALL,
            low_priority: false,
        };
        // BOINC 8: ram_max_used_idle_frac 0.9, ram_max_used_busy_frac 0.5, suspend_cpu_usage 25,
        // idle_time_to_run 3, run_on_batteries 0, and its lowest priority.
        let idle = Self {
            power: Power::Ac,
            idle: Some(Duration::from_secs(180)),
            full_screen: true,
            others_cpu: Some(Share::percent(25)),
            free_memory: Some(Share::percent(10)),
            memory: Some((Amount::Part(Share::percent(90)), Amount::Part(Share::percent(50)))),
            networks: Networks::Unmetered,
            low_priority: true,
            ..always.clone()
        };
        match when {
            When::Always => always,
            When::Idle => idle,
            When::Night => Self { hours: vec![Window::daily(22 * 60, 9 * 60)], ..idle },
        }
    }

    /// What has to be known for them.
    pub(crate) fn needs(&self) -> Needs {
        Needs {
            source: self.power != Power::Any,
            // The limit of memory depends on it as well.
            untouched: self.idle.is_some() || self.memory.is_some_and(|(away, there)| away != there),
            full_screen: self.full_screen,
            others_cpu: self.others_cpu.is_some(),
            memory: self.memory.is_some() || self.free_memory.is_some(),
            temperature: self.temperature.is_some(),
            network: self.networks != Networks::Any,
            running: self.exclusive.clone(),
            minute: !self.hours.is_empty(),
        }
    }

    /// Settings with which training could never start, or that mean nothing, on the device that these readings are of:
    /// each names its flag.
    pub(crate) fn never(&self, readings: &Readings) -> Vec<String> {
        let mut never = Vec::new();
        let mut unknown = |flag: String, what: &str, why: &Result<(), String>, instead: &str| {
            if let Err(why) = why {
                never.push(format!(
                    "{flag}: {what} cannot be told here ({why}), so training never starts; {instead}"
                ));
            }
        };
        fn known<T>(reading: &Reading<T>) -> Result<(), String> {
            reading.as_ref().map(drop).map_err(Clone::clone)
        }
        if let Some(least) = self.idle {
            let what = "whether somebody is using this device, which counts as somebody being there,";
            let instead = "--idle off, or --when always, trains all the same";
            unknown(format!("--idle {}", spelled(least)), what, &known(&readings.untouched), instead);
        } else if self.full_screen {
            let instead = "--full-screen ignore trains all the same";
            unknown("--full-screen pause".into(), "that", &known(&readings.full_screen), instead);
        }
        if self.power != Power::Any {
            let instead = "--power any trains all the same";
            unknown("--power".into(), "where the current comes from", &known(&readings.source), instead);
        }
        if self.others_cpu.is_some() {
            let instead = "--others-cpu off trains all the same";
            unknown("--others-cpu".into(), "what other programs use", &known(&readings.others_cpu), instead);
        }
        if self.needs().memory {
            let instead = "--free-memory off and no --memory train all the same";
            unknown("--memory or --free-memory".into(), "memory", &known(&readings.memory), instead);
        }
        if self.temperature.is_some() {
            unknown("--temperature".into(), "that", &known(&readings.temperature), "leave it out");
        }
        if matches!(self.networks, Networks::Named(_)) {
            unknown("--network".into(), "the network's name", &known(&readings.network), "leave it out");
        }
        if !self.exclusive.is_empty() {
            unknown("--exclusive".into(), "what is running", &known(&readings.running), "leave it out");
        }
        if !self.hours.is_empty() {
            unknown("--hours".into(), "the local time", &known(&readings.minute), "leave it out");
        }
        if let Ok(Memory { total, .. }) = readings.memory
            && let Some((Amount::Bytes(limit), _)) = self.memory
            && limit > total
        {
            never.push(format!(
                "--memory {}: more than this device has ({}), so it is no limit",
                bytes(limit),
                bytes(total)
            ));
        }
        if let Some(degrees) = self.temperature.filter(|degrees| *degrees < COLD) {
            never.push(format!("--temperature {degrees:.0}: a running processor is hardly ever that cold"));
        }
        if let Some(share) = self.others_cpu.filter(|share| share.of_one() < QUIET) {
            never.push(format!("--others-cpu {share}: other programs hardly ever use so little"));
        }
        never
    }
}

/// Degrees Celsius that a processor hardly ever stays below.
const COLD: f64 = 35.0;
/// Share of the processor that a system hardly ever stays below.
const QUIET: f64 = 0.01;

/// A time as the flag takes it.
fn spelled(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds > 0 && seconds.is_multiple_of(60) {
        format!("{}m", seconds / 60)
    } else {
        format!("{seconds}s")
    }
}
