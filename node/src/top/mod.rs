//! `swarm top`: a node as it goes, on a terminal.
//!
//! It only reads the node's folder, as `swarm status` does, so it works for a node that the system started, over ssh,
//! and while the node is away; nothing of it runs in the node. A look is three steps:
//!
//! ```text
//!   folder   status.json, events.jsonl and the log's end, read again twice a second
//!   view     what of it is shown, as numbers and as texts that are safe to print
//!   draw     the view on so many columns and rows; the same for a terminal, for --once and for tests
//! ```
//!
//! * [`text`]: numbers and texts for a screen; what peers wrote is made harmless there.
//! * [`past`]: rounds behind this one, from events.
//! * [`look`]: what the terminal can show: characters beyond ASCII, colours, any of this at all.
//! * [`draw`] lays out; [`facts`] are its lines, [`chart`] the curves.
//! * [`screen`]: the terminal itself, keys, and leaving it as it was; [`plain`]: lines where there is none.
//!
//! No information is in a colour alone: colours only repeat what a word says.

mod chart;
mod draw;
mod facts;
mod folder;
mod look;
mod past;
mod plain;
mod screen;
#[cfg(test)]
mod tests;
mod text;
mod view;

pub(crate) use draw::as_text;
pub(crate) use folder::{Folder, Glance};
pub(crate) use look::Look;
pub(crate) use plain::follow;
pub(crate) use screen::watch;
