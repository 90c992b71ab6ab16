//! Runs one simulation: `cargo run --release -p swarm-sim --example sim -- --peers 1000 --loss 0.2`.
//! The flags are those that a violation prints.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use swarm_sim::{Attack, Options, run};

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let started = std::time::Instant::now();
    let mut shown = 0;
    let progress = |progress: swarm_sim::Progress| {
        if progress.round >= shown + options.rounds.div_ceil(10) {
            shown = progress.round;
            eprintln!(
                "round {} of {}, {} peers, {} events, {:.1?}",
                progress.round,
                progress.rounds,
                progress.present,
                progress.events,
                started.elapsed()
            );
        }
    };
    match run(&options, progress) {
        Ok(summary) => {
            print!("{summary}");
            println!("{:<24} {:.1?}", "time taken", started.elapsed());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            println!("{:<24} {:.1?}", "time taken", started.elapsed());
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(flag) = arguments.next() {
        if flag == "--full" {
            options.full = true;
            continue;
        }
        let value = arguments.next().ok_or(format!("{flag}: a value is missing"))?;
        match flag.as_str() {
            "--peers" => options.peers = number(&value)?,
            "--rounds" => options.rounds = number(&value)?,
            "--seed" => options.seed = number(&value)?,
            "--loss" => options.loss = number(&value)?,
            "--duplicate" => options.duplicate = number(&value)?,
            "--reorder" => options.reorder = number(&value)?,
            "--churn" => options.churn = number(&value)?,
            "--newcomers" => options.newcomers = number(&value)?,
            "--partition" => options.partition = Some(time(&value)?),
            "--latency" => options.latency = time(&value)?,
            "--spread" => options.spread = number(&value)?,
            "--bandwidth" => options.bandwidth = number(&value)?,
            "--skew" => options.skew = time(&value)?,
            "--drift" => options.drift = number(&value)?,
            "--slow" => options.slow = number(&value)?,
            "--slowness" => options.slowness = number(&value)?,
            "--byzantine" => options.byzantine = number(&value)?,
            "--attack" => {
                let named = |name| Attack::named(name).ok_or(format!("--attack {name}: no such attack"));
                options.attacks = value.split(',').map(named).collect::<Result<_, _>>()?;
            }
            "--degree" => options.degree = number(&value)?,
            "--round" => options.round = time(&value)?,
            "--window" => options.window = number(&value)?,
            "--publishers" => options.publishers = number(&value)?,
            _ => return Err(format!("{flag}: no such flag")),
        }
    }
    Ok(options)
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text}: not a number"))
}

fn time(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number::<f64>(digits)? * unit;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text}: not a time"))
}
