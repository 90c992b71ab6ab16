"""The live table: redrawn in place on a terminal, plain lines every few seconds elsewhere. Fits 80x24."""

from __future__ import annotations

import os
import shutil
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, TextIO, Tuple

PLAIN_SECONDS = 5.0
HEADER = ("", "round", "loss", "tokens/s", "peers", "in", "out", "state", "phase")
WIDTHS = (9, 7, 6, 8, 5, 7, 7, 8, 0)
# Phases that would not fit into the rest of 80 columns.
SHORT_PHASES = {"waiting for peers": "waiting"}
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
        lines = [line(HEADER)] + [line(cells(row)) for row in rows[:room]]
        if len(rows) > room:
            lines.append(f"... and {len(rows) - room} more")
        lines.append(total)
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
        self._started = time.monotonic()
