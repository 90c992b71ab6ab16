//! A trainer thread, driven by hand.

use super::*;
use crate::data::TextExamples;
use crate::data::{Corpus, CorpusOptions};
use crate::model::{self, Precision};
use crate::train::LearnerConfig;
use std::io::Write;
use swarm_optimizer::coefficients::{Coefficients, Direction};
use swarm_optimizer::kernels::Kernels;
use swarm_optimizer::layout::Tile;
use swarm_optimizer::residual::whole_model;
use swarm_optimizer::sparse::SparseDelta;
use swarm_protocol::architecture::Sizes;
use swarm_protocol::genesis::InnerOptimizer;
use swarm_protocol::initial;

struct Bench {
    genesis: Arc<Genesis>,
    layout: Arc<Layout>,
    c: Coefficients,
    dir: tempfile::TempDir,
    config: LearnerConfig,
    throttle: Throttle,
}

impl Bench {
    fn new() -> Self {
        let model = Sizes { vocabulary: 256, dim: 16, layers: 1, heads: 2, ffn: 16, context: 16 };
        let mut genesis = Genesis::new("worker", model, 1);
        genesis.training.steps = 3;
        genesis.training.batch = 2;
        genesis.validate().unwrap();
        let layout = Arc::new(genesis.layout().unwrap());
        let c = initial::coefficients(&genesis, &layout);
        let dir = tempfile::tempdir().unwrap();
        let mut text = std::fs::File::create(dir.path().join("text")).unwrap();
        for line in 0..400 {
            writeln!(text, "line {line} of some text to learn").unwrap();
        }
        let config = LearnerConfig {
            precision: Precision::F32,
            optimizer: InnerOptimizer::Adamw,
            batch: 2,
            micro_batch: 2,
            learning_rate: 0.01,
            warmup_steps: 0,
            weight_decay: 0.1,
            clip: 1.0,
            seed: 5,
        };
        Self { genesis: Arc::new(genesis), layout, c, dir, config, throttle: Throttle::default() }
    }

    fn learner(&self, corpus: Corpus) -> impl FnOnce() -> Result<Learner> + Send + use<> {
        let (config, architecture) = (self.config, self.genesis.model.clone());
        move || {
            let model =
                model::build(&architecture, &model::Given::default(), tch::Device::Cpu, config.precision)?;
            Learner::new(config, model, Box::new(TextExamples::new(corpus, 16)))
        }
    }

    fn spawn(&self, state: Option<TrainerState>) -> Trainer {
        self.spawn_with(state, Private::default())
    }

    fn spawn_with(&self, state: Option<TrainerState>, private: Private) -> Trainer {
        let corpus = Corpus::open(&[self.dir.path().to_owned()], CorpusOptions::new(16)).unwrap();
        let (genesis, layout) = (self.genesis.clone(), self.layout.clone());
        let throttle = self.throttle.clone();
        let setup = Setup { genesis, layout, state, validation: None, private, threads: 1, throttle };
        spawn(setup, self.learner(corpus)).unwrap()
    }

    fn all(&self) -> Vec<bool> {
        vec![true; self.layout.tiles().len()]
    }

    /// Trains a round and takes its delta.
    fn round(&self, trainer: &mut Trainer, round: u64) -> SparseDelta {
        trainer.orders.send(Order::Start { round }).unwrap();
        assert!(matches!(trainer.told.blocking_recv().unwrap(), Told::Trained));
        trainer.orders.send(Order::Extract { round, k: 256, ahead: false }).unwrap();
        let Told::Extracted(extracted, coefficients) = trainer.told.blocking_recv().unwrap() else {
            panic!()
        };
        assert_eq!((extracted.round, extracted.tokens), (round, 3 * 2 * 16));
        let delta = packing::decode(&self.layout, &self.genesis.rule, &extracted.body).unwrap();
        assert_eq!(delta.len() as u64, coefficients);
        delta
    }

    fn saved(trainer: &mut Trainer) -> TrainerState {
        trainer.orders.send(Order::Save).unwrap();
        let Told::Saved(state) = trainer.told.blocking_recv().unwrap() else { panic!() };
        *state
    }

    fn fold(&self, c: &mut Coefficients, delta: &SparseDelta) -> Vec<bool> {
        let mut touched = vec![false; self.layout.tiles().len()];
        c.fold(&self.layout, &[delta], Direction::In, &mut touched);
        touched
    }
}

/// What the residual keeps plus what was sent is what was learned, and folding one's own delta alone
/// changes nothing: the model after it is C - R again.
#[test]
fn what_is_sent_and_what_is_kept_add_up() {
    let bench = Bench::new();
    let mut trainer = bench.spawn(None);
    let mut c = bench.c.clone();
    trainer.newest.put(c.clone(), bench.all());
    let delta = bench.round(&mut trainer, 0);
    assert!(!delta.is_empty());
    let kept = Bench::saved(&mut trainer);
    let touched = bench.fold(&mut c, &delta);
    trainer.newest.put(c.clone(), touched);
    let after = Bench::saved(&mut trainer);
    // No training in between: R must not have moved by more than the rounding of one transform.
    for (before, after) in kept.residual.iter().zip(&after.residual) {
        assert!((before - after).abs() < 1e-5, "{before} {after}");
    }
    trainer.orders.send(Order::Stop).unwrap();
    assert!(trainer.told.blocking_recv().is_none());
}

/// Steps ahead are the next round's: it takes so many fewer when it starts, and no C without the delta that has
/// just been extracted is folded before.
#[test]
fn steps_ahead_count_and_nothing_is_folded_before_the_round_starts() {
    let bench = Bench::new();
    let mut trainer = bench.spawn(None);
    let mut c = bench.c.clone();
    trainer.newest.put(c.clone(), bench.all());
    trainer.orders.send(Order::Start { round: 0 }).unwrap();
    assert!(matches!(trainer.told.blocking_recv().unwrap(), Told::Trained));
    trainer.orders.send(Order::Extract { round: 0, k: 256, ahead: true }).unwrap();
    let Told::Extracted(first, _) = trainer.told.blocking_recv().unwrap() else { panic!() };
    assert_eq!(first.tokens, 3 * 2 * 16);
    // An older round changes C while this one's deltas are on their way.
    trainer.newest.put(c.clone(), bench.all());
    // All three steps of the next round, and not one more.
    let trained = |trainer: &Trainer| trainer.progress.get().tokens;
    while trained(&trainer) < 2 * 3 * 2 * 16 {
        std::thread::yield_now();
    }
    assert!(trainer.newest.take().is_some(), "nobody has folded it");
    let delta = packing::decode(&bench.layout, &bench.genesis.rule, &first.body).unwrap();
    let touched = bench.fold(&mut c, &delta);
    trainer.newest.put(c, touched);
    trainer.orders.send(Order::Start { round: 1 }).unwrap();
    assert!(matches!(trainer.told.blocking_recv().unwrap(), Told::Trained));
    assert!(trainer.newest.take().is_none(), "folded when the round started");
    trainer.orders.send(Order::Extract { round: 1, k: 256, ahead: false }).unwrap();
    let Told::Extracted(second, _) = trainer.told.blocking_recv().unwrap() else { panic!() };
    assert_eq!((second.round, second.tokens), (1, 3 * 2 * 16));
    assert_eq!(trained(&trainer), 2 * 3 * 2 * 16);
}

/// While the throttle is closed there are no steps, but whatever is asked for is done; then the round goes on, and
/// nothing is lost of what was there.
#[test]
fn a_closed_throttle_holds_the_steps_and_nothing_else() {
    let bench = Bench::new();
    let mut trainer = bench.spawn(None);
    trainer.newest.put(bench.c.clone(), bench.all());
    let first = bench.round(&mut trainer, 0);
    bench.throttle.set(None);
    trainer.orders.send(Order::Start { round: 1 }).unwrap();
    let held = Bench::saved(&mut trainer);
    trainer.orders.send(Order::Extract { round: 1, k: 256, ahead: true }).unwrap();
    let Told::Extracted(extracted, _) = trainer.told.blocking_recv().unwrap() else { panic!() };
    assert_eq!((held.step, extracted.tokens), (3, 0), "a step was taken while the throttle was closed");
    let body = packing::decode(&bench.layout, &bench.genesis.rule, &extracted.body).unwrap();
    assert!(!first.is_empty() && !body.is_empty(), "what the first round left in the residual");
    trainer.orders.send(Order::Start { round: 2 }).unwrap();
    assert_eq!(Bench::saved(&mut trainer).step, 3);
    bench.throttle.set(Some("50%".parse().unwrap()));
    assert!(matches!(trainer.told.blocking_recv().unwrap(), Told::Trained));
    assert_eq!(Bench::saved(&mut trainer).step, 6);
}

/// A fold between two steps moves the model but is not taken for something learned here.
#[test]
fn others_work_is_not_pushed_back() {
    let bench = Bench::new();
    let mut trainer = bench.spawn(None);
    trainer.newest.put(bench.c.clone(), bench.all());
    bench.round(&mut trainer, 0);
    let before = Bench::saved(&mut trainer);
    let mut others = bench.c.clone();
    let values = (0..bench.layout.len()).map(|i| ((i as f32) * 0.37).sin() * 0.05).collect();
    let mut kernels = Kernels::single(&bench.layout);
    let mut learned = Residual::from_values(&bench.layout, values).unwrap();
    let foreign = learned.extract(&bench.layout, &mut kernels, 64, 18);
    let touched = bench.fold(&mut others, &foreign);
    trainer.newest.put(others, touched);
    let after = Bench::saved(&mut trainer);
    for (before, after) in before.residual.iter().zip(&after.residual) {
        assert!((before - after).abs() < 1e-5, "{before} {after}");
    }
    assert_eq!((before.step, before.m, before.v), (after.step, after.m, after.v));
}

/// A trainer that was stopped goes on exactly where it was.
#[test]
fn a_restart_goes_on_with_the_same_numbers() {
    let bench = Bench::new();
    let mut c = bench.c.clone();
    let mut one = bench.spawn(None);
    one.newest.put(c.clone(), bench.all());
    let first = bench.round(&mut one, 0);
    let touched = bench.fold(&mut c, &first);
    one.newest.put(c.clone(), touched);
    let state = Bench::saved(&mut one);
    let mut two = bench.spawn(Some(state));
    two.newest.put(c, bench.all());
    let (a, b) = (bench.round(&mut one, 1), bench.round(&mut two, 1));
    let same =
        a.tiles().zip(b.tiles()).filter(|((ta, ea, xs), (tb, eb, ys))| ta == tb && ea == eb && xs == ys);
    // Bit for bit but for tiles where the model was rebuilt in one and not in the other.
    assert!(
        same.count() * 10 >= a.tiles().count() * 8,
        "{} and {} tiles",
        a.tiles().count(),
        b.tiles().count()
    );
}

#[test]
fn a_state_of_another_model_is_refused() {
    let bench = Bench::new();
    let state = TrainerState {
        residual: vec![0.0; 3],
        step: 0,
        m: vec![0.0; 3],
        v: vec![0.0; 3],
        sampler_seed: 0,
        sampler_drawn: 0,
    };
    let corpus = Corpus::open(&[bench.dir.path().to_owned()], CorpusOptions::new(16)).unwrap();
    let (genesis, layout) = (bench.genesis.clone(), bench.layout.clone());
    let setup = Setup {
        genesis,
        layout,
        state: Some(state),
        validation: None,
        private: Private::default(),
        threads: 1,
        throttle: Throttle::default(),
    };
    assert!(spawn(setup, bench.learner(corpus)).is_err());
}

#[test]
fn what_is_private_is_trained_here_and_stays_whatever_others_do() {
    let bench = Bench::new();
    let names = ["*norm*".to_owned(), "lm_head*".to_owned()];
    let private = Private::new(&names, &bench.genesis.model.parameters()).unwrap();
    let tiles = bench.layout.tiles_of(|name| private.picks(name));
    assert!(tiles.contains(&true) && tiles.contains(&false));
    let mut trainer = bench.spawn_with(None, private);
    trainer.newest.put(bench.c.clone(), bench.all());
    let delta = bench.round(&mut trainer, 0);
    assert!(!delta.is_empty() && delta.tiles().all(|(tile, ..)| !tiles[tile]), "nothing of it is sent");

    let state = Bench::saved(&mut trainer);
    let moved = |tile: &Tile| state.residual[tile.range()].iter().any(|value| *value != 0.0);
    let all = || bench.layout.tiles().iter().zip(&tiles);
    assert!(all().all(|(tile, private)| moved(tile) || !private), "all of it was trained");

    // Somebody else, who shares everything, changes all of C.
    let own = |c: &Coefficients, state: &TrainerState| {
        let residual = Residual::from_values(&bench.layout, state.residual.clone()).unwrap();
        whole_model(&bench.layout, c, Some(&residual))
    };
    let before = own(&bench.c, &state);
    let c = Coefficients::new(bench.c.values().iter().map(|value| value + 4096).collect());
    trainer.newest.put(c.clone(), bench.all());
    let after = own(&c, &Bench::saved(&mut trainer));
    for place in bench.layout.parameters() {
        let range = place.offset..place.offset + place.shape.0 * place.shape.1;
        let pairs = before[range.clone()].iter().zip(&after[range]);
        let furthest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let kept = tiles[place.tiles.start];
        assert!(if kept { furthest < 1e-5 } else { furthest > 1e-3 }, "{}: {furthest}", place.name);
    }
}
