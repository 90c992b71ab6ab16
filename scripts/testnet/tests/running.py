"""What tests of whole runs have in common: a place, the stand-in for the swarm program, and how to run it."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from testnet.options import ROOT
from testnet.tests.fake_swarm import install


def runs(pid):
    """Whether a process runs. One that has ended and that nobody has waited for yet does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()


class RunCase(unittest.TestCase):
    def setUp(self):
        self._place = tempfile.TemporaryDirectory()
        self.addCleanup(self._place.cleanup)
        self.place = Path(self._place.name)
        self.binary = install(self.place / "swarm", sys.executable)
        self.text = self.place / "text.txt"
        self.text.write_text("".join(f"line {n} of a text\n" for n in range(4000)))
        self.out = self.place / "out"

    def start(self, *arguments, **environment):
        return subprocess.Popen(
            [str(ROOT / "scripts" / "testnet.sh"), "--data", str(self.text), "--out", str(self.out), *arguments],
            env=dict(os.environ, SWARM_BIN=str(self.binary), **environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run_it(self, *arguments, **environment):
        process = self.start(*arguments, **environment)
        output = process.communicate()[0]
        return process.returncode, output

    def report(self):
        return json.loads((self.out / "report.json").read_text())

    def assert_nothing_runs(self):
        """Every process that wrote a status is gone."""
        for status in self.out.glob("*/status.json"):
            self.assertFalse(runs(json.loads(status.read_text())["pid"]), f"{status} is of a process that still runs")
