"""The command `gift`: one verb a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from gift.cli import attack, bench, card, demo, evaluate, generate, immunize, listing, push, report

app = typer.Typer(
    name="gift",
    help="Make text-to-image diffusion models hard to fine-tune for harm, and measure how hard.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
VERBS: dict[str, Callable[..., None]] = {
    "demo": demo.demo,
    "immunize": immunize.immunize,
    "attack": attack.attack,
    "bench": bench.bench,
    "evaluate": evaluate.evaluate,
    "generate": generate.generate,
    "report": report.report,
    "card": card.card,
    "push": push.push,
    "list": listing.listing,
}
for name, verb in VERBS.items():
    app.command(name)(verb)


def show_version(wanted: bool) -> None:
    """Prints the version and leaves."""
    if wanted:
        from gift import __version__

        print(f"gift {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Make text-to-image diffusion models hard to fine-tune for harm, and measure how hard."""


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
