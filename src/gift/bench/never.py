"""The limit: how fast an attack teaches a concept to a twin of the bundled model that never saw it.

The curves are kept in `never_learned.json`, which `python -m recipes.tiny limit` writes; the twins themselves are not shipped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from gift.metrics.concept import mean
from gift.metrics.recovery import Curve, area

FILE = Path(__file__).with_name("never_learned.json")
NAME = "never learned"
PICTURES = 48
"""Of the attacker's, where nothing else is said: as a grid's."""
Key = tuple[str, str, str, int]


def key_of(concept: str, attack: Mapping[str, Any], pictures: int) -> Key:
    """What a curve depends on beside its seed; `attack` holds the name and all arguments, of which the steps only cut the curve."""
    rest = {name: value for name, value in attack.items() if name not in {"name", "steps"}}
    return concept, str(attack["name"]), json.dumps(rest, sort_keys=True), pictures


class Twins(NamedTuple):
    """What was measured: on twins of which model, drawn from as its folder says (`gift.bench.identity.model_identity`), and every
    curve, the score by step, by `key_of`."""

    of: str | None
    curves: dict[Key, list[dict[int, float]]]


@lru_cache(maxsize=1)
def measured() -> Twins:
    """What the package's file holds."""
    found = Twins(None, {})
    if not FILE.exists():
        return found
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    for entry in kept["curves"]:
        key = key_of(entry["concept"], entry["attack"], entry.get("pictures", PICTURES))
        found.curves.setdefault(key, []).append(dict(entry["curve"]))
    return found._replace(of=kept["of"])


def never_learned(concept: str, attack: Mapping[str, Any], horizon: int, pictures: int = PICTURES) -> Curve | None:
    """The mean recovery curve of twins under an attack, to a horizon; None where it was not measured.

    Args:
        concept: as the command line takes it.
        attack: the attack's 'name' with its arguments.
        horizon: the last step; must be one at which the twins were looked at.
        pictures: how many the attacker has.
    """
    curves = measured().curves.get(key_of(concept, attack, pictures), [])
    if not curves or any(horizon not in curve for curve in curves):
        return None
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return [(step, mean([curve[step] for curve in curves])) for step in steps if step <= horizon]


def attack_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The attack of a grid's record: the one listed, or the one that the search found."""
    found: dict[str, Any] = row.get("attack_found") or row["settings"]["attack"]
    return found


def pictures_of(row: Mapping[str, Any]) -> int:
    """How many pictures the attacker of a grid's record had."""
    given: int = row.get("pictures_found") or row["settings"].get("sizes", {}).get("attack_pictures", PICTURES)
    return given


def limit_of(row: Mapping[str, Any]) -> dict[str, float] | None:
    """The limit beside a grid's record.

    Returns:
        score_before, area and score_after of the twins, and reduction: how much less they learn than the control relearns, which a
        defence can't be expected to exceed without damage; None where they were not measured, or the record is of another model
        than theirs.
    """
    if row["model_identity"] != measured().of:
        return None
    curve = never_learned(row["concept"], attack_of(row), row["curve"][-1][0], pictures_of(row))
    if curve is None:
        return None
    least, control = area(curve), area([(int(step), score) for step, score in row["control_curve"]])
    return {
        "score_before": curve[0][1],
        "area": least,
        "score_after": curve[-1][1],
        "reduction": 1 - least / control if control else 0.0,
    }
