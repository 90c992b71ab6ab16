//! What is known of a device at a moment.

use std::time::Duration;

use super::hours::Minute;

/// Something that is known, or why it is not.
pub(crate) type Reading<T> = Result<T, String>;

/// Where the current comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Source {
    /// The mains; also a device that has no battery.
    Mains,
    /// A battery that is this full, from 0 to 100.
    Battery(f64),
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// The device's.
    pub(crate) total: u64,
    /// Of it, what programs could still have without swapping.
    pub(crate) available: u64,
    /// Resident memory of this process.
    pub(crate) own: u64,
}

/// The network that leads to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    /// Its name, as the system's settings show it.
    pub(crate) name: String,
    /// Whether bytes cost money there, as far as the system knows or guesses.
    pub(crate) metered: bool,
}

/// All of it. What no rule asks for need not be known: see [`super::rules::Rules::needs`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Readings {
    /// Where the current comes from.
    pub(crate) source: Reading<Source>,
    /// Since when nobody has touched keyboard, mouse or screen.
    pub(crate) untouched: Reading<Duration>,
    /// Whether a program fills the screen: a film, a game, a talk.
    pub(crate) full_screen: Reading<bool>,
    /// Share of all cores that other programs use now, from 0 to 1.
    pub(crate) others_cpu: Reading<f64>,
    /// Memory.
    pub(crate) memory: Reading<Memory>,
    /// The hottest sensor, in degrees Celsius.
    pub(crate) temperature: Reading<f64>,
    /// The network.
    pub(crate) network: Reading<Network>,
    /// Which of the programs that are asked for are running.
    pub(crate) running: Reading<Vec<String>>,
    /// The local time.
    pub(crate) minute: Reading<Minute>,
}

impl Default for Readings {
    /// Nothing is known, as nothing has been asked.
    fn default() -> Self {
        fn unasked<T>() -> Reading<T> {
            Err("nobody has looked".to_owned())
        }
        Self {
            source: unasked(),
            untouched: unasked(),
            full_screen: unasked(),
            others_cpu: unasked(),
            memory: unasked(),
            temperature: unasked(),
            network: unasked(),
            running: unasked(),
            minute: unasked(),
        }
    }
}
