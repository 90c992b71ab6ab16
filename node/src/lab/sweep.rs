//! Many runs: several at a time, the hopeless stopped early, the page kept up to date.
//!
//! Early stopping is successive halving (Jamieson and Talwalkar, arXiv 1502.07943): all runs go to the
//! first mark; those whose loss there is among the better share go on to the next. Runs that differ in the
//! seed alone stop or go on together, by their mean. A stopped run's result says so.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};

use super::page;
use super::record::{RunResult, summarize, summary_csv};
use super::run::{Outcome, Surroundings, discard_state, run};
use super::settings::{Settings, Sweep};
use crate::store::write_atomically;
use crate::train::set_threads;

/// How the work is spread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Jobs {
    /// Runs at a time.
    pub(crate) count: usize,
    /// libtorch's threads for each.
    pub(crate) threads: usize,
}

/// Where a sweep stands.
struct Board<'a> {
    title: &'a str,
    out: &'a Path,
    waiting: Mutex<VecDeque<usize>>,
    results: Mutex<BTreeMap<usize, RunResult>>,
    failure: Mutex<Option<anyhow::Error>>,
}

/// Runs everything, and writes results and page into `out`. Returns the results in the order of `runs`,
/// or `None` if the user stopped it.
///
/// # Errors
/// The first run that fails, by name; the others' results are written all the same.
pub(crate) fn sweep(
    title: &str,
    runs: &[Settings],
    halving: Option<&Sweep>,
    out: &Path,
    around: &Surroundings,
    jobs: Jobs,
) -> Result<Option<Vec<RunResult>>> {
    let folders: Vec<PathBuf> =
        runs.iter().map(|run| Ok(out.join("runs").join(run.folder()?))).collect::<Result<_>>()?;
    let board =
        Board { title, out, waiting: Mutex::default(), results: Mutex::default(), failure: Mutex::default() };
    let mut alive: Vec<usize> = (0..runs.len()).collect();
    let marks: Vec<f64> = halving.map(|sweep| sweep.at.clone()).unwrap_or_default();
    for mark in marks.into_iter().chain([1.0]) {
        *lock(&board.waiting) = alive.iter().copied().collect();
        std::thread::scope(|scope| {
            for _ in 0..jobs.count.min(alive.len()).max(1) {
                scope.spawn(|| work(&board, runs, &folders, mark, around, jobs.threads));
            }
        });
        if let Some(error) = lock(&board.failure).take() {
            return Err(error);
        }
        if around.stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Ok(None);
        }
        if let (Some(sweep), true) = (halving, mark < 1.0) {
            let results = lock(&board.results);
            let better = better(&alive, &results, sweep.keep);
            for stopped in alive.iter().filter(|run| !better.contains(run)) {
                let Some(result) = results.get(stopped) else { continue };
                say(&format!(
                    "[{}] stopped at {:.0} %: {:.4}",
                    runs[*stopped].label(),
                    100.0 * mark,
                    result.validation_loss
                ));
                result.write(&folders[*stopped])?;
                discard_state(&folders[*stopped])?;
            }
            alive = better;
        }
    }
    board.publish()?;
    Ok(Some(lock(&board.results).values().cloned().collect()))
}

/// The runs that go on: the better share of the names, at least one, judged by their seeds' mean.
fn better(alive: &[usize], results: &BTreeMap<usize, RunResult>, keep: f64) -> Vec<usize> {
    let of = |run: &usize| results.get(run);
    let all: Vec<RunResult> = alive.iter().filter_map(of).cloned().collect();
    let mut ranked = summarize(&all);
    ranked.sort_by(|a, b| a.validation_loss.total_cmp(&b.validation_loss));
    let count = ((ranked.len() as f64 * keep).ceil() as usize).max(1);
    ranked.truncate(count);
    let kept =
        |run: &&usize| of(run).is_some_and(|result| ranked.iter().any(|name| name.name == result.name));
    alive.iter().filter(kept).copied().collect()
}

/// A worker: takes run after run until none waits.
fn work(
    board: &Board<'_>,
    runs: &[Settings],
    folders: &[PathBuf],
    mark: f64,
    around: &Surroundings,
    threads: usize,
) {
    let one = || -> Result<bool> {
        set_threads(threads)?;
        let Some(number) = lock(&board.waiting).pop_front() else { return Ok(false) };
        let settings = &runs[number];
        let name = format!("[{}/{}] {}, seed {}", number + 1, runs.len(), settings.label(), settings.seed);
        let tell = |line: &str| say(&format!("{name}: {line}"));
        let outcome = run(settings, &folders[number], mark, around, tell).with_context(|| name.clone())?;
        match outcome {
            Outcome::Stopped => return Ok(false),
            Outcome::Paused(result) => lock(&board.results).insert(number, *result),
            Outcome::Finished(result) => {
                tell(&format!(
                    "loss {:.4}, {:.2e} bytes a parameter and token, {:.0} s",
                    result.validation_loss, result.bytes_per_parameter_token, result.seconds
                ));
                lock(&board.results).insert(number, *result)
            }
        };
        board.publish()?;
        Ok(!around.stop.load(std::sync::atomic::Ordering::Relaxed))
    };
    loop {
        match one() {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                lock(&board.waiting).clear();
                lock(&board.failure).get_or_insert(anyhow!("{error:#}"));
                return;
            }
        }
    }
}

impl Board<'_> {
    /// Writes the page and the tables as they stand.
    fn publish(&self) -> Result<()> {
        let results: Vec<RunResult> = lock(&self.results).values().cloned().collect();
        let summaries = summarize(&results);
        write_atomically(&self.out.join("summary.csv"), summary_csv(&summaries).as_bytes())?;
        write_atomically(&self.out.join("results.json"), &serde_json::to_vec_pretty(&summaries)?)?;
        write_atomically(
            &self.out.join("index.html"),
            page::render(self.title, &summaries, &results)?.as_bytes(),
        )
    }
}

fn say(line: &str) {
    // Nobody listening is no reason to stop.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
