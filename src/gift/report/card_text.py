"""The text of a model card: what the template shows, put together from records."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gift import __version__
from gift.bench.reading import parse, read_checked
from gift.immunizers import IMMUNIZERS, Gift
from gift.report.evidence import Cell, Evidence, in_words
from gift.report.made import INDEX, Made, Match
from gift.report.markdown import Markdown, environment, fenced, settings
from gift.report.risk import lines, price, residual
from gift.report.words import explain, listed

TEMPLATE = "card.md.j2"
PLACE = re.compile(r"(/|~|\.\.?[/\\]|\\\\|[A-Za-z]:[/\\])")


@dataclass(frozen=True)
class Picture:
    """A picture beside the card: its path from there, what stands in its place for who can't see it, and its caption."""

    link: str
    alt: str
    caption: str


def card_text(
    folder: Path,
    made: Made,
    base: str | None,
    license_id: str | None,
    evidence: Evidence | None,
    found: Match | None,
    pictures: Sequence[Picture],
) -> str:
    """The card without its front matter. The same records give the same text.

    Args:
        folder: the model's.
        made: how it was made.
        base: the base model's name; None where it is not known.
        license_id: a licence of the hub; None where none was given.
        evidence: what was measured; None for nothing.
        found: the part of it that is about this model.
        pictures: that lie beside the card.
    """
    index = read_checked(folder / INDEX, parse, writer="gift immunize", remedy="save the model again")
    index = index if isinstance(index, dict) else {}
    concepts = listed([f"“{concept}”" for concept in made.concepts]) if made.concepts else None
    cells = found.cells if found else ()
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            base=base,
            concepts=concepts,
            kind=str(index.get("_class_name", "DiffusionPipeline")),
            known=made.verb is not None,
            method=in_words(made.chain),
            chain=[(_title(name), _about(name)) for name in made.chain],
            guess=Gift.name in made.chain,
            chain_settings=settings(public(made.chain)),
            data=_data(made),
            seed=made.configuration.get("seed"),
            license=license_id,
            evidence=evidence,
            found=found,
            attacks=_attacks(cells),
            attack_settings=settings(public({_unique(cell): cell.arguments for cell in cells})),
            each=evidence.sizes.get("evaluation_pictures") if evidence else None,
            lines=lines(cells),
            price=price(found, evidence) if evidence and found else None,
            residual=residual(found, evidence) if evidence and found else [],
            doubts=_doubts(cells),
            pictures=[(Markdown(picture.link), picture.alt, picture.caption) for picture in pictures],
            attack_command=fenced(_attack_command(made, cells), "sh"),
            repeats=_repeats(made, evidence),
            versions=_versions(evidence, index),
        )
    )


def public(value: Any) -> Any:
    """A value without the places of folders on its maker's machine: of an absolute path, or one from home, the last name alone."""
    if isinstance(value, dict):
        return {str(public(str(key))): public(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [public(item) for item in value]
    if isinstance(value, str) and PLACE.match(value):
        return value.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return value


def _title(name: str) -> str:
    return IMMUNIZERS[name].title if name in IMMUNIZERS else name


def _about(name: str) -> str:
    return IMMUNIZERS[name].about if name in IMMUNIZERS else ""


def _data(made: Made) -> str:
    """Where the pictures came from that the defence was made with."""
    parts = []
    for what, images, count in (
        ("the concept", "concept_images", "concept_pictures"),
        ("everything else", "safe_images", "safe_pictures"),
    ):
        given, drawn = made.configuration.get(images), made.configuration.get(count)
        every = given if isinstance(given, list) else [given]
        if some := len([folder for folder in every if folder]):
            mixed = f" of {some} of {len(every)} concepts, the base model's of the others" if some < len(every) else ""
            parts.append(f"{what}: its maker's own pictures{mixed}")
        elif drawn:
            parts.append(f"{what}: {drawn} pictures that the base model drew itself")
    return "; ".join(parts)


def _unique(cell: Cell) -> str:
    """The attack's title, with the cell where each cell has an attack of its own."""
    return f"{cell.title} ({cell.concept}, seed {cell.seed}): {cell.found}" if cell.found else cell.title


def _attacks(cells: Sequence[Cell]) -> list[dict[str, str]]:
    """Each attack once: what it does, its steps, rate and pictures."""
    out: dict[str, dict[str, str]] = {}
    for cell in cells:
        given, shots = cell.pictures, cell.arguments.get("shots")
        few = f"{shots} of {given}" if isinstance(shots, int) and shots > 0 else str(given)
        out.setdefault(
            json.dumps([_unique(cell), cell.arguments, given], sort_keys=True, default=str),
            {
                "title": _unique(cell),
                "about": cell.about,
                "steps": _told(cell.arguments.get("steps")),
                "rate": _told(cell.arguments.get("rate")),
                "pictures": few if given else _told(None),
            },
        )
    return list(out.values())


def _told(value: Any) -> str:
    """A setting, or an en dash where the record has none."""
    return "\N{EN DASH}" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _doubts(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """Every flag once, with what it means and how many cells it is raised in."""
    flags = dict.fromkeys(flag for cell in cells for flag in cell.flags)
    counts = {flag: sum(flag in cell.flags for cell in cells) for flag in flags}
    where = {flag: "every result" if n == len(cells) else f"{n} of {len(cells)} results" for flag, n in counts.items()}
    return [(flag, " ".join(filter(None, [explain(flag), f"Raised for {where[flag]}."]))) for flag in flags]


def _attack_command(made: Made, cells: Sequence[Cell]) -> str:
    concept = " ".join((made.concepts or ("CONCEPT",))[0].split())
    steps = max((cell.scores.horizon for cell in cells if cell.scores), default=150)
    return f"gift attack path/to/this/folder --concept {shlex.quote(concept)} --attack lora --steps {steps}"


def _repeats(made: Made, evidence: Evidence | None) -> list[tuple[str, Markdown, Markdown]]:
    """What each command does, the command, and the file it reads."""
    wanted = [("The model was made by", made.verb, made.configuration)]
    if evidence:
        wanted.append(("The numbers were measured by", evidence.verb, evidence.configuration))
        if (made.verb, made.configuration) == (evidence.verb, evidence.configuration):
            wanted = [("The model was made and measured by", evidence.verb, evidence.configuration)]
    commands = {
        "immunize": "gift immunize --config config.yaml --output out/",
        "demo": "gift demo --config config.yaml --output demo/",
        "bench": "gift bench config.yaml --output bench/",
    }
    return [(what, fenced(commands[verb], "sh"), settings(public(config))) for what, verb, config in wanted if verb]


def _versions(evidence: Evidence | None, index: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and versions, then commit and machine."""
    out = {"gift (this card)": __version__}
    if "_diffusers_version" in index:
        out["diffusers (saved the model)"] = str(index["_diffusers_version"])
    if evidence:
        out |= {f"{name} (measured)": version for name, version in evidence.versions.items()}
        out |= {"gift's commit": evidence.commit} if evidence.commit else {}
        out |= {f"machine: {key}": str(value) for key, value in evidence.machine.items() if value is not None}
    return list(out.items())
