//! The contribution ledger: who contributed what, from the log in a node's folder, and a proof of it for others.
//!
//! What a ledger says, and why it is the same on every peer, is in [`swarm_protocol::contributions`]. Here is where its
//! rounds come from ([`history`], and older ones [`archive`]), how it is written ([`show`]), and the file by which
//! somebody without a node can check it ([`proof`]).

pub(crate) mod archive;
pub(crate) mod history;
pub(crate) mod proof;
pub(crate) mod show;

#[cfg(test)]
mod tests;
