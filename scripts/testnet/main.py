"""The command line: checks it, starts the run, and turns its end into an exit status.

Exit status: 0 if all nodes agree, 1 if they do not or a process died, 2 for a wrong command line, 77 if --chaos
or --home-lines was skipped because this machine gives no network namespaces, 130 after Ctrl-C or a termination signal (the report
is written then too).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import List

from testnet import weather
from testnet.apart import Apart
from testnet.chaos import ROUND_SECONDS, Chaos
from testnet.options import Options, UserError, cores, parse_options
from testnet.run import Testnet

# What automake and others call skipped: neither passed nor failed.
SKIPPED = 77


# Seconds of a core for a round of one node, on the machine of the README's figures.
CORE_SECONDS = {"nano": 3.0, "micro": 30.0, "small": 300.0}


def minutes(options: Options, count: int) -> str:
    """Roughly how long it takes on so many cores."""
    seconds = CORE_SECONDS[options.model] * options.nodes * options.rounds / max(1, min(count, options.nodes))
    if options.chaos:
        # Half of the steps, and rounds that are held up.
        seconds = max(seconds / 2, 1.5 * ROUND_SECONDS * options.rounds)
    if options.baseline:
        seconds *= 2
    whole = max(1, round(seconds / 60))
    return f"{whole} minute{'' if whole == 1 else 's'}" if whole < 120 else f"{whole / 60:.0f} hours"


def opening(options: Options) -> str:
    """What is going to happen, how long it takes, and what to look at."""
    text = f"{options.nodes} nodes, each a process with an identity and text of its own, now train one {options.model} model "
    way = "over loopback"
    if options.chaos or options.home_lines:
        way = f"{'in bad weather' if options.chaos else 'behind home lines'}, each in a network namespace"
    text += f"together for {options.rounds} rounds {way}, without a server"
    if options.baseline:
        text += ", and afterwards each alone for comparison"
    text += f"; everything is written to {options.out}.\n"
    where = options.data or "the sources of the crates that this build downloaded"
    text += f"Each trains on other parts of {where}; some is nobody's, and tells how good the model is.\n"
    text += f"That takes roughly {minutes(options, cores())} on {cores()} cores like those of the README's figures.\n"
    text += "Watch the loss go down, and the column 'state': nodes with the same word there hold the same model, bit for bit."
    return text


def main(arguments: List[str]) -> int:
    """`--check` as the first argument only checks the others and says what they mean."""
    check = arguments[:1] == ["--check"]
    try:
        options = parse_options(arguments[1:] if check else arguments)
        if check:
            if options.chaos or options.home_lines:
                # Better skipped before the build than after it.
                weather.Weather(["probe"], weather.HOME, 0).close()
            print(opening(options), flush=True)
            return 0
        binary = os.environ.get("SWARM_BIN", "")
        if not os.access(binary, os.X_OK) or not Path(binary).is_file():
            raise UserError(f"SWARM_BIN is '{binary}', which is not a program; start scripts/testnet.sh instead")
        kind = Chaos if options.chaos else Apart if options.home_lines else Testnet
        testnet = kind(options, os.path.abspath(binary), sys.stdout)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, testnet.on_signal)
        return testnet.run()
    except weather.NotPermitted as why:
        print(f"SKIPPED: --chaos and --home-lines need network namespaces and TUN devices, and this machine gives none ({why})")
        print("  run it as root, or where users may make user namespaces; it ran nothing and wrote nothing")
        return SKIPPED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
