//! Times, shares and amounts of memory as people write them: 3m, 50%, 2GB.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::net::amount;

/// A length of time, such as 90s, 3m, 1h30m or 2d.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a length of time: write 90s, 3m, 1h30m or 2d");
        let mut seconds = 0u64;
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let (number, after) = rest.split_at(end);
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let unit = after.chars().next().ok_or_else(wrong)?;
            let factor = match unit {
                's' => 1,
                'm' => 60,
                'h' => 3600,
                'd' => 86_400,
                _ => return Err(wrong()),
            };
            seconds =
                number.checked_mul(factor).and_then(|more| seconds.checked_add(more)).ok_or_else(wrong)?;
            rest = after.get(1..).unwrap_or_default().trim_start();
        }
        // More than a year is a slip of the keyboard.
        if seconds > 366 * 86_400 {
            return Err(format!("'{text}' is more than a year"));
        }
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..120 => write!(f, "{seconds} s"),
            120..7200 => write!(f, "{} min", seconds.div_ceil(60)),
            7200..172_800 => write!(f, "{} h", seconds.div_ceil(3600)),
            _ => write!(f, "{} days", seconds.div_ceil(86_400)),
        }
    }
}

/// A share of something, such as 50%; above 0 and at most 100.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Share(f64);

impl Share {
    /// All of it.
    pub(crate) const ALL: Self = Self(1.0);

    /// Of percents that are known to be right.
    pub(super) const fn percent(percent: u8) -> Self {
        Self(percent as f64 / 100.0)
    }

    /// As a part of one.
    pub(crate) fn of_one(self) -> f64 {
        self.0
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: Option<f64> = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
        match number {
            Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self(percent / 100.0)),
            Some(_) => Err(format!("'{text}' is out of range: above 0% and at most 100%")),
            None => Err(format!("'{text}' is not a share: write it in percent, such as 50%")),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} %", 100.0 * self.0)
    }
}

/// An amount of memory: bytes, or a share of what the device has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// A part of all memory.
    Part(Share),
}

impl Amount {
    /// In bytes, on a device with `total` of them.
    pub(crate) fn bytes(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Part(share) => (total as f64 * share.of_one()) as u64,
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.ends_with('%') {
            return text.parse().map(Self::Part);
        }
        match amount(text) {
            Some(0) => Err(format!("'{text}' is no memory at all")),
            Some(bytes) => Ok(Self::Bytes(bytes)),
            None => Err(format!("'{text}' is not an amount of memory: write 2GB, 1500MB or 50%")),
        }
    }
}

/// Bytes in words.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, seconds) in
            [("90s", 90), ("3m", 180), ("1h30m", 5400), ("2d", 172_800), ("0s", 0), ("1h 5s", 3605)]
        {
            assert_eq!(text.parse(), Ok(Span(Duration::from_secs(seconds))), "{text}");
        }
        for text in
            ["", "3", "m", "-3m", "3x", "1.5h", "99999999999999999999s", "18446744073709551615d", "3ü"]
        {
            assert!(text.parse::<Span>().unwrap_err().contains("1h30m"), "{text}");
        }
        assert!("400d".parse::<Span>().unwrap_err().contains("year"));
        let told = ["90s", "3m", "3h", "4d"].map(|text| text.parse::<Span>().unwrap().to_string());
        assert_eq!(told, ["90 s", "3 min", "3 h", "4 days"]);
    }

    #[test]
    fn shares_and_amounts_too() {
        assert_eq!("25%".parse(), Ok(Share::percent(25)));
        assert_eq!("100%".parse(), Ok(Share::ALL));
        for text in ["0%", "101%", "-5%", "nan%"] {
            assert!(text.parse::<Share>().unwrap_err().contains("out of range"), "{text}");
        }
        for text in ["50", "half", "%", ""] {
            assert!(text.parse::<Share>().unwrap_err().contains("percent"), "{text}");
        }
        assert_eq!("2GB".parse::<Amount>().unwrap().bytes(0), 2_000_000_000);
        assert_eq!("50%".parse::<Amount>().unwrap().bytes(8_000), 4_000);
        for (text, word) in [("0", "no memory"), ("lots", "2GB"), ("150%", "out of range")] {
            assert!(text.parse::<Amount>().unwrap_err().contains(word), "{text}");
        }
    }
}
