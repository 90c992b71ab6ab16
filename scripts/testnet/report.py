"""report.json: what the nodes reported, whether they agree, and the verdict in one sentence."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

# The keys of an entry of "nodes", in the order in which they are written.
NODE_KEYS = (
    "peer_id",
    "rounds",
    "deltas_published",
    "deltas_folded",
    "late_deltas",
    "tokens",
    "loss_first",
    "loss_last",
    "validation_loss",
    "personal_validation_loss",
    "bytes_sent",
    "bytes_received",
    "delta_bytes_mean",
    "bits_per_coefficient",
    "log_digest",
    "state_digest",
    "seconds_training",
    "seconds_optimizing",
    "seconds_waiting",
    "tokens_per_second",
    "peak_memory_bytes",
)
# What a node that wrote no report still said in its status.json, by the name it has there.
FROM_STATUS = {
    "peer_id": "peer_id",
    "rounds": "round",
    "tokens": "tokens",
    "loss_last": "loss",
    "bytes_sent": "bytes_sent",
    "bytes_received": "bytes_received",
    "log_digest": "log_digest",
    "state_digest": "state_digest",
    "tokens_per_second": "tokens_per_second",
}


class Result(NamedTuple):
    """A node or a baseline at its end: its report.json (None if it wrote none) and its last status.json."""

    name: str
    report: Optional[Dict[str, Any]]
    status: Dict[str, Any]


def is_number(value: Any) -> bool:
    """A finite number; a bool is none, and a diverged loss is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def clean(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null, in lists and objects too."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean(item) for item in value]
    return value


def mean(values: Sequence[float]) -> Optional[float]:
    return sum(values) / len(values) if values else None


def node_entry(node: Result) -> Dict[str, Any]:
    """The node's entry of "nodes": its report, or what its last status tells, with null for the rest."""
    if node.report is not None:
        return {key: clean(node.report.get(key)) for key in NODE_KEYS}
    return {key: clean(node.status.get(FROM_STATUS.get(key, ""))) for key in NODE_KEYS}


def disagreements(names: Sequence[str], entries: Sequence[Dict[str, Any]], target: int, expected: int) -> List[str]:
    """Why the nodes do not agree, one sentence each; empty if they do.

    To agree is that all `expected` nodes hold the same state digest and the same log digest after at least
    `target` rounds."""
    found = []
    if len(entries) < expected:
        found.append(f"only {len(entries)} of {expected} nodes were started")
    for name, entry in zip(names, entries):
        rounds = entry["rounds"]
        if not is_number(rounds) or rounds < target:
            found.append(f"{name} reached {rounds if is_number(rounds) else 'no'} of {target} rounds")
    for key, what, different in (
        ("state_digest", "model", "different models"),
        ("log_digest", "log of deltas", "different logs of deltas"),
    ):
        missing = [name for name, entry in zip(names, entries) if not entry[key]]
        if missing:
            found.append(f"{', '.join(missing)} told no digest of the {what}")
        groups: Dict[str, List[str]] = {}
        for name, entry in zip(names, entries):
            if entry[key]:
                groups.setdefault(str(entry[key]), []).append(name)
        if len(groups) > 1:
            sides = "; ".join(f"{', '.join(who)}: {digest[:8]}" for digest, who in groups.items())
            found.append(f"the nodes hold {different} ({sides})")
    return found


def build(
    swarm_id: str,
    model: str,
    target: int,
    nodes: Sequence[Result],
    baselines: Optional[Sequence[Result]],
    expected: int,
) -> Tuple[Dict[str, Any], List[str]]:
    """The content of report.json, and why the nodes do not agree (empty if they do).

    `expected` is how many nodes there should be: a run that was stopped early has started fewer. `baselines` are the finished ones; None if there are none. A baseline that told no loss counts as null."""
    entries = [node_entry(node) for node in nodes]
    reasons = disagreements([node.name for node in nodes], entries, target, expected)
    parameters = [node.report.get("parameters") for node in nodes if node.report]
    rounds = [entry["rounds"] for entry in entries]
    alone = None
    if baselines is not None:
        alone = [clean((result.report or {}).get("validation_loss")) for result in baselines]
    content = {
        "swarm_id": swarm_id,
        "model": model,
        "parameters": next((count for count in parameters if is_number(count)), None),
        "rounds": min((count if is_number(count) else 0 for count in rounds), default=0),
        "agreed": not reasons,
        "validation_loss": mean([e["validation_loss"] for e in entries if is_number(e["validation_loss"])]),
        "baseline_validation_loss": alone,
        "nodes": entries,
    }
    return content, reasons


def verdict(report: Dict[str, Any]) -> str:
    """The common model's validation loss against the baselines', in one sentence."""
    shared = report["validation_loss"]
    if not is_number(shared):
        return "No node told a validation loss, so there is nothing to compare."
    text = f"After {report['rounds']} rounds the shared model's loss on text that nobody trained on is {shared:.3f} nats a byte"
    alone = [loss for loss in report["baseline_validation_loss"] or [] if is_number(loss)]
    if not alone:
        return text + "."
    best = min(alone)
    text += f"; nodes that trained alone on as many tokens reach {best:.3f} at best and {sum(alone) / len(alone):.3f} on average: "
    if shared < best:
        return text + f"together is better by {best - shared:.3f} than the best alone."
    return text + f"together is NOT better than the best alone (by {shared - best:.3f})."


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, report: Dict[str, Any]) -> None:
    write_text(path, json.dumps(report, indent=2, allow_nan=False) + "\n")
