//! Amounts of data as people write them: 200kB, 1.5MB, 2GiB.

use std::num::NonZeroU64;
use std::str::FromStr;

/// The smallest limit: the small messages that keep a swarm together, and the bodies of a small model's rounds,
/// would not get through with less.
const SMALLEST: u64 = 10_000;
const DAY: u64 = 24 * 3600;

/// Bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rate(NonZeroU64);

impl Rate {
    /// So many bytes a second, at least one.
    pub(crate) fn new(bytes_a_second: u64) -> Self {
        Self(NonZeroU64::new(bytes_a_second).unwrap_or(NonZeroU64::MIN))
    }

    /// The number itself.
    pub(crate) fn bytes_a_second(self) -> u64 {
        self.0.get()
    }

    /// How long so many bytes take.
    pub(super) fn time(self, bytes: u64) -> std::time::Duration {
        std::time::Duration::from_secs_f64(bytes as f64 / self.0.get() as f64)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = amount(text.strip_suffix("/s").unwrap_or(text)).ok_or_else(|| {
            format!(
                "'{text}' is not a rate in bytes a second: write 200kB or 1.5MB (k is 1,000, ki 1,024; B is a byte)"
            )
        })?;
        if !(SMALLEST..=1_000_000_000_000_000).contains(&rate) {
            return Err(format!(
                "'{text}' is out of range: at least {} kB a second are needed to take part; leave the flag out for no \
                 limit",
                SMALLEST / 1000
            ));
        }
        Ok(Self::new(rate))
    }
}

/// Bytes a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Daily(u64);

impl Daily {
    /// The number itself.
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Daily {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = amount(text).ok_or_else(|| {
            format!(
                "'{text}' is not an amount of bytes: write 2GB or 1500MB (k is 1,000, ki 1,024; B is a byte)"
            )
        })?;
        if bytes < SMALLEST * DAY {
            return Err(format!(
                "'{text}' is too little: at least {} MB a day ({} kB a second) are needed to take part; leave the flag \
                 out for no limit",
                SMALLEST * DAY / 1_000_000,
                SMALLEST / 1000
            ));
        }
        Ok(Self(bytes))
    }
}

/// Reads an amount of bytes.
///
/// # Errors
/// Anything else; the text says how it is written.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    amount(text).ok_or_else(|| {
        format!("'{text}' is not an amount of bytes: write 2GB or 1500MB (k is 1,000, ki 1,024)")
    })
}

/// A number with a unit; `None` if it is anything else.
pub(crate) fn amount(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match unit.trim() {
        "" | "B" => 1.0,
        "k" | "K" | "kB" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        "ki" | "Ki" | "kiB" | "KiB" => 1024.0,
        "Mi" | "MiB" => 1048576.0,
        "Gi" | "GiB" => 1073741824.0,
        _ => return None,
    };
    // Casting saturates.
    Some((number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("200kB", 200_000),
            ("1MB", 1_000_000),
            ("1.5 MB/s", 1_500_000),
            ("64KiB", 65_536),
            ("1G", 1_000_000_000),
            ("20000", 20_000),
            ("10kB", 10_000),
        ] {
            assert_eq!(text.parse::<Rate>().unwrap().0.get(), bytes, "{text}");
        }
        for text in ["", "fast", "1mb", "200kb", "kB", "-1MB", "1.2.3MB", "nan", "inf", "1MB/h", "1e9"] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.contains("200kB"), "{text}: {error}");
        }
        for text in ["0", "9kB", "10000000000GB"] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.contains("out of range") && error.contains("10 kB"), "{text}: {error}");
        }
    }

    #[test]
    fn daily_amounts_too() {
        for (text, bytes) in [("2GB", 2_000_000_000), ("864MB", 864_000_000), ("1 GiB", 1 << 30)] {
            assert_eq!(text.parse::<Daily>().unwrap().bytes(), bytes, "{text}");
        }
        for (text, word) in [("863MB", "864 MB"), ("lots", "2GB"), ("2GB/s", "2GB")] {
            let error = text.parse::<Daily>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
