//! The event queue, and what happens when the core does not read it.
//!
//! The network must not stop because the core is busy, and must not pile up what peers send. So an event is
//! either *offered* or *kept*:
//!
//! - offered (gossip, requests, reports): put into the queue if there is room, otherwise dropped and
//!   counted, and the caller settles it (the payload is ignored, the request refused);
//! - kept ([`Event::Connected`], [`Event::Disconnected`], the outcome of a request): put into the queue, or
//!   behind it into a backlog that is drained as the core reads.
//!
//! The backlog is bounded by construction: an unread `Connected` followed by `Disconnected` (or the
//! reverse) cancels out, so it holds at most one of them a peer, and the number of peers is limited; and the
//! service starts no new request while outcomes and open requests together reach their limit.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use tokio::sync::mpsc;

use super::{Counters, Event};

/// The sending end of the event queue.
pub(super) struct Outbox {
    sender: mpsc::Sender<Event>,
    backlog: VecDeque<Event>,
    counters: Arc<Counters>,
}

/// The core has dropped its end of the event queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

impl Outbox {
    /// An outbox in front of `sender`.
    pub(super) fn new(sender: mpsc::Sender<Event>, counters: Arc<Counters>) -> Self {
        Self { sender, backlog: VecDeque::new(), counters }
    }

    /// Queues an event that may be lost. Returns whether it was queued.
    pub(super) fn offer(&mut self, event: Event) -> bool {
        // Nothing overtakes the backlog: a gossip payload must not precede its source's `Connected`.
        let queued = self.backlog.is_empty() && self.sender.try_send(event).is_ok();
        if !queued {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        queued
    }

    /// Queues an event that must not be lost.
    pub(super) fn keep(&mut self, event: Event) {
        if let Some(position) = self.opposite(&event) {
            self.backlog.remove(position);
            return;
        }
        if !self.backlog.is_empty() {
            self.backlog.push_back(event);
        } else if let Err(mpsc::error::TrySendError::Full(event)) = self.sender.try_send(event) {
            self.backlog.push_back(event);
        }
    }

    /// How many events wait behind the queue.
    pub(super) fn backlog(&self) -> usize {
        self.backlog.len()
    }

    /// Waits until one event of the backlog has moved into the queue. Without a backlog it waits until the
    /// core drops its end. Cancel safe.
    ///
    /// # Errors
    /// [`Closed`] when nobody will ever read the queue.
    pub(super) async fn drain(&mut self) -> Result<(), Closed> {
        if self.backlog.is_empty() {
            self.sender.closed().await;
            return Err(Closed);
        }
        let permit = self.sender.reserve().await.map_err(|_| Closed)?;
        if let Some(event) = self.backlog.pop_front() {
            permit.send(event);
        }
        Ok(())
    }

    /// Where in the backlog the event is that `event` undoes.
    fn opposite(&self, event: &Event) -> Option<usize> {
        self.backlog.iter().position(|waiting| match (waiting, event) {
            (Event::Connected { peer: a }, Event::Disconnected { peer: b })
            | (Event::Disconnected { peer: a }, Event::Connected { peer: b }) => a == b,
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(capacity: usize) -> (Outbox, mpsc::Receiver<Event>, Arc<Counters>) {
        let (sender, receiver) = mpsc::channel(capacity);
        let counters = Arc::new(Counters::new(std::time::Instant::now()));
        (Outbox::new(sender, counters.clone()), receiver, counters)
    }

    fn note(id: u64) -> Event {
        Event::RequestFailed { peer: swarm_protocol::identity::PeerKey([0; 32]), id, reason: String::new() }
    }

    #[tokio::test]
    async fn offered_events_are_dropped_and_counted_and_kept_events_wait_in_order() {
        let (mut outbox, mut receiver, counters) = outbox(1);
        assert!(outbox.offer(note(0)));
        assert!(!outbox.offer(note(1)));
        outbox.keep(note(2));
        outbox.keep(note(3));
        assert_eq!(counters.dropped.load(Ordering::Relaxed), 1);
        assert!(matches!(receiver.recv().await, Some(Event::RequestFailed { id: 0, .. })));
        assert!(!outbox.offer(note(4)), "an offered event must not overtake the backlog");
        for expected in [2, 3] {
            outbox.drain().await.unwrap();
            let Some(Event::RequestFailed { id, .. }) = receiver.recv().await else { panic!() };
            assert_eq!(id, expected);
        }
        assert_eq!(outbox.backlog(), 0);
        drop(receiver);
        assert_eq!(outbox.drain().await, Err(Closed));
    }

    #[tokio::test]
    async fn a_flapping_peer_does_not_grow_the_backlog() {
        let (mut outbox, _receiver, _) = outbox(1);
        assert!(outbox.offer(note(0)));
        for _ in 0..1000 {
            for peer in [[1; 32], [2; 32]].map(swarm_protocol::identity::PeerKey) {
                outbox.keep(Event::Connected { peer });
                outbox.keep(Event::Disconnected { peer });
            }
        }
        outbox.keep(Event::Connected { peer: swarm_protocol::identity::PeerKey([1; 32]) });
        assert_eq!(outbox.backlog(), 1);
    }
}
