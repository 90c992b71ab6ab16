//! The swarm's rule among learners in one process, on the node's own code: the member that trains, the
//! packing that goes over the wire, the fold.
//!
//! Each learner has a C of its own, folded from the deltas that have reached it. While rounds are open,
//! the learners' sets and so their Cs may differ; a delta that comes late changes the fold of its round
//! from the old set's to the new set's, in integers. After [`Settings::window`] rounds a round settles,
//! and a delta that never arrived anywhere returns to its author's residual.
//!
//! Learners that were cut off have a history of their own by then. The larger side's is everybody's
//! afterwards; the residuals of the smaller one take up a share of the difference
//! ([`Member::rebase`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use swarm_optimizer::coefficients::{Coefficients, Direction};
use swarm_optimizer::layout::Layout;
use swarm_optimizer::panel;
use swarm_optimizer::residual::{Residual, whole_model};
use swarm_optimizer::sparse::SparseDelta;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::packing::{self, PackingError};
use swarm_protocol::{initial, wire};

use super::dense::warn;
use super::weather::Weather;
use super::{Done, Mean, OpenRound, Orders, Team, TeamState, managed};
use crate::data::TestSet;
use crate::lab::attack::{Scene, attacked};
use crate::lab::settings::Settings;
use crate::train::Learner;
use crate::train::member::Member;

pub(super) struct Swarm {
    settings: Settings,
    genesis: Genesis,
    layout: Arc<Layout>,
    weather: Weather,
    members: Vec<Member>,
    /// Each learner's C.
    shared: Vec<Coefficients>,
    open: BTreeMap<u64, Open>,
}

/// An open round.
struct Open {
    /// Packed and unpacked, one an author.
    bodies: Vec<Vec<u8>>,
    deltas: Vec<Arc<SparseDelta>>,
    /// Authors in each learner's fold, ascending.
    folded: Vec<Vec<u32>>,
}

impl Swarm {
    pub(super) fn new(settings: &Settings, genesis: Genesis, learners: Vec<Learner>) -> Result<Self> {
        let layout = Arc::new(genesis.layout()?);
        let c0 = initial::coefficients(&genesis, &layout);
        let everything = vec![true; layout.tiles().len()];
        let mut members = Vec::new();
        for learner in learners {
            let mut member = Member::new(layout.clone(), learner, Residual::zeros(&layout))?;
            member.fold(c0.clone(), &everything)?;
            members.push(member);
        }
        let shared = vec![c0; members.len()];
        let (settings, weather) = (settings.clone(), Weather::new(settings));
        Ok(Self { settings, genesis, layout, weather, members, shared, open: BTreeMap::new() })
    }

    /// Rounds that stay open: in fine weather all sets are complete at once, and only copycats look back.
    fn window(&self) -> u64 {
        if self.weather.is_fine() { 2 } else { self.settings.window().into() }
    }

    fn is_hostile(&self, author: usize) -> bool {
        author + self.settings.attackers as usize >= self.members.len()
    }

    /// What goes over the wire in place of `delta`; `heard` is what those before it say.
    fn attacked(
        &self,
        orders: Orders,
        author: usize,
        delta: SparseDelta,
        heard: &[Arc<SparseDelta>],
    ) -> SparseDelta {
        if !self.is_hostile(author) {
            return delta;
        }
        let before = orders.round.checked_sub(1).and_then(|round| self.open.get(&round));
        let scene = Scene {
            layout: &self.layout,
            seed: self.settings.seed,
            round: orders.round,
            author,
            k: orders.k as usize,
            max_exponent: self.genesis.rule.max_exponent,
            honest: &heard[..heard.len().min(self.members.len() - self.settings.attackers as usize)],
            before: before.and_then(|open| open.deltas.first()).map(Arc::as_ref),
        };
        attacked(self.settings.attack, &scene, &delta)
    }

    fn pack(&self, k: u32, delta: &SparseDelta) -> Result<Vec<u8>> {
        match packing::encode(&self.layout, &self.genesis.rule, k, delta) {
            Err(PackingError::Empty) => Ok(Vec::new()),
            packed => packed.context("packing a delta"),
        }
    }

    /// Brings every learner's C up to date at the end of round `now`.
    fn deliver(&mut self, now: u64) -> Result<()> {
        let window = self.window();
        let mut touched = vec![vec![false; self.layout.tiles().len()]; self.members.len()];
        for (&round, open) in &mut self.open {
            let settles = round + window <= now + 1;
            // What the last set counts as: most learners have the same one.
            let mut judged: Option<(Vec<u32>, Vec<Arc<SparseDelta>>)> = None;
            for (receiver, folded) in open.folded.iter_mut().enumerate() {
                let (weather, deltas) = (self.weather, &open.deltas);
                let has = |author: &usize| {
                    let arrived = weather.arrival(round, *author, receiver) <= now || settles;
                    let lost = weather.loses(round, *author) && (*author != receiver || settles);
                    // Once they are back, rounds of the cut are what the larger side holds.
                    let side = if weather.is_healed(now) { 0 } else { receiver };
                    let linked = weather.linked(round, *author, side);
                    arrived && !lost && linked && deltas.get(*author).is_some_and(|delta| !delta.is_empty())
                };
                let set: Vec<u32> = (0..deltas.len()).filter(has).map(|author| author as u32).collect();
                if set == *folded {
                    continue;
                }
                let (shared, touched) = (&mut self.shared[receiver], &mut touched[receiver]);
                for (set, direction) in [(&*folded, Direction::Out), (&set, Direction::In)] {
                    if judged.as_ref().is_none_or(|(of, _)| of != set) {
                        let mut bodies = BTreeSet::new();
                        let each = set.iter().map(|&author| author as usize);
                        // The same body counts once.
                        let each = each.filter(|&author| bodies.insert(&open.bodies[author]));
                        let deltas: Vec<_> = each.map(|author| deltas[author].clone()).collect();
                        let counted = match self.settings.undefended {
                            true => set.iter().map(|&author| open.deltas[author as usize].clone()).collect(),
                            false => panel::counted(&self.layout, &deltas),
                        };
                        judged = Some((set.clone(), counted));
                    }
                    let counted = judged.iter().flat_map(|(_, counted)| counted.iter().map(Arc::as_ref));
                    shared.fold(&self.layout, &counted.collect::<Vec<_>>(), direction, touched);
                }
                *folded = set;
            }
        }
        for (round, open) in self.open.iter().filter(|(round, _)| **round + window <= now + 1) {
            let left_out = if self.settings.undefended { Vec::new() } else { self.left_out(open) };
            for (author, member) in self.members.iter_mut().enumerate() {
                if self.weather.loses(*round, author) || left_out.contains(&author) {
                    member.give_back(&open.deltas[author]);
                }
            }
        }
        for ((member, shared), touched) in self.members.iter_mut().zip(&self.shared).zip(&touched) {
            member.fold(shared.clone(), touched)?;
        }
        self.open = self.open.split_off(&(now + 2).saturating_sub(window));
        self.heal(now)
    }

    /// The authors of a settled round whose deltas did not count.
    fn left_out(&self, open: &Open) -> Vec<usize> {
        let mut bodies = BTreeSet::new();
        let authors = open.folded.first().into_iter().flatten().map(|&author| author as usize);
        let authors: Vec<usize> = authors.filter(|&author| bodies.insert(&open.bodies[author])).collect();
        let deltas: Vec<_> = authors.iter().map(|&author| open.deltas[author].clone()).collect();
        let verdicts = panel::verdicts(&self.layout, &deltas);
        authors.into_iter().zip(verdicts).filter(|(_, verdict)| verdict.is_none()).map(|(at, _)| at).collect()
    }

    /// Those who were cut off up to this round take up the history of the others.
    fn heal(&mut self, now: u64) -> Result<()> {
        let everything = vec![true; self.layout.tiles().len()];
        for at in self.weather.coming_back(now, self.members.len()) {
            let common = self.shared[0].clone();
            let before = std::mem::replace(&mut self.shared[at], common.clone());
            self.members[at].rebase(&before, &common)?;
            self.members[at].fold(common, &everything)?;
            for open in self.open.values_mut() {
                open.folded[at] = open.folded[0].clone();
            }
        }
        Ok(())
    }

    fn honest(&mut self) -> impl Iterator<Item = &mut Member> {
        let honest = self.members.len() - self.settings.attackers as usize;
        self.members.iter_mut().take(honest)
    }
}

impl Team for Swarm {
    fn round(&mut self, orders: Orders) -> Result<Done> {
        let (mut done, mut losses) = (Done::default(), Mean::default());
        let (mut residual, mut moved) = (Mean::default(), Mean::default());
        let (mut bodies, mut deltas) = (Vec::new(), Vec::new());
        let all: Vec<u32> =
            (0..self.members.len()).map(|author| managed(&self.settings, author, orders.steps)).collect();
        let mut train = |member: &mut Member, steps: u32| -> Result<()> {
            for _ in 0..steps {
                let report = member.learner.step(orders.rate)?;
                warn(report.skipped.as_deref());
                losses.add(report.loss);
                done.tokens += report.tokens;
            }
            Ok(())
        };
        // What a learner trains while the last round's deltas are still on their way.
        let overlap = self.settings.overlap;
        for (member, steps) in self.members.iter_mut().zip(&all) {
            train(member, overlap.min(*steps))?;
        }
        if let (1.., Some(before)) = (overlap, orders.round.checked_sub(1)) {
            self.deliver(before)?;
        }
        for (author, steps) in all.into_iter().enumerate() {
            let member = &mut self.members[author];
            train(member, steps - overlap.min(steps))?;
            moved.add(member.take_up()?);
            let delta = member.extract(orders.k as usize, self.genesis.rule.max_exponent)?;
            residual.add(member.residual().norm());
            let delta = self.attacked(orders, author, delta, &deltas);
            let body = self.pack(orders.k, &delta)?;
            done.bytes += (wire::SIGNED_HEADER_LEN + body.len()) as f64;
            bodies.push(body);
            deltas.push(Arc::new(delta));
        }
        let folded = vec![Vec::new(); self.members.len()];
        self.open.insert(orders.round, Open { bodies, deltas, folded });
        if overlap == 0 {
            self.deliver(orders.round)?;
        }
        done.bytes /= self.members.len() as f64;
        done.loss = losses.get();
        (done.residual_norm, done.displacement_norm) = (residual.get(), moved.get());
        Ok(done)
    }

    fn settle(&mut self) -> Result<()> {
        match self.open.last_key_value().map(|(round, _)| *round) {
            Some(last) => self.deliver(last + self.window()),
            None => Ok(()),
        }
    }

    fn validate(&mut self, text: &dyn TestSet, windows: usize) -> Result<f64> {
        let first = self.honest().next().context("no honest learners")?;
        let loss = first.with_shared(|learner| learner.evaluate(text, windows))?;
        loss.context("nothing has been folded yet")
    }

    fn personal(&mut self, text: &dyn TestSet, windows: usize) -> Result<Option<f64>> {
        let mut mean = Mean::default();
        for member in self.honest() {
            mean.add(member.learner.evaluate(text, windows)?);
        }
        Ok(Some(mean.get()))
    }

    fn parameters(&mut self) -> Result<Vec<f32>> {
        let shared = self.shared.first().context("no learners")?;
        Ok(whole_model(&self.layout, shared, None))
    }

    fn state(&mut self) -> Result<TeamState> {
        let mut state = TeamState::default();
        for member in &mut self.members {
            member.take_up()?;
            state.learners.push(member.learner.state()?);
            state.vectors.push(member.residual().values().to_vec());
            let mut flat = vec![0.0; self.layout.len()];
            member.learner.read_parameters(&mut flat)?;
            state.vectors.push(flat);
        }
        state.coefficients = self.shared.iter().map(|shared| shared.values().to_vec()).collect();
        let open = self.open.iter().map(|(&round, open)| OpenRound {
            round,
            bodies: open.bodies.clone(),
            folded: open.folded.clone(),
        });
        state.open = open.collect();
        Ok(state)
    }

    fn restore(&mut self, state: TeamState) -> Result<()> {
        let count = self.members.len();
        let fits = state.learners.len() == count
            && state.vectors.len() == 2 * count
            && state.coefficients.len() == count
            && state.coefficients.iter().all(|c| c.len() == self.layout.len());
        ensure!(fits, "a state of another team");
        self.shared = state.coefficients.into_iter().map(Coefficients::new).collect();
        for (author, member) in self.members.iter_mut().enumerate() {
            member.learner.restore(&state.learners[author])?;
            let residual = state.vectors[2 * author].clone();
            let residual =
                Residual::from_values(&self.layout, residual).context("a state of another team")?;
            member.resume(self.shared[author].clone(), residual, &state.vectors[2 * author + 1])?;
        }
        self.open.clear();
        for OpenRound { round, bodies, folded } in state.open {
            let unpack = |body: &Vec<u8>| match body[..] {
                [] => Ok(Arc::default()),
                _ => packing::decode(&self.layout, &self.genesis.rule, body).map(Arc::new),
            };
            let deltas =
                bodies.iter().map(unpack).collect::<Result<Vec<_>, _>>().context("a delta is damaged")?;
            ensure!(deltas.len() == count && folded.len() == count, "a state of another team");
            self.open.insert(round, Open { bodies, deltas, folded });
        }
        Ok(())
    }
}
