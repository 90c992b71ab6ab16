//! From the network to the core, and from the core's actions to the network, the trainer and the disk.

use std::time::Instant;

use anyhow::{Result, bail};
use swarm_protocol::peer::rounds::Extracted;
use swarm_protocol::peer::{Action, Report};
use swarm_protocol::wire::BULK;

use super::{Ended, MEASURE_EVERY, Node, OWN_EVERY, Rounds, unix_time};
use crate::events;
use crate::ledger::archive;
use crate::net::{Command, Event, peer_id};
use crate::status::RoundRecord;
use crate::trainer::Order;

impl Node {
    pub(super) fn on_network(&mut self, event: Event) -> Result<()> {
        let now = self.now();
        match event {
            Event::Connected { peer } => {
                self.looking.clear();
                self.peer.handle_connected(now, peer);
            }
            Event::Disconnected { peer } => self.peer.handle_disconnected(now, peer),
            Event::Gossip { token, source, bytes } => self.peer.handle_gossip(now, source, token, &bytes),
            Event::Request { peer, token, bytes } => self.peer.handle_request(now, peer, token, &bytes),
            Event::Response { peer, id, bytes } => self.peer.handle_response(now, peer, id, Some(&bytes)),
            Event::RequestFailed { peer, id, reason } => {
                tracing::debug!("request to {peer:.8} failed: {reason}");
                self.peer.handle_response(now, peer, id, None);
            }
            Event::Listening(address) => {
                tracing::info!("listening on {address}");
                self.listening.push(address.to_string());
            }
            Event::OtherSwarm { peer, address, theirs } => {
                self.looking = format!("the peer at {address} belongs to another swarm ({theirs:.16})");
                tracing::warn!(
                    "peer {peer:.8} at {address} belongs to another swarm: theirs is {theirs}, yours {}. Both need the \
                     very same genesis file",
                    self.peer.swarm_id()
                );
            }
            Event::BootstrapFailed { address, reason, retry_in } => {
                self.looking = format!("{address}: {reason}");
                tracing::warn!(
                    "bootstrap {address}: {reason}; trying again in {:.0} s",
                    retry_in.as_secs_f64()
                );
            }
            Event::BootstrapConnected { address } => tracing::info!("connected to bootstrap {address}"),
            Event::Met { peer, addresses } => self.book.met(&peer, &addresses, unix_time()),
            Event::Banned { peer, duration, reason } => {
                self.book.ban(&peer, reason, unix_time().saturating_add(duration.as_secs()));
                self.write_book();
            }
            Event::PublishFailed { reason } => {
                // Neighbours fetch what they miss; with nobody there it is no failure at all.
                tracing::debug!("gossip: {reason}");
            }
            Event::Fatal { reason } => bail!("the network cannot go on: {reason}"),
        }
        Ok(())
    }

    /// Carries out what the core asks for.
    pub(super) async fn act(&mut self) -> Result<()> {
        while let Some(action) = self.peer.poll_action() {
            match action {
                Action::Publish(bytes) => self.network.send(Command::Publish(bytes)).await?,
                Action::Verdict { token, verdict } => {
                    self.network.send(Command::Verdict { token, verdict }).await?;
                }
                Action::Request { peer, id, bytes } => {
                    self.network.send(Command::Request { peer, id, bytes }).await?;
                }
                Action::Respond { token, bytes } => {
                    let bulk = bytes.get(1).is_some_and(|kind| BULK.contains(kind));
                    self.network.send(Command::Respond { token, bytes, bulk }).await?
                }
                Action::Ban { peer, duration, reason } => {
                    tracing::warn!("peer {peer:.8} is cut off for {} s: {reason}", duration.as_secs());
                    self.network.send(Command::Ban { peer, duration, reason: reason.to_owned() }).await?;
                }
                Action::Persist { round, bytes } => {
                    self.store.persist(round, &bytes)?;
                    self.totals.published += 1;
                    let body = (bytes.len() - swarm_protocol::wire::SIGNED_HEADER_LEN - 2) as u64;
                    let coefficients = self.sent_coefficients as f64;
                    self.last_bits = (coefficients > 0.0).then(|| 8.0 * body as f64 / coefficients);
                    self.totals.body_bytes += body;
                    self.totals.coefficients += self.sent_coefficients;
                    self.peer.handle_persisted(self.now(), round);
                }
                Action::StartRound(round) => self.start_round(round)?,
                Action::Extract { round, k } => {
                    self.tell_folded(round);
                    self.record(round);
                    self.thrift.round_ended(self.limits.upload, self.network.traffic().sent, Instant::now());
                    let k = self.thrift.coefficients(round, k).filter(|_| self.may_sign(round));
                    if let Some(k) = k {
                        self.last_k = Some(k);
                        // While the delta travels and the others' arrive, training goes on; not after the last.
                        let ahead = self.target != Some(round + 1);
                        self.order(Order::Extract { round, k, ahead })?;
                    } else {
                        // Nothing to send: the core goes on without signing, the residual keeps it all.
                        let (body, tokens) = (Vec::new(), 0);
                        let nothing = Extracted { round, body, tokens, loss_before: 0.0, loss_after: 0.0 };
                        self.peer.handle_extracted(self.now(), nothing);
                    }
                }
                Action::Folded => {
                    self.folds += 1;
                    self.note_first_delta();
                    if let Some(trainer) = &self.trainer {
                        trainer.newest.put(self.peer.coefficients().clone(), self.peer.take_touched());
                    }
                }
                Action::Rebase(before) => {
                    let after = self.peer.coefficients().clone();
                    self.order(Order::Rebase(Box::new((*before, after))))?;
                    // A state that is on its way was the residual before this.
                    self.stale_save = self.saving;
                }
                Action::Return { body, .. } => {
                    self.correct(body.clone(), true);
                    self.order(Order::Return(body))?;
                }
                Action::Take { body, .. } => {
                    self.correct(body.clone(), false);
                    self.order(Order::Take(body))?;
                }
                Action::Checkpoint(_) => {
                    if let Err(error) = self.store.keep_checkpoint(self.peer.checkpoints()) {
                        tracing::error!("{error:#}");
                    }
                    let (dir, peer) = (self.store.dir(), &self.peer);
                    if let Err(error) = archive::keep(dir, peer.genesis(), peer.log(), self.keep_history) {
                        tracing::error!("older rounds are not kept for ledgers: {error:#}");
                    }
                }
                Action::Report(report) => self.tell(report)?,
                Action::Finished => self.ended = Some(Ended::Finished),
            }
        }
        Ok(())
    }

    /// Says how long it took from the user's word to what others have learned.
    fn note_first_delta(&mut self) {
        if let Some(asked) = self.asked
            && self.peer.has_folded_others()
        {
            self.asked = None;
            let seconds = asked.elapsed().as_secs_f64();
            tracing::info!("the first delta of another device is folded, {seconds:.1} s after the start");
        }
    }

    fn start_round(&mut self, round: u64) -> Result<()> {
        if self.target.is_none()
            && let Some(Rounds::More(more)) = self.rounds
        {
            self.target = Some(round.saturating_add(more));
            self.peer.set_stop(self.target);
        }
        if let Some(trainer) = &self.trainer {
            // The first round needs C even if nothing has been folded yet.
            trainer.newest.put(self.peer.coefficients().clone(), self.peer.take_touched());
        }
        if round.is_multiple_of(MEASURE_EVERY) && round > 0 {
            self.measure()?;
        }
        if self.history.len() == 1 {
            // So that the model can be used early, and a first crash loses little.
            self.start_saving();
        }
        self.order(Order::Start { round })
    }

    /// Has the trainer look how well it is doing; at the device's own data not too often, however short rounds are.
    fn measure(&mut self) -> Result<()> {
        let own = self.own_measured.is_none_or(|then| then.elapsed() >= OWN_EVERY);
        if own {
            self.own_measured = Some(Instant::now());
        }
        if own || self.validates { self.order(Order::Measure { own }) } else { Ok(()) }
    }

    /// Whether the last own delta is known to be of a lower round than this.
    fn may_sign(&mut self, round: u64) -> bool {
        match self.doubt {
            Some(doubt) if doubt.forbids(round) => false,
            Some(_) => {
                self.doubt = None;
                tracing::info!("nobody can hold an own delta of round {round} or later: publishing again");
                true
            }
            None => true,
        }
    }

    /// The round's training is done: one line for the log, one record for the report.
    fn record(&mut self, round: u64) {
        let Some(trainer) = &self.trainer else { return };
        let progress = trainer.progress.get();
        let seconds = self.began.elapsed().as_secs_f64();
        self.history.push(RoundRecord {
            round,
            seconds,
            tokens: progress.tokens,
            loss: progress.loss_last,
            validation_loss: None,
        });
        let (folded, late) = self.peer.folded_counts();
        let traffic = self.network.traffic();
        let bits_bound = self.bits_bound();
        self.told.write(&events::Event::Round {
            round,
            seconds,
            tokens: progress.tokens,
            loss: progress.loss_last,
            peers: self.peer.neighbours(),
            deltas_folded: folded,
            deltas_late: late,
            bytes_sent: traffic.sent,
            bytes_received: traffic.received,
            bits_a_coefficient: self.last_bits,
            bits_bound,
        });
        tracing::info!(
            "round {round}: loss {:.3}, {} peers, {folded} deltas folded ({late} late), {} kB out, {} kB in",
            progress.loss_last.unwrap_or(f64::NAN),
            self.peer.neighbours(),
            traffic.sent / 1000,
            traffic.received / 1000
        );
    }

    fn tell(&mut self, report: Report) -> Result<()> {
        match report {
            Report::Refused { kind, peer } => {
                tracing::warn!("dropped a message from {peer:.8}: {kind} (further ones are only counted)");
            }
            Report::Founded => {
                tracing::info!("nobody else is here yet: starting the swarm; others can join any time")
            }
            Report::JoiningAt(checkpoint) => tracing::info!(
                "joining: fetching the model after {} settled rounds ({:.16})",
                checkpoint.settled,
                checkpoint.manifest
            ),
            Report::Joined { round } => {
                tracing::info!("joined the swarm at round {round}");
                if let Some(doubt) = &mut self.doubt {
                    doubt.joined(round);
                }
            }
            // It is tried again every second; saying it once is enough.
            Report::CannotJoin(why) => {
                if std::mem::replace(&mut self.join_trouble, why) != why {
                    tracing::warn!("cannot join yet: {why}; trying again");
                }
            }
            Report::Diverged { peer, settled } => tracing::warn!(
                "peer {peer:.8} holds another history than this node after {settled} settled rounds: one of the two \
                 was cut off for longer than the swarm's window; both will take up what most authors have"
            ),
            Report::GaveUp { rounds } => tracing::warn!(
                "most authors have another history: {rounds} settled rounds are given up for theirs; what this device \
                 learned stays with it and is published again"
            ),
            Report::Fault { settled, parameter, index, fatal } => {
                let what = format!(
                    "this device computed something else than the swarm's deltas make: after {settled} settled rounds                      parameter {parameter} (coefficient {index}) was wrong"
                );
                if fatal {
                    bail!(
                        "{what}, and it is not the first time. Its memory or processor cannot be relied on: test the                          memory, undo any overclocking, and start again. What was shared is right; what this device                          learned since may not be"
                    );
                }
                tracing::error!(
                    "{what}. It has been mended from the deltas; if it happens again, the node stops"
                );
            }
            Report::Equivocation { author, round } => {
                tracing::warn!("author {author:.8} signed two deltas for round {round}: neither counts");
            }
            Report::IdentityInUse { round } if self.doubt.is_some() => {
                tracing::info!(
                    "peers hold an own delta of round {round}, which is not in the folder any more"
                );
            }
            Report::IdentityInUse { round } => bail!(
                "somebody else publishes with this node's identity (round {round}): the folder was copied, or restored \
                 from a backup, while the original goes on. Stop the other one, or start in a new folder with --dir"
            ),
            Report::NotAdmitted => tracing::warn!("{}", self.how_to_be_admitted()),
            Report::Revoked { subject, from_round } if subject == self.peer.key() => tracing::warn!(
                "this device has been revoked: what it publishes for rounds from {from_round} on does not count, and it \
                 is no longer talked with. What it learns from now on is its own"
            ),
            Report::Revoked { subject, from_round } => tracing::info!(
                "{} has been revoked: it is cut off, and does not count from round {from_round} on",
                peer_id(&subject).map_or_else(|| subject.to_string(), |peer| peer.to_string())
            ),
            Report::Alone => tracing::info!(
                "all peers are gone: training goes on for this device alone; it is shared when somebody is back"
            ),
            Report::Unusable => {
                tracing::error!("a delta of this node's own could not be used and was dropped")
            }
        }
        Ok(())
    }
}
