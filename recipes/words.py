"""`python -m recipes.words`: the training loss of an attacker's drawings under the object's own noun and under other words.

A new word can only choose among what the model draws. Where an unspecific word fits the drawings better than their own noun does,
Textual Inversion has no reason to find the object.
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer

from gift.attacks.textual_inversion import TextualInversion
from gift.bench.neighbours import neighbours
from gift.bench.workbench import Workbench
from gift.cli.common import reporting
from gift.data.latents import LatentSet
from gift.errors import GiftError
from gift.models import DenoisingModel, load

DRAWS = 500
"""Of noise and timesteps, for a set and a word (choice)."""


def sets_of(bench: Workbench, pictures: int) -> dict[str, LatentSet]:
    """The attacker's drawings, in turn those that are as the artist drew them and those that are turned and recoloured.

    Raises:
        GiftError: the concept is no object of the bundled drawings.
    """
    if bench.art is None or bench.concept.kind != "object":
        raise GiftError("give a model with the bundled words, and an object")
    whole, drawn = bench.attack_set(pictures), len(bench.art.styles)
    parts = {"as drawn": whole.only(torch.arange(min(drawn, pictures)))}
    return parts | ({"turned and recoloured": whole.only(torch.arange(drawn, pictures))} if pictures > drawn else {})


@torch.no_grad()
def loss_under(model: DenoisingModel, data: LatentSet, word: str, seed: int) -> float:
    """The mean training loss of pictures with a word in place of the concept's, over `DRAWS` draws of noise and timestep."""
    said = data.reworded(model, lambda mention: word)
    generator, rounds = torch.Generator().manual_seed(seed), max(1, DRAWS // len(data))
    losses = [model.loss(*said.at(torch.arange(len(data))), generator) for _ in range(rounds)]
    return float(torch.stack(losses).mean())


@reporting
def main(
    model: Annotated[str, typer.Argument(help="A model with the bundled words.")] = "tiny",
    concept: Annotated[str, typer.Option(help="An object.")] = "guitar",
    pictures: Annotated[int, typer.Option(help="The attacker's drawings.", min=1)] = 48,
    seed: Annotated[int, typer.Option(help="Of the drawings, the noise and the timesteps.", min=0)] = 0,
) -> None:
    """Prints a line for each word: the mean loss of the drawings as they are, and of the others."""
    bench = Workbench.of(load(model), concept, seed)
    sets = sets_of(bench, pictures)
    assert bench.art is not None
    near = neighbours(bench, 1)
    nouns = [bench.art.object(one.name).noun for one in (bench.concept, *near)]
    words = [*nouns, TextualInversion().initialiser, ""]
    print(f"{'':<24}" + "  ".join(f"{name:>22}" for name in sets))
    for word in words:
        means = [loss_under(bench.model, data, word, seed) for data in sets.values()]
        print(f"{word!r:<24}" + "  ".join(f"{mean:>22.3f}" for mean in means))


if __name__ == "__main__":
    typer.run(main)
