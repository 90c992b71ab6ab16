"""Processes of the tests: `swarm dashboard` over a made folder, and a node that trains."""

import os
import pathlib
import re
import subprocess
import time

SWARM = os.environ.get("SWARM_PROGRAM", "swarm")
# Longer than anything takes on a slow machine: a test that waits for so long has failed.
GUARD = 180
URL = re.compile(r"dashboard: (http://\S+)")


class Process:
    """One run of the program. Its output is in a file."""

    def __init__(self, arguments, log):
        self.log = pathlib.Path(log)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SWARM_")}
        environment["OMP_NUM_THREADS"] = "1"
        with open(self.log, "w", encoding="utf-8") as out:
            self.process = subprocess.Popen(
                [SWARM, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment
            )

    def url(self):
        """The page's address, once it is told."""
        until = time.monotonic() + GUARD
        while time.monotonic() < until:
            text = self.log.read_text(encoding="utf-8")
            found = URL.search(text)
            if found:
                return found[1]
            if self.process.poll() is not None:
                raise AssertionError(f"it has ended: {text}")
            time.sleep(0.02)
        raise AssertionError(f"no address: {self.log.read_text(encoding='utf-8')}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def dashboard(folder, log):
    return Process(["dashboard", "--dir", folder], log)


def node(place, log, *more):
    """A node of the swarm of `place`/genesis.toml, in `place`/node, on `place`/text.txt."""
    return Process(
        [
            "run", "--no-mdns", "--no-upnp", "--threads", "1", "--listen", "/ip4/127.0.0.1/tcp/0", "--genesis",
            place / "genesis.toml", "--dir", place / "node", "--data", place / "text.txt", "--snapshot-seconds", "1",
            "--dashboard", *more,
        ],
        log,
    )
