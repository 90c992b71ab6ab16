"""A run with every node in a network namespace of its own, behind a line that is not perfect.

What the line is like is a `weather.Line`; nothing else is different from a run over loopback.
"""

from __future__ import annotations

from typing import Callable, Dict, Optional, TextIO

from testnet import data, weather
from testnet.options import Options
from testnet.run import Died, Testnet


class Apart(Testnet):
    """One run of nodes that are apart."""

    line = weather.HOME

    def __init__(self, options: Options, binary: str, out: TextIO) -> None:
        super().__init__(options, binary, out)
        names = ["bootstrap", *(f"node-{number}" for number in range(1, options.nodes + 1))]
        self.weather = weather.Weather(names, self.line, options.seed)
        # What became of all packets, once the run is over.
        self.packets: Dict[str, int] = {}

    def enter(self, name: str) -> Optional[Callable[[], None]]:
        # Baselines need no network, and have none of these names.
        return self.weather.enter(name) if name in self.weather.names else None

    def listen(self, name: str) -> str:
        return f"/ip4/{self.weather.address(name)}/tcp/0"

    def meanwhile(self) -> bool:
        if not self.weather.stands:
            raise Died("the switch between the namespaces has ended; what it said is above")
        return super().meanwhile()

    def run_swarm(self, split: data.Split) -> None:
        self.say(self.line.describe())
        try:
            super().run_swarm(split)
        finally:
            self.packets = self.weather.packets() if self.weather.stands else {}
        self.table.leave()
        if self.packets:
            total = self.packets["passed"] + self.packets["lost"]
            self.say(
                f"\nOf {total:,} packets {100 * self.packets['lost'] / max(1, total):.1f} % were lost; "
                f"{self.packets['cut']:,} more ended at a cut link, {self.packets['full']:,} at full queues."
            )

    def run(self) -> int:
        try:
            return super().run()
        finally:
            self.weather.close()
