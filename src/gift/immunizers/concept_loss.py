"""What a method descends to take the concept away: bounded ascent on its loss, and noising of its representations."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from pydantic import BaseModel, Field

from gift.immunizers.base import Task
from gift.immunizers.terms import Bound, Distance, Noise, bounded, watch_layers
from gift.immunizers.words import ConceptBatches


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
        description="share of the concept's pictures that stand under made-up words, as an attacker may have one (docs/tuning.md)",
    )
    layers: str = Field(default="attention", description="layers whose representations are noised (choice)")
    distance: Distance = Field(default="mse", description="distance to noise: mse, or mmd as RepNoise (choice)")
    noise: Noise = Field(default="standard", description="standard normal, or matched to the layer's running moments (choice)")


class ConceptLoss:
    """beta R - gamma b(L) on batches of D_h, all from one forward.

    Args:
        how: the terms.
        task: the model and D_h.
        batch_size: pictures a batch.

    Raises:
        GiftError: representations can't be noised where forwards can't be watched.
    """

    def __init__(self, how: ConceptTerms, task: Task, batch_size: int) -> None:
        self.how = how
        self.task = task
        self.batch_size = batch_size
        self.draw = ConceptBatches(task, how.other_words)
        self.layers = watch_layers(task.model, how.layers, how.noise, how.distance) if how.noise_weight else None

    def __call__(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """L(theta; D_h), without a gradient, and beta R - gamma b(L); both ()."""
        how, model = self.how, self.task.model
        batch = self.draw(self.batch_size, generator)
        with self.layers.watching() if self.layers else nullcontext():
            loss = model.mean_loss(*batch, generator)
        objective = -how.ascent_weight * bounded(loss, how.bound, how.ceiling)
        if self.layers:
            objective = how.noise_weight * self.layers.distance_to_noise(generator) + objective
        return loss.detach(), objective

    def state(self) -> dict[str, Any]:
        """The layers' running moments."""
        return {"moments": self.layers.moments} if self.layers else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes them up."""
        if self.layers:
            self.layers.moments = state["moments"]
