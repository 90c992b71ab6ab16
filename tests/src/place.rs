//! A temporary folder with all that a swarm needs, and the command lines of its nodes.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use swarm_protocol::genesis::Genesis;
use tempfile::TempDir;

use crate::process::{Exit, Process};
use crate::program;

/// Values of a genesis that are not the default ones: key and value, as they stand in the file.
pub type Changes<'a> = &'a [(&'a str, &'a str)];

/// Open rounds of [`SMALL`].
pub const WINDOW: u64 = 20;

/// A small model and short rounds, so that a test takes seconds. What gossip loses is found by comparing
/// notes once a second, so the open rounds together must last several seconds (here 4 at least): peers
/// settle different histories otherwise.
pub const SMALL: Changes<'static> = &[
    ("dim", "64"),
    ("layers", "2"),
    ("heads", "2"),
    ("kv_heads", "2"),
    ("head_dim", "32"),
    ("ffn", "128"),
    ("context", "64"),
    ("window", "20"),
    ("retention", "80"),
    ("checkpoint_every", "4"),
    ("round_ms", "5000"),
    ("min_round_ms", "200"),
    ("grace_ms", "2000"),
];

/// A temporary folder; it goes with everything in it when the test ends, unless `SWARM_TESTS_KEEP` is set.
#[derive(Debug)]
pub struct Place {
    dir: TempDir,
}

impl Place {
    /// An empty one.
    ///
    /// # Errors
    /// No folder can be made.
    pub fn new() -> Result<Self> {
        let mut dir = tempfile::Builder::new().prefix("swarm-tests-").tempdir()?;
        dir.disable_cleanup(std::env::var_os("SWARM_TESTS_KEEP").is_some());
        Ok(Self { dir })
    }

    /// One with a small genesis called `genesis.toml`.
    ///
    /// # Errors
    /// As [`Place::genesis`].
    pub fn with_genesis() -> Result<Self> {
        let place = Self::new()?;
        place.genesis("genesis.toml", &[])?;
        Ok(place)
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file into the folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Writes a genesis: what `swarm new` writes, with the values of [`SMALL`] and then `changes`.
    ///
    /// # Errors
    /// The program fails, or a key of `changes` is not in its genesis exactly once.
    pub fn genesis(&self, name: &str, changes: Changes<'_>) -> Result<PathBuf> {
        self.genesis_with(name, &[], changes)
    }

    /// As [`Place::genesis`], with more flags for `swarm new`; files in them are relative to this folder.
    ///
    /// # Errors
    /// As [`Place::genesis`].
    pub fn genesis_with(&self, name: &str, flags: &[&str], changes: Changes<'_>) -> Result<PathBuf> {
        let path = self.path(name);
        let new = ["new", "--force", "--steps", "1", "--batch", "2", "--out"];
        let mut command = Command::new(program::swarm()?);
        let made = command.args(new).arg(&path).args(flags).current_dir(self.dir.path()).output()?;
        ensure!(made.status.success(), "swarm new failed: {}", String::from_utf8_lossy(&made.stderr));
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (key, value) in SMALL.iter().chain(changes) {
            let is_it = |line: &&mut String| line.split_once(" = ").is_some_and(|(left, _)| left == *key);
            let mut found: Vec<&mut String> = lines.iter_mut().filter(is_it).collect();
            ensure!(found.len() == 1, "{key} is {} times in the genesis", found.len());
            for line in &mut found {
                **line = format!("{key} = {value}");
            }
        }
        self.file(name, lines.join("\n"))
    }

    /// Writes a text of about `bytes` bytes; another `seed` gives another text.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn text(&self, name: &str, seed: u64, bytes: usize) -> Result<PathBuf> {
        self.file(name, prose(seed, bytes))
    }

    /// A training node called `name`: its folder is `name`, its text (made here) its own. It listens on
    /// loopback only and uses one thread.
    ///
    /// # Errors
    /// The program cannot be built, or the text not be written.
    pub fn node(&self, name: &str) -> Result<Node> {
        let seed = name.bytes().fold(0u64, |seed, byte| seed.wrapping_mul(256).wrapping_add(byte.into()));
        let text = self.text(&format!("{name}.txt"), seed, 40_000)?;
        self.learner(name, &text)
    }

    /// As [`Place::node`], on these data.
    ///
    /// # Errors
    /// The program cannot be built.
    pub fn learner(&self, name: &str, data: &Path) -> Result<Node> {
        let node = Node::new(self, program::swarm()?, name, "run");
        Ok(node.arg("--threads").arg("1").arg("--data").arg(data))
    }

    /// The id of the swarm of this genesis.
    ///
    /// # Errors
    /// There is no such genesis.
    pub fn swarm_id(&self, genesis: &str) -> Result<String> {
        let text = fs::read_to_string(self.path(genesis))?;
        Ok(Genesis::parse(&text)?.swarm_id().to_string())
    }

    /// A node called `name` that does not train, run by `program`.
    pub fn bootstrap(&self, name: &str, program: &Path) -> Node {
        Node::new(self, program, name, "bootstrap")
    }

    /// Runs the program with `arguments`, relative to this folder, and waits for its end.
    ///
    /// # Errors
    /// It cannot be started, does not end, or panics.
    pub fn swarm<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Exit> {
        thread_local!(static RUNS: Cell<u32> = const { Cell::new(0) });
        let run = RUNS.replace(RUNS.get() + 1);
        let mut command = Command::new(program::swarm()?);
        unsettled(&mut command);
        command.args(arguments).current_dir(self.dir.path()).env("OMP_NUM_THREADS", "1");
        let log = self.path(&format!("command-{run}.log"));
        Process::spawn("swarm", &mut command, self.dir.path(), &log)?.exit()
    }
}

/// How a node is started. [`Node::start`] can be called again: the same command, another run.
#[derive(Clone, Debug)]
pub struct Node {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    dir: PathBuf,
    logs: PathBuf,
    talkative: bool,
    namespace: Option<String>,
    environment: Vec<(String, String)>,
}

impl Node {
    fn new(place: &Place, program: &Path, name: &str, command: &str) -> Self {
        let mut node = Self {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments: vec![command.into(), "--no-mdns".into(), "--no-upnp".into()],
            dir: place.path(name),
            logs: place.dir.path().to_owned(),
            talkative: false,
            namespace: None,
            environment: Vec::new(),
        };
        let dir = node.dir.clone();
        node = node.arg("--dir").arg(dir).arg("--genesis").arg(place.path("genesis.toml"));
        node
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// The log shows more, such as questions that were not answered.
    #[must_use]
    pub fn talkative(mut self) -> Self {
        self.talkative = true;
        self
    }

    /// With this variable in its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// It runs in this network namespace.
    #[must_use]
    pub fn within(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Another genesis than `genesis.toml`.
    #[must_use]
    pub fn genesis(mut self, genesis: &Path) -> Self {
        if let Some(at) = self.arguments.iter().position(|argument| argument == "--genesis")
            && let Some(value) = self.arguments.get_mut(at + 1)
        {
            *value = genesis.into();
        }
        self
    }

    /// By `swarm join` with this invite instead of `swarm run` with a genesis.
    #[must_use]
    pub fn invited(mut self, invite: &str) -> Self {
        if let Some(at) = self.arguments.iter().position(|argument| argument == "--genesis") {
            self.arguments.drain(at..(at + 2).min(self.arguments.len()));
        }
        if let Some(command) = self.arguments.first_mut() {
            *command = "join".into();
        }
        self.arguments.insert(1, invite.into());
        self
    }

    /// When to stop, as `--rounds` takes it.
    #[must_use]
    pub fn rounds(self, rounds: &str) -> Self {
        self.arg("--rounds").arg(rounds)
    }

    /// An address to listen on; without one, it is any free TCP port on loopback.
    #[must_use]
    pub fn listen(self, address: &str) -> Self {
        self.arg("--listen").arg(address)
    }

    /// An address to join through.
    #[must_use]
    pub fn bootstrap(self, address: &str) -> Self {
        self.arg("--bootstrap").arg(address)
    }

    /// The node's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Another folder for the node.
    #[must_use]
    pub fn in_dir(mut self, dir: &Path) -> Self {
        if let Some(at) = self.arguments.iter().position(|argument| argument == "--dir")
            && let Some(value) = self.arguments.get_mut(at + 1)
        {
            *value = dir.into();
            self.dir = dir.to_owned();
        }
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(&self) -> Result<Process> {
        let log = (1..)
            .map(|run| self.logs.join(format!("{}-{run}.log", self.name)))
            .find(|log| !log.exists())
            .context("no name for the log")?;
        let mut command = match &self.namespace {
            // It becomes the program, so the process id is the program's.
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        unsettled(&mut command);
        command.args(&self.arguments).env("OMP_NUM_THREADS", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if self.talkative {
            command.env("SWARM_LOG", "error,swarm=debug");
        }
        if !self.arguments.iter().any(|argument| argument == "--listen") {
            command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
        }
        Process::spawn(&self.name, &mut command, &self.dir, &log)
    }
}

/// Takes out of a program's environment what would be settings for it, such as a test's own SWARM_SEED.
fn unsettled(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("SWARM_") && name != "SWARM_LOG") {
            command.env_remove(&name);
        }
    }
}

/// Text of about `bytes` bytes that a small model can learn a little about.
fn prose(seed: u64, bytes: usize) -> String {
    const WORDS: [&str; 16] = [
        "round", "delta", "peer", "model", "of", "the", "a", "and", "folds", "learns", "late", "shared",
        "own", "text", "again", "more",
    ];
    // Knuth's MMIX generator; its upper bits choose.
    let mut state = seed;
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = WORDS.get((state >> 60) as usize).copied().unwrap_or_default();
        text.push_str(word);
        text.push_str(if (state >> 56).is_multiple_of(16) { ".\n" } else { " " });
    }
    text
}
