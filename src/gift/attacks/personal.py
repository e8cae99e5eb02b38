"""What DreamBooth and its kin share: a few pictures, a word of the attacker's own, and prior preservation."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from gift.attacks.base import FEW, Attack
from gift.data.latents import LatentSet, draw_set
from gift.data.mention import with_identifier
from gift.data.prompts import Ask, attack_seeds
from gift.models import DenoisingModel


class Personal(Attack):
    """An attack that names the concept by an identifier before its noun, 'a sks mushroom', or by the identifier alone."""

    few: ClassVar[int | None] = FEW

    identifier: str = Field(
        default="sks", pattern=r"^\S+$", description="the attacker's word (train_dreambooth.py's examples: sks)"
    )
    noun: bool = Field(default=True, description="the noun stays after the identifier; else the identifier stands alone: 'a sks'")
    shots: int = Field(default=6, ge=0, description="pictures used, 0 for all there are (DreamBooth: 3 to 5)")
    prior: bool = Field(default=False, description="prior preservation: a second loss on pictures that the model drew itself")
    prior_weight: float = Field(default=1.0, gt=0, description="weight of that loss (diffusers' trainer: 1.0)")
    class_pictures: int = Field(
        default=48, ge=1, description="pictures drawn for it, by the captions without the identifier (choice; the trainer: 100)"
    )

    def word(self, mention: str) -> str:
        """The identifier, before the noun or in its place."""
        return with_identifier(self.identifier, mention, noun=self.noun)

    def chosen(self, data: LatentSet, generator: torch.Generator) -> LatentSet:
        """A few pictures."""
        return data.some(self.shots, generator) if self.shots else data

    def prior_term(self, model: DenoisingModel, data: LatentSet, seed: int) -> tuple[float, LatentSet] | None:
        """Pictures that the model under attack draws for the same captions without the identifier."""
        if not self.prior:
            return None
        captions = [data.prompts[int(row)] for row in data.which]
        seeds = attack_seeds(seed, self.class_pictures)
        asks = [Ask(captions[i % len(captions)], s) for i, s in enumerate(seeds)]
        return self.prior_weight, draw_set(model, asks)
