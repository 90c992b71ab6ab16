"""One run: data, genesis, bootstrap node, training nodes, baselines, report, in this order."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, List, Optional, Sequence, TextIO

from testnet import data, page, report
from testnet.options import Options, UserError, cores
from testnet.processes import STOP_SECONDS, Child, describe_exit, stop
from testnet.report import Result, is_number
from testnet.table import Row, Table

DRAW_SECONDS = 0.5
# The bootstrap node has nothing to load: it listens within a second, or never.
BOOTSTRAP_SECONDS = 60.0
# No token trained and no round done by anyone for this long: it will not get better.
STALL_SECONDS = 900.0
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


class Interrupted(Exception):
    """A signal asked for the end."""


class Died(Exception):
    """A process ended that should not have. The text names it and quotes its log."""


class Testnet:
    """One run."""

    def __init__(self, options: Options, binary: str, out: TextIO) -> None:
        self.options = options
        self.binary = binary
        self.out = out
        self.table = Table(out)
        self.signals = 0
        self.threads = max(1, cores() // options.nodes)
        self.folder = options.out
        self.bootstrap: Optional[Child] = None
        self.nodes: List[Child] = []
        self.alone: List[Child] = []
        self.swarm_id = ""
        self.address = ""
        self.problems: List[str] = []
        self._progress: Any = None
        self._progress_at = time.monotonic()

    # Signals only count; the loops ask. Python would otherwise raise in the middle of starting a child.
    def on_signal(self, _number: int, _frame: Any) -> None:
        self.signals += 1

    def say(self, text: str = "") -> None:
        print(text, file=self.out, flush=True)

    def prepare(self) -> data.Split:
        """Makes DIR, the texts and the genesis."""
        self.folder.mkdir(parents=True, exist_ok=True)
        split = data.prepare(self.options.data, self.folder / "data", self.options.nodes, self.options.seed)
        self.say(f"Text: {split.summary}.")
        arguments = [self.binary, "new", "--out", str(self.genesis), "--name", "testnet"]
        arguments += ["--model", self.options.model, "--seed", str(self.options.seed)]
        arguments += ["--horizon", str(self.options.rounds), *self.rules]
        try:
            made = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise UserError(f"{self.binary} cannot be started: {error.strerror}") from error
        found = re.search(r"swarm id:\s*([0-9a-f]+)", made.stdout)
        if made.returncode or not found:
            output = (made.stdout + made.stderr).strip()
            raise UserError(f"'{shlex.join(arguments)}' failed with {describe_exit(made.returncode)}:\n{output}")
        self.swarm_id = found.group(1)
        return split

    @property
    def genesis(self) -> Path:
        return self.folder / "genesis.toml"

    def child(self, name: str, *arguments: str) -> Child:
        folder = self.folder / name
        return Child(name, [self.binary, *arguments, "--dir", str(folder)], folder, self.threads, self.enter(name))

    # What `testnet.chaos` does otherwise.

    # More arguments of `swarm new`.
    rules: Sequence[str] = ()

    def enter(self, _name: str) -> Optional[Callable[[], None]]:
        """What the process of this name does before it becomes the program."""
        return None

    def listen(self, _name: str) -> str:
        """Where it listens."""
        return LOOPBACK

    def first(self) -> int:
        """How many nodes are there from the beginning."""
        return self.options.nodes

    def meanwhile(self) -> bool:
        """Called while the swarm trains; whether something is still to happen."""
        return False

    def rows(self, children: Sequence[Child], progress: Callable[[Child], str]) -> List[Row]:
        return [Row(c.name, c.status, c.exit_code, progress(c)) for c in children]

    def node_progress(self, child: Child) -> str:
        return "" if child is self.bootstrap else f"{child.status.get('round', 0)}/{self.options.rounds}"

    def draw_swarm(self, force: bool = False) -> None:
        done = [min(1.0, self.count(node, "round") / self.options.rounds) for node in self.nodes]
        everyone = ([self.bootstrap] if self.bootstrap else []) + self.nodes
        fraction = sum(done) / self.options.nodes
        self.table.show("swarm", self.rows(everyone, self.node_progress), fraction, force)

    @staticmethod
    def count(child: Child, key: str) -> float:
        value = child.status.get(key)
        return value if is_number(value) else 0

    def pause(self, children: Sequence[Child], draw: Callable[[], None]) -> None:
        """Draws, sleeps, and raises if somebody pressed Ctrl-C, a process died or nothing moves."""
        draw()
        until = time.monotonic() + DRAW_SECONDS
        while time.monotonic() < until and not self.signals:
            time.sleep(0.05)
        if self.signals:
            raise Interrupted()
        dead = [child for child in children if child.died]
        if dead:
            raise Died("\n".join(child.obituary() for child in dead))
        progress = [(child.status.get("round"), child.status.get("tokens"), child.exit_code) for child in children]
        if progress != self._progress:
            self._progress, self._progress_at = progress, time.monotonic()
        elif time.monotonic() - self._progress_at > STALL_SECONDS:
            names = ", ".join(child.name for child in children if child.exit_code is None)
            raise Died(f"nothing has moved for {STALL_SECONDS / 60:.0f} minutes; still running: {names}")

    def start_bootstrap(self) -> str:
        """Starts the bootstrap node and returns the address at which the others find it."""
        arguments = ["bootstrap", "--genesis", str(self.genesis), "--listen", self.listen("bootstrap"), "--no-mdns"]
        self.bootstrap = self.child("bootstrap", *arguments)
        deadline = time.monotonic() + BOOTSTRAP_SECONDS
        while True:
            self.pause([self.bootstrap], self.draw_swarm)
            if self.bootstrap.exit_code is not None:
                raise Died(self.bootstrap.obituary())
            status = self.bootstrap.status
            for address in status.get("listen") or []:
                if "/tcp/" in address:
                    return address if "/p2p/" in address else f"{address}/p2p/{status['peer_id']}"
            if time.monotonic() > deadline:
                raise Died(f"bootstrap does not listen after {BOOTSTRAP_SECONDS:.0f} s: see {self.bootstrap.log}")

    def training_arguments(self, number: int, split: data.Split) -> List[str]:
        """What a node and its baseline have in common, so that the comparison is fair."""
        arguments = ["--genesis", str(self.genesis), "--data", str(split.nodes[number - 1])]
        arguments += ["--threads", str(self.threads), "--validation", str(split.validation)]
        return arguments + ["--seed", str(self.options.seed * 1000 + number)]

    def start_node(self, split: data.Split) -> None:
        """Starts the next node."""
        number = len(self.nodes) + 1
        name = f"node-{number}"
        arguments = ["run", *self.training_arguments(number, split), "--listen", self.listen(name)]
        arguments += ["--bootstrap", self.address, "--rounds", str(self.options.rounds), "--no-mdns"]
        self.nodes.append(self.child(name, *arguments))

    def run_swarm(self, split: data.Split) -> None:
        """Starts all nodes and returns when every one has ended well."""
        self.address = self.start_bootstrap()
        for _ in range(self.first()):
            self.start_node(split)
        bootstrap = self.bootstrap
        self.draw_swarm(force=True)
        while self.meanwhile() or any(node.exit_code is None for node in self.nodes):
            self.pause([bootstrap, *self.nodes], self.draw_swarm)
            if bootstrap.exit_code is not None:
                raise Died(bootstrap.obituary())
        self.draw_swarm(force=True)

    def run_baselines(self, split: data.Split) -> None:
        """Trains every node's text alone, on as many tokens as a node had on average."""
        trained = [(node.report or {}).get("tokens") for node in self.nodes]
        if not all(map(is_number, trained)):
            raise Died("a node's report tells no number of tokens, so there is nothing to compare baselines with")
        tokens = round(sum(trained) / len(trained))
        self.table.leave()
        self.say(f"\nNow each node's text alone, on {tokens:,} tokens: what a node would be without the others.")
        for number in range(1, self.options.nodes + 1):
            arguments = ["alone", *self.training_arguments(number, split), "--tokens", str(tokens)]
            self.alone.append(self.child(f"alone-{number}", *arguments))

        def share(child: Child) -> float:
            return 1.0 if child.exit_code == 0 else min(1.0, self.count(child, "tokens") / max(1, tokens))

        def draw(force: bool = False) -> None:
            rows = self.rows(self.alone, lambda child: f"{100 * share(child):.0f} %")
            self.table.show("alone", rows, sum(map(share, self.alone)) / len(self.alone), force)

        while any(child.exit_code is None for child in self.alone):
            self.pause(self.alone, draw)
        draw(force=True)

    def stop(self, children: Sequence[Child], text: str = "", signals: int = 0) -> None:
        """Stops what runs; more than `signals` signals, those that led here, mean not to wait for it."""
        if text and any(child.exit_code is None for child in children):
            self.say(text)
        killed = stop(children, hurry=lambda: self.signals > signals)
        if killed:
            why = "as you asked not to wait" if self.signals > signals else f"after {STOP_SECONDS:.0f} s"
            self.say(f"Killed {why}: {', '.join(child.name for child in killed)}.")

    def results(self, children: Sequence[Child]) -> List[Result]:
        return [Result(child.name, child.report, child.status) for child in children]

    def write_report(self, split: data.Split) -> bool:
        """Writes report.json and report.html, prints the verdict, and tells whether the nodes agree."""
        nodes = self.results(self.nodes)
        finished = bool(self.alone) and all(child.exit_code == 0 and child.report for child in self.alone)
        baselines = self.results(self.alone) if finished else []
        content, reasons = report.build(
            self.swarm_id, self.options.model, self.options.rounds, nodes, baselines if finished else None, self.options.nodes
        )
        verdict = report.verdict(content)
        report.write_json(self.folder / "report.json", content)
        text = page.page(content, self.problems + reasons, verdict, split.summary, nodes, baselines)
        report.write_text(self.folder / "report.html", text)
        self.say()
        for reason in reasons:
            self.say(f"NOT agreed: {reason}.")
        if content["agreed"]:
            self.say(f"Agreed: all {len(nodes)} nodes hold the same model, state {content['nodes'][0]['state_digest'][:16]}...")
        self.say(verdict)
        return content["agreed"]

    def has(self, command: str) -> bool:
        """Whether this swarm program has a command that takes a node's folder."""
        try:
            told = subprocess.run(
                [self.binary, command, "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
            )
        except OSError:
            return False
        return told.returncode == 0 and "--dir" in told.stdout

    def epilogue(self) -> None:
        folder = str(self.folder / "node-1")
        self.say(f"\nReport: {self.folder / 'report.html'} (and report.json beside it)")
        if not any(node.report for node in self.nodes):
            self.say(f"What each process said is in {self.folder}/*/log.txt")
            return
        # What has to be looked at in a browser first, then on a terminal.
        looks = ("dashboard", ["--dir", folder]), ("ledger", ["--dir", folder]), ("top", ["--once", "--dir", folder])
        look = next(([command, *flags] for command, flags in looks if self.has(command)), ["status", "--dir", folder])
        tries = [
            ("let the model write", ["generate", "--dir", folder, "--prompt", "fn main() {"]),
            ("see what node-1 has seen", look),
            ("let it learn from your text", ["run", "--dir", folder, "--data", "PATH"]),
        ]
        self.say("Three things to try next:")
        for what, arguments in tries:
            self.say(f"  {what}:\n    {shlex.join([self.binary, *arguments])}")
        if not self.options.baseline:
            self.say("What a swarm gains over each alone: the same command again with --baseline.")

    def run(self) -> int:
        """The whole; returns the exit status."""
        split = self.prepare()
        code = 0
        try:
            try:
                self.run_swarm(split)
                self.stop([self.bootstrap])
                if self.options.baseline:
                    self.run_baselines(split)
            except Interrupted:
                code = 130
                self.problems.append("The run was interrupted.")
                self.stop(self.everyone(), "\nStopping; each node writes its report (press Ctrl-C again not to wait).", 1)
            except Died as death:
                code = 1
                self.problems.append(str(death).split("\n", 1)[0].split("; the end of", 1)[0] + ".")
                self.say(f"\nerror: {death}")
                self.stop(self.everyone(), "Stopping the others.")
        finally:
            # Also after an error of this program itself: nothing is left running.
            stop(self.everyone(), hurry=lambda: True)
        agreed = self.write_report(split)
        self.epilogue()
        return code or (0 if agreed else 1)

    def everyone(self) -> List[Child]:
        return ([self.bootstrap] if self.bootstrap else []) + self.nodes + self.alone
