//! Where the current comes from.

use starship_battery::units::ratio::percent;
use starship_battery::{Battery, Manager, State};

use crate::governor::readings::{Reading, Source};

/// The device's batteries; a mouse's do not count.
#[derive(Default)]
pub(super) struct Power {
    manager: Option<Manager>,
}

impl Power {
    /// A device without a battery is on the mains. With several, the emptiest one that is used counts.
    pub(super) fn source(&mut self) -> Reading<Source> {
        // A container or a board that knows of no power supply at all has no battery either.
        #[cfg(target_os = "linux")]
        if !std::path::Path::new("/sys/class/power_supply").exists() {
            return Ok(Source::Mains);
        }
        let failed = |error: starship_battery::Error| error.to_string();
        let manager = match self.manager.take() {
            Some(manager) => manager,
            None => Manager::new().map_err(failed)?,
        };
        let batteries: Result<Vec<Battery>, _> = manager.batteries().map_err(failed)?.collect();
        self.manager = Some(manager);
        let charges = batteries.map_err(failed)?;
        let used =
            charges.iter().filter(|battery| matches!(battery.state(), State::Discharging | State::Empty));
        let charge =
            used.map(|battery| f64::from(battery.state_of_charge().get::<percent>())).reduce(f64::min);
        Ok(charge.map_or(Source::Mains, Source::Battery))
    }
}
