//! Numbers and texts for a screen.

use std::fmt::Write;

/// Marks that stand on the character before them; more than this many on one are somebody's joke.
const MARKS: usize = 2;

/// `text`, fit to be printed: at most `most` characters of it, and control characters, which could do anything to a
/// terminal, and those that turn the reading direction or cannot be seen, as `\u{1b}`.
pub(super) fn clean(text: &str, most: usize) -> String {
    let mut cleaned = String::new();
    let mut marks = 0;
    for (at, char) in text.chars().enumerate() {
        if at == most {
            cleaned.push('…');
            break;
        }
        marks = if is_mark(char) { marks + 1 } else { 0 };
        if char == '\t' {
            cleaned.push(' ');
        } else if char.is_control() || is_unseen(char) || marks > MARKS {
            let _ = write!(cleaned, "\\u{{{:x}}}", u32::from(char));
        } else {
            cleaned.push(char);
        }
    }
    cleaned
}

fn is_mark(char: char) -> bool {
    matches!(char, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}')
}

fn is_unseen(char: char) -> bool {
    matches!(char, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// A name too long to be shown whole: its two ends.
pub(super) fn ends(name: &str, front: usize, back: usize) -> String {
    let chars: Vec<char> = name.chars().collect();
    match chars.len().checked_sub(back) {
        Some(from) if chars.len() > front + back + 1 => {
            let (front, back) =
                (chars.get(..front).unwrap_or_default(), chars.get(from..).unwrap_or_default());
            front.iter().chain(&['…']).chain(back).collect()
        }
        _ => name.to_owned(),
    }
}

/// `12345` as `12,345`; from a million million on rounded.
pub(super) fn count(number: u64) -> String {
    if number >= 1_000_000_000_000 {
        return format!("{:.1e}", number as f64);
    }
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1234567` bytes as `1.2 MB`.
pub(super) fn bytes(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["B", "kB", "MB", "GB", "TB", "PB"] {
        if value < 999.5 {
            let whole = unit == "B" || value >= 99.95;
            return if whole { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} EB")
}

/// A loss: three digits after the point, unless it has gone astray.
pub(super) fn loss(value: f64) -> String {
    if !value.is_finite() {
        "-".into()
    } else if value.abs() < 1000.0 {
        format!("{value:.3}")
    } else {
        format!("{value:.1e}")
    }
}

/// Seconds as people say them: `12 s`, `5 min`, `3 h 20 min`, `12 days`.
pub(super) fn span(seconds: f64) -> String {
    let whole = seconds.clamp(0.0, 1e15).round() as u64;
    match whole {
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min", (whole + 30) / 60),
        7200..172_800 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} days", count(whole / 86_400)),
    }
}

/// Columns that a text takes.
pub(super) fn columns(text: &str) -> usize {
    ratatui::text::Span::raw(text).width()
}

/// As many of `pieces`, the first being the most important, as fit into `width` columns, joined.
pub(super) fn fit(pieces: impl IntoIterator<Item = String>, joint: &str, width: usize) -> String {
    let mut text = String::new();
    for piece in pieces {
        if text.is_empty() {
            text = piece;
        } else if columns(&text) + columns(joint) + columns(&piece) <= width {
            text.push_str(joint);
            text.push_str(&piece);
        } else {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_would_obey_is_left() {
        assert_eq!(clean("a\x1b[2Jb\r\n\u{9b}c\td", 99), "a\\u{1b}[2Jb\\u{d}\\u{a}\\u{9b}c d");
        assert_eq!(
            clean("\u{202e}evil\u{200b}\u{feff}\u{e0041}", 99),
            "\\u{202e}evil\\u{200b}\\u{feff}\\u{e0041}"
        );
        assert_eq!(clean(&"x".repeat(1000), 5), "xxxxx…");
        let tower = clean(&format!("a{}", "\u{301}".repeat(50)), 99);
        assert_eq!(tower.matches('\u{301}').count(), MARKS);
        assert_eq!(clean("Grüße, 群れ", 99), "Grüße, 群れ");
    }

    #[test]
    fn numbers_of_any_size_are_short() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 999, 1000, 99_950, 999_500, 1_500_000_000].map(bytes),
            ["0 B", "999 B", "1.0 kB", "100 kB", "1.0 MB", "1.5 GB"]
        );
        assert_eq!((count(u64::MAX), bytes(u64::MAX)), ("1.8e19".into(), "18.4 EB".into()));
        assert_eq!([2.3456, -1e300, f64::NAN].map(loss), ["2.346", "-1.0e300", "-"]);
        assert_eq!(
            [0.4, 119.0, 150.0, 12_000.0, 1e300, f64::NAN].map(span),
            ["0 s", "119 s", "3 min", "3 h 20 min", "11,574,074,074 days", "0 s"]
        );
        assert_eq!(ends("12D3KooWabcdefghij", 4, 3), "12D3…hij");
        assert_eq!(ends("short", 4, 3), "short");
        assert_eq!(fit(["aa", "bb", "cccc"].map(str::to_owned), "; ", 6), "aa; bb");
    }
}
