"""The live table: redrawn in place on a terminal, plain lines every few seconds elsewhere. Fits 80x24.

Below the rows: how the loss went so far, how many hold the same model at this moment, who is kept from training and
why, and how long it will take. All of it is words and numbers; there are no colours.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, TextIO, Tuple

PLAIN_SECONDS = 5.0
HEADER = ("", "round", "loss", "tokens/s", "peers", "in", "out", "state", "phase")
WIDTHS = (9, 7, 6, 8, 5, 7, 7, 8, 0)
# Phases that would not fit into the rest of 80 columns.
SHORT_PHASES = {"waiting for peers": "waiting"}
# Columns of the curve of the loss, and what it is drawn with: from low to high.
CURVE_COLUMNS = 40
BARS, PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
# How far back the speed for the estimate of the remaining time looks.
ETA_WINDOW_SECONDS = 120.0
# An estimate from less than this would jump about.
ETA_LEAST_SECONDS = 5.0


class Row(NamedTuple):
    """One process in the table. `status` is its status.json, empty before the first."""

    name: str
    status: Dict[str, Any]
    exit_code: Optional[int]
    # What the column "round" shows; for a baseline that is a percentage.
    progress: str


def human_bytes(count: Any) -> str:
    """1234567 as '1.2 MB'; '-' for anything that is not a number."""
    if not isinstance(count, (int, float)):
        return "-"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def human_seconds(seconds: float) -> str:
    """75 as '1:15'."""
    whole = max(0, int(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def number(value: Any, form: str) -> str:
    """A number in the given format; '-' for anything else."""
    return format(value, form) if isinstance(value, (int, float)) else "-"


def phase(row: Row) -> str:
    """What the process is doing, in a word or few."""
    if row.exit_code not in (None, 0):
        return "DIED" if row.exit_code > 0 else "KILLED"
    known = str(row.status.get("phase") or "starting")
    if row.exit_code == 0 and known not in ("done", "stopped", "failed"):
        return "done"
    return SHORT_PHASES.get(known, known)


def cells(row: Row) -> List[str]:
    """The texts of a row's columns."""
    status = row.status
    digest = status.get("state_digest")
    return [
        row.name,
        row.progress,
        number(status.get("loss"), ".3f"),
        number(status.get("tokens_per_second"), ",.0f"),
        number(status.get("peers"), "d") if isinstance(status.get("peers"), int) else "-",
        human_bytes(status.get("bytes_received")),
        human_bytes(status.get("bytes_sent")),
        digest[:8] if isinstance(digest, str) and digest else "-",
        phase(row),
    ]


def curve(values: Sequence[float], columns: int, bars: str) -> str:
    """The values as a row of bars; of more than there are columns, the means of as many each."""
    if not values:
        return ""
    columns = min(columns, len(values))
    bounds = [at * len(values) // columns for at in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in zip(bounds, bounds[1:])]
    low, high = min(means), max(means)
    steps = (len(bars) - 1) / (high - low) if high > low else 0.0
    return "".join(bars[round((mean - low) * steps)] for mean in means)


def agreement(rows: Sequence[Row]) -> str:
    """How many hold the same model at this moment, and whether any two that should differ."""
    held: Dict[str, int] = {}
    # The same deltas make the same model: what is not so here would be an error.
    by_log: Dict[str, set] = {}
    for row in rows:
        digest, log = row.status.get("state_digest"), row.status.get("log_digest")
        if isinstance(digest, str) and digest:
            held[digest] = held.get(digest, 0) + 1
            if isinstance(log, str) and log:
                by_log.setdefault(log, set()).add(digest)
    if not held:
        return ""
    digest, most = max(held.items(), key=lambda item: item[1])
    text = f"model: {most} of {len(rows)} hold {digest[:8]} now"
    text += ", bit for bit" if most == len(rows) else "; the others are a few deltas ahead or behind"
    broken = sum(len(digests) > 1 for digests in by_log.values())
    return f"{text}; THE SAME DELTAS MADE DIFFERENT MODELS" if broken else text


def held_back(row: Row) -> str:
    """Why a node's governor keeps it from training; empty if it does not."""
    guest = row.status.get("guest")
    if row.exit_code is not None or not isinstance(guest, dict) or guest.get("trains") is not False:
        return ""
    return f"{row.name}: {guest.get('words') or 'paused'}"


def printable(text: str) -> str:
    """The text without what a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in text)


def line(texts: Sequence[str]) -> str:
    """A line of the table: the first and last column to the left, the others to the right."""
    parts = [texts[0].ljust(WIDTHS[0])]
    parts += [text.rjust(width) for text, width in zip(texts[1:-1], WIDTHS[1:-1])]
    return " ".join(parts) + "  " + texts[-1]


class Table:
    """Draws rows and a total line. `show` may be called as often as one likes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._drawn = 0
        self._last_plain = 0.0
        self._started = time.monotonic()
        self._samples: List[Tuple[float, float]] = []
        # Mean training loss of all nodes, by the furthest one's round or share.
        self._losses: Dict[Any, float] = {}
        unicode = (getattr(out, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
        self._bars = BARS if unicode else PLAIN_BARS

    def _eta(self, now: float, fraction: float) -> str:
        """The remaining time at the pace of the last minutes. Waiting before anything moved does not count."""
        if fraction > 0 and (not self._samples or self._samples[-1][1] != fraction):
            self._samples.append((now, fraction))
        while len(self._samples) > 2 and now - self._samples[0][0] > ETA_WINDOW_SECONDS:
            self._samples.pop(0)
        if not self._samples or fraction >= 1:
            return ""
        (since, before), (latest, done) = self._samples[0], self._samples[-1]
        if latest - since < ETA_LEAST_SECONDS or done <= before:
            return ""
        left = (1 - done) * (latest - since) / (done - before) - (now - latest)
        return f", about {human_seconds(left)} left"

    def _loss(self, rows: Sequence[Row]) -> str:
        """How the loss went so far."""
        told = [row.status.get("loss") for row in rows]
        known = [loss for loss in told if isinstance(loss, (int, float)) and math.isfinite(loss)]
        if not known:
            return ""
        at = max(row.status.get("round") or 0 for row in rows if isinstance(row.status.get("round") or 0, (int, float)))
        self._losses[at] = sum(known) / len(known)
        values = list(self._losses.values())
        drawn = f"  {curve(values, CURVE_COLUMNS, self._bars)}" if len(values) > 1 else ""
        return f"loss: {values[0]:.3f} at first, {values[-1]:.3f} now{drawn}"

    def show(self, title: str, rows: Sequence[Row], fraction: float, force: bool = False) -> None:
        """Draws the table. `fraction` is how much of the work is done, from 0 to 1; `force` draws a plain
        table even if the last is only a moment old."""
        now = time.monotonic()
        if not self._live and not force and now - self._last_plain < PLAIN_SECONDS and self._last_plain:
            return
        self._last_plain = now
        speeds = [r.status.get("tokens_per_second") for r in rows if r.exit_code is None]
        speed = sum(s for s in speeds if isinstance(s, (int, float)))
        total = f"{title}: {100 * fraction:.0f} % after {human_seconds(now - self._started)}"
        total += self._eta(now, fraction) + (f", {speed:,.0f} tokens/s together" if speed else "")
        # The screen may be smaller than the table: rows that do not fit are counted instead.
        size = shutil.get_terminal_size((80, 24)) if self._live else os.terminal_size((80, 10_000))
        room = max(1, size.lines - 4)
        below = [text for text in (self._loss(rows), agreement(rows)) if text]
        held = [text for text in map(held_back, rows) if text]
        if len(held) > 2:
            held = [held[0], f"... and {len(held) - 1} more are kept from training"]
        below += held
        # What is below goes before rows go, but never before the last line.
        below = below[: max(0, room - min(len(rows), room))]
        room = max(1, room - len(below))
        lines = [line(HEADER)] + [line(cells(row)) for row in rows[:room]]
        if len(rows) > room:
            lines.append(f"... and {len(rows) - room} more")
        lines = [printable(text) for text in [*lines, *below, total]]
        if self._live:
            up = f"\x1b[{self._drawn}A" if self._drawn else ""
            body = "".join(text[: size.columns - 1] + "\x1b[K\n" for text in lines)
            self._out.write(f"{up}\r{body}\x1b[J")
            self._drawn = len(lines)
        else:
            self._out.write("\n".join(lines) + "\n\n")
        self._out.flush()

    def note(self, text: str) -> None:
        """A line that stays; the table goes on below it."""
        self._out.write(text + "\n")
        self._out.flush()
        self._drawn = 0
        self._last_plain = 0.0

    def leave(self) -> None:
        """What is printed next stands below the table, which is not redrawn any more."""
        self._drawn = 0
        self._last_plain = 0.0
        self._samples = []
        self._losses = {}
        self._started = time.monotonic()
