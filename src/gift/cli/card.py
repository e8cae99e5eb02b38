"""`gift card`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gift.cli.common import reporting


@reporting
def card(
    model: Annotated[Path, typer.Argument(help="A model's folder that 'gift immunize' or 'gift demo' saved.")],
    evidence: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What 'gift demo' or 'gift bench' wrote; without it, nothing was measured.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The base model, for the hub as OWNER/NAME; else as recorded.")
    ] = None,
    license_id: Annotated[str | None, typer.Option("--license", metavar="ID", help="A licence id of the hub.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="By default README.md in the model.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a card that gift did not write.")] = False,
) -> None:
    """Write a Hugging Face model card: what was done, what was attacked, what is left of the risk.

    Example: `gift card demo/model --evidence demo/ --base-model owner/name --license apache-2.0`
    """
    from gift.report.card import write_card

    written = write_card(model, evidence=evidence, base_model=base_model, license=license_id, output=output, force=force)
    for note in written.notes:
        print(f"note: {note}")
    print(f"card in {written.path}")
