//! What has happened, told to whoever watches: see [`crate::events`].

use swarm_protocol::delta::float_loss;

use super::Node;
use crate::events::{Author, Event, Heat};
use crate::net::peer_id;

/// Rounds that are told of after a leap; what was before them is not known well.
const AFTER_LEAP: u64 = 2;

impl Node {
    /// The node has been started.
    pub(super) fn tell_start(&mut self) {
        let genesis = self.peer.genesis();
        let event = Event::Started {
            version: env!("CARGO_PKG_VERSION"),
            peer_id: self.network.local_peer_id().to_string(),
            swarm_id: self.peer.swarm_id().to_string(),
            name: genesis.name.clone(),
            model: genesis.model.label().to_owned(),
            parameters: self.peer.layout().len() as u64,
            round: self.peer.round(),
        };
        self.told_rounds = self.peer.round();
        self.told.write(&event);
    }

    /// The rounds below `round` have been folded, and most of what is late has come.
    pub(super) fn tell_folded(&mut self, round: u64) {
        let from = self.told_rounds.max(round.saturating_sub(AFTER_LEAP));
        for round in from..round {
            let event = self.folded(round);
            self.told.write(&event);
        }
        self.told_rounds = self.told_rounds.max(round);
    }

    fn folded(&mut self, round: u64) -> Event {
        let authors = self.peer.spoken(round).into_iter().map(|spoken| {
            let header = spoken.header;
            let author = &header.author;
            Author {
                author: peer_id(author).map_or_else(|| author.to_string(), |peer| peer.to_string()),
                counts: spoken.counts,
                tokens: header.tokens,
                loss_before: float_loss(header.loss_before) as f32,
                loss_after: float_loss(header.loss_after) as f32,
            }
        });
        let authors = authors.collect();
        let movement = self.peer.movement(round).unwrap_or_default();
        let parameters = self.peer.layout().parameters().iter();
        let heat =
            parameters.zip(movement).map(|(place, rms)| Heat { name: place.name.clone(), rms: rms as f32 });
        let heat = heat.collect();
        let agreement = self.peer.agreement();
        let (state_digest, _) = self.current_digests();
        let (same, differ) = (agreement.same, agreement.differ);
        Event::Folded { round, authors, heat, state_digest, same, differ }
    }
}
