"""A grid's records averaged over seeds and concepts, methods ranked, doubts told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gift.bench.config import PLACES
from gift.metrics.concept import mean
from gift.metrics.intervals import bootstrap

if TYPE_CHECKING:  # a page is made without loading what computes
    from gift.bench.rows import Row


def _share(where: str, row: Row) -> float | None:
    """Benign adaptability at one place, where it was measured."""
    found: dict[str, float | None] = row["adaptability"].get(where, {})
    return found.get("share")


AVERAGED: dict[str, Callable[[Row], float | None]] = {
    "score_before": lambda row: row["score_before"],
    "score_after": lambda row: row["score_after"],
    "score_highest": lambda row: row["score_highest"],
    "area": lambda row: row["area"],
    "relearning_reduction": lambda row: row["relearning_reduction"],
    "reduction_at_end": lambda row: row["reduction_at_end"],
    "safe_accuracy": lambda row: row["price"]["safe_accuracy"],
    "fid": lambda row: row["price"]["fid"],
    "kid": lambda row: row["price"]["kid"],
    **{f"adaptability {where}": partial(_share, where) for where in PLACES},
}
COSTS = {
    "defence": lambda row: row["costs"]["defence"],
    "attack": lambda row: row["costs"]["attack"],
}
ENDED = ("ok", "inconclusive", "collapsed", "failed")


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Groups of cells and the ranking.

    Args:
        rows: every cell's record.

    Returns:
        groups: for each (model, method, attack) the means over concepts and seeds with 95 % bootstrap intervals over cells. Means
        of resistance are over cells with status 'ok' alone, so nothing inconclusive, collapsed or failed counts as protection.
        ranking: for each model the methods by their worst attack, see `rank`.
        flagged: every sentence of doubt with the cells that it is about.
    """
    keys = dict.fromkeys((row["model"], row["method"], row["attack"]) for row in rows)
    groups = [_group(key, [row for row in rows if (row["model"], row["method"], row["attack"]) == key]) for key in keys]
    models = dict.fromkeys(row["model"] for row in rows)
    return {
        "cells": {status: count for status in ENDED if (count := sum(row["status"] == status for row in rows))},
        "groups": groups,
        "ranking": {model: rank([group for group in groups if group["model"] == model]) for model in models},
        "flagged": _flagged(rows),
    }


def _group(key: tuple[str, str, str], rows: list[Row]) -> dict[str, Any]:
    counted = [row for row in rows if row["status"] == "ok"]
    horizon = counted[0]["curve"][-1][0] if counted else None
    steps = [row["steps_to_recover"] for row in counted]
    return {
        **dict(zip(("model", "method", "attack"), key, strict=True)),
        "cells": len(rows),
        "statuses": dict(sorted(Counter(row["status"] for row in rows).items())),
        "conclusive": bool(counted),
        "horizon": horizon,
        "means": {name: _mean([take(row) for row in counted]) for name, take in AVERAGED.items()},
        "recovered": {"cells": sum(step is not None for step in steps), "of": len(steps), "steps": steps},
        "costs": {
            name: {part: mean([take(row)[part] for row in counted]) for part in ("steps", "seconds", "peak_mb")}
            for name, take in COSTS.items()
        },
        "flags": list(dict.fromkeys(flag for row in rows for flag in row["flags"])),
    }


def _mean(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean, 95 % interval (None for one value, which has no spread), and how many values there are; None without any."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    interval = [round(end, 6) for end in bootstrap(there)] if len(there) > 1 else None
    return {"mean": mean(there), "interval": interval, "n": len(there)}


def rank(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Methods from the most to the least resistant.

    A method is as good as the attack that brings most back: the largest mean area over its attacks. Methods without a conclusive
    cell under some attack come last and have no place, since nothing is known of their worst.

    Returns:
        {method, place, worst_attack, area, safe_accuracy, fid}; equal areas share a place.
    """
    out = []
    for method in dict.fromkeys(group["method"] for group in groups):
        mine = [group for group in groups if group["method"] == method]
        known = [group for group in mine if group["conclusive"]]
        worst = max(known, key=lambda group: group["means"]["area"]["mean"]) if len(known) == len(mine) else None
        out.append(
            {
                "method": method,
                "place": None,
                "worst_attack": worst["attack"] if worst else None,
                "area": worst["means"]["area"]["mean"] if worst else None,
                "safe_accuracy": worst["means"]["safe_accuracy"]["mean"] if worst else None,
                "fid": worst["means"]["fid"]["mean"] if worst else None,
            }
        )
    out.sort(key=lambda entry: (entry["area"] is None, entry["area"] or 0.0))
    for entry in out:
        if entry["area"] is not None:
            entry["place"] = 1 + sum(other["area"] is not None and other["area"] < entry["area"] for other in out)
    return out


def _flagged(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each sentence once, with its cells."""
    cells: dict[str, list[list[Any]]] = {}
    for row in rows:
        for flag in row["flags"]:
            cells.setdefault(flag, []).append([row["model"], row["concept"], row["seed"], row["method"], row["attack"]])
    return [{"flag": flag, "cells": where} for flag, where in cells.items()]
