"""Finds out what a folder holds, and writes its page."""

from __future__ import annotations

from pathlib import Path

from gift.bench import grid_record, record
from gift.errors import GiftError
from gift.report.grid_page import write_grid_page
from gift.report.page import write_page


def write_report(folder: Path) -> Path:
    """Writes the page of a demonstration or of a grid again.

    Args:
        folder: what `gift demo` or `gift bench` wrote.

    Returns:
        The page's path.

    Raises:
        GiftError: the folder holds neither, or both, or what the page's writer raises.
    """
    demo, grid = (folder / record.NAME).exists(), (folder / grid_record.NAME).exists()
    if demo and grid:
        raise GiftError(f"{folder} holds both {record.NAME} and {grid_record.NAME}; give each a folder of its own")
    if not demo and not grid:
        raise GiftError(
            f"{folder} holds neither {record.NAME} nor {grid_record.NAME}; give a folder that 'gift demo' or 'gift bench' wrote"
        )
    return write_page(folder) if demo else write_grid_page(folder)
