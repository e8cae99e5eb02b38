"""`gift list`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from gift.cli.common import reporting

What = Literal["methods", "attacks", "concepts", "styles", "categories", "models"]


@reporting
def listing(
    what: Annotated[What | None, typer.Argument(help="What to list; all in short without it.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="With every option and its default.")] = False,
) -> None:
    """List methods, attacks and what the bundled model can draw.

    Example: `gift list methods --verbose`
    """
    from pydantic import BaseModel

    from gift.attacks import ATTACKS
    from gift.data.art import load_art
    from gift.immunizers import IMMUNIZERS
    from gift.models import FAMILIES

    art = load_art()
    kinds: dict[str, dict[str, type[BaseModel]]] = {"methods": dict(IMMUNIZERS), "attacks": dict(ATTACKS)}
    for group, members in kinds.items():
        if what in {None, group}:
            print(f"{group}:")
            for name, kind in members.items():
                print(f"  {name:<8} {getattr(kind, 'about', '')}")
                for key, field in kind.model_fields.items() if verbose else ():
                    print(f"      {key}={field.default!r}  {field.description or ''}")
    if what in {None, "models"}:
        print(f"models:\n  tiny     bundled: {len(art.objects)} objects in {len(art.trained_styles)} styles")
        print(f"  your own folder, .safetensors file or hub id of: {', '.join(FAMILIES)}")
    if what in {None, "styles"}:
        print("styles:     " + ", ".join(f"style:{s}" for s in art.trained_styles))
    if what in {None, "categories"}:
        print("categories: " + ", ".join(f"category:{c}" for c in art.categories))
    if what == "concepts":
        for category in art.categories:
            print(f"category:{category}: " + ", ".join(o.name for o in art.objects if o.category == category))
