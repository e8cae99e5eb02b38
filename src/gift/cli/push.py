"""`gift push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gift.cli.common import reporting


@reporting
def push(
    folder: Annotated[Path, typer.Argument(help="A model's folder that 'gift immunize' wrote.")],
    name: Annotated[str, typer.Argument(help="OWNER/NAME on the hub, or OWNER/NAME@BRANCH.")],
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Immunized with gift",
    without_card: Annotated[bool, typer.Option("--without-card", help="Send a folder that has no model card.")] = False,
) -> None:
    """Send an immunized model to the model hub, with its card.

    Example: `gift push out/ owner/name`
    """
    from gift.models.hub import push as send

    print(f"sent: {send(folder, name, private=private, message=message, without_card=without_card)}")
