"""A file of concepts: one a line, with its share of a batch and a folder of its pictures where they shall not be the default."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from gift.data.art import Art
from gift.data.concept import Concept, parse_concept, spelled
from gift.errors import GiftError


@dataclass(frozen=True)
class Line:
    """One concept of a file.

    Attributes:
        name: as it was written, without needless spaces.
        share: of a batch, beside the others'; 1 where the line says none.
        folder: of the concept's pictures; None where the line says none.
        where: the file and the line's number.
    """

    name: str
    share: float
    folder: Path | None
    where: str


def read_concepts(path: Path) -> list[Line]:
    """Reads lines such as 'mushroom', 'style:openmoji = 2' or 'a red car = 1, pictures/cars'.

    Blank lines and lines that begin with '#' are passed over. Folders are relative to the working directory, as everywhere else.

    Raises:
        GiftError: the file can't be read or names nothing, or a line names nothing, names a concept again, gives a share that is
            no positive number, or a comma without a folder.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GiftError(f"can't read concepts from {path}: {error}; give a UTF-8 text file, one concept a line") from error
    found: list[Line] = []
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        read = _line(line, f"{path}, line {number}")
        if spelled(read.name) in [spelled(other.name) for other in found]:
            raise GiftError(f"{read.where}: '{read.name}' is named twice; give it once")
        found.append(read)
    if not found:
        raise GiftError(f"{path} names no concept; write one a line")
    return found


def known_concepts(lines: list[Line], art: Art | None) -> list[Concept]:
    """The lines' concepts, to a model with the bundled names (`art`) or with a vocabulary of its own.

    Raises:
        GiftError: the model does not know one; its line is told.
    """
    concepts = []
    for line in lines:
        try:
            concepts.append(parse_concept(line.name, art))
        except GiftError as error:
            raise GiftError(f"{line.where}: {error}") from error
    return concepts


def _line(text: str, where: str) -> Line:
    name, given, rest = text.partition("=")
    name = " ".join(name.split())
    if not name:
        raise GiftError(f"{where}: no concept before '='; write 'NAME = SHARE' or 'NAME = SHARE, FOLDER'")
    share, comma, folder = (part.strip() for part in rest.partition(","))
    if comma and not folder:
        raise GiftError(f"{where}: no folder after the comma; write 'NAME = SHARE, FOLDER'")
    return Line(name, _share(share, where) if given else 1.0, Path(folder) if folder else None, where)


def _share(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise GiftError(f"{where}: '{text}' is no share of a batch; give a positive number")
    return value
