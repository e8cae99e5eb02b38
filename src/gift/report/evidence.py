"""What a demonstration or a grid measured, in one shape: cells, settings, versions, pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gift.attacks import ATTACKS
from gift.bench import grid_record, record
from gift.bench.config import CONTROL
from gift.bench.grid import ORIGINAL, WORST
from gift.bench.grid_record import Neighbours, Real
from gift.bench.identity import LIBRARIES
from gift.bench.reading import Part, parse, read_checked
from gift.bench.sheets import LIST
from gift.errors import GiftError
from gift.immunizers import IMMUNIZERS
from gift.report import words

Status = Literal["ok", "inconclusive", "collapsed", "failed"]
Chain = dict[str, dict[str, Any]]
"""Methods in order with their hyperparameters; empty for the original weights."""


@dataclass(frozen=True)
class Scores:
    """What was measured in a cell.

    Attributes:
        original: concept score of the original model, 0 to 1.
        before: of the defended one, before the attack.
        after: at the attack's last step.
        highest: the highest after step 0.
        control: at the last step of the same attack on undefended weights.
        reduction: relearning reduction; None where it is not defined.
        recovered_at: the first measured step with half of the original's score; None for not within `horizon` steps.
        horizon: the attack's last step.
        real: how far pictures of other prompts, and the original's, are from drawings or photographs.
        neighbours: of the concept's nearest neighbours, before the attack.
    """

    original: float
    before: float
    after: float
    highest: float
    control: float | None
    reduction: float | None
    recovered_at: int | None
    horizon: int
    safe_accuracy: float | None
    fid: float | None
    real: Real | None = None
    neighbours: Neighbours | None = None


@dataclass(frozen=True)
class Cell:
    """One method under one attack, for one model, concept and seed.

    Attributes:
        attack: what tables call the attack.
        title: the attack in words.
        about: what it does, in a sentence; '' where that is not known.
        arguments: its hyperparameters.
        pictures: how many its attacker had; None where that is not known.
        searched: how many attacks a search tried to find this one; None where none was run.
        found: what kind of attack it found, in words.
        scores: None where the cell failed.
        group: all concepts that the method was about, if there were several.
    """

    model: str
    method: str
    concept: str
    seed: int
    attack: str
    title: str
    about: str
    arguments: dict[str, Any]
    pictures: Any
    searched: int | None
    found: str | None
    status: Status
    flags: tuple[str, ...]
    scores: Scores | None
    group: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """A contact sheet; `file` is its path in the evidence's folder. `attack` is None for pictures drawn before any."""

    model: str
    method: str
    concept: str
    attack: str | None
    file: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Evidence:
    """All that a card says of a measurement.

    Attributes:
        verb: of the command that made it.
        source: the record's file, for messages.
        listing: the file that lists the pictures, for messages.
        remedy: what to do about bad ones.
        methods: what was compared, by label, with the chain behind each.
        titles: the labels in words.
        control: label of the undefended weights.
        original: label of the original weights.
        sizes: how many pictures each side had.
        configuration: what the command repeats it with.
        versions: of gift and the libraries.
        saved: label of the method whose weights lie beside the record in `model/`; None where none do.
    """

    verb: Literal["demo", "bench"]
    source: Path
    listing: Path
    remedy: str
    methods: dict[str, Chain]
    titles: dict[str, str]
    control: str
    original: str
    cells: tuple[Cell, ...]
    sheets: tuple[Sheet, ...]
    sizes: dict[str, Any]
    configuration: dict[str, Any]
    versions: dict[str, str]
    commit: str | None
    machine: dict[str, Any]
    saved: str | None


def read_evidence(folder: Path) -> Evidence:
    """Reads what `gift demo` or `gift bench` wrote.

    Raises:
        GiftError: the folder holds neither, or a record is missing or malformed.
    """
    if (folder / record.NAME).exists():
        return _of_demo(folder / record.NAME, record.load(folder))
    if (folder / grid_record.NAME).exists():
        return _of_grid(folder / grid_record.NAME, grid_record.load(folder))
    raise GiftError(
        f"{folder} holds neither {record.NAME} nor {grid_record.NAME}; give the folder that 'gift demo' or 'gift bench' wrote"
    )


def in_words(chain: Chain) -> str:
    """A chain in words: 'GIFT after Erased (ESD)'."""
    titles = [IMMUNIZERS[name].title if name in IMMUNIZERS else name for name in reversed(chain)]
    return " after ".join(titles) or IMMUNIZERS[ORIGINAL].title


def chain_of(method: record.Method) -> Chain:
    """The methods behind one of a demonstration, in order."""
    parts = {name: value for name, value in method.arguments.items() if isinstance(value, dict)}
    whole = parts if len(parts) == len(method.arguments) > 0 else {method.method: method.arguments}
    return {name: arguments for name, arguments in whole.items() if name != ORIGINAL}


def _about(attack: str) -> str:
    return ATTACKS[attack].about if attack in ATTACKS else ""


def _split(machine: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """The libraries' versions, and what is left of the machine."""
    return {k: str(v) for k, v in machine.items() if k in LIBRARIES}, {k: v for k, v in machine.items() if k not in LIBRARIES}


def _of_demo(source: Path, result: record.Result) -> Evidence:
    attacks = {attack.attack: attack for attack in result.attacks}
    priced = {method.method: method for method in result.methods}
    versions, machine = _split(result.machine)
    cells = []
    for row in result.ordered():
        attack = attacks[row.attack]
        scores = Scores(
            original=result.original_score,
            before=row.score_before,
            after=row.score_after,
            highest=max([score for step, score in row.curve if step] or [row.score_after]),
            control=attack.control_score,
            reduction=row.relearning_reduction,
            recovered_at=row.steps_to_recover,
            horizon=row.horizon,
            safe_accuracy=row.safe_accuracy,
            fid=row.fid,
            real=priced[row.method].real,
            neighbours=priced[row.method].neighbours,
        )
        status: Status = "ok"
        if (verdict := words.verdict(result, row)) is not None:
            status = "collapsed" if verdict == "collapsed" else "inconclusive"
        cells.append(
            Cell(
                model=result.model,
                method=row.method,
                concept=row.concept,
                seed=row.seed,
                attack=row.attack,
                title=attack.title,
                about=_about(row.attack),
                arguments=attack.arguments,
                pictures=attack.pictures or result.settings.get("attack_pictures"),
                searched=None,
                found=None,
                status=status,
                flags=tuple(dict.fromkeys([*row.flags, *priced[row.method].flags])),
                scores=scores,
            )
        )
    return Evidence(
        verb="demo",
        source=source,
        listing=source,
        remedy=record.REMEDY,
        methods={method.method: chain_of(method) for method in result.methods},
        titles={method.method: method.title for method in result.methods},
        control=CONTROL,
        original="original",
        cells=tuple(cells),
        sheets=tuple(_demo_sheet(result, grid) for grid in result.grids),
        sizes=result.settings,
        configuration=result.settings or {"model": result.model, "concept": result.concept, "seed": result.seed},
        versions={"gift": result.version, **versions},
        commit=result.commit,
        machine=machine,
        saved=words.headline(result),
    )


def _demo_sheet(result: record.Result, grid: record.Grid) -> Sheet:
    what = f"asked for “{result.concept}”" if grid.group == "concept" else "asked for other things"
    when = "before any attack"
    if grid.attack is not None:
        when = f"after {grid.step} steps of {words.inline(result.attack_title(grid.attack))}"
    mean = words.number(sum(grid.scores) / len(grid.scores))
    whose = result.title(grid.method)
    return Sheet(
        model=result.model,
        method=grid.method,
        concept=result.concept,
        attack=grid.attack,
        file=grid.file,
        alt=f"{len(grid.prompts)} pictures by {whose}, {what}, {when}",
        caption=f"{whose}, {what}, {when}: mean score of these {mean}. First prompt: {grid.prompts[0]}.",
    )


class _Made(Part):
    libraries: dict[str, str]


def _of_grid(source: Path, records: grid_record.Records) -> Evidence:
    first = read_checked(
        source,
        lambda text: _Made.model_validate(parse(text.strip().split("\n")[0])),
        writer=grid_record.WRITER,
        remedy=grid_record.REMEDY,
    )
    grid = records.summary.grid.model_dump(mode="json")
    chains = {cell.method: cell.settings.methods for cell in records.cells}
    titles = {label: in_words(chain) if label in {"+".join(chain), ORIGINAL} else label for label, chain in chains.items()}
    sizes = grid.get("sizes")
    given = sizes.get("attack_pictures") if isinstance(sizes, dict) else None
    trials = records.summary.grid.search.trials if records.summary.grid.search else None
    return Evidence(
        verb="bench",
        source=source,
        listing=source.with_name(LIST),
        remedy=grid_record.REMEDY,
        methods=chains,
        titles=titles,
        control=records.summary.grid.control,
        original=next((label for label, chain in chains.items() if not chain), ORIGINAL),
        cells=tuple(_grid_cell(cell, trials, given) for cell in records.cells),
        sheets=tuple(_grid_sheet(sheet, titles[sheet.method]) for sheet in records.sheets),
        sizes=sizes if isinstance(sizes, dict) else {},
        configuration=grid,
        versions=first.libraries,
        commit=records.summary.provenance.commit,
        machine=_split(records.summary.provenance.machine)[1],
        saved=None,
    )


def _grid_cell(cell: grid_record.Failed | grid_record.Measured, trials: int | None, given: Any) -> Cell:
    found = getattr(cell, "attack_found", None)
    arguments = dict(found or cell.settings.attack)
    name = str(arguments.pop("name", cell.attack))
    scores = None
    if isinstance(cell, grid_record.Measured):
        scores = Scores(
            original=cell.original_score,
            before=cell.score_before,
            after=cell.score_after,
            highest=cell.score_highest,
            control=cell.control_curve[-1][1],
            reduction=cell.relearning_reduction,
            recovered_at=cell.steps_to_recover,
            horizon=cell.horizon,
            safe_accuracy=cell.price.safe_accuracy,
            fid=cell.price.fid,
            real=cell.price.real,
            neighbours=cell.price.neighbours,
        )
    return Cell(
        model=cell.model,
        method=cell.method,
        concept=cell.concept,
        seed=cell.seed,
        attack=cell.attack,
        title=_title(cell.attack),
        about=_about(name),
        arguments={"attack": name, **arguments},
        pictures=getattr(cell, "pictures_found", None) or cell.settings.sizes.get("attack_pictures", given),
        searched=trials if found else None,
        found=_title(name) if found else None,
        status=cell.status,
        flags=tuple(cell.flags),
        scores=scores,
        group=cell.settings.group,
    )


def _title(attack: str) -> str:
    """A grid's attack in words; a name of its own stays."""
    return ATTACKS[attack].title if attack in ATTACKS else "Worst attack found" if attack == WORST else attack


def _grid_sheet(sheet: grid_record.Sheet, whose: str) -> Sheet:
    steps = words.listed([str(step) for step in sheet.steps])
    what = f"{whose}, asked for “{sheet.concept}” under {words.inline(_title(sheet.attack))}, seed {sheet.seed}"
    return Sheet(
        model=sheet.model,
        method=sheet.method,
        concept=sheet.concept,
        attack=sheet.attack,
        file=sheet.file,
        alt=f"Pictures by {what}",
        caption=f"{what}. Columns, from left to right: after {steps} attack steps. First row's prompt: {sheet.prompts[0]}.",
    )
