//! Hands each event to the peer that it concerns, and carries out what the peer then asks for.

use std::rc::Rc;
use std::time::Duration;

use swarm_protocol::peer::rounds::Extracted;
use swarm_protocol::peer::{Action, Verdict};
use swarm_protocol::wire::{Gossip, Request, Response};

use crate::attacks;
use crate::network::{Kind, Message};
use crate::options::Attack;
use crate::queue::{Event, Who};
use crate::sabotage::Sabotage;
use crate::violation::{Invariant, Violation};

use super::{Published, World};

/// When a question without an answer is given up by the transport.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long it takes to find that somebody is not connected any more.
const REFUSED: Duration = Duration::from_millis(1);
/// How often somebody who attacks does so.
const OFTEN: f64 = 0.25;
/// Messages that a replayer keeps.
const HOARD: usize = 64;

impl World {
    pub(super) fn step(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Gossip { to: Who { at: 1, .. }, .. }
            | Event::Request { to: Who { at: 1, .. }, .. }
            | Event::Response { to: Who { at: 1, .. }, .. }
                if self.sabotage == Some(Sabotage::Deafen) =>
            {
                Ok(())
            }
            Event::Trained(..) if self.sabotage == Some(Sabotage::Freeze) => Ok(()),
            Event::Wake(who) => {
                if !self.is_there(who) || self.places[who.at].wake != Some(self.queue.now()) {
                    return Ok(());
                }
                self.places[who.at].wake = None;
                let now = self.clock(who.at);
                self.with(who.at, |peer| peer.handle_wake(now))
            }
            Event::Trained(who, number) => {
                if !self.is_there(who) || self.places[who.at].training != number {
                    return Ok(());
                }
                let now = self.clock(who.at);
                self.with(who.at, |peer| peer.handle_trained(now))
            }
            Event::Gossip { to, from, message } => self.heard(to, from, message),
            Event::Request { to, from, id, bytes } => {
                if !self.is_there(to) || !self.is_there(from) || !self.network.connected(to.at, from.at) {
                    return Ok(());
                }
                self.number += 1;
                let token = self.number;
                self.asked.insert(token, (from, id));
                let (now, key) = (self.clock(to.at), self.places[from.at].key);
                self.with(to.at, |peer| peer.handle_request(now, key, token, &bytes))
            }
            Event::Response { to, from, id, bytes } => {
                if !self.is_there(to) {
                    return Ok(());
                }
                let (now, key) = (self.clock(to.at), self.places[from.at].key);
                let bytes = bytes.filter(|_| self.network.connected(to.at, from.at) && self.is_there(from));
                self.with(to.at, |peer| peer.handle_response(now, key, id, bytes.as_deref()))
            }
            Event::Released { author, bytes } => {
                if self.is_there(author) {
                    self.flood(author.at, bytes, |_| true);
                }
                Ok(())
            }
            Event::Snapshot(who) => {
                self.snapshot(who);
                Ok(())
            }
            Event::Leave(who) => self.leave(who),
            Event::Return(at) => self.come_back(at),
            Event::Forgive(a, b) => {
                self.network.forgive(a, b);
                Ok(())
            }
            Event::Churn => {
                self.churn();
                Ok(())
            }
            Event::Split => {
                self.network.split();
                Ok(())
            }
            Event::Break => self.break_up(),
            Event::Heal => self.heal(),
            // The loop looks itself.
            Event::Look => Ok(()),
        }
    }

    fn with(
        &mut self,
        at: usize,
        handle: impl FnOnce(&mut swarm_protocol::peer::Peer),
    ) -> Result<(), Violation> {
        if let Some(peer) = &mut self.places[at].peer {
            handle(peer);
        }
        self.act(at)
    }

    fn heard(&mut self, to: Who, from: usize, message: Rc<Message>) -> Result<(), Violation> {
        if !self.is_there(to) || !message.is_new_to(to.at) {
            return Ok(());
        }
        if self.places[to.at].attack == Some(Attack::Replay) {
            let slot = self.random.below(HOARD);
            let heard = &mut self.places[to.at].heard;
            match heard.get_mut(slot) {
                Some(old) => *old = message.clone(),
                None => heard.push(message.clone()),
            }
        }
        self.number += 1;
        let token = self.number;
        self.undecided.insert(token, (from, message.clone()));
        let (now, key) = (self.clock(to.at), self.places[from].key);
        self.with(to.at, |peer| peer.handle_gossip(now, key, token, &message.bytes))
    }

    /// Carries out what the peer at `at` asks for, looks at it, and schedules its next wake.
    pub(super) fn act(&mut self, at: usize) -> Result<(), Violation> {
        let mut folded = false;
        while let Some(action) = self.places[at].peer.as_mut().and_then(|peer| peer.poll_action()) {
            match action {
                Action::StartRound(_) => {
                    let time = self.random.log_normal(self.places[at].training_time, 0.1);
                    self.places[at].training += 1;
                    let number = self.places[at].training;
                    self.queue.after(time, Event::Trained(self.who(at), number));
                }
                Action::Extract { round, k } => {
                    self.number += 1;
                    let body = self.trainer.extract(at, self.number, k);
                    let extracted = Extracted { round, body, tokens: 64, loss_before: 2.0, loss_after: 1.9 };
                    let now = self.clock(at);
                    if let Some(peer) = &mut self.places[at].peer {
                        peer.handle_extracted(now, extracted);
                    }
                }
                Action::Persist { round, bytes } => self.persist(at, round, bytes)?,
                Action::Publish(bytes) => self.publish(at, bytes),
                Action::Verdict { token, verdict } => {
                    if let Some((from, message)) = self.undecided.remove(&token)
                        && verdict == Verdict::Accept
                    {
                        self.pass_on(at, from, &message, |_| true);
                    }
                }
                Action::Request { peer, id, bytes } => self.request(at, peer, id, bytes),
                Action::Respond { token, bytes } => self.respond(at, token, bytes),
                Action::Report(report) => self.places[at].report = Some(report),
                Action::Ban { peer, duration, reason } => {
                    let Some(other) = self.index.get(&peer).map(|who| who.at) else { continue };
                    self.ban(at, other, duration, reason)?;
                }
                Action::Finished => self.places[at].finished = true,
                Action::Return { round, body } => {
                    self.trainer.give_back(at, &body);
                    if !self.places[at].given_back.insert(round) {
                        let detail = format!("the delta of round {round} goes back to peer {at} twice");
                        return Err(self.violated(Invariant::Accounts, vec![at], detail));
                    }
                }
                Action::Take { round, body } => {
                    self.trainer.take_out(at, &body);
                    if !self.places[at].given_back.remove(&round) {
                        let detail = format!("peer {at} shall take back what never went back: round {round}");
                        return Err(self.violated(Invariant::Accounts, vec![at], detail));
                    }
                }
                // They are saved with the snapshot.
                Action::Checkpoint(_) => {}
                // A made-up trainer has no model to keep.
                Action::Folded | Action::Rebase(_) => folded = true,
            }
        }
        let now = self.queue.now();
        let Some(peer) = &self.places[at].peer else { return Ok(()) };
        if self.places[at].attack.is_none() {
            self.invariants.look(now, at, peer, folded)?;
        }
        if let Some(next) = peer.next_event() {
            let next = self.places[at].clock.when(next).max(now);
            if self.places[at].wake.is_none_or(|wake| wake > next) {
                self.places[at].wake = Some(next);
                self.queue.at(next, Event::Wake(self.who(at)));
            }
        }
        Ok(())
    }

    /// The peer at `at` wants nothing to do with `other` for `duration`.
    pub(super) fn ban(
        &mut self,
        at: usize,
        other: usize,
        duration: Duration,
        reason: &str,
    ) -> Result<(), Violation> {
        if self.is_honest(at) && self.is_honest(other) {
            let detail = format!("peer {at} bans peer {other}: {reason}");
            return Err(self.violated(Invariant::HonestNotBanned, vec![at, other], detail));
        }
        self.cut_off(at, other, duration)
    }

    fn persist(&mut self, at: usize, round: u64, bytes: Vec<u8>) -> Result<(), Violation> {
        if let (true, Ok(Gossip::Delta(signed, _))) = (self.is_honest(at), Gossip::decode(&bytes)) {
            let (author, id) = (signed.header.author, signed.header.id());
            if self.sabotage == Some(Sabotage::SignTwice) {
                self.signed.insert((author, round), Default::default());
            }
            if self.sabotage == Some(Sabotage::GiveBack) {
                self.places[at].given_back.insert(round);
            }
            if self.signed.insert((author, round), id).is_some_and(|other| other != id) {
                let detail = format!("peer {at} has signed two deltas for round {round}");
                return Err(self.violated(Invariant::SignedOnce, vec![at], detail));
            }
            self.published.push(Published { round, author, id });
        }
        let kept = (self.genesis.rounds.window + self.genesis.rounds.retention) as usize;
        let outbox = &mut self.places[at].outbox;
        outbox.push_back(bytes);
        if outbox.len() > kept {
            outbox.pop_front();
        }
        let now = self.clock(at);
        if let Some(peer) = &mut self.places[at].peer {
            peer.handle_persisted(now, round);
        }
        Ok(())
    }

    /// The peer at `at` floods `bytes`; one with bad intentions does more, or less.
    fn publish(&mut self, at: usize, bytes: Vec<u8>) {
        let Some(attack) = self.places[at].attack else { return self.flood(at, bytes, |_| true) };
        let Ok(Gossip::Delta(mine, _)) = Gossip::decode(&bytes) else {
            return self.flood(at, bytes, |_| true);
        };
        let header = mine.header;
        let identity = self.identity(at, self.places[at].person);
        let (layout, rule) = (self.layout.clone(), self.genesis.rule);
        // When the round is about to settle everywhere, or has just done so somewhere.
        let settles = self.invariants.round_seconds().max(self.options.round.as_secs_f64())
            * (f64::from(self.genesis.rounds.window) - 1.0 + self.random.unit());
        let late = Duration::from_secs_f64(settles);
        let strikes = self.random.chance(OFTEN);
        match attack {
            Attack::Equivocate if strikes => {
                let other = attacks::twin(&header, &identity, &layout, &rule, &mut self.random);
                self.flood(at, bytes, |to| to % 2 == 0);
                return self.flood(at, other, |to| to % 2 == 1);
            }
            Attack::LateEquivocate if strikes => {
                let other = attacks::twin(&header, &identity, &layout, &rule, &mut self.random);
                self.queue.after(late, Event::Released { author: self.who(at), bytes: other });
            }
            Attack::Withhold if strikes => {
                let other = attacks::stranger(&header, &layout, &rule, &mut self.random);
                self.queue.after(late, Event::Released { author: self.who(at), bytes: other });
            }
            Attack::Garbage => {
                let garbage = attacks::garbage(&bytes, &identity, &mut self.random);
                self.flood(at, garbage, |_| true);
            }
            Attack::Replay => {
                let heard = &self.places[at].heard;
                if !heard.is_empty() {
                    let old = heard[self.random.below(heard.len())].bytes.clone();
                    self.flood(at, old, |_| true);
                }
            }
            _ => {}
        }
        self.flood(at, bytes, |_| true);
    }

    /// Sends a new message to the neighbours that `goes_to` names.
    fn flood(&mut self, at: usize, bytes: Vec<u8>, goes_to: impl Fn(usize) -> bool) {
        self.number += 1;
        let message = Rc::new(Message::new(self.number, bytes, at, self.places.len()));
        message.is_new_to(at);
        self.pass_on(at, at, &message, goes_to);
    }

    fn pass_on(&mut self, at: usize, from: usize, message: &Rc<Message>, goes_to: impl Fn(usize) -> bool) {
        let kind = if at == message.origin { Kind::Own } else { Kind::PassedOn };
        for to in self.network.neighbours(at) {
            if to == from || to == message.origin || !goes_to(to) {
                continue;
            }
            let copies = 1 + usize::from(self.network.repeats());
            for _ in 0..copies {
                let length = message.bytes.len();
                let arrival = self.network.send(self.queue.now(), at, to, length, kind);
                // What is in the receiver's cache already would be dropped on arrival.
                let Some(arrival) = arrival.filter(|_| !message.is_known_to(to)) else { continue };
                let event = Event::Gossip { to: self.who(to), from: at, message: message.clone() };
                self.queue.at(arrival, event);
            }
        }
    }

    fn request(&mut self, at: usize, peer: swarm_protocol::identity::PeerKey, id: u64, bytes: Vec<u8>) {
        let from = self.who(at);
        let Some(to) = self.index.get(&peer).copied() else { return };
        let bytes = match self.places[at].attack {
            Some(Attack::Lie) => attacks::boasting_request(bytes),
            _ => bytes,
        };
        let failed = Event::Response { to: from, from: to, id, bytes: None };
        if !self.network.connected(at, to.at) {
            return self.queue.after(REFUSED, failed);
        }
        let kind = match Request::decode(&bytes) {
            Ok(Request::Status(_)) => Kind::Status,
            _ => Kind::Question,
        };
        match self.network.send(self.queue.now(), at, to.at, bytes.len(), kind) {
            Some(arrival) => self.queue.at(arrival, Event::Request { to, from, id, bytes }),
            None => self.queue.after(TIMEOUT, failed),
        }
    }

    fn respond(&mut self, at: usize, token: u64, bytes: Vec<u8>) {
        let Some((to, id)) = self.asked.remove(&token) else { return };
        let bytes = match self.places[at].attack {
            Some(Attack::Lie) => attacks::boasting_response(bytes),
            Some(Attack::Garbage) if self.random.chance(OFTEN) => attacks::damaged(bytes, &mut self.random),
            _ => bytes,
        };
        let from = self.who(at);
        let kind = match Response::decode(&bytes) {
            Ok(Response::Status(_)) => Kind::Status,
            _ => Kind::Question,
        };
        match self.network.send(self.queue.now(), at, to.at, bytes.len(), kind) {
            Some(arrival) => self.queue.at(arrival, Event::Response { to, from, id, bytes: Some(bytes) }),
            None => self.queue.after(TIMEOUT, Event::Response { to, from, id, bytes: None }),
        }
    }
}
