//! What the governor says, passed on: to the swarm, to the line, to `status.json`.
//!
//! The trainer knows already. A node that pauses is a replica for its neighbours: it holds, folds and passes on what
//! they learn, and nobody waits for it; so it is where they are when it goes on.

use anyhow::Result;

use super::{Ended, Node};
use crate::events::Event;
use crate::governor::State;
use crate::status::Guest;

impl Node {
    /// Looks what the governor has decided, and whether somebody wants the node to stop.
    pub(super) async fn look_at_governor(&mut self) -> Result<()> {
        let state = self.governor.state();
        if state == self.guest {
            return Ok(());
        }
        if state.stop {
            tracing::info!("swarm stop");
            self.ended = Some(Ended::Stopped);
        }
        let before = std::mem::replace(&mut self.guest, state);
        self.heed(Some(&before)).await?;
        if let Some(guest) = self.told_guest()
            && guest.trains != before.verdict.share.is_some()
        {
            self.told.write(&Event::Guest { trains: guest.trains, words: guest.words });
        }
        self.write_status("", "");
        Ok(())
    }

    /// Does as the governor has said, if it differs from `before`.
    pub(super) async fn heed(&mut self, before: Option<&State>) -> Result<()> {
        let verdict = &self.guest.verdict;
        let (trains, quiet) = (verdict.share.is_some(), verdict.quiet);
        if self.trainer.is_some() {
            self.peer.set_training(self.now(), trains);
        }
        if before.map_or(quiet, |before| before.verdict.quiet != quiet) {
            self.keep_to_limits().await?;
        }
        Ok(())
    }

    /// For `status.json`; `None` for a node that never trains.
    pub(super) fn told_guest(&self) -> Option<Guest> {
        self.trainer.as_ref()?;
        let verdict = &self.guest.verdict;
        Some(Guest {
            trains: verdict.share.is_some(),
            share: verdict.share.map_or(0.0, |share| share.of_one()),
            words: verdict.words(),
            objections: verdict.objections.clone(),
        })
    }
}
