"""A grid's contact sheets, ready to stand in the page: the same prompts and seeds from before an attack to its end."""

from __future__ import annotations

from dataclasses import dataclass

from gift.bench.grid_record import LIST, REMEDY, Measured, Records, Sheet
from gift.report.pictures import embed
from gift.report.words import number

ROOM = 24 * 2**20
"""Characters of pictures that a page may hold; concepts beyond it are left out whole (choice)."""
SCALE = 1.25
TILE = (64, 96)
"""The least and the largest width of a picture on the page, in its pixels."""


@dataclass(frozen=True)
class Strip:
    """One method's sheet. `looks` are the columns' headings with the mean score of all the cell's pictures at that step."""

    method: str
    uri: str
    alt: str
    looks: list[tuple[str, str]]
    width: int
    height: int
    shown: int


@dataclass(frozen=True)
class Album:
    """The sheets of one attack on one concept; row n of each shows the n-th prompt and seed."""

    model: str
    concept: str
    attack: str
    seed: int
    strips: list[Strip]
    tiles: list[tuple[str, int]]


def albums(records: Records) -> tuple[list[Album], list[str]]:
    """Concept by concept, attack by attack, as far as there is room.

    Returns:
        The albums, and the concepts that are left out.

    Raises:
        GiftError: a picture is missing, outside the folder, or not a PNG.
    """
    kept: list[Album] = []
    left_out: list[str] = []
    used = 0
    for concept in records.concepts:
        mine = _albums(records, [sheet for sheet in records.sheets if sheet.concept == concept])
        size = sum(len(strip.uri) for album in mine for strip in album.strips)
        if kept and used + size > ROOM:
            left_out.append(concept)
            continue
        kept += mine
        used += size
    return kept, left_out


def _albums(records: Records, sheets: list[Sheet]) -> list[Album]:
    together: dict[tuple[str, int, tuple[str, ...], tuple[int, ...], int], list[Sheet]] = {}
    for sheet in sheets:
        key = sheet.model, records.attacks.index(sheet.attack), tuple(sheet.prompts), tuple(sheet.seeds), sheet.seed
        together.setdefault(key, []).append(sheet)
    return [
        Album(
            model,
            group[0].concept,
            records.attacks[attack],
            seed,
            [_strip(records, sheet) for sheet in group],
            list(zip(prompts, seeds, strict=True)),
        )
        for (model, attack, prompts, seeds, seed), group in sorted(
            together.items(), key=lambda item: (records.models.index(item[0][0]), item[0][1])
        )
    ]


def _strip(records: Records, sheet: Sheet) -> Strip:
    cell = records.by_key[sheet.key]
    assert isinstance(cell, Measured)  # the record was checked
    scores = dict(cell.curve)
    looks = [(str(step) if step else "before", number(scores.get(step))) for step in sheet.steps]
    spoken = ", ".join(f"{when if when == 'before' else f'step {when}'} {score}" for when, score in looks)
    width = len(sheet.steps) * sheet.size
    least, largest = TILE
    return Strip(
        method=sheet.method,
        uri=embed(records.folder, sheet.file, records.folder / LIST, REMEDY),
        alt=f"{sheet.concept} by {sheet.method} under {sheet.attack}, seed {sheet.seed}: {len(sheet.prompts)} prompts, a row each, "
        f"before the attack and along it, a column each. Mean scores: {spoken}.",
        looks=looks,
        width=width,
        height=len(sheet.prompts) * sheet.size,
        shown=len(sheet.steps) * int(min(max(sheet.size * SCALE, least), largest)),
    )
