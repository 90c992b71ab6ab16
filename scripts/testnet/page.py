"""report.html: one file with everything in it, for light and dark, desk and phone.

It is also well-formed XML, so that a test can parse it with the standard library.
"""

from __future__ import annotations

import html
from typing import Any, Dict, List, Optional, Sequence, Tuple

from testnet.chart import Curve, chart
from testnet.report import Result, is_number
from testnet.table import human_bytes, human_seconds, number

CSS = """
:root { color-scheme: light dark; --bg: #fff; --ink: #1b1f24; --soft: #5d6670; --line: #dfe3e8; --box: #f5f7f9;
  --good: #17743c; --bad: #b3261e; --c0: #2368c4; --c1: #c8541b; --c2: #1f8a5b; --c3: #9b3fa8; --c4: #a07908;
  --c5: #0f8797; --c6: #c2327a; --c7: #66705f; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171a; --ink: #e8ebee; --soft: #9aa4ae; --line: #32383f;
  --box: #1c2024; --good: #5cc98a; --bad: #ff8a80; --c0: #6aa5f5; --c1: #f08a52; --c2: #4fc78f; --c3: #d08ae0;
  --c4: #d9b341; --c5: #4fc3d4; --c6: #f07fb4; --c7: #a9b3a1; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--bg); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
.verdict { border-left: 4px solid var(--good); background: var(--box); padding: .7rem 1rem; }
.verdict.bad { border-color: var(--bad); } .verdict p { margin: .2rem 0; } .soft { color: var(--soft); }
figure { margin: 0; } .plot { position: relative; height: clamp(220px, 45vw, 380px); margin: .4rem .8rem 1.8rem 3rem;
  border-left: 1px solid var(--line); border-bottom: 1px solid var(--line); }
.plot > svg { display: block; width: 100%; height: 100%; overflow: visible; }
.plot span { position: absolute; font-size: .8rem; color: var(--soft); font-variant-numeric: tabular-nums; }
.plot .y { right: 100%; transform: translateY(-50%); padding-right: .4rem; }
.plot .x { top: 100%; transform: translateX(-50%); padding-top: .2rem; }
.label { font-size: .8rem; color: var(--soft); } .label.right { text-align: right; }
path { fill: none; vector-effect: non-scaling-stroke; } .grid { stroke: var(--line); stroke-width: 1; }
.curve { stroke-width: 1.75; stroke-linecap: round; stroke-linejoin: round; }
.alone { stroke-dasharray: 5 4; } .curve.shared { stroke: var(--ink); stroke-width: 3.5; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
.c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); } .c6 { stroke: var(--c6); } .c7 { stroke: var(--c7); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: .4rem 0; font-size: .9rem; }
.legend svg { width: 24px; height: 8px; margin-right: .4rem; }
.scroll { overflow-x: auto; margin-inline: calc(50% - min(50vw - 1rem, 46rem)); } table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { white-space: normal; vertical-align: bottom; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--bg); }
code { font-size: .85em; overflow-wrap: anywhere; }
"""


def _points(history: Any, key: str) -> List[Tuple[float, float]]:
    """(tokens, value) of the entries of a history that have both; anything else in it is skipped."""
    if not isinstance(history, list):
        return []
    rows = [row for row in history if isinstance(row, dict)]
    return [(row["tokens"], row[key]) for row in rows if is_number(row.get("tokens")) and is_number(row.get(key))]


def _of(result: Result, key: str) -> List[Tuple[float, float]]:
    return _points((result.report or {}).get("history"), key)


def curves(nodes: Sequence[Result], baselines: Sequence[Result]) -> Tuple[List[Curve], List[Curve]]:
    """The curves of the two charts: validation loss, and training loss."""
    shared = max((_of(node, "validation_loss") for node in nodes), key=len, default=[])
    validation = [Curve("shared model", shared, "shared", 0)]
    training = [Curve(node.name, _of(node, "loss"), "node", i) for i, node in enumerate(nodes)]
    for i, alone in enumerate(baselines):
        report = alone.report or {}
        points = _of(alone, "validation_loss")
        if not points and is_number(report.get("tokens")) and is_number(report.get("validation_loss")):
            points = [(report["tokens"], report["validation_loss"])]
        validation.append(Curve(alone.name, points, "alone", i))
        training.append(Curve(alone.name, _of(alone, "loss"), "alone", i))
    return validation, training


def _row(name: str, entry: Dict[str, Any], alone: Optional[float]) -> str:
    def seconds(key: str) -> str:
        return human_seconds(entry[key]) if is_number(entry[key]) else "-"

    def digest(key: str) -> str:
        return f"<code>{html.escape(str(entry[key])[:8])}</code>" if entry[key] else "-"

    values = [
        html.escape(name),
        number(entry["rounds"], ",d") if isinstance(entry["rounds"], int) else "-",
        number(entry["loss_first"], ".3f"),
        number(entry["loss_last"], ".3f"),
        number(entry["validation_loss"], ".3f"),
        number(entry["personal_validation_loss"], ".3f"),
        number(alone, ".3f"),
        number(entry["tokens"], ",.0f"),
        number(entry["tokens_per_second"], ",.0f"),
        number(entry["deltas_published"], ",.0f"),
        number(entry["deltas_folded"], ",.0f"),
        number(entry["late_deltas"], ",.0f"),
        human_bytes(entry["delta_bytes_mean"]),
        number(entry["bits_per_coefficient"], ".2f"),
        human_bytes(entry["bytes_sent"]),
        human_bytes(entry["bytes_received"]),
        seconds("seconds_training"),
        seconds("seconds_optimizing"),
        seconds("seconds_waiting"),
        human_bytes(entry["peak_memory_bytes"]),
        digest("state_digest"),
        digest("log_digest"),
    ]
    return "<tr>" + "".join(f"<td>{value}</td>" for value in values) + "</tr>"


COLUMNS = (
    "",
    "rounds",
    "first loss",
    "last loss",
    "validation, shared",
    "validation, personal",
    "validation, alone",
    "tokens",
    "tokens/s",
    "published",
    "folded",
    "late",
    "mean delta",
    "bits/coefficient",
    "sent",
    "received",
    "training",
    "optimizing",
    "waiting",
    "peak memory",
    "state",
    "log",
)


def page(
    report: Dict[str, Any],
    problems: Sequence[str],
    verdict: str,
    data_summary: str,
    nodes: Sequence[Result],
    baselines: Sequence[Result],
) -> str:
    """The page. `problems` is everything that went wrong, in sentences; empty after a good run."""
    validation, training = curves(nodes, baselines)
    alone = list(report["baseline_validation_loss"] or [])
    alone += [None] * (len(nodes) - len(alone))
    rows = [_row(node.name, entry, loss) for node, entry, loss in zip(nodes, report["nodes"], alone)]
    if report["agreed"]:
        digest = str(report["nodes"][0]["state_digest"])
        agreement = f"All {len(nodes)} nodes hold the same model, bit for bit: <code>{html.escape(digest)}</code>"
    else:
        agreement = "The nodes do not hold the same model."
    parameters = number(report["parameters"], ",.0f")
    lines = "".join(f"<p>{html.escape(problem)}</p>" for problem in problems)
    head = "".join(f"<th>{html.escape(column)}</th>" for column in COLUMNS)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>swarm testnet</title><style>{CSS}</style></head><body>
<h1>{len(nodes)} nodes, one model, nobody in the middle</h1>
<div class="verdict{'' if report['agreed'] and not problems else ' bad'}"><p><b>{agreement}</b></p><p>{html.escape(verdict)}</p>{lines}</div>
<p class="soft">Model {html.escape(str(report['model']))}, {parameters} parameters, {report['rounds']} rounds. {html.escape(data_summary)}.
Swarm <code>{html.escape(str(report['swarm_id']))}</code>.</p>
{chart('Loss on text that nobody trained on', 'tokens each node has trained on', 'nats a byte', validation)}
{chart('Training loss', 'tokens each node has trained on', 'nats a byte', training)}
<h2>The nodes</h2>
<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>
<p class="soft">shared: the model made of the common coefficients alone; personal: with the node's own residual; alone: the same text
and as many tokens without the others. Bytes are what the network layer counted.</p>
</body></html>
"""
