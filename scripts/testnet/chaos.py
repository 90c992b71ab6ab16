"""A run in bad weather: what happens when, and whether it did.

    round   0.15 of all   node-2's link is cut for 30 s; its process knows nothing of it
            0.35          node-3 is killed (SIGKILL), and started again with the same command 10 s later
            0.5           the last node joins
            all along     every link loses 5 % of its packets and holds the others back for 50 ms +- 20 ms

All of it has to happen while the swarm trains, so rounds are no shorter than ROUND_SECONDS here, and a run that
was over before is no pass. What happened is in DIR/chaos.json.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Optional, Sequence, TextIO

from testnet import data, report, weather
from testnet.apart import Apart
from testnet.options import Options
from testnet.processes import Child
from testnet.run import Died
from testnet.table import human_seconds

CUT_SECONDS = 30.0
AWAY_SECONDS = 10.0
ROUND_SECONDS = 4
# Half of the usual steps: six nodes share what may be two cores.
STEPS = 2


class Chaos(Apart):
    """One run in bad weather."""

    line = weather.BAD
    rules: Sequence[str] = ("--steps", str(STEPS), "--min-round-seconds", str(ROUND_SECONDS))

    def __init__(self, options: Options, binary: str, out: TextIO) -> None:
        super().__init__(options, binary, out)
        self.split: Optional[data.Split] = None
        self.began = time.monotonic()
        self.events: List[Dict[str, Any]] = []
        # What is still to come: when (asked twice a second), and what then. They do not wait for each other.
        self.plans = [(self.reached(0.15), self.cut), (self.reached(0.35), self.kill), (self.reached(0.5), self.join)]

    def first(self) -> int:
        return self.options.nodes - 1

    def round(self) -> int:
        """Where the swarm is: as far as half of the running nodes."""
        rounds = sorted(int(self.count(node, "round")) for node in self.nodes if node.exit_code is None)
        return rounds[(len(rounds) - 1) // 2] if rounds else self.options.rounds

    def reached(self, share: float) -> Callable[[], bool]:
        return lambda: self.round() >= max(2, round(share * self.options.rounds))

    @staticmethod
    def passed(seconds: float) -> Callable[[], bool]:
        end = time.monotonic() + seconds
        return lambda: time.monotonic() >= end

    def tell(self, what: str, **more: Any) -> None:
        seconds = time.monotonic() - self.began
        self.events.append({"seconds": round(seconds, 1), "round": self.round(), "what": what, **more})
        self.table.note(f"[{human_seconds(seconds)}] round {self.round()}: {what}")

    def node(self, number: int) -> Child:
        return self.nodes[number - 1]

    def cut(self) -> None:
        self.weather.cut("node-2")
        self.plans.append((self.passed(CUT_SECONDS), self.heal))
        self.tell(f"node-2's link is cut for {CUT_SECONDS:.0f} s", node_round=self.count(self.node(2), "round"))

    def heal(self) -> None:
        self.weather.heal("node-2")
        self.tell("node-2's link is whole again", node_round=self.count(self.node(2), "round"))

    def kill(self) -> None:
        self.node(3).kill()
        self.plans.append((self.passed(AWAY_SECONDS), self.restart))
        self.tell("node-3 is killed (SIGKILL)", node_round=self.count(self.node(3), "round"))

    def restart(self) -> None:
        self.node(3).start()
        self.tell("node-3 is started again, with the same command")

    def join(self) -> None:
        assert self.split is not None
        self.start_node(self.split)
        self.tell(f"{self.nodes[-1].name} joins")

    def meanwhile(self) -> bool:
        """Does what is due; whether something is still to come."""
        super().meanwhile()
        for plan in list(self.plans):
            due, act = plan
            done = [node.name for node in self.nodes if node.exit_code is not None and not node.stopped_by_us]
            if done:
                raise Died(f"{done[0]} had done its rounds before all was over; give it more of them with --rounds")
            if due():
                self.plans.remove(plan)
                act()
        return bool(self.plans)

    def run_swarm(self, split: data.Split) -> None:
        self.split = split
        try:
            super().run_swarm(split)
        finally:
            report.write_json(self.folder / "chaos.json", {"events": self.events, "packets": self.packets})
        self.check_logs()

    def check_logs(self) -> None:
        """The one killed went on from its disk, and nobody saw two deltas of one round."""
        for child in [*self.nodes, *([self.bootstrap] if self.bootstrap else [])]:
            if "signed two deltas" in child.log.read_text(errors="replace"):
                raise Died(f"{child.name} saw somebody sign two deltas for one round: see {child.log}")
        if "going on from round" not in self.node(3).log.read_text(errors="replace"):
            raise Died(f"node-3 did not go on from its disk: see {self.node(3).log}")
