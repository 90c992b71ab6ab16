//! Gossip and requests: from the core to the network and back.

use std::time::{Duration, Instant};

use libp2p::{
    PeerId, gossipsub,
    request_response::{self, Message, OutboundFailure, ResponseChannel},
};

use super::{
    super::{Event, PeerKey, Verdict, address, peers::Standing, upload::Offered},
    Service,
};

/// Payloads of one peer awaiting a verdict. More are ignored, so that no peer crowds out the others.
const UNJUDGED_PER_PEER: usize = 256;
/// Requests under way.
const REQUESTS: usize = 64;
/// Kept events waiting behind the event queue above which no outcome of a request is promised any more. It
/// holds the outcomes of all requests under way and the coming or going of every peer, twice over.
const BACKLOG: usize = 256;
/// How long a peer that floods the swarm with gossip is refused.
const FLOOD_BAN: Duration = Duration::from_secs(60);
/// Before somebody is told that its request is refused: who has nobody else to ask asks again at once.
const REFUSAL_PAUSE: Duration = Duration::from_millis(500);
/// Refused requests that are not told yet. Of more, the oldest are told at once.
const REFUSED: usize = 256;

impl Service {
    pub(super) fn publish(&mut self, bytes: Vec<u8>) {
        let reason = if bytes.len() > self.max_gossip {
            format!("{} bytes are more than the limit of {}", bytes.len(), self.max_gossip)
        } else {
            match self.swarm.behaviour_mut().gossip.publish(self.names.topic.clone(), bytes) {
                Ok(_) | Err(gossipsub::PublishError::Duplicate) => return,
                Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => "no peer is connected".into(),
                Err(gossipsub::PublishError::AllQueuesFull(_)) => "the queues to all peers are full".into(),
                Err(error) => error.to_string(),
            }
        };
        self.outbox.offer(Event::PublishFailed { reason });
    }

    pub(super) fn on_gossip(
        &mut self,
        source: PeerId,
        message: gossipsub::MessageId,
        bytes: Vec<u8>,
        now: Instant,
    ) {
        let Some(key) = self.member(&source) else {
            return self.settle(&message, &source, Verdict::Ignore);
        };
        if bytes.len() > self.max_gossip {
            return self.settle(&message, &source, Verdict::Reject);
        }
        if self.peers.gossip_flood(&source) {
            self.settle(&message, &source, Verdict::Ignore);
            return self.ban(source, FLOOD_BAN, "it floods the swarm with gossip", now);
        }
        if self.unjudged.count(|(_, from)| *from == source) >= UNJUDGED_PER_PEER {
            return self.settle(&message, &source, Verdict::Ignore);
        }
        let (token, evicted) = self.unjudged.insert((message, source));
        if let Some((message, source)) = evicted {
            self.settle(&message, &source, Verdict::Ignore);
        }
        if !self.outbox.offer(Event::Gossip { token, source: key, bytes }) {
            self.judge(token, Verdict::Ignore);
        }
    }

    pub(super) fn judge(&mut self, token: u64, verdict: Verdict) {
        match self.unjudged.take(token) {
            Some((message, source)) => self.settle(&message, &source, verdict),
            None => tracing::debug!(token, ?verdict, "a verdict on a payload that is no longer waiting"),
        }
    }

    fn settle(&mut self, message: &gossipsub::MessageId, source: &PeerId, verdict: Verdict) {
        let acceptance = match verdict {
            Verdict::Accept => gossipsub::MessageAcceptance::Accept,
            Verdict::Reject => gossipsub::MessageAcceptance::Reject,
            Verdict::Ignore => gossipsub::MessageAcceptance::Ignore,
        };
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        if !gossip.report_message_validation_result(message, source, acceptance) {
            // Gossipsub holds a payload for 30 s. Later the verdict no longer passes it on.
            tracing::debug!(?verdict, "a verdict that came too late");
        }
    }

    pub(super) fn request(&mut self, peer: PeerKey, id: u64, bytes: Vec<u8>) {
        let member =
            address::peer_id(&peer).filter(|peer| self.peers.standing(peer) == Some(Standing::Member));
        let reason = match member {
            _ if self.requests.len() >= REQUESTS || self.outbox.backlog() >= BACKLOG => {
                "too many requests under way".into()
            }
            _ if bytes.len() > self.max_request => {
                format!("{} bytes are more than the limit of {}", bytes.len(), self.max_request)
            }
            None => "the peer is not connected".into(),
            Some(member) => {
                let request = self.swarm.behaviour_mut().requests.send_request(&member, bytes);
                self.requests.insert(request, (peer, id));
                return;
            }
        };
        let event = Event::RequestFailed { peer, id, reason };
        if self.outbox.backlog() < BACKLOG {
            self.outbox.keep(event);
        } else {
            self.outbox.offer(event);
        }
    }

    pub(super) fn respond(&mut self, token: u64, bytes: Vec<u8>, bulk: bool, now: Instant) {
        let Some((peer, channel)) = self.unanswered.take(token) else {
            return tracing::debug!(token, "a response to a request that is no longer waiting");
        };
        if bytes.len() > self.max_response {
            // Dropping the channel closes the stream: the peer is told that there is no response.
            let limit = self.max_response;
            return tracing::error!(length = bytes.len(), limit, "a response above the limit is not sent");
        }
        let length = bytes.len() as u64;
        if !bulk {
            return self.send(channel, bytes);
        }
        self.uploads.account(self.counters.sent.bytes(), now);
        match self.uploads.offer(peer, length, (channel, bytes), now) {
            Offered::Send((channel, bytes)) => self.send(channel, bytes),
            Offered::Waits => {}
            Offered::Refused((channel, _)) => {
                tracing::debug!(length, "refused: --max-upload is used up for now");
                if self.refused.len() >= REFUSED {
                    self.refused.pop_front();
                }
                self.refused.push_back((now + REFUSAL_PAUSE, channel));
            }
        }
    }

    fn send(&mut self, channel: ResponseChannel<Vec<u8>>, bytes: Vec<u8>) {
        if self.swarm.behaviour_mut().requests.send_response(channel, bytes).is_err() {
            tracing::debug!("a response that came too late");
        }
    }

    /// When [`Service::send_due`] has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        [self.uploads.due(), self.refused.front().map(|(at, _)| *at)].into_iter().flatten().min()
    }

    /// Sends the bulk whose turn it is, and tells those who are refused.
    pub(super) fn send_due(&mut self, now: Instant) {
        while self.refused.front().is_some_and(|(at, _)| *at <= now) {
            // Dropping the channel closes the stream.
            self.refused.pop_front();
        }
        self.uploads.account(self.counters.sent.bytes(), now);
        while let Some((channel, bytes)) = self.uploads.next(now, |(channel, _)| channel.is_open()) {
            self.send(channel, bytes);
        }
    }

    pub(super) fn on_request_event(&mut self, event: request_response::Event<Vec<u8>, Vec<u8>>) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                Message::Request { request, channel, .. } => {
                    let Some(peer) = self.member(&peer) else { return };
                    // The oldest channel, if it had to make room, is dropped, which closes its stream.
                    let (token, _) = self.unanswered.insert((peer, channel));
                    if !self.outbox.offer(Event::Request { peer, token, bytes: request }) {
                        self.unanswered.take(token);
                    }
                }
                Message::Response { request_id, response } => {
                    if let Some((peer, id)) = self.requests.remove(&request_id) {
                        self.outbox.keep(Event::Response { peer, id, bytes: response });
                    }
                }
            },
            request_response::Event::OutboundFailure { request_id, error, .. } => {
                if let Some((peer, id)) = self.requests.remove(&request_id) {
                    let reason = match error {
                        OutboundFailure::DialFailure => "the peer is not connected".into(),
                        OutboundFailure::Timeout => "no response in time".into(),
                        OutboundFailure::ConnectionClosed => {
                            "the connection closed before the response".into()
                        }
                        OutboundFailure::UnsupportedProtocols => {
                            "the peer answers no requests of this swarm".into()
                        }
                        OutboundFailure::Io(error) => error.to_string(),
                    };
                    self.outbox.keep(Event::RequestFailed { peer, id, reason });
                }
            }
            request_response::Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a request of a peer failed");
            }
            request_response::Event::ResponseSent { .. } => {}
        }
    }
}
