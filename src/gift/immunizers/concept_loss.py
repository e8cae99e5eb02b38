"""What a method descends to take the concept away: bounded ascent on its loss, and noising of its representations."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from pydantic import BaseModel, Field

from gift.data.latents import LatentSet
from gift.errors import GiftError
from gift.immunizers.base import Task
from gift.immunizers.terms import Bound, Distance, Noise, bounded, watch_layers
from gift.immunizers.words import Renamed
from gift.models.base import Embed


class ConceptTerms(BaseModel):
    """Weights and kinds of the terms of beta R(theta; D_h) - gamma b(L(theta; D_h))."""

    noise_weight: float = Field(default=0.0, ge=0, description="beta, weight of representation noising (none: docs/tuning.md)")
    ascent_weight: float = Field(default=1.0, ge=0, description="gamma, weight of loss maximisation (choice)")
    bound: Bound = Field(default="log", description="b: identity, log(1+L) as RepNoise, or a hinge (choice)")
    ceiling: float = Field(default=2.0, gt=0, description="where the hinge is flat, in units of the loss (choice)")
    other_words: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the concept's pictures under made-up words, as an attacker may have one (off: docs/tuning.md)",
    )
    layers: str = Field(default="attention", description="layers whose representations are noised (choice)")
    distance: Distance = Field(default="mse", description="distance to noise: mse, or mmd as RepNoise (choice)")
    noise: Noise = Field(default="standard", description="standard normal, or matched to the layer's running moments (choice)")


class ConceptLoss:
    """beta R - gamma b(L) on batches of D_h, all from one forward.

    With `other_words` a share s of the pictures stands under made-up words, in a forward and under a bound of its own:
    b(L) is (1 - s) b(L_own) + s b(L_renamed), so that neither grows in the other's stead; R stays with the concept's own words.

    Args:
        how: the terms.
        task: the model and D_h.
        batch_size: pictures a batch.

    Raises:
        GiftError: representations can't be noised where forwards can't be watched, or a batch is too small to be shared.
    """

    def __init__(self, how: ConceptTerms, task: Task, batch_size: int) -> None:
        self.how = how
        self.task = task
        self.batch_size = batch_size
        renamed = max(1, round(how.other_words * batch_size)) if how.other_words else 0
        if how.other_words < 1:  # the concept's own words stay in every batch
            renamed = min(renamed, batch_size - 1)
            if how.other_words and not renamed:
                raise GiftError(f"other_words={how.other_words:g} shares a batch of one picture; raise batch_size to 2 or more")
        self.draws: list[tuple[int, LatentSet | Renamed]] = []
        if renamed:
            self.draws.append((renamed, Renamed(task.model, task.concept, task.seed)))
        if renamed < batch_size:
            self.draws.append((batch_size - renamed, task.concept))
        self.layers = watch_layers(task.model, how.layers, how.noise, how.distance) if how.noise_weight else None

    def __call__(self, generator: torch.Generator, embed: Embed | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """L(theta; D_h), without a gradient, and beta R - gamma b(L); both ().

        Args:
            generator: of the draws.
            embed: encodes the prompts anew; None for the embeddings that are kept.
        """
        how, model = self.how, self.task.model
        with self.layers.watching() if self.layers else nullcontext():  # the last forward counts
            losses = [model.mean_loss(*data.batch(size, generator, embed), generator) for size, data in self.draws]
        shares = [size / self.batch_size for size, _ in self.draws]
        terms = [share * bounded(loss, how.bound, how.ceiling) for share, loss in zip(shares, losses, strict=True)]
        objective = -how.ascent_weight * torch.stack(terms).sum()
        if self.layers:
            objective = how.noise_weight * self.layers.distance_to_noise(generator) + objective
        return torch.stack([share * loss.detach() for share, loss in zip(shares, losses, strict=True)]).sum(), objective

    def state(self) -> dict[str, Any]:
        """The layers' running moments."""
        return {"moments": self.layers.moments} if self.layers else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes them up."""
        if self.layers:
            self.layers.moments = state["moments"]
