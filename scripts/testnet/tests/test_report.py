"""Agreement, the verdict, and the table's texts."""

import io
import re
import unittest
from unittest import mock

from testnet import report, table
from testnet.chart import ticks
from testnet.report import Result


def node(number, **changes):
    content = {"rounds": 40, "state_digest": "aa", "log_digest": "bb", "validation_loss": 2.0, "parameters": 7}
    content.update(changes)
    return Result(f"node-{number}", content, {})


def build(*nodes, expected=None, baselines=None):
    return report.build("id", "nano", 40, nodes, baselines, len(nodes) if expected is None else expected)


class Agreement(unittest.TestCase):
    def test_all_equal(self):
        content, reasons = build(node(1), node(2, rounds=41))
        self.assertEqual((content["agreed"], reasons, content["rounds"]), (True, [], 40))

    def test_every_way_not_to_agree(self):
        cases = [
            ({"state_digest": "cc"}, "different models"),
            ({"log_digest": "cc"}, "different logs of deltas"),
            ({"state_digest": None}, "node-2 told no digest of the model"),
            ({"log_digest": ""}, "node-2 told no digest of the log"),
            ({"rounds": 39}, "node-2 reached 39 of 40 rounds"),
            ({"rounds": None}, "node-2 reached no of 40 rounds"),
        ]
        for changes, message in cases:
            with self.subTest(changes):
                content, reasons = build(node(1), node(2, **changes))
                self.assertFalse(content["agreed"])
                self.assertRegex("\n".join(reasons), message)

    def test_nodes_that_were_never_started_do_not_agree(self):
        for nodes in ([], [node(1)]):
            content, reasons = build(*nodes, expected=4)
            self.assertFalse(content["agreed"])
            self.assertIn(f"only {len(nodes)} of 4", reasons[0])

    def test_a_node_without_report_counts_by_its_status(self):
        silent = Result("node-2", None, {"round": 12, "peer_id": "p", "state_digest": "aa", "log_digest": "bb"})
        content, reasons = build(node(1), silent)
        self.assertEqual(content["nodes"][1]["rounds"], 12)
        self.assertEqual(content["rounds"], 12)
        self.assertEqual(reasons, ["node-2 reached 12 of 40 rounds"])


class Verdict(unittest.TestCase):
    def test_better_worse_and_incomparable(self):
        def told(*losses):
            alone = [Result("alone", {"validation_loss": loss}, {}) for loss in losses]
            return report.verdict(build(node(1), node(2), baselines=alone or None)[0])

        self.assertIn("together is better by 0.500 than the best alone", told(2.5, 3.0))
        self.assertIn("together is NOT better than the best alone (by 0.500)", told(1.5, 3.0))
        self.assertTrue(told().endswith("2.000 nats a byte."))
        self.assertTrue(told(float("nan")).endswith("2.000 nats a byte."))
        self.assertIn("nothing to compare", report.verdict(build(node(1, validation_loss=None))[0]))


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Texts(unittest.TestCase):
    def test_bytes_and_times(self):
        told = [table.human_bytes(n) for n in (0, 999, 1000, 99_949, 99_950, 999_499, 999_500, 1.5e9, None)]
        self.assertEqual(told, ["0 B", "999 B", "1.0 kB", "99.9 kB", "100 kB", "999 kB", "1.0 MB", "1.5 GB", "-"])
        self.assertEqual([table.human_seconds(n) for n in (5.9, 75, 3675)], ["0:05", "1:15", "1:01:15"])

    def test_every_line_fits_eighty_columns(self):
        status = {
            "phase": "waiting for peers",
            "loss": 12.3456,
            "tokens_per_second": 123456.7,
            "peers": 64,
            "bytes_received": 999_499,
            "bytes_sent": 1.2e12,
            "state_digest": "0123456789abcdef",
        }
        row = table.Row("bootstrap", status, None, "1000/1000")
        self.assertLess(len(table.line(table.cells(row))), 80)

    def test_a_terminal_is_redrawn_in_place_and_never_scrolled(self):
        row = table.Row("node-1", {}, None, "0/40")
        out = Terminal()
        with mock.patch.dict("os.environ", {"TERM": "xterm", "COLUMNS": "60", "LINES": "24"}):
            drawn = table.Table(out)
            drawn.show("swarm", [row] * 3, 0.5)
            drawn.show("swarm", [row] * 40, 0.5)
        first, second = out.getvalue().split("\x1b[5A")
        self.assertEqual(first.count("\n"), 5, "header, three rows, total")
        self.assertLess(second.count("\n"), 24, "forty rows do not fit")
        self.assertIn("... and 20 more", second)
        for text in re.sub(r"\x1b\[\w+|\r", "", first).split("\n"):
            self.assertLess(len(text), 60)

    def test_below_the_rows_is_how_it_goes(self):
        def row(name, digest, loss, log="l", **more):
            status = {"state_digest": digest * 8, "log_digest": log, "loss": loss, **more}
            return table.Row(name, status, None, "1/4")

        out = io.StringIO()
        drawn = table.Table(out)
        for at, loss in enumerate((3.0, 2.5, float("nan"), 2.0)):
            rows = [row("node-1", "a", loss, round=at), row("node-2", "b", loss, "m", round=at)]
            drawn.show("swarm", rows, 0.5, force=True)
        last = out.getvalue().split("\n\n")[-2]
        self.assertIn("loss: 3.000 at first, 2.000 now  █▅▁", last)
        self.assertIn("model: 1 of 2 hold aaaaaaaa now; the others are a few deltas ahead or behind", last)
        self.assertEqual(table.agreement([]), "")
        same = [row("node-1", "a", 1), row("node-2", "a", 1)]
        self.assertEqual(table.agreement(same), "model: 2 of 2 hold aaaaaaaa now, bit for bit")
        self.assertIn("DIFFERENT MODELS", table.agreement([row("node-1", "a", 1), row("node-2", "b", 1)]))

    def test_who_is_kept_from_training_is_named(self):
        held = {"guest": {"trains": False, "words": "paused: on battery 43 %\x1b[2J"}}
        rows = [table.Row(f"node-{n}", held, None, "1/4") for n in (1, 2, 3)]
        out = io.StringIO()
        table.Table(out).show("swarm", rows[:1], 0.5)
        self.assertIn("node-1: paused: on battery 43 %?[2J", out.getvalue())
        out = io.StringIO()
        table.Table(out).show("swarm", rows, 0.5)
        self.assertIn("... and 2 more are kept from training", out.getvalue())
        self.assertEqual(table.held_back(table.Row("node-1", held, 0, "1/4")), "")
        self.assertEqual(table.held_back(table.Row("node-1", {"guest": None}, None, "1/4")), "")

    def test_a_curve_of_any_length_fits(self):
        self.assertEqual(table.curve([], 4, table.BARS), "")
        self.assertEqual(table.curve([1.0, 1.0], 4, table.BARS), "▁▁")
        self.assertEqual(table.curve([8, 8, 4, 4, 1, 1], 3, table.PLAIN_BARS), "#:_")
        self.assertEqual(len(table.curve(list(range(1000)), 40, table.BARS)), 40)

    def test_rows_of_processes_that_said_nothing_or_ended(self):
        self.assertEqual(table.cells(table.Row("node-1", {}, None, "0/4"))[-1], "starting")
        self.assertEqual(table.cells(table.Row("node-1", {"phase": "training"}, 7, "0/4"))[-1], "DIED")
        self.assertEqual(table.cells(table.Row("node-1", {"phase": "training"}, -9, "0/4"))[-1], "KILLED")
        self.assertEqual(table.cells(table.Row("node-1", {"phase": "training"}, 0, "4/4"))[-1], "done")

    def test_ticks_are_round_and_inside(self):
        self.assertEqual(ticks(0, 10, 5), [0, 2, 4, 6, 8, 10])
        self.assertEqual(ticks(1.9, 5.6, 5), [2, 3, 4, 5])
        self.assertEqual(ticks(3, 3, 5), [3])


if __name__ == "__main__":
    unittest.main()
