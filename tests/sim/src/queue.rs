//! What is going to happen, in order of virtual time.
//!
//! Events of the same time happen in the order in which they were scheduled, so one seed gives one
//! sequence. Everything that happens goes into a running hash, the trace: equal traces mean that two
//! runs were the same, event for event.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::Rc;

use swarm_protocol::Time;
use swarm_protocol::digest::Digest;

use crate::network::Message;

/// A peer at one of its places: `life` counts how often somebody started there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) at: usize,
    pub(crate) life: u32,
}

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A peer asked to be woken.
    Wake(Who),
    /// A peer's training is done; the number tells a training that was given up from the current one.
    Trained(Who, u64),
    /// A gossip message arrives.
    Gossip { to: Who, from: usize, message: Rc<Message> },
    /// A question arrives.
    Request { to: Who, from: Who, id: u64, bytes: Vec<u8> },
    /// An answer arrives, or the asker learns that none will.
    Response { to: Who, from: Who, id: u64, bytes: Option<Vec<u8>> },
    /// A bad author lets go of something that it held back.
    Released { author: Who, bytes: Vec<u8> },
    /// A peer's state goes to disk, for the case that it is stopped.
    Snapshot(Who),
    /// A peer stops.
    Leave(Who),
    /// Somebody starts at a place that is empty.
    Return(usize),
    /// A connection that was cut for bad behaviour may be made again.
    Forgive(usize, usize),
    /// A round's time has passed: some peers leave.
    Churn,
    /// The network splits in two.
    Split,
    /// The connections between the two halves are given up.
    Break,
    /// The two halves hear from each other again.
    Heal,
    /// A second has passed: look how far everybody is.
    Look,
}

impl Event {
    /// The numbers that identify it in the trace: kind, two peers, and what tells it from others.
    fn trace(&self) -> [u64; 4] {
        let who = |who: &Who| (who.at as u64) << 32 | u64::from(who.life);
        match self {
            Self::Wake(at) => [1, who(at), 0, 0],
            Self::Trained(at, number) => [2, who(at), 0, *number],
            Self::Gossip { to, from, message } => [3, who(to), *from as u64, message.number],
            Self::Request { to, from, id, bytes } => [4, who(to), who(from), id << 24 | bytes.len() as u64],
            Self::Response { to, from, id, bytes } => {
                let length = bytes.as_ref().map_or(0, |bytes| bytes.len() as u64 + 1);
                [5, who(to), who(from), id << 24 | length]
            }
            Self::Released { author, bytes } => [6, who(author), 0, bytes.len() as u64],
            Self::Snapshot(at) => [7, who(at), 0, 0],
            Self::Leave(at) => [8, who(at), 0, 0],
            Self::Return(at) => [9, *at as u64, 0, 0],
            Self::Forgive(a, b) => [10, *a as u64, *b as u64, 0],
            Self::Churn => [11, 0, 0, 0],
            Self::Split => [12, 0, 0, 0],
            Self::Break => [13, 0, 0, 0],
            Self::Heal => [14, 0, 0, 0],
            Self::Look => [15, 0, 0, 0],
        }
    }
}

struct Scheduled {
    time: Time,
    order: u64,
    event: Event,
}

impl Ord for Scheduled {
    /// Reversed: the heap's greatest is what happens first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.time, other.order).cmp(&(self.time, self.order))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

/// The queue of events, virtual time, and the trace.
#[derive(Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Scheduled>,
    now: Time,
    order: u64,
    happened: u64,
    trace: blake3::Hasher,
}

impl Queue {
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// How many events have happened.
    pub(crate) fn happened(&self) -> u64 {
        self.happened
    }

    /// The hash over everything that has happened.
    pub(crate) fn trace(&self) -> Digest {
        Digest(*self.trace.finalize().as_bytes())
    }

    /// `event` will happen at `time`, or now if that is over.
    pub(crate) fn at(&mut self, time: Time, event: Event) {
        self.order += 1;
        self.heap.push(Scheduled { time: time.max(self.now), order: self.order, event });
    }

    /// `event` will happen in `delay`.
    pub(crate) fn after(&mut self, delay: Time, event: Event) {
        self.at(self.now + delay, event);
    }

    /// The next event; time moves on to it.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let Scheduled { time, event, .. } = self.heap.pop()?;
        self.now = time;
        self.happened += 1;
        let mut bytes = [0; 40];
        bytes[..8].copy_from_slice(&(time.as_nanos() as u64).to_le_bytes());
        for (place, number) in bytes[8..].chunks_exact_mut(8).zip(event.trace()) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        self.trace.update(&bytes);
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn events_happen_in_order_of_time_then_of_scheduling() {
        let mut queue = Queue::default();
        for (seconds, at) in [(3, 0), (1, 1), (2, 2), (1, 3)] {
            queue.after(Duration::from_secs(seconds), Event::Return(at));
        }
        let empty = queue.trace();
        let mut order = Vec::new();
        while let Some(event) = queue.next() {
            let Event::Return(at) = event else { panic!() };
            order.push((queue.now().as_secs(), at));
        }
        assert_eq!(order, [(1, 1), (1, 3), (2, 2), (3, 0)]);
        assert_ne!(queue.trace(), empty);
        assert_eq!(queue.happened(), 4);
        // What is late happens now.
        queue.at(Duration::ZERO, Event::Heal);
        queue.next();
        assert_eq!(queue.now().as_secs(), 3);
    }
}
