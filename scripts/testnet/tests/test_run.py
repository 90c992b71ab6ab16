"""Whole runs of the testnet with a stand-in for the swarm program."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import unittest
from xml.etree import ElementTree

from testnet.report import NODE_KEYS
from testnet.tests.running import RunCase

TOP_KEYS = [
    "swarm_id",
    "model",
    "parameters",
    "rounds",
    "agreed",
    "validation_loss",
    "baseline_validation_loss",
    "nodes",
]


class Runs(RunCase):
    def test_agreeing_nodes_and_baselines(self):
        code, output = self.run_it("--nodes", "3", "--rounds", "4", "--baseline")
        self.assertEqual(code, 0, output)
        report = self.report()
        self.assertEqual(list(report), TOP_KEYS)
        self.assertEqual([list(node) for node in report["nodes"]], [list(NODE_KEYS)] * 3)
        self.assertTrue(report["agreed"])
        self.assertEqual(report["swarm_id"], "00ff00ff")
        self.assertEqual((report["model"], report["parameters"], report["rounds"]), ("nano", 1000000, 4))
        self.assertEqual(report["baseline_validation_loss"], [2.5, 2.5, 2.5])
        self.assertAlmostEqual(report["validation_loss"], 1.1)
        self.assertIsNone(report["nodes"][0]["personal_validation_loss"], "NaN is not JSON")
        # 400 tokens a node is what the stand-in reports; the baselines were asked for as many.
        self.assertEqual(json.loads((self.out / "alone-2" / "report.json").read_text())["tokens"], 400)
        self.assertIn("better by 1.400 than the best alone", output)
        self.assertIn(str(self.out / "report.html"), output)
        self.assert_nothing_runs()

    def test_the_opening_says_what_happens_and_the_end_what_to_try(self):
        looks = ("", "status"), ("top", "top"), ("top ledger", "ledger"), ("ledger top dashboard", "dashboard")
        for commands, look in looks:
            with self.subTest(commands):
                code, output = self.run_it("--nodes", "2", "--rounds", "2", FAKE_COMMANDS=commands)
                self.assertEqual(code, 0, output)
                for word in ("2 nodes", "nano model", "without a server", str(self.text), "minute", "Watch", "bit for bit"):
                    self.assertIn(word, output)
                self.assertIn(f"Report: {self.out / 'report.html'}", output)
                tries = [shlex.split(line) for line in output.splitlines() if line.startswith(f"    {self.binary} ")]
                self.assertEqual([arguments[1] for arguments in tries], ["generate", look, "run"])
                for arguments in tries:
                    self.assertEqual(arguments[arguments.index("--dir") + 1], str(self.out / "node-1"))
                    known = dict(os.environ, FAKE_COMMANDS=commands or "status")
                    self.assertEqual(subprocess.run([*arguments[:2], "--help"], env=known, capture_output=True).returncode, 0)
                self.out = self.out.with_name(self.out.name + "-again")

    def test_page_is_well_formed_and_has_every_curve(self):
        self.assertEqual(self.run_it("--nodes", "3", "--rounds", "4", "--baseline")[0], 0)
        text = (self.out / "report.html").read_text()
        tree = ElementTree.fromstring(text.split("\n", 1)[1])
        drawn = [path for path in tree.iter("path") if path.find("title") is not None]
        names = sorted(path.find("title").text.split(":")[0] for path in drawn)
        alone = ["alone-1", "alone-2", "alone-3"]
        self.assertEqual(names, sorted(alone + alone + ["node-1", "node-2", "node-3", "shared model"]))
        for path in drawn:
            self.assertEqual(len(re.findall(r"[ML]", path.get("d"))), 4, "four points of history")
        self.assertEqual(len(tree.findall(".//tbody/tr")), 3)
        self.assertIsNone(re.search(r"(src|href)=|url\(|@import", text), "nothing comes from elsewhere")

    def test_different_states_are_not_agreement(self):
        code, output = self.run_it("--nodes", "3", "--rounds", "4", FAKE_DIFFER="node-2")
        self.assertEqual(code, 1)
        self.assertFalse(self.report()["agreed"])
        self.assertIn("different models (node-1, node-3: aaaaaaaa; node-2: cccccccc)", output)
        self.assertIsNone(self.report()["baseline_validation_loss"])

    def test_dead_node_is_named_and_the_others_stopped(self):
        code, output = self.run_it("--nodes", "3", "--rounds", "4", FAKE_DIE="node-2")
        self.assertEqual(code, 1)
        self.assertIn("node-2 ended with exit status 7", output)
        self.assertIn("    the last words of node-2", output)
        report = self.report()
        self.assertFalse(report["agreed"])
        self.assertEqual(report["nodes"][0]["peer_id"], "12D3node-1")
        self.assertEqual(report["nodes"][1]["peer_id"], "12D3node-2", "from its status: it wrote no report")
        self.assertIsNone(report["nodes"][1]["validation_loss"])
        self.assertIn("node-2 ended with exit status 7", (self.out / "report.html").read_text())
        self.assert_nothing_runs()

    def start_and_wait(self, **environment):
        """A run whose nodes are all training and will not end by themselves."""
        process = self.start("--nodes", "2", "--rounds", "4", FAKE_HANG="4", **environment)
        while not all((self.out / f"node-{n}" / "status.json").exists() for n in (1, 2)):
            self.assertIsNone(process.poll(), "the run ended by itself")
            time.sleep(0.01)
        return process

    def test_interrupt_stops_everything_and_reports(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number):
                process = self.start_and_wait()
                process.send_signal(number)
                output = process.communicate()[0]
                self.assertEqual(process.returncode, 130, output)
                self.assertIn("interrupted", (self.out / "report.html").read_text())
                self.assertEqual(len(self.report()["nodes"]), 2)
                self.assertTrue((self.out / "node-2" / "report.json").is_file(), "stopped by SIGINT, not killed")
                self.assert_nothing_runs()
                self.out = self.place / "again"

    def test_second_interrupt_kills_what_ignores_the_first(self):
        process = self.start_and_wait(FAKE_DEAF="1")
        process.send_signal(signal.SIGINT)
        for line in process.stdout:
            if "Stopping" in line:
                process.send_signal(signal.SIGINT)
                break
        output = process.communicate()[0]
        self.assertEqual(process.returncode, 130)
        # The bootstrap node may or may not have got away before that.
        self.assertRegex(output, "Killed as you asked not to wait: (bootstrap, )?node-1, node-2")
        self.assertEqual(len(self.report()["nodes"]), 2)
        self.assert_nothing_runs()

    @unittest.skipUnless(sys.platform.startswith("linux"), "only Linux tells children of their parent's death")
    def test_nothing_is_left_when_the_run_itself_is_killed(self):
        process = self.start_and_wait()
        process.kill()
        process.communicate()
        for _ in range(1000):
            try:
                return self.assert_nothing_runs()
            except AssertionError:
                time.sleep(0.02)
        self.assert_nothing_runs()

    def test_wrong_use_is_told_before_anything_runs(self):
        used = self.place / "used"
        used.mkdir()
        (used / "something").write_text("")
        small = self.place / "small.txt"
        small.write_text("short")
        cases = [
            (["--nodes", "1"], "1 is not between 2 and 64"),
            (["--rounds", "many"], "'many' is not a whole number"),
            (["--data", str(self.place / "nothing")], "does not exist"),
            (["--data", str(small)], "holds 5 bytes of text, but 4 nodes need"),
            (["--out", str(used)], "is not empty"),
            (["--out", str(small)], "is not a folder"),
        ]
        for arguments, message in cases:
            with self.subTest(arguments):
                code, output = self.run_it(*arguments)
                self.assertEqual(code, 2, output)
                self.assertIn(message, output)
        self.assertEqual(list(self.out.glob("node-*")), [])

    def test_finished_folder_is_not_overwritten(self):
        self.assertEqual(self.run_it("--nodes", "2", "--rounds", "2")[0], 0)
        code, output = self.run_it("--nodes", "2", "--rounds", "2")
        self.assertEqual(code, 2)
        self.assertIn("holds a finished run", output)


if __name__ == "__main__":
    unittest.main()
