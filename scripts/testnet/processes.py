"""Starting, watching and stopping the swarm's processes, so that none is ever left behind.

Every child gets a session of its own: the terminal's Ctrl-C reaches only this program, which then stops the
children in order, once. Should this program be killed outright, Linux sends the children SIGINT (the kernel's
parent-death signal); macOS has no such thing.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from testnet.options import UserError

# How long a child may take to write its report and leave after SIGINT, before SIGKILL.
STOP_SECONDS = 20.0
# status.json and report.json are a few kB; anything much larger is not one.
MAX_JSON_BYTES = 64 * 1024 * 1024
TAIL_BYTES = 16 * 1024
TAIL_LINES = 15
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform.startswith("linux") else None


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)


def read_json(path: Path) -> Optional[Dict[str, Any]]:
    """The object in a file, or None while there is none that can be read."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            return None
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def describe_exit(code: int) -> str:
    """An exit status in words; a negative one is the signal that ended the process."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


class Child:
    """One process of the testnet, with its folder: DIR/NAME/{status,report}.json and log.txt."""

    def __init__(
        self, name: str, arguments: Sequence[str], folder: Path, threads: int, enter: Optional[Callable[[], None]] = None
    ) -> None:
        """Starts it; `enter` is called in the new process before the program is."""
        self.name = name
        self.folder = folder
        self.log = folder / "log.txt"
        self._arguments = list(arguments)
        self._threads = threads
        self._enter = enter
        self._status: Dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        self.start()

    def start(self) -> None:
        """Runs the same command, also once more; the log goes on."""
        self.stopped_by_us = False
        # Without PASSIVE OpenMP's threads spin while they wait and take the cores from the other processes.
        environment = dict(os.environ, OMP_NUM_THREADS=str(self._threads), OMP_WAIT_POLICY="PASSIVE")
        with self.log.open("ab") as log:
            try:
                self.process = subprocess.Popen(
                    self._arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=self._before_exec,
                    env=environment,
                )
            except OSError as error:
                raise UserError(f"{self.name} cannot be started: {self._arguments[0]}: {error.strerror}") from error
            except subprocess.SubprocessError as error:
                raise UserError(f"{self.name} cannot be started: {error}") from error

    def _before_exec(self) -> None:
        _die_with_parent()
        if self._enter:
            self._enter()

    def kill(self) -> None:
        """Ends it at once, as a power cut would."""
        self.send(signal.SIGKILL)
        self.process.wait()

    @property
    def exit_code(self) -> Optional[int]:
        """None while it runs."""
        return self.process.poll()

    @property
    def status(self) -> Dict[str, Any]:
        """The latest status.json that could be read; empty before the first."""
        self._status = read_json(self.folder / "status.json") or self._status
        return self._status

    @property
    def report(self) -> Optional[Dict[str, Any]]:
        """report.json, which the process writes at its end."""
        return read_json(self.folder / "report.json")

    @property
    def died(self) -> bool:
        """Ended with a failure that nobody asked for."""
        return self.exit_code not in (None, 0) and not self.stopped_by_us

    def tail(self) -> List[str]:
        """The last lines of the log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
                text = file.read().decode("utf-8", "replace")
        except OSError as error:
            return [f"({self.log}: {error.strerror})"]
        return text.splitlines()[-TAIL_LINES:] or ["(the log is empty)"]

    def obituary(self) -> str:
        """Who died of what, and its last words."""
        lines = [f"{self.name} ended with {describe_exit(self.exit_code or 0)}; the end of {self.log}:"]
        return "\n".join(lines + ["    " + line for line in self.tail()])

    def send(self, number: int) -> None:
        """Sends a signal to the process and whatever it started, if it still runs."""
        if self.exit_code is None:
            self.stopped_by_us = True
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                pass


def stop(children: Sequence[Child], hurry: Callable[[], bool]) -> List[Child]:
    """Asks all children to finish (SIGINT), waits up to STOP_SECONDS or until `hurry`, then kills what is left.

    Returns those that had to be killed. None runs any more."""
    for child in children:
        child.send(signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    while any(c.exit_code is None for c in children) and time.monotonic() < deadline and not hurry():
        time.sleep(0.05)
    left = [child for child in children if child.exit_code is None]
    for child in left:
        child.send(signal.SIGKILL)
    for child in children:
        child.process.wait()
    return left
