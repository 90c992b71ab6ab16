"""Bad weather: what the links do to packets, and how a run in it ends. Skipped without network namespaces."""

import json
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

from testnet.options import ROOT
from testnet.tests.running import RunCase, runs
from testnet.weather import BAD, HOME, _Switch


def permitted():
    # In a process of its own: this one may have to become root of a user namespace for it.
    probe = [sys.executable, "-B", str(ROOT / "scripts" / "testnet"), "--check", "--chaos", "--out", "/nowhere/at/all"]
    return subprocess.run(probe, stdout=subprocess.DEVNULL).returncode == 0


RECEIVE = """
import socket, struct, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("10.77.0.2", 9))
print("ready", flush=True)
while True:
    packet = sock.recv(2000)
    if packet == b"end":
        break
    print(time.monotonic() - struct.unpack("d", packet)[0])
"""

SEND = """
import socket, struct, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[1])):
    sock.sendto(struct.pack("d", time.monotonic()), ("10.77.0.2", 9))
    time.sleep(0.001)
"""

END = """
import socket, time
for _ in range(50):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"end", ("10.77.0.2", 9))
    time.sleep(0.05)
"""

LINKS = """
import json, subprocess, sys
from testnet import weather as testnet_weather
receive, send, end = sys.argv[1:]
weather = testnet_weather.Weather(["a", "b"], testnet_weather.BAD, 7)
def start(name, *arguments):
    command = [sys.executable, "-c", *arguments]
    return subprocess.Popen(command, preexec_fn=weather.enter(name), stdout=subprocess.PIPE, text=True)
receiver = start("b", receive)
assert receiver.stdout.readline() == "ready\\n"
start("a", send, "1000").communicate()
weather.cut("b")
start("a", send, "100").communicate()
weather.heal("b")
print(json.dumps(weather.packets()))
sender = start("a", end)
print(receiver.communicate()[0])
sender.kill()
assert weather.stands
weather.close()
assert not weather.stands
"""


@unittest.skipUnless(permitted(), "this machine gives no network namespaces")
class Links(unittest.TestCase):
    def test_packets_are_lost_delayed_and_stopped_at_a_cut(self):
        command = [sys.executable, "-B", "-c", LINKS, RECEIVE, SEND, END]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT / "scripts")
        self.assertEqual(done.returncode, 0)
        first, *delays = done.stdout.split("\n")
        packets = json.loads(first)
        delays = [float(delay) for delay in delays if delay]
        # 5 % of 1000 with this seed; what was under way when the link was cut did not arrive either.
        self.assertTrue(30 <= packets["lost"] <= 70, packets)
        self.assertGreaterEqual(packets["cut"], 100)
        self.assertGreaterEqual(len(delays), 800)
        self.assertLessEqual(len(delays), 1000 - packets["lost"])
        # A loaded machine adds to the delay, so only its lower end is exact.
        self.assertGreaterEqual(min(delays), BAD.delay_seconds - BAD.jitter_seconds)
        middle = sorted(delays)[len(delays) // 2]
        self.assertLess(middle, 10 * BAD.delay_seconds)
        self.assertNotEqual(delays, sorted(delays))


class Upload(unittest.TestCase):
    def test_a_line_sends_no_faster_than_it_can(self):
        switch = _Switch([0, 1], HOME, 3)
        packet = bytearray(1000)
        packet[0], packet[16:20] = 0x45, bytes([10, 77, 0, 2])
        began = time.monotonic()
        for _ in range(400):
            switch.take(0, bytes(packet))
        due = sorted(entry[0] for entry in switch.queue)
        self.assertGreaterEqual(len(due), 380)
        each = 8 * len(packet) / HOME.upload
        earliest = began + HOME.delay_seconds - HOME.jitter_seconds
        for number, at in enumerate(due, 1):
            self.assertGreaterEqual(at, earliest + number * each)
        latest = time.monotonic() + HOME.delay_seconds + HOME.jitter_seconds
        self.assertLessEqual(due[-1], latest + len(due) * each)


@unittest.skipUnless(permitted(), "this machine gives no network namespaces")
class ChaosRuns(RunCase):
    def test_a_run_that_is_over_before_everything_happened_is_no_pass(self):
        code, output = self.run_it("--chaos")
        self.assertEqual(code, 1, output)
        self.assertIn("had done its rounds before all was over; give it more of them with --rounds", output)
        self.assertTrue((self.out / "chaos.json").is_file())
        self.assert_nothing_runs()

    def test_an_interrupt_leaves_no_process_and_no_namespace(self):
        # Far enough for the first event, not for the second.
        process = self.start("--chaos", FAKE_HANG="5")
        for line in process.stdout:
            if "node-2's link is cut" in line:
                break
        children = [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        self.assertEqual(len(children), 7, "the switch, the bootstrap node, five nodes; the sixth joins later")
        process.send_signal(signal.SIGINT)
        output = process.communicate()[0]
        self.assertEqual(process.returncode, 130, output)
        self.assert_nothing_runs()
        for child in children:
            self.assertFalse(runs(child), "the switch, too, is gone")


@unittest.skipUnless(permitted(), "this machine gives no network namespaces")
class HomeLines(RunCase):
    def test_nodes_behind_home_lines_agree(self):
        code, output = self.run_it("--home-lines", "--nodes", "2", "--rounds", "2")
        self.assertEqual(code, 0, output)
        self.assertIn("a node sends at most 20 Mbit/s", output)
        self.assertIn("packets", output)
        self.assert_nothing_runs()


class Options(RunCase):
    def test_one_kind_of_lines(self):
        code, output = self.run_it("--chaos", "--home-lines")
        self.assertEqual(code, 2, output)
        self.assertIn("choose one", output)

    def test_too_few_for_all_that_happens(self):
        for arguments in (["--nodes", "3"], ["--rounds", "19"]):
            code, output = self.run_it("--chaos", *arguments)
            self.assertEqual(code, 2, output)
            self.assertIn("--chaos needs --nodes 4 and --rounds 20", output)
