//! One run: rounds until the tokens are through, measured on the way, saved so that it can go on.
//!
//! Everything that happens follows from the settings and the text: the learning rate, H and k from the
//! share of the tokens that has been trained, the windows from the seed. `state.bin` holds the team and
//! the curve at some round; a run that goes on from it ends with the same bits as one that was never
//! stopped (on one machine with one thread; libtorch promises no more).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use swarm_protocol::codec;
use tch::Device;

use super::record::{Point, RunResult};
use super::settings::Settings;
use super::team::{self, Orders, Team, TeamState};
use super::text::Text;
use crate::data;
use crate::model::language_model;
use crate::store::{open_checked, set_aside, write_checked};

/// Points of a curve, besides the last.
const POINTS: u64 = 40;
/// Windows that are measured for each of them, and at the end.
const QUICK_WINDOWS: usize = 128;
const FINAL_WINDOWS: usize = 2048;
/// Time between two saved states.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// Time between two lines of progress.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// A state is at most this large.
const MAX_STATE: u64 = 1 << 40;

/// What every run of a sweep has in common.
pub(crate) struct Surroundings {
    pub(crate) text: Text,
    /// Where shards are.
    pub(crate) texts: PathBuf,
    pub(crate) device: Device,
    /// Set when the user wants to stop.
    pub(crate) stop: std::sync::Arc<AtomicBool>,
}

/// How a call to [`run`] ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All tokens are through; the result is in the folder.
    Finished(Box<RunResult>),
    /// The share of the tokens that was asked for is through; this is the result if it ends here.
    Paused(Box<RunResult>),
    /// The user stopped it; the state is saved.
    Stopped,
}

/// What `state.bin` holds. Vectors first would not matter; bincode knows no names.
#[derive(Default, Serialize, Deserialize)]
struct Saved {
    settings: String,
    text: String,
    round: u64,
    tokens: u64,
    bytes: f64,
    seconds: f64,
    training_losses: (f64, u64),
    curve: Vec<Point>,
    team: TeamState,
}

/// Trains until `share` of the tokens is through, going on from what is saved in `folder`. `say` is
/// called with a line of progress now and then.
///
/// # Errors
/// A failure of the device or the disk; text that cannot be read.
pub(crate) fn run(
    settings: &Settings,
    folder: &Path,
    share: f64,
    around: &Surroundings,
    mut say: impl FnMut(&str),
) -> Result<Outcome> {
    if let Some(result) = RunResult::read(folder)? {
        ensure!(
            result.text == around.text.digest,
            "{} holds a result on another text; choose another --out, or remove it",
            folder.display()
        );
        return Ok(Outcome::Finished(Box::new(result)));
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let shards = around.text.shards(&around.texts, settings.learners as usize)?;
    let mut team = team::team(settings, &shards, around.device)?;
    let state_file = folder.join("state.bin");
    let described = toml::to_string(settings)?;
    let mut saved =
        Saved { settings: described.clone(), text: around.text.digest.clone(), ..Saved::default() };
    if let Some(found) = load(&state_file, &mut say)? {
        let same = found.settings == described && found.text == saved.text;
        ensure!(same, "{} is of another run; choose another --out", state_file.display());
        saved = found;
        team.restore(std::mem::take(&mut saved.team))?;
    }
    let genesis = settings.genesis()?;
    let context = language_model(&genesis.model)?.context;
    let validation = data::Text::of_bytes(&around.text.validation, context as usize)?;
    let parameters = genesis.model.parameter_count();
    let tokens_a_step = u64::from(settings.learners) * u64::from(settings.batch) * u64::from(context);
    let until = (settings.tokens as f64 * share).ceil() as u64;
    let began = Instant::now();
    let (seconds_before, tokens_before) = (saved.seconds, saved.tokens);
    let (mut last_save, mut last_said) = (began, None::<Instant>);
    while saved.tokens < until {
        if around.stop.load(Ordering::Relaxed) {
            save(&state_file, &mut saved, team.as_mut())?;
            return Ok(Outcome::Stopped);
        }
        let progress = saved.tokens as f64 / settings.tokens as f64;
        let rate = genesis.training.rate_at(progress);
        // The last round is as short as it has to be: equal tokens for every H.
        let left = (settings.tokens - saved.tokens).div_ceil(tokens_a_step).min(u64::from(u32::MAX)) as u32;
        let (steps, k) = (settings.steps_at(progress).min(left), settings.k_at(progress));
        let done = team.round(Orders { round: saved.round, rate, steps, k })?;
        ensure!(done.tokens > 0, "no learner takes a step: see stragglers and steps");
        let before = saved.tokens * POINTS / settings.tokens;
        saved.round += 1;
        saved.tokens += done.tokens;
        saved.bytes += done.bytes;
        saved.seconds = seconds_before + began.elapsed().as_secs_f64();
        if done.loss.is_finite() {
            saved.training_losses.0 += done.loss;
            saved.training_losses.1 += 1;
        }
        if saved.tokens * POINTS / settings.tokens > before && saved.tokens < settings.tokens {
            let validation_loss = team.validate(&validation, QUICK_WINDOWS)?;
            let (sum, count) = std::mem::take(&mut saved.training_losses);
            saved.curve.push(Point {
                round: saved.round,
                tokens: saved.tokens,
                bytes_per_parameter: saved.bytes / parameters as f64,
                training_loss: sum / count.max(1) as f64,
                validation_loss,
                residual_norm: done.residual_norm,
                displacement_norm: done.displacement_norm,
                rate,
            });
        }
        if last_said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            last_said = Some(Instant::now());
            let elapsed = began.elapsed().as_secs_f64();
            let speed = (saved.tokens - tokens_before) as f64 / elapsed;
            say(&line(&saved, settings, done.loss, speed, until));
        }
        if last_save.elapsed() >= SAVE_EVERY {
            save(&state_file, &mut saved, team.as_mut())?;
            last_save = Instant::now();
        }
    }
    let finished = saved.tokens >= settings.tokens;
    save(&state_file, &mut saved, team.as_mut())?;
    let result = conclude(settings, saved, team.as_mut(), around, parameters, !finished)?;
    if !finished {
        return Ok(Outcome::Paused(Box::new(result)));
    }
    result.write(folder)?;
    discard_state(folder)?;
    Ok(Outcome::Finished(Box::new(result)))
}

/// Measures what a run has reached.
fn conclude(
    settings: &Settings,
    saved: Saved,
    team: &mut dyn Team,
    around: &Surroundings,
    parameters: u64,
    stopped_early: bool,
) -> Result<RunResult> {
    team.settle()?;
    let windows = if stopped_early { QUICK_WINDOWS } else { FINAL_WINDOWS };
    let context = language_model(&settings.genesis()?.model)?.context;
    let validation = &data::Text::of_bytes(&around.text.validation, context as usize)?;
    let validation_loss = team.validate(validation, windows)?;
    let personal_validation_loss = if stopped_early { None } else { team.personal(validation, windows)? };
    let bytes: Vec<u8> = team.parameters()?.iter().flat_map(|value| value.to_le_bytes()).collect();
    let a_step = u64::from(settings.batch) * u64::from(context);
    let trained = saved.tokens as f64 / f64::from(settings.learners);
    let bytes_per_parameter_token = saved.bytes / parameters as f64 / trained;
    let mut curve = saved.curve;
    let last = curve.last().copied().unwrap_or_default();
    curve.push(Point {
        round: saved.round,
        tokens: saved.tokens,
        bytes_per_parameter: saved.bytes / parameters as f64,
        validation_loss,
        training_loss: saved.training_losses.0 / saved.training_losses.1.max(1) as f64,
        ..last
    });
    Ok(RunResult {
        name: settings.label(),
        validation_loss,
        personal_validation_loss,
        bytes_per_parameter_token,
        share_of_dense: bytes_per_parameter_token * a_step as f64 / 4.0,
        tokens: saved.tokens,
        rounds: saved.round,
        parameters,
        residual_norm: last.residual_norm,
        stopped_early,
        seconds: saved.seconds,
        tokens_per_second: saved.tokens as f64 / saved.seconds.max(1e-9),
        text: saved.text,
        model_digest: blake3::hash(&bytes).to_hex().to_string(),
        machine: machine(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        settings: settings.clone(),
        curve,
    })
}

/// Removes the state of a run that has ended.
///
/// # Errors
/// A folder in which nothing can be removed.
pub(crate) fn discard_state(folder: &Path) -> Result<()> {
    let path = folder.join("state.bin");
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn line(saved: &Saved, settings: &Settings, loss: f64, speed: f64, until: u64) -> String {
    let measured =
        saved.curve.last().map(|point| format!(", {:.3} on validation text", point.validation_loss));
    let left = (until.saturating_sub(saved.tokens)) as f64 / speed.max(1e-9);
    let left = if left < 90.0 { format!("{left:.0} s") } else { format!("{:.0} min", left / 60.0) };
    format!(
        "{:3.0} %  {:.2} of {:.2} M tokens, loss {loss:.3}{}, {:.1} k tokens/s, {left} left",
        100.0 * saved.tokens as f64 / settings.tokens as f64,
        saved.tokens as f64 / 1e6,
        settings.tokens as f64 / 1e6,
        measured.unwrap_or_default(),
        speed / 1e3,
    )
}

fn save(path: &Path, saved: &mut Saved, team: &mut dyn Team) -> Result<()> {
    saved.team = team.state()?;
    let bytes = codec::encode(&*saved);
    saved.team = TeamState::default();
    write_checked(path, |out| out.write_all(&bytes))
}

/// What is saved; a damaged file is put aside, and the run begins again.
fn load(path: &Path, say: &mut impl FnMut(&str)) -> Result<Option<Saved>> {
    let read = || -> Result<Option<Saved>> {
        let Some(mut reader) = open_checked(path)? else { return Ok(None) };
        ensure!(reader.limit() <= MAX_STATE, "{} is too large", path.display());
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut bytes)
            .with_context(|| format!("cannot read {}", path.display()))?;
        codec::decode(&bytes).with_context(|| format!("{} is of another version", path.display())).map(Some)
    };
    match read() {
        Ok(saved) => Ok(saved),
        Err(error) => {
            let aside = set_aside(path)?;
            say(&format!("{error:#}; it is now {}, and the run begins again", aside.display()));
            Ok(None)
        }
    }
}

/// The processor's name and the number of cores, as far as this system tells.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let name = model.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name}, {cores} cores, {}", std::env::consts::OS)
}
