//! The governor: whether and how hard to train on a device that somebody else is using.
//!
//! ```text
//!   sensors ──> Readings ─┐
//!   rules (flags, file) ──┼──> Judge ──> Verdict: train at this share, or pause; because; until
//!   swarm pause, stop ────┘      └ pure: time and readings in
//!                                                │
//!                     ┌──────────────────────────┴─────────────┐
//!                     v                                        v
//!   Throttle: the trainer looks at it between two steps   the node: tells the swarm, status.json, the log
//! ```
//!
//! The rules are BOINC's preferences, as far as they concern a device that is lent: power, the user's hands, other
//! programs, memory, heat, hours, networks. All of them have to permit it; each that does not says so in words, with
//! what would change its mind. What cannot be told counts as somebody being there where it is about the user, and says
//! so: being idle for nothing is better than being in the way.
//!
//! * [`rules`] is what may be set, and what cannot be meant; [`hours`] windows of the week.
//! * [`readings`] is what is known of the device; `sensors` finds it out.
//! * [`judge`] decides; no clock, no device, so a night passes in a test in no time.
//! * [`control`] is what `swarm pause` and `swarm stop` leave in the node's folder.
//! * [`watch`] runs all that several times a second on a thread of its own.

mod control;
mod hours;
mod judge;
mod readings;
mod rules;
mod sensors;
#[cfg(test)]
mod tests;
mod units;
mod watch;

pub(crate) use control::{Asked, Control};
pub(crate) use hours::Window;
pub(crate) use judge::Objection;
pub(crate) use rules::{Networks, Power, Rules, When};
pub(crate) use sensors::{lower_priority, never_here, total_memory};
pub(crate) use units::{Amount, Share, Span, bytes};
pub(crate) use watch::{Governor, Reload, State, Throttle, start};
