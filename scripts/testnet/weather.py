"""Bad weather: a network namespace for every node, and between them links that lose and delay packets.

    node-1 | swarm0 (TUN) ──┐
    node-2 | swarm0 (TUN) ──┼── the switch, a process: every packet that leaves a node is lost or held back,
    ...    |   ...        ──┘   as its `Line` says, then handed to whom it is for

What `tc netem` does on a real bridge happens in the switch, one packet at a time, because many kernels come
without netem: every packet is judged once, on the link of the node that sends it, so a question and its answer
take the delay twice; packets overtake each other as they do with netem. A link that is cut passes nothing either way,
and nobody is told.

The namespaces have no names. They belong to the processes in them and to the descriptors held here, so nothing
can be left behind and nothing collides, however this program ends. Root is not needed where the kernel lets
users make user namespaces.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import heapq
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

# A link that holds more than this drops what comes next, as a router's queue does (netem's default limit).
QUEUE_PACKETS = 1000
# Private to the namespaces: nothing outside sees it.
SUBNET = "10.77.0."
DEVICE = b"swarm0"
MTU = 1500

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG = 1
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFMTU = 0x8913, 0x8914, 0x8916, 0x891C, 0x8922
IFF_UP = 0x1


class Line(NamedTuple):
    """The line of every node."""

    name: str
    # Share of the packets sent that are lost.
    loss: float
    # One way; a packet takes so much more or less, each as likely.
    delay_seconds: float
    jitter_seconds: float
    # Bits a second that a node can send; None for no limit.
    upload: Optional[float] = None

    def describe(self) -> str:
        delay, jitter = 1000 * self.delay_seconds, 1000 * self.jitter_seconds
        text = f"Every link loses {100 * self.loss:.0f} % of its packets and holds the others back for {delay:.0f} ms +- {jitter:.0f} ms"
        return text + (f"; a node sends at most {self.upload / 1e6:.0f} Mbit/s." if self.upload else ".")


BAD = Line("bad weather", 0.05, 0.050, 0.020)
HOME = Line("home lines", 0.01, 0.025, 0.005, 20e6)


class NotPermitted(Exception):
    """This machine gives no network namespaces. The text says what was refused."""


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _call(what: str, result: int) -> None:
    if result != 0:
        raise NotPermitted(f"{what}: {os.strerror(ctypes.get_errno())}")


def _enter(namespace: int) -> None:
    _call("entering a network namespace (setns)", _libc().setns(namespace, CLONE_NEWNET))


def _make_namespace() -> None:
    """Puts this process into a new network namespace; if only root of a user namespace may, becomes that."""
    libc = _libc()
    if libc.unshare(CLONE_NEWNET) == 0:
        return
    refused = os.strerror(ctypes.get_errno())
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        raise NotPermitted(f"network namespaces: {refused}; user namespaces: {os.strerror(ctypes.get_errno())}")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _configure(address: str) -> int:
    """Makes the TUN device of the namespace that this process is in; returns its descriptor."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", DEVICE, IFF_TUN | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:

        def inet(request: int, value: str) -> None:
            fcntl.ioctl(control, request, struct.pack("16sHH4s8x", DEVICE, socket.AF_INET, 0, socket.inet_aton(value)))

        fcntl.ioctl(control, SIOCSIFMTU, struct.pack("16si20x", DEVICE, MTU))
        inet(SIOCSIFADDR, address)
        inet(SIOCSIFNETMASK, "255.255.255.0")
        for device in (b"lo", DEVICE):
            flags = struct.unpack("16sH22x", fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sH22x", device, 0)))[1]
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", device, flags | IFF_UP))
    return tun


class _Switch:
    """The process between the nodes."""

    def __init__(self, links: Sequence[int], line: Line, seed: int) -> None:
        self.links = links
        self.line = line
        # Until when each link is busy with what has been handed to it.
        self.busy = [0.0] * len(links)
        self.random = random.Random(seed)
        self.cut = [False] * len(links)
        self.held = [0] * len(links)
        self.count = {"passed": 0, "lost": 0, "cut": 0, "full": 0}
        self.queue: List[Tuple[float, int, int, int, bytes]] = []
        self.sequence = 0

    def take(self, source: int, packet: bytes) -> None:
        """A packet leaves a node."""
        # IPv4 within the subnet; whatever else a kernel says (IPv6 router solicitations) is for nobody.
        if len(packet) < 20 or packet[0] >> 4 != 4 or packet[16:19] != socket.inet_aton(SUBNET + "0")[:3]:
            return
        target = packet[19] - 1
        if not 0 <= target < len(self.links):
            return
        if self.cut[source] or self.cut[target]:
            self.count["cut"] += 1
        elif self.random.random() < self.line.loss:
            self.count["lost"] += 1
        elif self.held[source] >= QUEUE_PACKETS:
            self.count["full"] += 1
        else:
            sent = max(time.monotonic(), self.busy[source])
            if self.line.upload:
                sent += 8 * len(packet) / self.line.upload
            self.busy[source] = sent
            jitter = self.random.uniform(-self.line.jitter_seconds, self.line.jitter_seconds)
            due = sent + self.line.delay_seconds + jitter
            self.sequence += 1
            self.held[source] += 1
            heapq.heappush(self.queue, (due, self.sequence, source, target, packet))

    def hand_over(self) -> None:
        """Whatever is due reaches its node, unless a link was cut meanwhile."""
        now = time.monotonic()
        while self.queue and self.queue[0][0] <= now:
            _, _, source, target, packet = heapq.heappop(self.queue)
            self.held[source] -= 1
            if self.cut[source] or self.cut[target]:
                self.count["cut"] += 1
                continue
            try:
                os.write(self.links[target], packet)
                self.count["passed"] += 1
            except OSError:
                self.count["full"] += 1

    def read(self, source: int) -> None:
        for _ in range(64):
            try:
                self.take(source, os.read(self.links[source], 65536))
            except BlockingIOError:
                return

    def run(self, orders: int, answers: int) -> None:
        """Until the other end of `orders` is closed. An order is two bytes: what, and which link."""
        poll = select.epoll()
        poll.register(orders, select.EPOLLIN)
        for link in self.links:
            poll.register(link, select.EPOLLIN)
        index = {link: number for number, link in enumerate(self.links)}
        while True:
            wait = max(0.0, self.queue[0][0] - time.monotonic()) if self.queue else 1.0
            for descriptor, _ in poll.poll(wait):
                if descriptor in index:
                    self.read(index[descriptor])
                    continue
                order = os.read(orders, 2)
                if len(order) < 2:
                    return
                if order[:1] == b"?":
                    os.write(answers, " ".join(str(count) for count in self.count.values()).encode() + b"\n")
                else:
                    self.cut[order[1]] = order[:1] == b"x"
            self.hand_over()


class Weather:
    """Namespaces for `names`, connected by links that lose and delay; raises NotPermitted where that may not be."""

    def __init__(self, names: Sequence[str], line: Line, seed: int) -> None:
        if not sys.platform.startswith("linux"):
            raise NotPermitted("only Linux has network namespaces")
        self.names = list(names)
        self.namespaces: Dict[str, int] = {}
        links: List[int] = []
        try:
            outside = os.open("/proc/self/ns/net", os.O_RDONLY)
            for number, name in enumerate(self.names):
                _make_namespace()
                self.namespaces[name] = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                links.append(_configure(self.address(name)))
            # A user namespace has no right to go back to where it came from; its own first one does as well.
            if _libc().setns(outside, CLONE_NEWNET) != 0 and ctypes.get_errno() != errno.EPERM:
                raise NotPermitted(f"leaving a network namespace: {os.strerror(ctypes.get_errno())}")
            os.close(outside)
        except OSError as error:
            raise NotPermitted(f"{error.filename or 'a network device'}: {error.strerror}") from error
        self._start_switch(links, line, seed)

    def _start_switch(self, links: List[int], line: Line, seed: int) -> None:
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        parent = os.getpid()
        self.switch = os.fork()
        if self.switch == 0:
            code = 1
            try:
                # Signals of the terminal are for the parent, who tells this one by closing the pipe.
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
                _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                os.close(self._orders)
                if os.getppid() == parent:
                    _Switch(links, line, seed).run(orders, answers)
                code = 0
            except BaseException as error:  # A forked process must never return into the parent's code.
                print(f"the switch between the namespaces failed: {error!r}", file=sys.stderr, flush=True)
            os._exit(code)
        for descriptor in (orders, answers, *links):
            os.close(descriptor)

    def address(self, name: str) -> str:
        return f"{SUBNET}{self.names.index(name) + 1}"

    def enter(self, name: str) -> Callable[[], None]:
        """What a process calls between fork and exec to live in the namespace of `name`."""
        namespace = self.namespaces[name]
        return lambda: _enter(namespace)

    def cut(self, name: str) -> None:
        """From now on nothing reaches `name`, and nothing that it sends reaches anybody."""
        os.write(self._orders, b"x" + bytes([self.names.index(name)]))

    def heal(self, name: str) -> None:
        os.write(self._orders, b"o" + bytes([self.names.index(name)]))

    def packets(self) -> Dict[str, int]:
        """How many packets were passed on, lost, stopped at a cut link, and dropped at a full queue."""
        os.write(self._orders, b"?\0")
        answer = os.read(self._answers, 4096).split()
        return dict(zip(("passed", "lost", "cut", "full"), map(int, answer)))

    @property
    def stands(self) -> bool:
        """Whether the switch still runs."""
        if self.switch and os.waitpid(self.switch, os.WNOHANG)[0]:
            self.switch = 0
        return self.switch != 0

    def close(self) -> None:
        """Ends the switch and lets the namespaces go."""
        if self.switch == 0:
            return
        os.close(self._orders)
        try:
            os.waitpid(self.switch, 0)
        except ChildProcessError:
            pass
        self.switch = 0
        for descriptor in (self._answers, *self.namespaces.values()):
            os.close(descriptor)
