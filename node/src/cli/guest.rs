//! Flags that say when and how hard a device may be used, for commands that train.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use swarm_protocol::genesis::Genesis;

use super::run::ComputeArgs;
use crate::governor::{Amount, Networks, Power, Rules, Share, Span, When, Window};
use crate::governor::{bytes, lower_priority, total_memory};
use crate::plan::{Plan, Sample, Scene, Speed};
use crate::train::set_threads;

/// A rule, or that there is none.
#[derive(Clone, Copy, Debug)]
pub(super) enum OrOff<T> {
    /// There is none.
    Off,
    /// There is.
    On(T),
}

impl<T: FromStr<Err = String>> FromStr for OrOff<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            Ok(Self::Off)
        } else {
            text.parse().map(Self::On).map_err(|error| error + ", or off")
        }
    }
}

impl<T: Copy> OrOff<T> {
    fn or(given: Option<Self>, preset: Option<T>) -> Option<T> {
        match given {
            None => preset,
            Some(Self::Off) => None,
            Some(Self::On(value)) => Some(value),
        }
    }
}

/// What to do while a program fills the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FullScreen {
    /// Pause
    Pause,
    /// Train
    Ignore,
}

/// Whom the processor is given first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Priority {
    /// As any program
    Normal,
    /// After all others
    Low,
}

/// Flags of every command that trains and takes part.
#[derive(Args)]
#[command(next_help_heading = "When and how hard to train")]
pub(super) struct GuestArgs {
    /// A start from which the flags below change single rules. Default: always; as a service, idle.
    #[arg(long, value_enum)]
    when: Option<When>,

    /// On which current: any; ac (plugged in, or no battery); or 75%: also on a battery fuller than that.
    /// Default: any; with --when idle or night, ac.
    #[arg(long, value_name = "POWER")]
    power: Option<Power>,

    /// Train only while nobody has touched keyboard or mouse for so long, such as 3m; off for whether or not. Where that
    /// cannot be told, somebody counts as being there. Default: off; with --when idle or night, 3m.
    #[arg(long, value_name = "TIME")]
    idle: Option<OrOff<Span>>,

    /// What to do while a program fills the screen. Default: ignore; with --when idle or night, pause.
    #[arg(long, value_enum, value_name = "WHAT")]
    full_screen: Option<FullScreen>,

    /// Pause while other programs use more of the processor than this, on average over some seconds; or off.
    /// Default: off; with --when idle or night, 25%.
    #[arg(long, value_name = "SHARE")]
    others_cpu: Option<OrOff<Share>>,

    /// Pause while less of the device's memory than this is free; or off.
    /// Default: off; with --when idle or night, 10%.
    #[arg(long, value_name = "SHARE")]
    free_memory: Option<OrOff<Share>>,

    /// Most memory that this program may have, such as 2GB or 50%; or off. It is compared with what swarm plan expects
    /// before training starts, and with what it has while it trains.
    /// Default: off; with --when idle or night, 90%, and 50% while somebody is there.
    #[arg(long, value_name = "AMOUNT")]
    memory: Option<OrOff<Amount>>,

    /// Pause while any sensor of the device is hotter than this, in degrees Celsius.
    #[arg(long, value_name = "DEGREES", value_parser = clap::value_parser!(u16).range(1..=150))]
    temperature: Option<u16>,

    /// Hours of the week in which to train, such as 22:00-07:00 or "mon-fri 18:00-08:00". May be repeated.
    /// Default: all; with --when night, 22:00-07:00.
    #[arg(long, value_name = "WINDOW")]
    hours: Vec<Window>,

    /// On which networks: any; unmetered; or names, as NetworkManager shows them, separated by commas. Elsewhere the
    /// node does not train, and sends and receives next to nothing. A network of which nothing is known counts as
    /// unmetered. Default: any; with --when idle or night, unmetered.
    #[arg(long, value_name = "NETWORKS")]
    network: Option<Networks>,

    /// Pause while a program of this name is running. May be repeated.
    #[arg(long, value_name = "PROGRAM")]
    exclusive: Vec<String>,

    /// Train in this share of the time only, such as 50%: after each step there is a rest. (How many cores a step takes,
    /// --threads says.)
    #[arg(long, value_name = "SHARE")]
    cpu: Option<Share>,

    /// Whom the system gives the processor first. Default: normal; with --when idle or night, low.
    #[arg(long, value_enum)]
    priority: Option<Priority>,

    /// Started by the system, not by somebody: --when is idle if nothing else is said.
    #[arg(long)]
    as_service: bool,
}

impl GuestArgs {
    /// The rules that they make.
    ///
    /// # Errors
    /// A program without a name.
    pub(super) fn rules(&self) -> Result<Rules> {
        let when = self.when.unwrap_or(if self.as_service { When::Idle } else { When::Always });
        let preset = Rules::of(when);
        for name in &self.exclusive {
            ensure!(!name.trim().is_empty(), "--exclusive '{name}': a program has a name");
        }
        let idle = OrOff::or(self.idle, preset.idle.map(Span)).map(|span| span.0);
        Ok(Rules {
            power: self.power.unwrap_or(preset.power),
            idle,
            full_screen: self.full_screen.map_or(preset.full_screen, |what| what == FullScreen::Pause),
            others_cpu: OrOff::or(self.others_cpu, preset.others_cpu),
            free_memory: OrOff::or(self.free_memory, preset.free_memory),
            memory: match self.memory {
                None => preset.memory,
                Some(OrOff::Off) => None,
                Some(OrOff::On(amount)) => Some((amount, amount)),
            },
            temperature: self.temperature.map(f64::from),
            hours: if self.hours.is_empty() { preset.hours } else { self.hours.clone() },
            networks: self.network.clone().unwrap_or(preset.networks),
            exclusive: self.exclusive.clone(),
            share: self.cpu.unwrap_or(preset.share),
            low_priority: self.priority.map_or(preset.low_priority, |priority| priority == Priority::Low),
        })
    }
}

/// Lets other programs go first, if the rules say so.
pub(super) fn set_priority(rules: &Rules) {
    if rules.low_priority
        && let Err(error) = lower_priority()
    {
        tracing::warn!("other programs are not given the processor first: {error}");
    }
}

/// Peers that train, as `swarm plan` assumes it.
const PEERS: u32 = 4;

/// Refuses rules under which there is not enough memory for what training is expected to take.
///
/// # Errors
/// There is not; the text says how much it is and what to do.
pub(super) fn check_memory(
    rules: &Rules,
    genesis: &Genesis,
    compute: &ComputeArgs,
    snapshots: Duration,
) -> Result<()> {
    let (Some((most, _)), Some(total)) = (rules.memory, total_memory()) else { return Ok(()) };
    // How much another kind of model takes is not known before it is there.
    if genesis.model.llama().is_none() {
        return Ok(());
    }
    let threads = compute.threads()?;
    set_threads(threads)?;
    let device = compute.device.resolve()?;
    let speed = Speed::measure(genesis, device, compute.precision, threads)?;
    let scene = Scene {
        peers: PEERS,
        rounds: u64::MAX,
        max_upload: None,
        snapshots,
        precision: compute.precision,
        micro_batch: compute.micro_batch,
        device,
    };
    let expected = Plan::new(genesis, &scene, speed, Sample::take(genesis)?)?.memory.total;
    let most = most.bytes(total);
    ensure!(
        expected <= most,
        "--memory allows this program {}, and it is expected to need {} (swarm plan says for what): allow more, or take \
         less with a smaller --micro-batch",
        bytes(most),
        bytes(expected)
    );
    Ok(())
}
