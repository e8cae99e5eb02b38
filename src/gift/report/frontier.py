"""Resistance against price over every setting that was measured in the same way, and those that none beats in both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gift.bench.summary import damage, mean_in
from gift.metrics.concept import mean


@dataclass(frozen=True)
class Setting:
    """A method with its options.

    Attributes:
        method: what the records call it.
        chain: the methods behind it, in order.
        fid: its price: the distance of its pictures of other things to the original's.
        reduction: mean relearning reduction over the attacks that all settings have.
        safe_accuracy: how often other prompted objects are found.
        neighbours: how often the things most like the concept are found.
    """

    method: str
    chain: tuple[str, ...]
    fid: float
    reduction: float
    safe_accuracy: float
    neighbours: float | None


def shared_attacks(summary: dict[str, Any]) -> list[str]:
    """The attacks that every method of a summary met."""
    met: dict[str, set[str]] = {}
    for group in summary["groups"]:
        met.setdefault(group["method"], set()).add(group["attack"])
    return [a for a in dict.fromkeys(group["attack"] for group in summary["groups"]) if all(a in seen for seen in met.values())]


def settings_of(summary: dict[str, Any]) -> list[Setting]:
    """Every method of a summary with its rows, the cheapest first.

    Left out are methods without a cell that counts under one of the shared attacks, and those that a ranking would call damaged.
    What stands there under two names counts once.
    """
    attacks, seen, out = shared_attacks(summary), set(), []
    made = {row["method"]: row["settings"] for row in summary["rows"]}
    groups = {(group["method"], group["attack"]): group for group in summary["groups"]}
    for method, settings in made.items():
        how = json.dumps([settings["methods"], settings.get("group")])
        mine = [groups[method, attack] for attack in attacks]
        if how in seen or not mine or not all(group["conclusive"] and damage(group["kept"]) is None for group in mine):
            continue
        seen.add(how)
        reduction = mean([group["means"]["relearning_reduction"]["mean"] for group in mine])
        price = mine[0]["means"]  # the same before any attack
        fid, safe = price["fid"]["mean"], price["safe_accuracy"]["mean"]
        out.append(Setting(method, tuple(settings["methods"]), fid, reduction, safe, mean_in(mine[0], "neighbours")))
    return sorted(out, key=lambda setting: (setting.fid, -setting.reduction))


def front(settings: Sequence[Setting]) -> list[Setting]:
    """Those that no other one equals or beats in both price and resistance (of equal ones, the first), the cheapest first."""
    out: list[Setting] = []
    for setting in sorted(settings, key=lambda each: (each.fid, -each.reduction)):
        if not out or setting.reduction > out[-1].reduction:
            out.append(setting)
    return out
