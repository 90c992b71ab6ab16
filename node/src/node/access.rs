//! Who may take part in a closed swarm: what the user gives, what is kept, and what is said about it.

use anyhow::{Context, Result};
use swarm_protocol::access::Statements;

use super::Node;

impl Node {
    /// Takes up what the folder kept, and what the command line gives.
    ///
    /// # Errors
    /// A file that cannot be read, or a certificate or revocation of the user's that does not hold.
    pub(super) fn start_access(&mut self, given: &Statements) -> Result<()> {
        if let Err(error) = self.peer.restore_access(&self.store.access()?) {
            tracing::warn!("{}: not all of it holds: {error}", self.store.path("access").display());
        }
        self.access_kept = self.peer.register().changes();
        if !given.is_empty() {
            let now = self.now();
            self.peer.handle_statements(now, given).context("a certificate or revocation that was given")?;
        }
        self.keep_access()?;
        self.look_for_statements();
        if !self.peer.is_admitted() {
            tracing::warn!("{}", self.how_to_be_admitted());
        }
        Ok(())
    }

    /// What to tell somebody whose device is not admitted.
    pub(super) fn how_to_be_admitted(&self) -> String {
        let me = self.network.local_peer_id();
        let until = self.peer.register().admitted_until(&self.peer.key());
        let ended = match until {
            0 => String::new(),
            _ => format!(" any more (it was until round {until}, or has been revoked)"),
        };
        format!(
            "this swarm admits by invitation, and this device is not admitted{ended}: ask one of those who may admit \
             others for `swarm admit {me}`, and give the line that it prints with --certificate, or put it into a file \
             in {}",
            self.store.path("incoming").display()
        )
    }

    /// Takes up what somebody has left in the folder; what has changed is put on disk.
    pub(super) fn look_at_access(&mut self) {
        if self.peer.register().is_open() {
            return;
        }
        self.look_for_statements();
        if let Err(error) = self.keep_access()
            && !std::mem::replace(&mut self.disk_warned, true)
        {
            tracing::warn!("{error:#}");
        }
    }

    fn look_for_statements(&mut self) {
        let left = match self.store.incoming() {
            Ok(left) => left,
            Err(error) => {
                if !std::mem::replace(&mut self.disk_warned, true) {
                    tracing::warn!("{error:#}");
                }
                return;
            }
        };
        for (path, statements) in left {
            match self.peer.handle_statements(self.now(), &statements) {
                Ok(()) => tracing::info!("{}: taken up, and told to the swarm", path.display()),
                Err(error) => tracing::error!("{}: {error}", path.display()),
            }
            if let Err(error) = self.store.taken_up(&path) {
                tracing::error!("{error:#}");
            }
        }
    }

    fn keep_access(&mut self) -> Result<()> {
        let changes = self.peer.register().changes();
        if changes != self.access_kept {
            self.store.keep_access(&self.peer.register().statements())?;
            self.access_kept = changes;
        }
        Ok(())
    }
}
