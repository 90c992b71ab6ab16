//! What a terminal can show.

use std::io::IsTerminal;

/// How to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Characters beyond ASCII.
    pub(crate) unicode: bool,
    /// Colours.
    pub(crate) colour: bool,
}

impl Look {
    /// As the environment says; `ascii`: as somebody has asked for.
    pub(crate) fn find(ascii: bool) -> Self {
        let get = |name: &str| std::env::var(name).ok();
        Self { unicode: !ascii && speaks_unicode(cfg!(windows), get), colour: has_colour(get) }
    }
}

/// Whether characters beyond ASCII can be shown: by POSIX the first of these variables that is not empty decides.
fn speaks_unicode(windows: bool, get: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(get).find(|value| !value.is_empty());
    match locale {
        Some(locale) => {
            let locale = locale.to_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        }
        // There these variables mean nothing, and its terminal knows all characters.
        None => windows,
    }
}

/// Whether there are colours: see no-color.org; a terminal whose name ends so has none.
fn has_colour(get: impl Fn(&str) -> Option<String>) -> bool {
    let term = get("TERM").unwrap_or_default();
    get("NO_COLOR").is_none_or(|value| value.is_empty()) && !term.ends_with("-mono") && !term.ends_with("-m")
}

/// Whether there is a terminal that can be drawn on: one whose cursor can be moved.
pub(crate) fn can_draw() -> bool {
    std::io::stdout().is_terminal() && moves_cursor(std::env::var("TERM").ok().as_deref(), cfg!(windows))
}

fn moves_cursor(term: Option<&str>, windows: bool) -> bool {
    match term {
        Some(term) => (windows || !term.is_empty()) && term != "dumb",
        None => windows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(given: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        |name| given.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn the_environment_says_what_can_be_shown() {
        let unicode = |variables| speaks_unicode(false, given(variables));
        assert!(unicode(&[("LANG", "de_DE.UTF-8")]) && unicode(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(!unicode(&[]) && !unicode(&[("LANG", "C")]));
        assert!(!unicode(&[("LC_ALL", "POSIX"), ("LANG", "en_US.UTF-8")]));
        assert!(speaks_unicode(true, given(&[])));
        let colour = |variables| has_colour(given(variables));
        assert!(colour(&[("TERM", "xterm")]) && colour(&[("NO_COLOR", "")]));
        assert!(
            !colour(&[("NO_COLOR", "1")])
                && !colour(&[("TERM", "xterm-mono")])
                && !colour(&[("TERM", "linux-m")])
        );
        assert!(moves_cursor(Some("xterm"), false) && moves_cursor(None, true));
        assert!(
            !moves_cursor(Some("dumb"), false)
                && !moves_cursor(None, false)
                && !moves_cursor(Some(""), false)
        );
    }
}
