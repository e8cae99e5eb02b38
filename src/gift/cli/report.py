"""`gift report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gift.cli.common import reporting


@reporting
def report(
    folder: Annotated[Path, typer.Argument(help="A folder that demo or bench wrote.")] = Path("demo"),
) -> None:
    """Write the page of a finished demo or grid again.

    Example: `gift report demo/`
    """
    from gift.report import write_report

    print(f"page in {write_report(folder)}")
