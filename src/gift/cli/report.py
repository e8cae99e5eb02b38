"""`gift report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gift.cli.common import reporting


@reporting
def report(
    folder: Annotated[Path, typer.Argument(help="A folder with result.json and its pictures.")] = Path("demo"),
) -> None:
    """Write the page again from a finished result.

    Example: `gift report demo/`
    """
    from gift.report.page import write_page

    print(f"page in {write_page(folder)}")
