"""From a grid to its cells and pieces."""

from __future__ import annotations

from dataclasses import dataclass

from gift.bench.context import forget
from gift.bench.corner import Cell, Corner
from gift.bench.grid import Grid
from gift.bench.pieces import Piece, in_order


@dataclass(frozen=True)
class Plan:
    """A grid's cells in order, and every piece once, in an order in which they can be computed."""

    grid: Grid
    cells: tuple[Cell, ...]
    pieces: dict[str, Piece]


def make_plan(grid: Grid) -> Plan:
    """Lays a grid out. Models are opened, since their weights are part of every key.

    Raises:
        GiftError: a model can't be opened, does not know a concept, or nothing can recognise it.
    """
    forget()
    cells: list[Cell] = []
    for model in grid.models:
        for concept in grid.concepts:
            for seed in grid.seeds:
                cells += Corner(grid, model, concept, seed).cells()
    order = in_order([piece for cell in cells for piece in cell.pieces.values()])
    return Plan(grid, tuple(cells), order)
