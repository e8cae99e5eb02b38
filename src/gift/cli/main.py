"""The command `gift`: one verb a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

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
EMPTY = {"prompt", "message"}
"""Parameters that an empty text says something about: a picture without a prompt, a commit without a message."""


class Verb(TyperCommand):
    """A verb that takes no empty argument, as an unset variable of the shell leaves: as a path it would be the current folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the command line.

        Raises:
            typer.BadParameter: an argument is empty.
        """
        given: dict[str, Any] = self.make_parser(ctx).parse_args(args=list(args))[0]
        param: Any
        for param in self.params:
            value = given.get(param.name)
            if param.name not in EMPTY and "" in (value if isinstance(value, list | tuple) else [value]):
                raise typer.BadParameter("it is empty; give a value, or leave it out", ctx=ctx, param=param)
        return super().parse_args(ctx, args)


for name, verb in VERBS.items():
    app.command(name, cls=Verb)(verb)


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
