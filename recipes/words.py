"""`python -m recipes.words`: the training loss of an attacker's drawings under the object's own noun and under other words.

A new word can only choose among what the model draws. Where an unspecific word fits the drawings better than their own noun does,
Textual Inversion has no reason to find the object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
import typer

from gift.attacks.textual_inversion import TextualInversion
from gift.bench.losses import mean_losses
from gift.bench.neighbours import neighbours
from gift.bench.workbench import Workbench
from gift.cli.common import reporting
from gift.data.latents import LatentSet
from gift.models import DenoisingModel, load
from recipes.trainers import art_of_an_object

DRAWS = 500
"""Of noise and timesteps, for a set and a word (choice)."""


def sets_of(bench: Workbench, pictures: int) -> dict[str, LatentSet]:
    """The attacker's drawings, in turn those that are as the artist drew them and those that are turned and recoloured.

    Raises:
        GiftError: the concept is no object of the bundled drawings.
    """
    drawn, whole = len(art_of_an_object(bench).styles), bench.attack_set(pictures)
    parts = {"as drawn": whole.only(torch.arange(min(drawn, pictures)))}
    return parts | ({"turned and recoloured": whole.only(torch.arange(drawn, pictures))} if pictures > drawn else {})


def losses_under(model: DenoisingModel, sets: Mapping[str, LatentSet], word: str) -> dict[str, float]:
    """The mean training loss of each set with a word in place of the concept's, over about `DRAWS` draws of noise and timestep."""
    many = {name: data.only(torch.arange(len(data)).repeat(max(1, DRAWS // len(data)))) for name, data in sets.items()}
    return mean_losses(model, {name: data.reworded(model, lambda mention: word) for name, data in many.items()})


@reporting
def main(
    model: Annotated[str, typer.Argument(help="A model with the bundled words.")] = "tiny",
    concept: Annotated[str, typer.Option(help="An object.")] = "guitar",
    pictures: Annotated[int, typer.Option(help="The attacker's drawings.", min=1)] = 48,
    seed: Annotated[int, typer.Option(help="Of the drawings.", min=0)] = 0,
) -> None:
    """Prints a line for each word: the mean loss of the drawings as they are, and of the others."""
    bench = Workbench.of(load(model), concept, seed)
    art, sets = art_of_an_object(bench), sets_of(bench, pictures)
    nouns = [art.object(one.name).noun for one in (bench.concept, *neighbours(bench, 1))]
    words = [*nouns, TextualInversion().initialiser, ""]
    print(f"{'':<24}" + "  ".join(f"{name:>22}" for name in sets))
    for word in words:
        means = losses_under(bench.model, sets, word)
        print(f"{word!r:<24}" + "  ".join(f"{mean:>22.3f}" for mean in means.values()))


if __name__ == "__main__":
    typer.run(main)
