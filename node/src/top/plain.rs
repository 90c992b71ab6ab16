//! Lines where there is no terminal: one a round, and one whenever the node starts, stops or pauses.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};

use super::folder::Folder;
use super::text::{bytes, count, loss, span};
use super::view::{Running, View};

/// Prints lines until nobody reads them any more. `wait` is called between two looks, and says whether to go on.
///
/// # Errors
/// They cannot be written.
pub(crate) fn follow(
    folder: &mut Folder,
    out: &mut impl Write,
    mut wait: impl FnMut() -> bool,
) -> Result<()> {
    let mut last = None;
    loop {
        let view = folder.look();
        let now = (matches!(view.running, Running::Yes), view.round, view.is_held(), view.trouble.is_some());
        if last != Some(now) {
            last = Some(now);
            match writeln!(out, "{}", line(&view)).and_then(|()| out.flush()) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                written => written.context("cannot write a line")?,
            }
        }
        if !wait() {
            return Ok(());
        }
    }
}

/// The view in one line.
pub(super) fn line(view: &View) -> String {
    if let Some(trouble) = &view.trouble {
        return trouble.clone();
    }
    let state = match view.running {
        Running::Never => return "no node has run here yet; waiting".into(),
        Running::Yes => view
            .guest
            .as_ref()
            .filter(|guest| !guest.trains)
            .map_or(&view.phase, |guest| &guest.words)
            .clone(),
        Running::Not(seconds) => format!("does not run since {} ({}); waiting", span(seconds), view.phase),
    };
    let target = view.target.map(|target| format!(" of {}", count(target))).unwrap_or_default();
    let agreement = view.agreement.map(|agreement| match agreement.differ {
        0 => format!(", the same as {} neighbours", count(agreement.same)),
        differ => format!(", DIFFERS from {} neighbours", count(differ)),
    });
    format!(
        "round {}{target}: loss {}, {} peers, {}/s out, {}/s in{}; {state}",
        count(view.round),
        view.loss.map_or("-".into(), loss),
        count(view.neighbours),
        bytes(view.sent.a_second),
        bytes(view.received.a_second),
        agreement.unwrap_or_default()
    )
}
