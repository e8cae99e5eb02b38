"""A grid's cells put together as the page shows them: over all concepts, and concept by concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from gift.bench.grid_record import Cell, Measured, Records
from gift.bench.summary import summarise
from gift.metrics.concept import mean
from gift.metrics.intervals import bootstrap


@dataclass(frozen=True)
class Point:
    """A mean at one step of a curve; the 95 % interval is None for a single cell, which has no spread."""

    step: int
    mean: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Recovery:
    """When the concept is back in at least half of the cells. `step` None: not within `horizon` steps.

    Attributes:
        step: the least step by which at least half of the cells are back at half of the original's score.
        horizon: the attack's last step.
        seconds: the attacker's until then, in proportion to the steps; until the horizon where `step` is None.
        cells: how many cells recovered at all.
        of: how many there are.
    """

    step: int | None
    horizon: int
    seconds: float
    cells: int
    of: int


@lru_cache(maxsize=4096)
def _interval(values: tuple[float, ...], clusters: tuple[str, ...] | None) -> tuple[float, float] | None:
    return bootstrap(values, clusters=clusters) if len(values) > 1 else None


def mean_curve(curves: Sequence[Sequence[tuple[int, float]]], concepts: Sequence[str] | None = None) -> list[Point]:
    """The mean at each step at which all curves were measured, with a bootstrap interval over curves.

    Args:
        curves: (step, score), one list a cell.
        concepts: each curve's; those of one concept are drawn together (see `bootstrap`).
    """
    tables = [dict(curve) for curve in curves]
    steps = [step for step in tables[0] if all(step in table for table in tables)] if tables else []
    values = {step: tuple(table[step] for table in tables) for step in steps}
    clusters = None if concepts is None else tuple(concepts)
    return [Point(step, mean(found), _interval(found, clusters)) for step, found in values.items()]


@dataclass(frozen=True)
class Group:
    """The cells of one model, method and attack, of one concept or of all.

    Attributes:
        scope: the concept, or '' for all of them.
        found: the group as `summarise` gives it.
        rows: its measured cells.
        worst: whether this is the method's worst attack in the ranking.
    """

    scope: str
    found: dict[str, Any]
    rows: tuple[Measured, ...]
    worst: bool

    @property
    def model(self) -> str:
        """Whose weights."""
        return str(self.found["model"])

    @property
    def method(self) -> str:
        """The defence."""
        return str(self.found["method"])

    @property
    def attack(self) -> str:
        """What was done to it."""
        return str(self.found["attack"])

    @property
    def conclusive(self) -> bool:
        """Whether any cell counts."""
        return bool(self.found["conclusive"])

    @property
    def means(self) -> dict[str, dict[str, Any] | None]:
        """Means over the cells that count; all None where there are none."""
        means: dict[str, dict[str, Any] | None] = self.found["means"]
        return means

    @property
    def similarity(self) -> dict[str, dict[str, dict[str, Any] | None]]:
        """By embedder, the means of likeness to the attacker's pictures and of what moved elsewhere, over the cells that count."""
        found: dict[str, dict[str, dict[str, Any] | None]] = self.found["similarity"]
        return found

    @cached_property
    def counted(self) -> tuple[Measured, ...]:
        """The cells that count for the method."""
        return tuple(row for row in self.rows if row.status == "ok")

    @cached_property
    def line(self) -> list[Point]:
        """The mean recovery curve over the cells that count; where none does, over those that were measured."""
        rows = self.counted or self.rows
        return mean_curve([row.curve for row in rows], [row.concept for row in rows])

    @cached_property
    def control(self) -> list[Point]:
        """The same attacks on the control's weights, over the same cells."""
        rows = self.counted or self.rows
        return mean_curve([row.control_curve for row in rows], [row.concept for row in rows])

    @cached_property
    def recovery(self) -> Recovery | None:
        """When the concept is back; None where no cell counts."""
        if not self.counted:
            return None
        # The lower median errs on the attacker's side.
        ends = sorted((row.steps_to_recover is None, row.steps_to_recover or 0, _seconds(row), row.horizon) for row in self.counted)
        _, step, seconds, horizon = ends[(len(ends) - 1) // 2]
        back = [row for row in self.counted if row.steps_to_recover is not None]
        if 2 * len(back) < len(ends):
            seconds, horizon = mean([row.costs.attack.seconds for row in self.counted]), max(row.horizon for row in self.counted)
            return Recovery(None, horizon, seconds, len(back), len(ends))
        return Recovery(step, horizon, seconds, len(back), len(ends))

    @cached_property
    def best_of(self) -> dict[str, float]:
        """The chance that one of n pictures after the attack shows the concept, by n: the mean over the cells that count."""
        kept = [row.best_of for row in self.counted]
        return {n: mean([one[n] for one in kept]) for n in kept[0] if all(n in one for one in kept)} if kept else {}

    @property
    def defence_seconds(self) -> float | None:
        """The defender's mean; None where no cell counts."""
        return mean([row.costs.defence.seconds for row in self.counted]) if self.counted else None


def _seconds(row: Measured) -> float:
    """The attacker's seconds until recovery, or of the whole attack."""
    steps = row.horizon if row.steps_to_recover is None else row.steps_to_recover
    return row.costs.attack.seconds * steps / row.horizon


@dataclass(frozen=True)
class Scope:
    """One concept, or all: '' as `key`."""

    key: str
    title: str
    summary: dict[str, Any]
    groups: tuple[Group, ...]


def scopes(records: Records) -> list[Scope]:
    """All concepts together and, where there are several, each by itself."""
    concepts = records.concepts
    first = f"all {len(concepts)} concepts together" if len(concepts) > 1 else concepts[0]
    out = [_scope("", first, records.cells)]
    if len(concepts) > 1:
        out += [_scope(concept, concept, [cell for cell in records.cells if cell.concept == concept]) for concept in concepts]
    return out


def _scope(key: str, title: str, cells: Sequence[Cell]) -> Scope:
    summary = summarise([cell.model_dump(mode="json") for cell in cells])
    worst = {(model, entry["method"], entry["worst_attack"]) for model, order in summary["ranking"].items() for entry in order}
    rows: dict[tuple[str, str, str], list[Measured]] = {}
    for cell in cells:
        mine = rows.setdefault((cell.model, cell.method, cell.attack), [])
        if isinstance(cell, Measured):
            mine.append(cell)
    groups = []
    for found in summary["groups"]:
        name = found["model"], found["method"], found["attack"]
        groups.append(Group(key, found, tuple(rows[name]), name in worst))
    return Scope(key, title, summary, tuple(groups))
