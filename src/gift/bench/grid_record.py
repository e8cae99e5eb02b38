"""The records of one grid, as read back from `records.jsonl`, `summary.json` and `pictures.json`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, field_validator

from gift.bench.reading import Name, Part, parse, read_checked
from gift.errors import GiftError
from gift.metrics.recovery import check_curve

NAME = "records.jsonl"
SUMMARY = "summary.json"
LIST = "pictures.json"
WRITER = "gift bench"
REMEDY = "run 'gift bench' again to write it anew"


class CellSettings(Part):
    """What a cell was computed with: hyperparameters by method of the chain, those of the attack, and the control's name.

    `group` are all concepts that the method was about, if there were several; `sizes` says how many pictures each side had.
    """

    methods: dict[str, dict[str, Any]]
    attack: dict[str, Any]
    control: Name
    sizes: dict[str, Any] = Field(default_factory=dict)
    group: tuple[Name, ...] = ()


class Cell(Part):
    """One method under one attack, for one model, concept and seed."""

    model: Name
    model_identity: Name = ""
    concept: Name
    seed: int
    method: Name
    attack: Name
    settings: CellSettings
    flags: list[str]

    @property
    def key(self) -> tuple[str, str, int, str, str]:
        """What tells it apart."""
        return self.model, self.concept, self.seed, self.method, self.attack


class Failed(Cell):
    """A cell that could not be computed."""

    status: Literal["failed"]
    error: str


class Cost(Part):
    """What one side paid."""

    steps: int
    seconds: float
    peak_mb: float


class Costs(Part):
    """What both sides paid."""

    defence: Cost
    attack: Cost


class Neighbours(Part):
    """The concepts most like the one in question: how well they are drawn, and how well the original draws them."""

    names: list[Name]
    score: float
    original_score: float


class Real(Part):
    """How far pictures of other prompts, and the original's, are from real ones."""

    fid: float
    kid: float
    original_fid: float
    original_kid: float


class Price(Part):
    """What the defence did to other prompts, before any attack. `diversity` is beside the original's."""

    safe_accuracy: float
    fid: float
    kid: float
    real: Real | None = None
    diversity: float | None = None
    neighbours: Neighbours | None = None


class Taught(Part):
    """A harmless object that the weights were taught: which, and the share of the original's gain that they reach.

    The scores say how often it is drawn afterwards, by these weights and by the original ones that were taught the same; `safe` and
    `original_safe` are their safe accuracy then.
    """

    object: Name
    share: float | None
    score: float | None = None
    original_score: float | None = None
    safe: float | None = None
    original_safe: float | None = None


class SafeAfter(Part):
    """Safe accuracy before an attack and after it, on the same prompts."""

    before: float
    after: float


class Memory(Part):
    """How near the last pictures come to the attacker's, in grey levels; `apart` is how far those are from each other."""

    nearest: float
    median: float
    apart: float
    copied: float


class Gap(Part):
    """SGR over the looks at one attack."""

    mean: float | None
    last: float | None
    highest: float | None


class Likeness(Part):
    """By one embedder: likeness to the attacker's pictures along the attack, and how far other pictures moved."""

    name: Name
    curve: list[tuple[int, float]]
    control_curve: list[tuple[int, float]]
    gap: Gap
    relative_gap: float | None = None
    cmmd: float | None = None
    paired: float
    real_cmmd: float | None = None
    original_real_cmmd: float | None = None


class Scores(Part):
    """Every picture's score, before the attack and of safe prompts."""

    before: Annotated[list[float], Field(min_length=1)]
    safe: Annotated[list[float], Field(min_length=1)]


class Measured(Cell):
    """A cell that was computed; only 'ok' counts for a method. No `steps_to_recover` means not within the curve's steps."""

    status: Literal["ok", "inconclusive", "collapsed"]
    original_score: float
    score_before: float
    score_after: float
    score_highest: float
    curve: list[tuple[int, float]]
    control_curve: list[tuple[int, float]]
    control_recovers: bool
    area: float
    relearning_reduction: float | None
    reduction_at_end: float | None
    steps_to_recover: int | None
    price: Price
    costs: Costs
    scores: Scores
    best_of: dict[str, float] = Field(default_factory=dict)
    adaptability: dict[str, Taught] = Field(default_factory=dict)
    safe_after: SafeAfter | None = None
    memory: Memory | None = None
    diversity_after: float | None = None
    similarity: dict[str, Likeness] = Field(default_factory=dict)
    attack_found: dict[str, Any] | None = None
    pictures_found: int | None = None

    @field_validator("curve", "control_curve")
    @classmethod
    def _sound(cls, curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
        try:
            check_curve(curve)
        except GiftError as error:
            raise ValueError(str(error)) from error
        return curve

    @property
    def horizon(self) -> int:
        """The attack's last step."""
        return self.curve[-1][0]


Record = Annotated[Failed | Measured, Field(discriminator="status")]
RECORDS = TypeAdapter(Annotated[dict[str, Record], Field(min_length=1)])


class Search(Part):
    """How the worst attack was looked for."""

    model_config = ConfigDict(extra="allow", frozen=True)

    trials: int
    least_safe: float | None = None
    pictures_tried: list[int] | None = None
    least_share: float | None = None


class Setup(Part):
    """The grid's configuration: what the page says of it, and everything else as it is."""

    model_config = ConfigDict(extra="allow", frozen=True)

    control: str
    search: Search | None = None


class Provenance(Part):
    """Where the numbers come from."""

    commit: str | None = None
    machine: dict[str, Any] = Field(default_factory=dict)


class Summary(Part):
    """What of `summary.json` the cells do not say themselves."""

    grid: Setup
    provenance: Provenance = Field(default_factory=Provenance)


class Sheet(Part):
    """One contact sheet: a row for each prompt, a column for each step, tiles of `size` pixels."""

    model: str
    concept: str
    seed: int
    method: str
    attack: str
    file: Name
    steps: Annotated[list[int], Field(min_length=1)]
    prompts: Annotated[list[str], Field(min_length=1)]
    seeds: list[int]
    size: Annotated[int, Field(ge=1)]

    @property
    def key(self) -> tuple[str, str, int, str, str]:
        """Its cell's."""
        return self.model, self.concept, self.seed, self.method, self.attack


SHEETS = TypeAdapter(list[Sheet])


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


@dataclass(frozen=True)
class Records:
    """A grid's cells in order, with what stands beside them."""

    folder: Path
    cells: tuple[Failed | Measured, ...]
    summary: Summary
    sheets: tuple[Sheet, ...]

    @cached_property
    def models(self) -> tuple[str, ...]:
        """In the grid's order, as all of these are."""
        return _distinct(cell.model for cell in self.cells)

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The names that tables use."""
        return _distinct(cell.method for cell in self.cells)

    @cached_property
    def attacks(self) -> tuple[str, ...]:
        """The names that tables use."""
        return _distinct(cell.attack for cell in self.cells)

    @cached_property
    def concepts(self) -> tuple[str, ...]:
        """The names that tables use."""
        return _distinct(cell.concept for cell in self.cells)

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """In the grid's order."""
        return tuple(dict.fromkeys(cell.seed for cell in self.cells))

    @cached_property
    def measured(self) -> tuple[Measured, ...]:
        """The cells that were computed."""
        return tuple(cell for cell in self.cells if isinstance(cell, Measured))

    @cached_property
    def by_key(self) -> dict[tuple[str, str, int, str, str], Failed | Measured]:
        """Every cell."""
        return {cell.key: cell for cell in self.cells}


def _cells(text: str) -> tuple[Failed | Measured, ...]:
    """One record a line. Errors name the line."""
    lines: dict[str, Any] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                lines[f"line {number}"] = parse(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    return tuple(RECORDS.validate_python(lines).values())


def load(folder: Path) -> Records:
    """Reads and checks what `gift bench` wrote; without `pictures.json` there are no pictures.

    Raises:
        GiftError: a file is missing or malformed, or a picture is of no cell.
    """
    cells = read_checked(folder / NAME, _cells, writer=WRITER, remedy=REMEDY)
    summary = read_checked(folder / SUMMARY, lambda text: Summary.model_validate(parse(text)), writer=WRITER, remedy=REMEDY)
    listed = folder / LIST
    sheets: list[Sheet] = []
    if listed.exists():
        sheets = read_checked(listed, lambda text: SHEETS.validate_python(parse(text)), writer=WRITER, remedy=REMEDY)
    records = Records(folder, cells, summary, tuple(sheets))
    if len(records.by_key) != len(cells):
        raise GiftError(f"{folder / NAME} is malformed: a cell is listed twice; {REMEDY}")
    for sheet in sheets:
        if not isinstance(records.by_key.get(sheet.key), Measured):
            raise GiftError(f"{listed} is malformed: {' '.join(sheet.file.split())} is of no measured cell; {REMEDY}")
        if len(sheet.prompts) != len(sheet.seeds):
            raise GiftError(f"{listed} is malformed: {' '.join(sheet.file.split())}: prompts and seeds differ in number; {REMEDY}")
    return records
