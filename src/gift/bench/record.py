"""The record of one demonstration, as read back from `result.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from gift.bench.grid_record import Neighbours, Real
from gift.bench.reading import Name, Part, parse, read_checked
from gift.errors import GiftError

NAME = "result.json"
REMEDY = "run 'gift demo' again to write it anew"


class Method(Part):
    """One defence (or its absence) and what it cost before any attack."""

    method: Name
    title: Name
    about: str = ""
    arguments: dict[str, Any] = Field(default_factory=dict)
    defence_seconds: float | None = None
    peak_mb: float | None = None
    score_before: float
    safe_accuracy: float | None = None
    fid: float | None = None
    kid: float | None = None
    real: Real | None = None
    neighbours: Neighbours | None = None
    flags: list[str] = Field(default_factory=list)


class Attack(Part):
    """One fine-tuning attack and whether it works where nothing resists it."""

    attack: Name
    title: Name
    arguments: dict[str, Any] = Field(default_factory=dict)
    pictures: int | None = None
    control_recovers: bool
    control_score: float | None = None


class Row(Part):
    """One method under one attack. `curve` is (step, concept score) pairs; no `steps_to_recover` means not within the horizon."""

    method: Name
    attack: Name
    concept: str
    seed: int
    score_before: float
    score_after: float
    curve: list[tuple[int, float]]
    relearning_reduction: float | None
    steps_to_recover: int | None
    safe_accuracy: float | None
    fid: float | None
    defence_seconds: float | None
    attack_seconds: float | None
    peak_mb: float | None
    flags: list[str]

    @property
    def horizon(self) -> int:
        """The attack's last step."""
        return self.curve[-1][0] if self.curve else 0


class Sample(Part):
    """The recogniser's score of one generated picture."""

    method: str
    attack: str | None
    step: int
    group: str
    prompt: str
    seed: int
    score: float


class Grid(Part):
    """One contact sheet: tiles of `size` pixels, `columns` in a row, with the prompt, seed and score of each."""

    method: str
    attack: str | None
    step: int
    group: str
    file: Name
    prompts: list[str]
    seeds: list[int]
    scores: list[float]
    columns: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=1)]


class Result(Part):
    """One whole demonstration."""

    version: str
    commit: str | None = None
    created: str
    model: str
    concept: Name
    seed: int
    horizon: int
    original_score: float
    settings: dict[str, Any] = Field(default_factory=dict)
    machine: dict[str, Any] = Field(default_factory=dict)
    seconds: float
    methods: Annotated[list[Method], Field(min_length=1)]
    attacks: Annotated[list[Attack], Field(min_length=1)]
    rows: Annotated[list[Row], Field(min_length=1)]
    samples: list[Sample] = Field(default_factory=list)
    grids: list[Grid] = Field(default_factory=list)

    def title(self, method: str) -> str:
        """The method's name in words."""
        return next(m.title for m in self.methods if m.method == method)

    def attack_title(self, attack: str) -> str:
        """The attack's name in words."""
        return next(a.title for a in self.attacks if a.attack == attack)

    def row(self, method: str, attack: str) -> Row | None:
        """The row of one method under one attack, if it was run."""
        return next((r for r in self.rows if (r.method, r.attack) == (method, attack)), None)

    def ordered(self) -> list[Row]:
        """Rows attack by attack, methods in the record's order."""
        attacks = [a.attack for a in self.attacks]
        methods = [m.method for m in self.methods]
        return sorted(self.rows, key=lambda r: (attacks.index(r.attack), methods.index(r.method)))


def _unknown(result: Result) -> str | None:
    """The first name that a row or grid uses and nothing declares, or a name declared twice."""
    methods = [m.method for m in result.methods]
    attacks = [a.attack for a in result.attacks]
    cells = [(r.method, r.attack) for r in result.rows]
    for what, names in (("method", methods), ("attack", attacks), ("row", cells)):
        if len(set(names)) != len(names):
            return f"a {what} is listed twice"
    parts: list[Row | Grid] = [*result.rows, *result.grids]
    for part in parts:
        if part.method not in methods:
            return f"method '{part.method}' is not among its methods"
        if part.attack is not None and part.attack not in attacks:
            return f"attack '{part.attack}' is not among its attacks"
    for grid in result.grids:
        if not len(grid.prompts) == len(grid.seeds) == len(grid.scores) > 0:
            return f"{grid.file}: prompts, seeds and scores differ in number"
    return None


def load(folder: Path) -> Result:
    """Reads and checks `folder/result.json`.

    Args:
        folder: where a demonstration was written.

    Raises:
        GiftError: the file is missing, is not JSON, lacks a field, or names a method or attack that it does not declare.
    """
    path = folder / NAME
    result = read_checked(path, lambda text: Result.model_validate(parse(text)), writer="gift demo", remedy=REMEDY)
    if unknown := _unknown(result):
        raise GiftError(f"{path} is malformed: {' '.join(unknown.split())}; {REMEDY}")
    return result
