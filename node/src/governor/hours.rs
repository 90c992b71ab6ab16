//! Windows of the week: `22:00-07:00`, `mon-fri 18:00-08:00`, `sat,sun 00:00-24:00`.
//!
//! A window that passes midnight belongs to the day on which it begins: `fri 22:00-07:00` ends on Saturday morning.
//! Times are the device's own local ones.

use std::fmt;
use std::str::FromStr;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY: u16 = 24 * 60;
const WEEK: u16 = 7 * DAY;

/// A minute of the week; Monday begins at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Minute(u16);

impl Minute {
    /// Of a day (Monday is 0) and a minute of it.
    pub(crate) fn new(day: u8, minute: u16) -> Self {
        Self((u16::from(day) % 7 * DAY + minute % DAY) % WEEK)
    }

    fn plus(self, minutes: u16) -> Self {
        Self((self.0 + minutes) % WEEK)
    }
}

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = DAYS.get(usize::from(self.0 / DAY)).copied().unwrap_or_default();
        write!(f, "{day} {:02}:{:02}", self.0 % DAY / 60, self.0 % 60)
    }
}

/// Hours of some days of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    days: [bool; 7],
    /// Minutes of the day at which it begins, and how long it is.
    from: u16,
    length: u16,
}

impl Window {
    /// The same hours every day.
    pub(super) const fn daily(from: u16, length: u16) -> Self {
        Self { days: [true; 7], from, length }
    }

    fn contains(&self, now: Minute) -> bool {
        let begins = |day: usize| (day as u16 * DAY + self.from) % WEEK;
        let within = |day: usize| (now.0 + WEEK - begins(day)) % WEEK < self.length;
        self.days.iter().enumerate().any(|(day, on)| *on && within(day))
    }
}

/// Whether `now` is within one of `windows`; no windows are no limit.
pub(super) fn open(windows: &[Window], now: Minute) -> bool {
    windows.is_empty() || windows.iter().any(|window| window.contains(now))
}

/// When one of `windows` next begins, after `now`.
pub(super) fn next_opening(windows: &[Window], now: Minute) -> Option<Minute> {
    (1..=WEEK).map(|minutes| now.plus(minutes)).find(|then| open(windows, *then))
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("'{text}': {what}; write 22:00-07:00, mon-fri 18:00-08:00 or sat,sun 00:00-24:00")
        };
        let lower = text.trim().to_ascii_lowercase();
        let (days, hours) = lower.rsplit_once(char::is_whitespace).unwrap_or(("", &lower));
        let mut on = [days.trim().is_empty(); 7];
        for part in days.split([',', ' ']).map(str::trim).filter(|part| !part.is_empty()) {
            let number = |name: &str| DAYS.iter().position(|day| *day == name);
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Some(first), Some(last)) = (number(first), number(last)) else {
                return Err(wrong(&format!("'{part}' is no day")));
            };
            // sun-tue goes past the end of the week.
            for day in 0..=(last + 7 - first) % 7 {
                on.get_mut((first + day) % 7).into_iter().for_each(|day| *day = true);
            }
        }
        let (from, to) = hours.split_once('-').ok_or_else(|| wrong("no hours"))?;
        let time = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
            (hour <= 24 && minute < 60 && hour * 60 + minute <= DAY).then(|| hour * 60 + minute)
        };
        let from = time(from).ok_or_else(|| wrong(&format!("'{from}' is no time of day")))?;
        let to = time(to).ok_or_else(|| wrong(&format!("'{to}' is no time of day")))?;
        if from == to || from == DAY {
            return Err(format!(
                "'{text}' is empty, so training could never start; a whole day is 00:00-24:00"
            ));
        }
        let length = if to > from { to - from } else { to + DAY - from };
        Ok(Self { days: on, from, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: &str, hour: u16, minute: u16) -> Minute {
        Minute::new(DAYS.iter().position(|name| *name == day).unwrap() as u8, hour * 60 + minute)
    }

    #[test]
    fn windows_pass_midnight_and_the_end_of_the_week() {
        let night: Window = "22:00-07:00".parse().unwrap();
        assert_eq!(night, Window::daily(22 * 60, 9 * 60));
        for (when, open) in [
            (at("mon", 6, 59), true),
            (at("mon", 7, 0), false),
            (at("wed", 21, 59), false),
            (at("wed", 22, 0), true),
            (at("sun", 23, 59), true),
        ] {
            assert_eq!(night.contains(when), open, "{when}");
        }
        let weekend: Window = "fri 18:00-07:00".parse().unwrap();
        assert!(weekend.contains(at("sat", 6, 0)) && !weekend.contains(at("fri", 6, 0)));
        let sunday: Window = "sun 22:00-07:00".parse().unwrap();
        assert!(sunday.contains(at("mon", 6, 0)) && !sunday.contains(at("tue", 6, 0)));
        let whole: Window = "Sat,Sun 00:00-24:00".parse().unwrap();
        assert!(whole.contains(at("sat", 0, 0)) && whole.contains(at("sun", 23, 59)));
        assert!(!whole.contains(at("mon", 0, 0)) && !whole.contains(at("fri", 23, 59)));
        let over: Window = "sun-tue 10:00-11:00".parse().unwrap();
        assert_eq!(over.days, [true, true, false, false, false, false, true]);
    }

    #[test]
    fn the_next_opening_is_found_over_the_week() {
        let windows = ["mon-fri 22:00-07:00".parse().unwrap()];
        assert_eq!(next_opening(&windows, at("wed", 12, 0)), Some(at("wed", 22, 0)));
        assert_eq!(next_opening(&windows, at("sat", 7, 0)), Some(at("mon", 22, 0)));
        assert_eq!(at("sat", 7, 5).to_string(), "sat 07:05");
        assert!(open(&[], at("sat", 7, 0)));
    }

    #[test]
    fn what_is_no_window_says_why() {
        for (text, word) in [
            ("", "no hours"),
            ("night", "no hours"),
            ("22:00", "no hours"),
            ("moon 22:00-07:00", "'moon' is no day"),
            ("mon-fry 22:00-07:00", "no day"),
            ("25:00-07:00", "'25:00' is no time"),
            ("22:60-07:00", "no time"),
            ("24:30-25:00", "no time"),
            ("65535:59-07:00", "no time"),
            ("07:00-07:00", "never start"),
            ("24:00-07:00", "never start"),
        ] {
            let error = text.parse::<Window>().unwrap_err();
            assert!(error.contains(word) && error.contains(text), "{text}: {error}");
        }
    }
}
