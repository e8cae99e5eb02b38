"""How a saved model was made, and which part of a measurement is about it."""

from __future__ import annotations

import filecmp
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from gift.bench import record
from gift.bench.grid import ORIGINAL
from gift.bench.reading import Name, Part, parse, read_checked
from gift.data.concept import spelled
from gift.errors import GiftError
from gift.report.evidence import Cell, Chain, Evidence, chain_of
from gift.report.words import headline, listed

IMMUNIZED = "immunize.json"
INDEX = "model_index.json"


@dataclass(frozen=True)
class Made:
    """How a model was made.

    Attributes:
        verb: of the command that made it; None where nothing says how.
        base: the model before, as the command was given it.
        concepts: what it was immunized against.
        chain: methods in order with their hyperparameters.
        configuration: what the command repeats it with.
    """

    verb: str | None = None
    base: str | None = None
    concepts: tuple[str, ...] = ()
    chain: Chain = field(default_factory=dict)
    configuration: dict[str, Any] = field(default_factory=dict)


class _Step(Part):
    method: Name
    arguments: dict[str, Any]


class _Config(Part):
    model: Name
    concept: tuple[Name, ...] = Field(min_length=1)

    @field_validator("concept", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class _Immunized(Part):
    methods: list[_Step] = Field(min_length=1)
    config: dict[str, Any]


def model_folder(given: Path) -> Path:
    """The diffusers folder: the given one, or `model/` in it, where `gift immunize` and `gift demo` put it.

    Raises:
        GiftError: there is none.
    """
    found = next((folder for folder in (given, given / "model") if (folder / INDEX).is_file()), None)
    if found is None:
        raise GiftError(f"{given} holds no model ({INDEX}); give the folder that 'gift immunize' or 'gift demo' saved")
    return found


def read_made(folder: Path) -> Made:
    """Reads the record that the command left beside the model, or in it; where both commands left one, the newer.

    Raises:
        GiftError: the record is malformed.
    """
    places = (folder, folder.resolve().parent) if folder.resolve().name == "model" else (folder,)
    files = [place / name for place in places for name in (IMMUNIZED, record.NAME) if (place / name).is_file()]
    if not files:
        return Made()
    newest = max(files, key=lambda file: file.stat().st_mtime)
    return _immunized(newest) if newest.name == IMMUNIZED else _demonstrated(newest)


def _immunized(file: Path) -> Made:
    def read(text: str) -> tuple[_Immunized, _Config]:
        whole = _Immunized.model_validate(parse(text))
        return whole, _Config.model_validate(whole.config)

    whole, config = read_checked(file, read, writer="gift immunize", remedy="run 'gift immunize' again to write it anew")
    chain = {step.method: step.arguments for step in whole.methods if step.method != ORIGINAL}
    return Made("immunize", config.model, tuple(" ".join(c.split()) for c in config.concept), chain, whole.config)


def _demonstrated(file: Path) -> Made:
    result = record.load(file.parent)
    saved = headline(result)
    chain = next(chain_of(method) for method in result.methods if method.method == saved)
    known = result.settings or {"model": result.model, "concept": result.concept, "seed": result.seed}
    return Made("demo", result.model, (result.concept,), chain, known)


@dataclass(frozen=True)
class Match:
    """The part of a measurement that is about a model.

    Attributes:
        label: the method's.
        same: whether the very weights were measured, rather than others made in the same way.
        cells: what was measured.
        differences: in what the measured weights were made otherwise, in words.
    """

    label: str
    same: bool
    cells: tuple[Cell, ...]
    differences: tuple[str, ...]


def match(folder: Path, made: Made, evidence: Evidence) -> Match:
    """Finds what a measurement says of the model in `folder`.

    Raises:
        GiftError: it is of other weights, made in another way.
    """
    if evidence.saved is not None and same_weights(folder, evidence.source.parent / "model"):
        cells = tuple(cell for cell in evidence.cells if cell.method == evidence.saved)
        return Match(evidence.saved, True, cells, ())
    if made.verb is None:
        raise GiftError(
            f"nothing says how {folder} was made, so {evidence.source} can't be told to be about it; keep {IMMUNIZED} or "
            f"{record.NAME} beside the model, as 'gift immunize' and 'gift demo' leave them, or leave --evidence out"
        )
    other, remedy = f"{evidence.source} is not about {folder}", "measure it, or leave --evidence out"
    alike = [label for label, chain in evidence.methods.items() if list(chain.items()) == list(made.chain.items())]
    if not alike:
        raise GiftError(f"{other}: {_no_method(made, evidence)}; {remedy}")
    by_label = {label: [cell for cell in evidence.cells if cell.method == label] for label in alike}
    same = frozenset(map(_name, made.concepts))
    label = next((label for label, cells in by_label.items() if any(_together(cell) == same for cell in cells)), alike[0])
    mine = by_label[label]
    for what, wanted, there in (
        ("base model", [made.base or ""], [cell.model for cell in mine]),
        ("concept", list(made.concepts), [cell.concept for cell in mine]),
    ):
        if not set(map(_name, wanted)) & set(map(_name, there)):
            known = listed(list(dict.fromkeys(there)))
            raise GiftError(f"{other}: its {what} is {listed(wanted)}, and the record's is {known}; {remedy}")
    wanted_names = set(map(_name, made.concepts))
    cells = tuple(cell for cell in mine if _name(cell.model) == _name(made.base or "") and _name(cell.concept) in wanted_names)
    return Match(label, False, cells, tuple(_differences(made, evidence, cells)))


def _together(cell: Cell) -> frozenset[str]:
    """The concepts that a measured model was immunized against."""
    return frozenset(map(_name, cell.group or (cell.concept,)))


def _name(text: str) -> str:
    """A concept or a model's place, so that two spellings of one are the same."""
    return spelled(text).removeprefix("./").rstrip("/")


def same_weights(one: Path, other: Path) -> bool:
    """Whether two diffusers folders hold the same weights, byte for byte; a folder that is not there holds none."""
    if other.is_dir() and one.samefile(other):
        return True
    names = [sorted(str(file.relative_to(folder)) for file in folder.rglob("*.safetensors")) for folder in (one, other)]
    if not names[0] or names[0] != names[1]:
        return False
    return all(filecmp.cmp(one / name, other / name, shallow=False) for name in names[0])


def _no_method(made: Made, evidence: Evidence) -> str:
    """Why no method of a measurement is the model's: another chain, or other settings of the same one."""
    alike = [chain for chain in evidence.methods.values() if list(chain) == list(made.chain)]
    if not alike:
        return f"it was made by {'+'.join(made.chain)}, and the record's methods are {listed(list(evidence.methods))}"
    for name, arguments in made.chain.items():
        for key in {**arguments, **alike[0][name]}:
            mine, theirs = (values.get(key, "absent") for values in (arguments, alike[0][name]))
            if mine != theirs:
                return f"it was made with {name}.{key} {mine}, and the record's with {theirs}"
    return "the record's settings are others"


def _differences(made: Made, evidence: Evidence, cells: tuple[Cell, ...]) -> list[str]:
    """In what weights made by the same methods and settings still differ."""
    out = []
    seeds = sorted({cell.seed for cell in cells})
    if (seed := made.configuration.get("seed")) is not None and seed not in seeds:
        out.append(f"the seed was {seed}, the measured models' {listed([str(s) for s in seeds])}")
    for key, what in (("concept_images", "the concept"), ("safe_images", "what is kept")):
        if made.configuration.get(key):
            out.append(f"this model was given pictures of {what}, the measured models drew their own")
    for key, what in (("concept_pictures", "of the concept"), ("safe_pictures", "of other things")):
        mine, theirs = made.configuration.get(key), evidence.sizes.get(key)
        if mine != theirs and not made.configuration.get(key.replace("pictures", "images")):
            out.append(f"this model was made with {mine} drawn pictures {what}, the measured models with {theirs}")
    groups = {_together(cell) for cell in cells} - {frozenset(map(_name, made.concepts))}
    if any(len(group) == 1 for group in groups):
        out.append("this model was immunized against several concepts at once, the measured models against one each")
    for group in sorted(groups, key=sorted):
        if len(group) > 1:
            out.append(f"measured models were immunized against {listed([f'“{name}”' for name in sorted(group)])} at once")
    measured = {_name(cell.concept) for cell in cells}
    out += [f"nothing was measured for “{concept}”" for concept in made.concepts if _name(concept) not in measured]
    return out
