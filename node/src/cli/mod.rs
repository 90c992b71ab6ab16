//! The command line. One file a command; a flag, its help and its check stand together.

mod access;
mod admit;
#[cfg(feature = "train")]
mod alone;
mod bench;
mod bootstrap;
#[cfg(feature = "train")]
mod chat;
#[cfg(feature = "train")]
mod config;
mod dashboard;
#[cfg(feature = "train")]
mod data;
#[cfg(feature = "train")]
mod eval;
mod export;
mod fork;
#[cfg(feature = "train")]
mod generate;
#[cfg(feature = "train")]
mod given;
#[cfg(feature = "train")]
mod guest;
mod id;
mod invite;
#[cfg(feature = "train")]
mod join;
#[cfg(feature = "train")]
mod lab;
mod ledger;
mod load;
mod logs;
mod net;
mod network_key;
mod new;
#[cfg(feature = "train")]
mod new_lora;
#[cfg(feature = "train")]
mod new_module;
mod pause;
mod peers;
#[cfg(feature = "train")]
mod plan;
mod reference;
mod revoke;
mod rules;
#[cfg(feature = "train")]
mod run;
mod running;
#[cfg(feature = "train")]
mod serve;
#[cfg(feature = "train")]
mod service;
mod sim;
mod status;
mod stop;
#[cfg(feature = "train")]
mod tokenizer;
mod top;
#[cfg(feature = "train")]
mod using;
mod verify;
mod watch;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Arg, Args, CommandFactory, Parser, Subcommand};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Genesis;

use self::access::StatementArgs;
use self::watch::WatchArgs;
use crate::net::{Daily, Limits, NetworkKey, Rate, parse_address, parse_bytes};
use crate::node::{self, Ended};
use crate::settings::{self, Found};
use crate::store::{self, Store};

/// Train one model together with other devices, without a server: each trains on its own text, tells the
/// others only sparse changes of the model, and all end up with the same model.
#[derive(Parser)]
#[command(name = "swarm", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    New(new::New),
    Fork(fork::Fork),
    #[cfg(feature = "train")]
    Run(Box<run::Run>),
    #[cfg(feature = "train")]
    Join(Box<join::Join>),
    Bootstrap(bootstrap::Bootstrap),
    Status(status::Status),
    Top(top::Top),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Stop(stop::Stop),
    Logs(logs::Logs),
    Dashboard(dashboard::Dashboard),
    #[cfg(feature = "train")]
    Config(config::Config),
    #[cfg(feature = "train")]
    Service(service::Service),
    Invite(invite::Invite),
    Peers(peers::Peers),
    Ledger(ledger::LedgerCommand),
    Verify(verify::Verify),
    Id(id::Id),
    Net(net::Net),
    NetworkKey(network_key::MakeNetworkKey),
    Admit(admit::Admit),
    Revoke(revoke::Revoke),
    #[cfg(feature = "train")]
    Generate(Box<generate::Generate>),
    Export(export::Export),
    #[cfg(feature = "train")]
    Tokenizer(tokenizer::Tokenizer),
    #[cfg(feature = "train")]
    Chat(Box<chat::Chat>),
    #[cfg(feature = "train")]
    Serve(Box<serve::Serve>),
    #[cfg(feature = "train")]
    Eval(Box<eval::Eval>),
    #[cfg(feature = "train")]
    Alone(alone::Alone),
    #[cfg(feature = "train")]
    Lab(Box<lab::Lab>),
    #[cfg(feature = "train")]
    Plan(Box<plan::PlanCommand>),
    Sim(Box<sim::Sim>),
    Bench(bench::Bench),
    // For whoever changes the commands.
    #[command(hide = true)]
    Reference(reference::Reference),
}

/// Reads the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let cli = match settled(std::env::args_os().collect(), &|name| std::env::var_os(name)) {
        Ok(found) => Cli::parse_from(found.arguments),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::from(MISUSED);
        }
    };
    log();
    let done = match cli.command {
        Command::New(command) => command.execute(),
        Command::Fork(command) => command.execute(),
        #[cfg(feature = "train")]
        Command::Run(command) => command.execute(),
        #[cfg(feature = "train")]
        Command::Join(command) => command.execute(),
        Command::Bootstrap(command) => command.execute(),
        Command::Status(command) => command.execute(),
        Command::Top(command) => command.execute(),
        Command::Pause(command) => command.execute(),
        Command::Resume(command) => command.execute(),
        Command::Stop(command) => command.execute(),
        Command::Logs(command) => command.execute(),
        Command::Dashboard(command) => command.execute(),
        #[cfg(feature = "train")]
        Command::Config(command) => command.execute(),
        #[cfg(feature = "train")]
        Command::Service(command) => command.execute(),
        Command::Invite(command) => command.execute(),
        Command::Peers(command) => command.execute(),
        Command::Ledger(command) => command.execute(),
        Command::Verify(command) => command.execute(),
        Command::Id(command) => command.execute(),
        Command::Net(command) => command.execute(),
        Command::NetworkKey(command) => command.execute(),
        Command::Admit(command) => command.execute(),
        Command::Revoke(command) => command.execute(),
        #[cfg(feature = "train")]
        Command::Generate(command) => command.execute(),
        Command::Export(command) => command.execute(),
        #[cfg(feature = "train")]
        Command::Tokenizer(command) => command.execute(),
        #[cfg(feature = "train")]
        Command::Chat(command) => command.execute(),
        #[cfg(feature = "train")]
        Command::Serve(command) => command.execute(),
        #[cfg(feature = "train")]
        Command::Eval(command) => command.execute(),
        #[cfg(feature = "train")]
        Command::Alone(command) => command.execute(),
        #[cfg(feature = "train")]
        Command::Lab(command) => command.execute(),
        #[cfg(feature = "train")]
        Command::Plan(command) => command.execute(),
        Command::Sim(command) => command.execute(),
        Command::Bench(command) => command.execute(),
        Command::Reference(command) => command.execute(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Lines to stderr, and once there is a node's folder also to its log.
fn log() {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let filter = tracing_subscriber::EnvFilter::try_from_env("SWARM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error,swarm=info"));
    let shown = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let kept = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_writer(|| crate::logs::Writer)
        .with_ansi(false);
    tracing_subscriber::registry().with(filter).with(shown).with(kept).init();
}

/// Exit status of a command line that is not understood; clap's.
const MISUSED: u8 = 2;
/// Commands that share a file of settings.
const NODES: [&str; 3] = ["run", "join", "bootstrap"];
/// Commands that also look at the environment.
const FOLDERS: [&str; 7] = ["status", "top", "pause", "resume", "stop", "logs", "dashboard"];

/// The command line with what environment and file add to it.
fn settled(given: Vec<OsString>, environment: settings::Environment<'_>) -> Result<Found> {
    let command = given.get(1).and_then(|name| name.to_str());
    let command = command.filter(|name| NODES.contains(name) || FOLDERS.contains(name)).map(str::to_owned);
    // Who asks for help must get it, whatever is in the file.
    let helped = given.iter().any(|argument| argument == "--help" || argument == "-h");
    match command.filter(|_| !helped) {
        Some(command) => {
            let known: Vec<Arg> = NODES.iter().flat_map(|name| flags_of(name)).collect();
            settings::merge(given, &flags_of(&command), &known, environment)
        }
        None => Ok(Found { arguments: given, file: None, from_environment: Vec::new() }),
    }
}

/// The flags of a command.
fn flags_of(command: &str) -> Vec<Arg> {
    let mut program = Cli::command();
    program.build();
    let command = program.find_subcommand(command);
    command.into_iter().flat_map(|command| command.get_arguments().cloned()).collect()
}

/// Flags of every command that runs a node.
#[derive(Args)]
struct NodeArgs {
    /// A file of settings: its keys are these flags' names. A flag that is given wins over the environment (SWARM_DIR for
    /// --dir, and so on), and that over the file. See swarm config. Default: config.toml in the node's folder, if it is
    /// there and --dir is given.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The node's folder: identity, snapshot, status. Made if it is not there.
    /// Default: swarm- and the first digits of the swarm id, in the current folder.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// An address to listen on, such as /ip4/0.0.0.0/tcp/4001. May be repeated.
    /// Default: any free TCP and QUIC port on all addresses, IPv4 and IPv6.
    #[arg(long, value_name = "MULTIADDR", value_parser = parse_address)]
    listen: Vec<Multiaddr>,

    /// The address of any peer of the swarm, such as /ip4/192.168.1.7/tcp/4001. May be repeated.
    #[arg(long, value_name = "MULTIADDR", value_parser = parse_address)]
    bootstrap: Vec<Multiaddr>,

    /// Do not look for peers on the local network (multicast DNS).
    #[arg(long)]
    no_mdns: bool,

    /// Do not ask the router to let others in (UPnP).
    #[arg(long)]
    no_upnp: bool,

    /// Do not pass on bytes between peers that cannot reach each other. Without this, a node that others reach from
    /// outside does so for up to 16 pairs at a time, each for at most an hour and 512 MB. A node with --max-upload
    /// never does: what it passes on would not count.
    #[arg(long)]
    no_relay: bool,

    /// Time between two snapshots: a crash costs at most that much of what this device learned and has not
    /// told anyone yet.
    #[arg(long, value_name = "SECONDS", default_value_t = 300,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    snapshot_seconds: u32,

    /// Bytes of settled rounds that are kept on disk after the node itself needs them no more, so that swarm ledger
    /// reaches back further; the oldest go first. 0 keeps none.
    #[arg(long, value_name = "BYTES", default_value = "256MB", value_parser = parse_bytes)]
    keep_history: u64,

    /// Most bytes a second that are sent, of everything, such as 200kB or 1.5MB; at least 10kB. Where it is tight,
    /// this node's deltas have fewer coefficients, then there are fewer of them; nothing learned is lost. Default: no
    /// limit.
    #[arg(long, value_name = "RATE")]
    max_upload: Option<Rate>,

    /// Most bytes a second that are received, of everything. With less than the swarm's deltas take, this node falls
    /// behind and fetches the model again now and then. Default: no limit.
    #[arg(long, value_name = "RATE")]
    max_download: Option<Rate>,

    /// Most bytes that are sent in a day (UTC), such as 2GB; spread over what is left of the day. Default: no limit.
    #[arg(long, value_name = "BYTES")]
    max_upload_day: Option<Daily>,

    /// Most bytes that are received in a day (UTC). Default: no limit.
    #[arg(long, value_name = "BYTES")]
    max_download_day: Option<Daily>,

    /// The key of a private network, a file that swarm network-key makes: only peers that have it can connect. Uses
    /// TCP alone, because QUIC has no place for such a key.
    #[arg(long, value_name = "FILE")]
    network_key: Option<NetworkKey>,

    #[command(flatten)]
    statements: StatementArgs,

    /// Print what happens to stdout, a JSON object a line and nothing else: started, round, folded, measured, guest,
    /// stopped. The same is in events.jsonl in the node's folder. The log goes to stderr.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    watch: WatchArgs,
}

/// Which swarm a node takes part in.
#[derive(Args)]
struct GenesisArg {
    /// The swarm's genesis file (see `swarm new`). May be left out if --dir already belongs to a swarm.
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
}

impl GenesisArg {
    /// Opens the node's folder and reads the genesis.
    fn open(&self, node: &NodeArgs) -> Result<(Store, Arc<Genesis>)> {
        let genesis = self.genesis.as_deref().map(store::read_genesis).transpose()?;
        let dir = match (&node.dir, &genesis) {
            (Some(dir), _) => dir.clone(),
            (None, Some(genesis)) => default_dir(&genesis.swarm_id()),
            (None, None) => {
                anyhow::bail!("name a genesis with --genesis FILE, or a node's folder with --dir DIR")
            }
        };
        let (store, genesis) = Store::open(&dir, genesis)?;
        Ok((store, Arc::new(genesis)))
    }
}

/// The folder of a node of this swarm, unless another is named.
fn default_dir(swarm: &Digest) -> PathBuf {
    PathBuf::from(format!("swarm-{swarm:.8}"))
}

impl NodeArgs {
    fn setup(&self, store: Store, genesis: Arc<Genesis>) -> Result<node::Setup> {
        crate::logs::keep_in(store.dir())?;
        Ok(node::Setup {
            store,
            genesis,
            listen: listen_at(&self.listen, self.network_key.is_some())?,
            bootstrap: self.bootstrap.clone(),
            mdns: !self.no_mdns,
            rounds: None,
            validates: false,
            snapshot_interval: std::time::Duration::from_secs(self.snapshot_seconds.into()),
            keep_history: self.keep_history,
            allowed: node::Allowed {
                limits: Limits { upload: self.max_upload, download: self.max_download },
                upload_day: self.max_upload_day,
                download_day: self.max_download_day,
            },
            pin: None,
            asked: std::time::Instant::now(),
            relay: !self.no_relay && self.max_upload.is_none() && self.max_upload_day.is_none(),
            upnp: !self.no_upnp,
            key: self.network_key,
            statements: self.statements.read()?,
            governor: None,
            json: self.json,
        })
    }
}

/// The addresses given, or else any free port over every protocol that this machine has and that a private network
/// (with a `key`) allows.
fn listen_at(given: &[Multiaddr], key: bool) -> Result<Vec<Multiaddr>> {
    let is_quic = |address: &Multiaddr| address.iter().any(|part| matches!(part, Protocol::QuicV1));
    if !given.is_empty() {
        let quic = given.iter().find(|address| key && is_quic(address));
        if let Some(address) = quic {
            anyhow::bail!(
                "--listen {address}: QUIC does not go with --network-key; listen on TCP addresses only"
            );
        }
        return Ok(given.to_vec());
    }
    let mut addresses = vec!["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"];
    if std::net::UdpSocket::bind("[::]:0").is_ok() {
        addresses.extend(["/ip6/::/tcp/0", "/ip6/::/udp/0/quic-v1"]);
    }
    let addresses: Result<Vec<Multiaddr>> = addresses.into_iter().map(parse_address).collect();
    Ok(addresses?.into_iter().filter(|address| !key || !is_quic(address)).collect())
}

/// Runs `future` on a runtime of its own; `threads` is for the network, not for training.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(future);
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    done
}

/// A flag that Ctrl-C or a request to terminate sets, for commands that are no node.
fn stop_flag() -> Result<Arc<std::sync::atomic::AtomicBool>> {
    let flag = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let set = flag.clone();
    let wait = move || {
        let stopped = block_on(async {
            node::asked_to_stop().await;
            Ok(())
        });
        set.store(stopped.is_ok(), std::sync::atomic::Ordering::Relaxed);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("no thread for signals")?;
    Ok(flag)
}

/// The last line of a node's run; with `json`, where its stdout is for programs, on stderr.
fn farewell(ended: Ended, dir: &Path, json: bool) {
    let dir = dir.display();
    let words = match ended {
        Ended::Finished => format!("done: all neighbours hold the same model; everything is in {dir}"),
        Ended::Stopped => format!("stopped: everything is in {dir}; the same command goes on from here"),
    };
    if json { eprintln!("{words}") } else { println!("{words}") }
}

/// OpenMP's threads spin while they wait and take the cores from everything else, unless this variable
/// is set before libgomp is loaded, which is before `main`: so the program starts itself once more.
#[cfg(all(unix, feature = "train"))]
fn with_passive_openmp(threads: usize) -> Result<()> {
    use std::os::unix::process::CommandExt;
    const POLICY: &str = "OMP_WAIT_POLICY";
    if threads == 1 || std::env::var_os(POLICY).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let error = std::process::Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(POLICY, "PASSIVE")
        .env("OMP_NUM_THREADS", threads.to_string())
        .exec();
    Err(error).context("cannot start this program again with OMP_WAIT_POLICY=PASSIVE; set it yourself")
}

#[cfg(all(not(unix), feature = "train"))]
fn with_passive_openmp(_threads: usize) -> Result<()> {
    Ok(())
}

/// What `--threads` says, or half of the cores: the rest is for whoever uses the device.
#[cfg(feature = "train")]
fn training_threads(given: Option<usize>) -> Result<usize> {
    let half = || (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1);
    let threads = given.unwrap_or_else(half);
    anyhow::ensure!((1..=1024).contains(&threads), "--threads {threads}: must be between 1 and 1024");
    Ok(threads)
}
