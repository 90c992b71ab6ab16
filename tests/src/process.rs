//! One run of a program: what it says about itself, and how it ends.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::GUARD;

/// Time between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);
/// How long a process that stops others may take to do so when a test ends before it.
const FAREWELL: Duration = Duration::from_secs(10);
/// Lines of a log that an error quotes.
const TAIL: usize = 25;

/// What can be sent to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// A polite request to end, as an init system sends it.
    Terminate,
    /// An end at once, wherever it is.
    Kill,
    /// Hold it where it is.
    Stop,
    /// Let it go on.
    Continue,
}

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Its exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output and error.
    pub log: String,
}

impl Exit {
    /// Checks that it ended with status `code` and that its output has all of `words`.
    ///
    /// # Errors
    /// It did not; the text has the output.
    pub fn refused(&self, code: i32, words: &[&str]) -> Result<()> {
        let Self { code: ended, log } = self;
        ensure!(*ended == Some(code), "ended with {ended:?} instead of {code}; its output:\n{log}");
        for word in words {
            ensure!(log.contains(word), "'{word}' is not in its output:\n{log}");
        }
        Ok(())
    }
}

/// A running process, or one that has ended. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    dir: PathBuf,
    log: PathBuf,
    ended: Option<ExitStatus>,
    parent: bool,
}

impl Process {
    /// Starts `command`; its output goes to the file `log`, and `dir` is the node's folder.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(name: &str, command: &mut Command, dir: &Path, log: &Path) -> Result<Self> {
        Self::spawn_with(Stdio::null(), name, command, dir, log)
    }

    /// As [`Process::spawn`], with something to read.
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn spawn_with(
        input: Stdio,
        name: &str,
        command: &mut Command,
        dir: &Path,
        log: &Path,
    ) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        let errors = out.try_clone()?;
        let child = command
            .stdin(input)
            .stdout(out)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("{name} cannot be started: {}", command.get_program().display()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            dir: dir.to_owned(),
            log: log.to_owned(),
            ended: None,
            parent: false,
        })
    }

    /// The process has children that it stops itself when it is interrupted: a test that ends before it
    /// gives it the time for that.
    #[must_use]
    pub fn with_children(mut self) -> Self {
        self.parent = true;
        self
    }

    /// Writes a line into its input, which must be a pipe.
    ///
    /// # Errors
    /// It is none, or nobody reads there any more.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("it has no input")?;
        writeln!(input, "{line}").with_context(|| format!("{} does not listen", self.name))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Standard output and error so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What this process last wrote into `status.json`; `None` before the first time.
    pub fn status(&self) -> Option<Value> {
        let status: Value = serde_json::from_slice(&fs::read(self.dir.join("status.json")).ok()?).ok()?;
        (status["pid"].as_u64() == Some(self.id().into())).then_some(status)
    }

    /// What the last run in this folder wrote into `report.json`.
    ///
    /// # Errors
    /// There is none.
    pub fn report(&self) -> Result<Value> {
        let path = self.dir.join("report.json");
        let bytes =
            fs::read(&path).with_context(|| format!("{} has no report: {}", self.name, path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no JSON", path.display()))
    }

    /// Waits until the status is as `condition` wants it, and returns it. `what` says it in words.
    ///
    /// # Errors
    /// The process ended, or it took longer than [`GUARD`]; the text has the end of its log.
    pub fn wait_for(&mut self, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        self.until(what, |process| process.status().filter(|status| condition(status)))
    }

    /// Waits until the process says that it is in this phase.
    ///
    /// # Errors
    /// As [`Self::wait_for`].
    pub fn wait_for_phase(&mut self, phase: &str) -> Result<Value> {
        self.wait_for(&format!("the phase '{phase}'"), |status| status["phase"] == phase)
    }

    /// Waits until the log holds `text`.
    ///
    /// # Errors
    /// As [`Self::wait_for`].
    pub fn wait_for_log(&mut self, text: &str) -> Result<()> {
        self.until(&format!("'{text}' in its log"), |process| {
            process.log().ok()?.contains(text).then_some(())
        })
    }

    /// Waits until the process trains for `round` or a later one.
    ///
    /// # Errors
    /// As [`Self::wait_for`].
    pub fn wait_for_round(&mut self, round: u64) -> Result<u64> {
        let reached = |status: &Value| status["round"].as_u64().filter(|at| *at >= round);
        let status = self.wait_for(&format!("round {round}"), |status| reached(status).is_some())?;
        reached(&status).context("no round")
    }

    /// Waits until `look` finds something.
    ///
    /// # Errors
    /// As [`Self::wait_for`].
    pub fn until<T>(&mut self, what: &str, look: impl Fn(&Self) -> Option<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            // Looked at before the last look, so that what it did just before it ended counts.
            let ended = self.try_wait()?;
            if let Some(found) = look(self) {
                return Ok(found);
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}) before {what}; its log:\n{}", self.name, self.tail());
            }
            if began.elapsed() > GUARD {
                let status = self.status().unwrap_or_default();
                bail!(
                    "{} did not get to {what} in {} s; its status: {status}; its log:\n{}",
                    self.name,
                    GUARD.as_secs(),
                    self.tail()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It cannot be sent, because the process has ended for example.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.try_wait()? {
            bail!("{} ended ({status}) before it was sent {signal:?}; its log:\n{}", self.name, self.tail());
        }
        if signal == Signal::Kill {
            return self.child.kill().with_context(|| format!("cannot kill {}", self.name));
        }
        let name = match signal {
            Signal::Interrupt => "INT",
            Signal::Terminate => "TERM",
            Signal::Kill => "KILL",
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        };
        // The shell's own kill: it is on every Unix, and needs no unsafe code here. The child has not been
        // waited for, so the number is still its own.
        let sent = Command::new("sh").arg("-c").arg(format!("kill -s {name} {}", self.id())).output()?;
        let words = String::from_utf8_lossy(&sent.stderr);
        ensure!(sent.status.success(), "cannot send {name} to {}: {words}", self.name);
        Ok(())
    }

    /// Waits for the end, whichever it is.
    ///
    /// # Errors
    /// It does not end within [`GUARD`], or it panicked.
    pub fn exit(&mut self) -> Result<Exit> {
        let ended = self.until("its end", |process| process.ended)?;
        let log = self.log()?;
        ensure!(!log.contains("panicked"), "{} panicked; its log:\n{}", self.name, self.tail());
        Ok(Exit { code: ended.code(), log })
    }

    /// Waits for the end, which must be a good one, and returns the log.
    ///
    /// # Errors
    /// As [`Self::exit`], or it failed.
    pub fn success(&mut self) -> Result<String> {
        let Exit { code, log } = self.exit()?;
        ensure!(code == Some(0), "{} ended with {code:?}; its log:\n{}", self.name, self.tail());
        Ok(log)
    }

    /// Interrupts the process as Ctrl-C does, and waits for its end, which must be a good one.
    ///
    /// # Errors
    /// As [`Self::success`].
    pub fn interrupt(&mut self) -> Result<String> {
        self.signal(Signal::Interrupt)?;
        self.success()
    }

    /// Kills the process, as a power cut would.
    ///
    /// # Errors
    /// It had ended by itself.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::Kill)?;
        self.exit().map(drop)
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))?;
        }
        Ok(self.ended)
    }

    fn tail(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(TAIL);
        lines.iter().skip(from).map(|line| format!("    {line}\n")).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of {} ({}):\n{}", self.name, self.log.display(), self.tail());
        }
        if self.parent && self.signal(Signal::Interrupt).is_ok() {
            let began = Instant::now();
            while began.elapsed() < FAREWELL && matches!(self.try_wait(), Ok(None)) {
                std::thread::sleep(POLL);
            }
        }
        // Both fail only if it has ended, and then there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
