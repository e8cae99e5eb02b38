"""Contact sheets from the record, ready to stand in the page: embedded, captioned, and with their numbers as a table."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from gift.bench.record import NAME, REMEDY, Grid, Method, Result
from gift.errors import GiftError
from gift.report.words import number

PNG = b"\x89PNG\r\n\x1a\n"
GROUPS = {"concept": "Prompts that ask for the concept", "safe": "Prompts that ask for something else"}
SCALE = 1.5


@dataclass(frozen=True)
class Sheet:
    """One contact sheet. `width` and `height` are the file's pixels, `shown` is the width on the page."""

    uri: str
    alt: str
    moment: str
    mean: str
    scores: list[str]
    width: int
    height: int
    shown: int


@dataclass(frozen=True)
class Block:
    """Sheets of the same prompts and seeds, in order of time: tile n of each shows the same request."""

    id: str
    heading: str
    sheets: list[Sheet]
    tiles: list[tuple[str, int]]


def read_png(folder: Path, file: str, record: Path, remedy: str) -> bytes:
    """A picture that a record names.

    Args:
        folder: where the record lies.
        file: the picture's path in it, as the record says.
        record: the file that names it, for the message.
        remedy: what to do about a bad one.

    Raises:
        GiftError: it lies outside `folder`, is missing, or is not a PNG.
    """
    shown = " ".join(file.split())
    try:
        path = (folder / file).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise GiftError(f"{record} names a picture outside its folder: {shown}; {remedy}")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise GiftError(f"can't read the picture {shown} that {record} names; {remedy}") from error
    if not data.startswith(PNG):
        raise GiftError(f"the picture {shown} that {record} names is not a PNG; {remedy}")
    return data


def embed(folder: Path, file: str, record: Path, remedy: str) -> str:
    """`read_png` as a data URI."""
    return "data:image/png;base64," + base64.b64encode(read_png(folder, file, record, remedy)).decode("ascii")


def _moment(result: Result, grid: Grid) -> str:
    if grid.attack is None:
        return "Before any attack"
    return f"After {grid.step} steps of {result.attack_title(grid.attack)}"


def _sheet(folder: Path, result: Result, grid: Grid) -> Sheet:
    rows = -(-len(grid.prompts) // grid.columns)
    mean = number(sum(grid.scores) / len(grid.scores))
    moment = _moment(result, grid)
    first = f"; first prompt: {grid.prompts[0]}"
    what = result.concept if grid.group == "concept" else "prompted object"
    return Sheet(
        uri=embed(folder, grid.file, folder / NAME, REMEDY),
        alt=f"{len(grid.prompts)} pictures by {result.title(grid.method)}. {moment}. Mean score for the {what}: {mean}{first}.",
        moment=moment,
        mean=mean,
        scores=[number(score) for score in grid.scores],
        width=grid.columns * grid.size,
        height=rows * grid.size,
        shown=int(grid.columns * grid.size * SCALE),
    )


def blocks(folder: Path, result: Result, method: Method) -> list[Block]:
    """The method's sheets: concept prompts first, then safe ones; before the attacks first, then attack by attack.

    Args:
        folder: where the record lies.
        result: the whole record.
        method: whose pictures to show.

    Raises:
        GiftError: a picture is missing, outside the folder, or not a PNG.
    """
    attacks = [None, *(a.attack for a in result.attacks)]
    groups = list(GROUPS)
    mine = [grid for grid in result.grids if grid.method == method.method]
    mine.sort(key=lambda g: (groups.index(g.group) if g.group in groups else len(groups), attacks.index(g.attack), g.step))
    together: dict[tuple[str, int, tuple[str, ...], tuple[int, ...]], list[Grid]] = {}
    for grid in mine:
        together.setdefault((grid.group, grid.columns, tuple(grid.prompts), tuple(grid.seeds)), []).append(grid)
    return [
        Block(
            id=f"tiles-{result.methods.index(method)}-{place}",
            heading=GROUPS.get(group, group),
            sheets=[_sheet(folder, result, grid) for grid in grids],
            tiles=list(zip(prompts, seeds, strict=True)),
        )
        for place, ((group, _, prompts, seeds), grids) in enumerate(together.items())
    ]
