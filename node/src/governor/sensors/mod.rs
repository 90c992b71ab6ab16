//! What the device tells of itself: batteries, hands, load, memory, heat, networks.
//!
//! Only what a rule asks for is looked at, and nothing more often than it can matter: a key and the plug count within a
//! second, heat and networks change slowly. What a system does not tell is an error with its reason, never a guess.

#[cfg(target_os = "linux")]
mod bus;
#[cfg(target_os = "linux")]
mod desktop;
mod load;
mod power;

use std::time::Duration;

use super::hours::Minute;
use super::readings::{Reading, Readings};
use super::rules::{Needs, Rules};

/// Looks at a device.
pub(crate) trait Sensors {
    /// What is the case at `now` (a time since anything), as far as `needs` ask for it.
    fn read(&mut self, now: Duration, needs: &Needs) -> Readings;
}

/// How often heat, networks and processes are looked at.
const SLOWLY: Duration = Duration::from_secs(2);
/// How often the battery is.
const OFTEN: Duration = Duration::from_millis(500);

/// Looked at now and then.
struct Slow<T> {
    every: Duration,
    last: Option<(Duration, Reading<T>)>,
}

impl<T: Clone> Slow<T> {
    fn every(every: Duration) -> Self {
        Self { every, last: None }
    }

    fn get(&mut self, now: Duration, look: impl FnOnce() -> Reading<T>) -> Reading<T> {
        let fresh = self.last.as_ref().filter(|(then, _)| now.saturating_sub(*then) < self.every);
        match fresh {
            Some((_, reading)) => reading.clone(),
            None => self.last.insert((now, look())).1.clone(),
        }
    }
}

/// This device.
pub(crate) struct Device {
    power: power::Power,
    load: load::Load,
    #[cfg(target_os = "linux")]
    desktop: desktop::Desktop,
    source: Slow<super::readings::Source>,
    temperature: Slow<f64>,
    running: Slow<Vec<String>>,
    #[cfg(target_os = "linux")]
    network: Slow<super::readings::Network>,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            power: power::Power::default(),
            load: load::Load::default(),
            #[cfg(target_os = "linux")]
            desktop: desktop::Desktop::default(),
            source: Slow::every(OFTEN),
            temperature: Slow::every(SLOWLY),
            running: Slow::every(SLOWLY),
            #[cfg(target_os = "linux")]
            network: Slow::every(SLOWLY),
        }
    }
}

impl Sensors for Device {
    fn read(&mut self, now: Duration, needs: &Needs) -> Readings {
        let mut readings = Readings::default();
        if needs.source {
            readings.source = self.source.get(now, || self.power.source());
        }
        if needs.others_cpu {
            readings.others_cpu = self.load.others_cpu();
        }
        if needs.memory {
            readings.memory = self.load.memory();
        }
        if needs.temperature {
            readings.temperature = self.temperature.get(now, || self.load.temperature());
        }
        if !needs.running.is_empty() {
            readings.running = self.running.get(now, || self.load.running(&needs.running));
        }
        if needs.minute {
            readings.minute = Ok(local_minute());
        }
        #[cfg(target_os = "linux")]
        {
            if needs.untouched {
                readings.untouched = self.desktop.untouched(now);
            }
            if needs.full_screen {
                readings.full_screen = self.desktop.full_screen(now);
            }
            if needs.network {
                readings.network = self.network.get(now, || self.desktop.network());
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let untold = "this build cannot ask this system for it".to_owned();
            readings.untouched = Err(untold.clone());
            readings.full_screen = Err(untold.clone());
            readings.network = Err(untold);
        }
        readings
    }
}

/// Of these rules, what can never let training start on this device, or means nothing: see [`Rules::never`].
pub(crate) fn never_here(rules: &Rules) -> Vec<String> {
    rules.never(&Device::default().read(Duration::ZERO, &rules.needs()))
}

/// The device's memory in bytes; `None` if the system does not tell.
pub(crate) fn total_memory() -> Option<u64> {
    load::Load::default().memory().ok().map(|memory| memory.total)
}

/// The local time.
fn local_minute() -> Minute {
    let now = jiff::Zoned::now();
    let day = now.weekday().to_monday_zero_offset();
    Minute::new(
        u8::try_from(day).unwrap_or(0),
        u16::try_from(i32::from(now.hour()) * 60 + i32::from(now.minute())).unwrap_or(0),
    )
}

/// Gives the processor to any other program first. To be called before threads are started: they inherit it.
///
/// # Errors
/// The system does not let it, or there is no such thing on it.
pub(crate) fn lower_priority() -> Result<(), String> {
    #[cfg(unix)]
    {
        // The lowest there is, as BOINC's; getting less is always allowed.
        const LOWEST: i32 = 19;
        rustix::process::setpriority_process(None, LOWEST).map_err(|error| error.to_string())
    }
    #[cfg(not(unix))]
    {
        Err("this build cannot ask this system for it".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever this machine is: what it tells must be possible, and what it does not tell must have a reason.
    #[test]
    fn this_device_is_read_without_nonsense() {
        let mut device = Device::default();
        let needs = Needs {
            source: true,
            untouched: true,
            full_screen: true,
            others_cpu: true,
            memory: true,
            temperature: true,
            network: true,
            running: vec!["no program has this name".into()],
            minute: true,
        };
        device.read(Duration::ZERO, &needs);
        let readings = device.read(Duration::from_secs(10), &needs);
        assert!((0.0..=1.0).contains(&readings.others_cpu.unwrap()));
        let memory = readings.memory.unwrap();
        assert!(
            memory.own > 1_000_000 && memory.own < memory.total && memory.available <= memory.total,
            "{memory:?}"
        );
        assert_eq!(readings.running, Ok(Vec::new()));
        assert!(readings.minute.is_ok());
        for why in [
            readings.source.err(),
            readings.untouched.err(),
            readings.full_screen.err(),
            readings.temperature.err(),
            readings.network.err(),
        ]
        .into_iter()
        .flatten()
        {
            assert!(!why.is_empty() && why != "nobody has looked");
        }
    }

    #[test]
    fn a_program_is_found_by_its_name() {
        let mut load = load::Load::default();
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let running = load.running(&["sleep".into(), "no program has this name".into()]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(running, Ok(vec!["sleep".to_owned()]));
    }

    #[test]
    fn what_changes_slowly_is_looked_at_now_and_then() {
        let mut slow = Slow::every(Duration::from_secs(2));
        let mut looks = 0;
        for millis in (0..4000).step_by(250) {
            let _ = slow.get(Duration::from_millis(millis), || {
                looks += 1;
                Ok(looks)
            });
        }
        assert_eq!(looks, 2);
    }
}
