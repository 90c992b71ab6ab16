//! Replays a recorded run with this crate's optimizer and compares every recorded result (margins are only used).
//!
//! The replay runs free: it gets the initial parameters and every gradient, and from then on lives on
//! its own state. It takes over something recorded in two cases only, where the reference's own
//! result is arbitrary:
//!
//! - **Ties.** The reference breaks ties at random. Where the chosen coefficients differ and the
//!   recorded margin allows it, and in steps recorded as `tie_dependent_steps`, the merge is fed with
//!   what the reference sent; if the tied values were not zeros, so is the momentum.
//! - **Undefined signs.** Where the mean is zero but for rounding, the reference moves in an arbitrary
//!   direction. Those elements are exempt, and take the recorded parameter.
//!
//! Errors are measured against C, the largest value that a worker sent in the chunk, since that is
//! the scale that rounding errors have. When a chunk's input (learning rate x gradient) falls to less
//! than half of what it was, the errors that older and larger inputs left in the momentum do not
//! shrink with C: then C is what is left, by the decay, of the largest C before.

use swarm_optimizer::demo::{Demo, DemoError, Sent};

use crate::compare::{Outcome, Place};
use crate::recording::{Param, Recording};

/// Of `val`, `delta` and `merged`, relative to C.
const TOLERANCE: f64 = 3e-6;
/// A choice may differ if the k-th and (k+1)-th magnitude differ by no more than this, relative to C.
const MARGIN: f64 = 2e-6;
/// A sign is undefined if the mean is no larger than this, relative to the chunk's largest.
const UNDEFINED_SIGN: f64 = 1e-6;
/// Of a sum of parameters, relative to the sum of magnitudes: the order in which f64s are added.
const SUM_TOLERANCE: f64 = 1e-10;

/// One worker of the replay.
#[derive(Clone)]
struct Worker {
    demo: Demo,
    params: Vec<Vec<f32>>,
    /// By parameter, then chunk.
    scales: Vec<Vec<Scale>>,
}

/// What errors in a chunk are measured against.
#[derive(Clone, Default)]
struct Scale {
    largest_input: f64,
    largest_sent: f64,
}

impl Scale {
    /// C of this step, from the largest value of the input and the largest sent.
    fn next(&mut self, decay: f64, input: f64, sent: f64) -> f64 {
        let has_fallen = input < 0.5 * self.largest_input;
        self.largest_input = input.max(decay * self.largest_input);
        self.largest_sent = sent.max(decay * self.largest_sent);
        if has_fallen { self.largest_sent } else { sent }
    }
}

/// What a worker's extraction gave.
struct Extracted {
    sent: Sent,
    /// C of every chunk.
    scales: Vec<f64>,
    /// Whether a tie was broken otherwise than by the reference.
    tie: bool,
}

/// A run under way: all workers, and what has been found so far.
struct Replay<'a> {
    run: &'a Recording,
    workers: Vec<Worker>,
    outcome: Outcome,
    /// By parameter: how far its sum may be off for undefined signs of elements that are not stored.
    slack: Vec<f64>,
}

pub(crate) fn check(run: &Recording) -> Result<Outcome, String> {
    let refuse = |why: DemoError| format!("the optimizer refuses it: {why}");
    let mut replay = Replay::new(run).map_err(refuse)?;
    for p in 0..run.params.len() {
        replay.compare_layout(p);
        for step in 0..run.steps {
            replay.step(p, step).map_err(refuse)?;
        }
    }
    Ok(replay.outcome)
}

fn place(kind: &str, param: &Param, step: Option<usize>, worker: Option<usize>) -> Place {
    Place { tensor: format!("{kind}/{}", param.name), step, worker }
}

impl<'a> Replay<'a> {
    fn new(run: &'a Recording) -> Result<Self, DemoError> {
        let shapes: Vec<&[usize]> = run.params.iter().map(|param| param.shape.as_slice()).collect();
        let worker = Worker {
            demo: Demo::new(&shapes, run.config)?,
            params: run.params.iter().map(|param| param.params0.clone()).collect(),
            scales: run.params.iter().map(|param| vec![Scale::default(); param.grid.chunks()]).collect(),
        };
        let mut outcome = Outcome::default();
        outcome.steps = run.steps;
        Ok(Replay { run, workers: vec![worker; run.workers], outcome, slack: vec![0.0; run.params.len()] })
    }

    /// The cut into chunks, and the heads of generated inputs.
    fn compare_layout(&mut self, p: usize) {
        let Replay { run, outcome, .. } = self;
        let param = &run.params[p];
        let grid = param.grid;
        let ours = match param.shape.len() {
            1 => vec![grid.chunks(), grid.chunk_cols],
            _ => vec![
                grid.rows / grid.chunk_rows,
                grid.cols / grid.chunk_cols,
                grid.chunk_rows,
                grid.chunk_cols,
            ],
        };
        let pairs = ours.iter().zip(&param.xshape).map(|(&got, &want)| (got as f64, want.into(), 0.0));
        outcome.compare(place("xshape", param, None, None), pairs);
        let pairs = [(grid.area() as f64, param.totalk.into(), 0.0)];
        outcome.compare(place("totalk", param, None, None), pairs);

        let Some(heads) = &param.heads else { return };
        let pairs = exact(&param.params0, &heads.params0);
        outcome.compare(place("params0_head", param, None, None), pairs);
        for (at, head) in heads.grad.chunks_exact(heads.params0.len().max(1)).enumerate() {
            let (step, worker) = (at / run.workers, at % run.workers);
            outcome
                .compare(place("grad_head", param, Some(step), Some(worker)), exact(&param.grad(at), head));
        }
    }

    /// One step of one parameter on all workers.
    fn step(&mut self, p: usize, step: usize) -> Result<(), DemoError> {
        let param = &self.run.params[p];
        let workers = 0..self.run.workers;
        let extracted: Vec<Extracted> =
            workers.clone().map(|w| self.extract(p, step, w)).collect::<Result<_, _>>()?;
        let scales: Vec<f64> = (0..param.grid.chunks())
            .map(|chunk| extracted.iter().map(|e| e.scales[chunk]).fold(0.0, f64::max))
            .collect();
        let is_tie = self.run.is_tie_dependent(step) || extracted.iter().any(|e| e.tie);
        let sent: Vec<Sent> = if is_tie {
            workers.map(|w| param.sent(step * self.run.workers + w)).collect()
        } else {
            extracted.into_iter().map(|e| e.sent).collect()
        };
        self.apply(p, step, &sent, &scales)
    }

    /// Steps 1 to 5 of a worker: compares what it sends (`idx`, `val`) and what it keeps (`delta`).
    fn extract(&mut self, p: usize, step: usize, w: usize) -> Result<Extracted, DemoError> {
        let Replay { run, workers, outcome, .. } = self;
        let worker = &mut workers[w];
        let (param, at) = (&run.params[p], step * run.workers + w);
        let (rate, grad) = (run.rate(step, param), param.grad(at));
        let sent = worker.demo.extract(p, &mut worker.params[p], &grad, rate)?;
        let here = |kind: &str| place(kind, param, Some(step), Some(w));
        let (area, k) = (param.grid.area(), param.k);

        let inputs = largest_by_chunk(param, &grad);
        let mut scales = Vec::with_capacity(param.grid.chunks());
        // Chunks in which a tie of values other than 0 was broken otherwise.
        let mut strayed = vec![false; param.grid.chunks()];
        let (mut tie, mut choices, mut values) = (false, Vec::new(), Vec::new());
        for chunk in 0..param.grid.chunks() {
            let recorded = param.chunk(at, chunk);
            let largest = recorded.val.iter().fold(0.0f64, |c, v| c.max(f64::from(v.abs())));
            let scale = worker.scales[p][chunk].next(run.config.decay, rate * inputs[chunk], largest);
            scales.push(scale);

            let ours = chunk * k..(chunk + 1) * k;
            let (indices, ours) = (&sent.indices[ours.clone()], &sent.values[ours]);
            let position =
                |index: i32| indices.binary_search(&((chunk * area) as u32).wrapping_add(index as u32)).ok();
            let matched: Vec<Option<usize>> = recorded.idx.iter().map(|&index| position(index)).collect();
            // An index chosen by the reference only is off by the margin, which must be as good as none.
            let margin = f64::from(recorded.margin);
            choices.extend(
                matched.iter().map(|m| (if m.is_some() { 0.0 } else { margin }, 0.0, MARGIN * scale)),
            );
            if matched.iter().all(Option::is_some) {
                let pairs = matched.iter().flatten().map(|&m| ours[m]).zip(recorded.val);
                values.extend(pairs.map(|(got, &want)| (got.into(), want.into(), TOLERANCE * scale)));
            } else {
                tie = true;
                strayed[chunk] = largest > 0.0;
                let pairs = by_magnitude(ours).into_iter().zip(by_magnitude(recorded.val));
                values.extend(pairs.map(|(got, want)| (got.into(), want.into(), TOLERANCE * scale)));
            }
        }
        outcome.compare(here("idx"), choices);
        outcome.compare(here("val"), values);

        let momentum = worker.demo.momentum(p)?;
        let stored = param.stored.iter().map(|&element| (element, param.chunk_of(element)));
        let pairs = stored.zip(param.delta(at)).filter(|((_, chunk), _)| !strayed[*chunk]);
        let pairs = pairs.map(|((element, chunk), &want)| {
            (momentum[element].into(), want.into(), TOLERANCE * scales[chunk])
        });
        outcome.compare(here("delta"), pairs);
        if let Some(recorded) = &param.sums {
            let tolerance = TOLERANCE * area as f64 * scales.iter().sum::<f64>();
            let pairs = sums(momentum).into_iter().zip(recorded.delta[2 * at..].iter().copied());
            outcome.compare(here("delta_sum"), pairs.map(|(got, want)| (got, want, tolerance)));
        }
        if strayed.contains(&true) {
            let mut followed = momentum.to_vec();
            for (&element, &value) in param.stored.iter().zip(param.delta(at)) {
                if strayed[param.chunk_of(element)] {
                    followed[element] = value;
                }
            }
            worker.demo.set_momentum(p, &followed)?;
        }
        Ok(Extracted { sent, scales, tie })
    }

    /// Steps 6 to 8 on every worker: compares the decoded mean (`merged`) and the parameters.
    fn apply(&mut self, p: usize, step: usize, sent: &[Sent], scales: &[f64]) -> Result<(), DemoError> {
        let Replay { run, workers, outcome, slack } = self;
        let slack = &mut slack[p];
        let param = &run.params[p];
        let rate = run.rate(step, param);
        let sent: Vec<&Sent> = sent.iter().collect();
        let here = |kind: &str, worker| place(kind, param, Some(step), worker);

        let (first, others) = workers.split_at_mut(1);
        let first = &mut first[0];
        let merged = first.demo.apply(p, &mut first.params[p], &sent, rate)?;
        for (w, worker) in (1..).zip(&mut *others) {
            let theirs = worker.demo.apply(p, &mut worker.params[p], &sent, rate)?;
            outcome.compare(here("merged", Some(w)), exact(&theirs, &merged));
            outcome.compare(here("params", Some(w)), exact(&worker.params[p], &first.params[p]));
        }

        let recorded = param.merged(step);
        let stored = param.stored.iter().zip(recorded);
        let pairs = stored.map(|(&element, &want)| {
            (merged[element].into(), want.into(), TOLERANCE * scales[param.chunk_of(element)])
        });
        outcome.compare(here("merged", None), pairs);

        let largest = largest_by_chunk(param, &merged);
        let is_undefined = |element: usize, mean: f32| {
            let largest = largest[param.chunk_of(element)];
            largest > 0.0 && f64::from(mean.abs()) <= UNDEFINED_SIGN * largest
        };
        let mut pairs = Vec::with_capacity(recorded.len());
        let mut is_stored = vec![false; merged.len()];
        for ((&element, &mean), &want) in param.stored.iter().zip(recorded).zip(param.params(step)) {
            is_stored[element] = true;
            if is_undefined(element, mean) {
                first.params[p][element] = want;
                others.iter_mut().for_each(|worker| worker.params[p][element] = want);
            } else {
                pairs.push((first.params[p][element].into(), want.into(), 0.0));
            }
        }
        outcome.compare(here("params", None), pairs);

        if let Some(recorded) = &param.sums {
            let area = param.grid.area() as f64;
            let tolerance = TOLERANCE * area * scales.iter().sum::<f64>();
            let pairs = sums(&merged).into_iter().zip(recorded.merged[2 * step..].iter().copied());
            outcome.compare(here("merged_sum", None), pairs.map(|(got, want)| (got, want, tolerance)));

            let arbitrary =
                merged.iter().enumerate().filter(|(e, mean)| !is_stored[*e] && is_undefined(*e, **mean));
            *slack += 2.0 * rate * arbitrary.count() as f64;
            let ours = sums(&first.params[p]);
            let tolerance = SUM_TOLERANCE * ours[1] + *slack;
            let pairs = ours.into_iter().zip(recorded.params[2 * step..].iter().copied());
            outcome.compare(here("params_sum", None), pairs.map(|(got, want)| (got, want, tolerance)));
        }
        Ok(())
    }
}

fn exact(got: &[f32], want: &[f32]) -> impl Iterator<Item = (f64, f64, f64)> {
    got.iter().zip(want).map(|(&got, &want)| (got.into(), want.into(), 0.0))
}

/// The largest magnitude in every chunk.
fn largest_by_chunk(param: &Param, values: &[f32]) -> Vec<f64> {
    let mut largest = vec![0.0f64; param.grid.chunks()];
    for (element, value) in values.iter().enumerate() {
        let largest = &mut largest[param.chunk_of(element)];
        *largest = largest.max(f64::from(value.abs()));
    }
    largest
}

/// Sum and sum of magnitudes.
fn sums(values: &[f32]) -> [f64; 2] {
    values.iter().map(|&v| f64::from(v)).fold([0.0; 2], |[sum, size], v| [sum + v, size + v.abs()])
}

fn by_magnitude(values: &[f32]) -> Vec<f32> {
    let mut sizes: Vec<f32> = values.iter().map(|v| v.abs()).collect();
    sizes.sort_by(f32::total_cmp);
    sizes
}
