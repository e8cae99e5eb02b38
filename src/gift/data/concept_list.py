"""A file of concepts: one a line, with its share of a batch where they shall not be alike."""

from __future__ import annotations

import math
from pathlib import Path

from gift.errors import GiftError


def read_concepts(path: Path) -> tuple[list[str], list[float]]:
    """Reads lines such as 'mushroom' or 'style:openmoji = 2'; blank lines and lines that begin with '#' are passed over.

    Returns:
        The concepts' names, and the share of a batch that each has: 1 where the line says none.

    Raises:
        GiftError: the file can't be read or names nothing, or a line names nothing, names a concept again, or gives a share that
            is no positive number.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GiftError(f"can't read concepts from {path}: {error}; give a UTF-8 text file, one concept a line") from error
    names: list[str] = []
    shares: list[float] = []
    for number, line in enumerate(lines, 1):
        text, given, share = line.partition("=")
        name, where = " ".join(text.split()), f"{path}, line {number}"
        if line.lstrip().startswith("#") or not line.strip():
            continue
        if not name:
            raise GiftError(f"{where}: no concept before '='; write 'NAME = SHARE'")
        if name in names:
            raise GiftError(f"{where}: '{name}' is named twice; give it once")
        names.append(name)
        shares.append(_share(share.strip(), where) if given else 1.0)
    if not names:
        raise GiftError(f"{path} names no concept; write one a line")
    return names, shares


def _share(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise GiftError(f"{where}: '{text}' is no share of a batch; give a positive number")
    return value
