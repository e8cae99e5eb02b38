"""Contact sheets of the attacks of a grid: the same prompts and seeds, look after look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gift.bench.corner import Cell
from gift.bench.grid_record import LIST
from gift.bench.plan import Plan
from gift.bench.store import Store
from gift.files import write_bytes, write_json
from gift.pixels import contact_sheet, png_bytes

PICTURES = "pictures"
SHOWN = 4
"""Pictures of each look that are shown, the same ones at every look (choice)."""


def write_sheets(plan: Plan, folder: Path, store: Store) -> list[dict[str, Any]]:
    """Writes a sheet for each model, concept, method and attack at one seed, and `pictures.json`, which lists them.

    The seed is the first of the grid at which some attack on the concept kept pictures, the same for all methods and attacks.
    Sheets of another grid leave the folder.

    Returns:
        The list, in the order of the cells: model, concept, seed, method, attack, file, steps (a column each), prompts and seeds (a
        row each), size (of a tile, in pixels).

    Raises:
        GiftError: the folder can't be written.
    """
    seeds: dict[tuple[str, str], int] = {}
    sheets: list[dict[str, Any]] = []
    for cell in plan.cells:
        if seeds.get((cell.model, cell.concept), cell.seed) != cell.seed:
            continue
        piece = cell.pieces["attack"]
        kept = store.find(piece.kind, piece.content)
        if kept:
            seeds[cell.model, cell.concept] = cell.seed
            sheets.append(_write(cell, kept, folder))
    names = {Path(sheet["file"]).name for sheet in sheets}
    for old in (folder / PICTURES).glob("*.png"):
        if old.name not in names:
            old.unlink()
    write_json(folder / LIST, sheets)
    return sheets


def _write(cell: Cell, kept: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One sheet: a row for each prompt, a column for each look."""
    looks = [look["images"][:SHOWN] for look in kept["looks"]]
    tiles = torch.stack(looks, dim=1).flatten(0, 1)
    file = f"{PICTURES}/{cell.name}.png"
    write_bytes(folder / file, png_bytes(contact_sheet(tiles, len(looks))))
    return {
        "model": cell.model,
        "concept": cell.concept,
        "seed": cell.seed,
        "method": cell.method,
        "attack": cell.attack,
        "file": file,
        "steps": [look["step"] for look in kept["looks"]],
        "prompts": kept["prompts"][:SHOWN],
        "seeds": kept["seeds"][:SHOWN],
        "size": tiles.shape[-1],
    }
