"""`gift generate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gift.bench.config import LARGEST_SEED, MOST
from gift.cli.common import GuidanceOption, VariantOption, reporting

PICTURES = 1000
"""The most a prompt (choice): one PNG holds them all."""


@reporting
def generate(
    model: Annotated[str, typer.Argument(help="'tiny', a diffusers folder, a .safetensors file, or a hub id.")] = "tiny",
    variant: VariantOption = None,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", "-p", help="What to draw; may be repeated.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A text file, one prompt a line.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Pictures a prompt.", min=1, max=PICTURES)] = 4,
    steps: Annotated[
        int | None, typer.Option(help="Sampler steps; else the model's sampling.json says, or 15.", min=1, max=MOST)
    ] = None,
    guidance: GuidanceOption = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG to write: one row a prompt.")] = Path("pictures.png"),
    seed: Annotated[int, typer.Option("--seed", help="Seed of a prompt's first picture.", min=0, max=LARGEST_SEED)] = 0,
) -> None:
    """Draw pictures.

    Example: `gift generate tiny --prompt "a mushroom in noto style" --count 6 --output mushrooms.png`
    """
    from gift.data.prompts import read_prompts
    from gift.errors import GiftError
    from gift.files import write_bytes
    from gift.models import load
    from gift.pixels import contact_sheet, png_bytes

    wanted = [*(prompt or []), *(read_prompts(prompts) if prompts else [])]
    if not wanted:
        raise GiftError("nothing to draw; give --prompt or --prompts")
    if output.suffix.lower() != ".png":
        raise GiftError(f"{output} is not a .png; give --output FILE.png")
    if output.is_dir():
        raise GiftError(f"{output} is a folder; give --output a file")
    opened = load(model, variant=variant)
    for text in opened.too_long(wanted):
        print(f"note: the model does not read to the end of '{text}'; its last words are left out", file=sys.stderr)
    images = opened.generate(
        [p for p in wanted for _ in range(count)], [seed + i for _ in wanted for i in range(count)], steps=steps, guidance=guidance
    )
    write_bytes(output, png_bytes(contact_sheet(images, count)))
    print(f"{len(images)} pictures in {output}")
