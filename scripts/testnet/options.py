"""The command line of scripts/testnet.sh, and what can be found wrong with it before anything is built."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

MODELS = ("nano", "micro", "small")
MAX_NODES = 64
# The repository: this file is scripts/testnet/options.py in it.
ROOT = Path(__file__).resolve().parent.parent.parent


class UserError(Exception):
    """Something the user can put right. The text says what is wrong and what to do."""


@dataclass
class Options:
    """What the user asked for, checked."""

    nodes: int
    rounds: int
    model: str
    data: Optional[Path]
    out: Path
    baseline: bool
    seed: int
    chaos: bool
    home_lines: bool


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _number(low: int, high: int):
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not between {low} and {high}")
        return value

    return parse


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(
        prog="scripts/testnet.sh",
        description="Trains one model with a whole swarm on this machine: separate processes, each with its own "
        "identity, folder and private text, connected over loopback. Shows one live table, ends with a report, "
        "and exits 0 only if all nodes hold the same model, bit for bit.",
        epilog="SWARM_BIN=PATH uses that swarm program instead of building one. Ctrl-C stops everything and still "
        "writes the report; a second Ctrl-C does not wait.",
    )
    parse.add_argument(
        "--nodes", type=_number(2, MAX_NODES), metavar="N", help="training nodes (default 4; with --chaos 6, at least 4)"
    )
    parse.add_argument(
        "--rounds", type=_number(1, 1_000_000), metavar="N", help="rounds (default 40; with --chaos 30, at least 20)"
    )
    parse.add_argument(
        "--chaos",
        action="store_true",
        help="bad weather (Linux): every node in a network namespace of its own, links that lose 5 %% of all packets and "
        "hold the others back for 50 ms +- 20 ms; one link is cut for 30 s, one node is killed and comes back, one "
        "joins in the middle. Ends with status 77 and a word where namespaces are not permitted",
    )
    parse.add_argument(
        "--home-lines",
        action="store_true",
        help="slow lines (Linux): every node in a network namespace of its own, with 20 Mbit/s to send, 50 ms to others and "
        "back, and 1 %% of all packets lost. The report tells what share of its time each node trains",
    )
    parse.add_argument(
        "--model", choices=MODELS, default="nano", help="nano (1 M parameters, default), micro (10 M), small (100 M)"
    )
    parse.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="a text file, or a folder with text files; each node gets a region of it of its own, the end is held "
        "out. Default: the sources of the crates that the build downloaded, other crates for every node",
    )
    parse.add_argument(
        "--out", type=Path, metavar="DIR", help="a new or empty folder (default: testnet/run-1, run-2, ... in the repository)"
    )
    parse.add_argument(
        "--baseline", action="store_true", help="afterwards also train each node's text alone, on as many tokens"
    )
    parse.add_argument("--seed", type=_number(0, 2**31 - 1), default=0, metavar="N", help="of everything random (default 0)")
    return parse


def _check_out(out: Path) -> None:
    if out.is_symlink() and not out.exists():
        raise UserError(f"--out {out} is a broken link; remove it or name another folder")
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out {out} is not a folder; name a new or empty one")
    if not any(out.iterdir()):
        return
    if (out / "report.json").is_file() and (out / "node-1").is_dir():
        raise UserError(
            f"--out {out} holds a finished run: its report is {out / 'report.html'}\n"
            f"  for another run name another folder, or remove this one first: rm -r '{out}'"
        )
    raise UserError(f"--out {out} is not empty; name a new or empty folder")


def _fresh_folder() -> Path:
    number = 1
    while (ROOT / "testnet" / f"run-{number}").exists():
        number += 1
    return ROOT / "testnet" / f"run-{number}"


def parse_options(arguments: List[str]) -> Options:
    """The options in `arguments`; ends the program with a message if one is not understood.

    Raises UserError for what cannot work: no such data, a folder that is in use. Creates nothing."""
    given = parser().parse_args(arguments)
    data = given.data.expanduser() if given.data else None
    if data and not data.exists():
        raise UserError(f"--data {data} does not exist; name a text file or a folder with text files")
    out = given.out.expanduser() if given.out else _fresh_folder()
    _check_out(out)
    nodes, rounds = (given.nodes or 6, given.rounds or 30) if given.chaos else (given.nodes or 4, given.rounds or 40)
    if given.chaos and (nodes < 4 or rounds < 20):
        raise UserError("--chaos needs --nodes 4 and --rounds 20 at least: fewer leave no time and nobody for all that happens")
    if given.chaos and given.home_lines:
        raise UserError("--chaos and --home-lines are two kinds of lines; choose one")
    out = Path(os.path.abspath(out))
    return Options(nodes, rounds, given.model, data, out, given.baseline, given.seed, given.chaos, given.home_lines)
