"""A line chart as inline SVG, readable at any width.

Only the curves are SVG, stretched over the plot's box with strokes that keep their width; the tick labels are
HTML placed by percentages, so that on a phone the chart shrinks and the text does not.
"""

from __future__ import annotations

import html
import math
from typing import List, NamedTuple, Sequence, Tuple

WIDTH, HEIGHT = 1000, 500
# More points than this add size to the page and nothing to see.
MAX_POINTS = 400
COLORS = 8


class Curve(NamedTuple):
    """One line: points (x, y), a style (node, alone, shared) and a colour's number."""

    label: str
    points: Sequence[Tuple[float, float]]
    style: str
    color: int


def ticks(low: float, high: float, count: int) -> List[float]:
    """Round numbers between low and high, about `count` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """1500000 as 1.5M, 2000 as 2k, 0.25 as 0.25."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def thin(points: Sequence[Tuple[float, float]]) -> List[Tuple[float, float]]:
    """At most about MAX_POINTS of them, the last always among them."""
    step = max(1, math.ceil(len(points) / MAX_POINTS))
    kept = list(points[::step])
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return kept


def chart(title: str, x_label: str, y_label: str, curves: Sequence[Curve]) -> str:
    """The chart as HTML; a sentence instead if no curve has a point."""
    drawn = [curve for curve in curves if curve.points]
    head = f"<h2>{html.escape(title)}</h2>"
    if not drawn:
        return head + "<p>There is nothing to draw: no process reported any point of these curves.</p>"
    xs = [x for curve in drawn for x, _ in curve.points]
    ys = [y for curve in drawn for _, y in curve.points]
    x_low, x_high = min(0.0, min(xs)), max(xs) if max(xs) > 0 else 1.0
    y_low, y_high = min(ys), max(ys)
    margin = 0.05 * (y_high - y_low) or 0.5
    y_low, y_high = y_low - margin, y_high + margin

    def place(x: float, y: float) -> Tuple[float, float]:
        return (x - x_low) / (x_high - x_low), (y_high - y) / (y_high - y_low)

    grid, labels, lines, legend = [], [], [], []
    for value in ticks(y_low, y_high, 5):
        _, down = place(x_low, value)
        grid.append(f'<path class="grid" d="M0 {down * HEIGHT:.1f}H{WIDTH}"/>')
        labels.append(f'<span class="y" style="top:{100 * down:.2f}%">{short(value)}</span>')
    for value in ticks(x_low, x_high, 4):
        right, _ = place(value, y_low)
        labels.append(f'<span class="x" style="left:{100 * right:.2f}%">{short(value)}</span>')
    for curve in drawn:
        points = [place(x, y) for x, y in thin(curve.points)]
        path = "L".join(f"{right * WIDTH:.1f} {down * HEIGHT:.1f}" for right, down in points)
        # A lone point is a line of no length, which round caps make a dot.
        path = f"M{path}" + ("h0" if len(points) == 1 else "")
        css = f"curve {curve.style} c{curve.color % COLORS}"
        label = html.escape(curve.label)
        end = f"{curve.points[-1][1]:.3f}"
        lines.append(f'<path class="{css}" d="{path}"><title>{label}: {end} at the end</title></path>')
        key = f'<svg viewBox="0 0 24 8" aria-hidden="true"><path class="{css}" d="M1 4H23"/></svg>'
        legend.append(f"<li>{key}{label} <b>{end}</b></li>")
    return (
        f'{head}<figure><div class="label">{html.escape(y_label)}</div><div class="plot">'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{html.escape(title)}">'
        f'{"".join(grid)}{"".join(lines)}</svg>{"".join(labels)}</div>'
        f'<div class="label right">{html.escape(x_label)}</div><ul class="legend">{"".join(legend)}</ul></figure>'
    )
