"""Gradient ascent on the concept's loss: the naive control."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from gift.immunizers.base import Immunizer, Method, Task
from gift.immunizers.terms import Bound, bounded
from gift.training.loop import Logs
from gift.training.updates import Rate, Updater


class Ascent(Immunizer):
    """theta <- theta - lr grad[-b(L(theta; D_h))]. No safe term, so it wrecks what shares weights with the concept."""

    name: ClassVar[str] = "ascent"
    title: ClassVar[str] = "Ascent"
    about: ClassVar[str] = "Raises the concept's training loss and looks after nothing else: the naive control."
    uses_safe: ClassVar[bool] = False

    steps: int = Field(default=60, ge=0, description="ascent steps (choice)")
    rate: Rate = Field(default=5e-5, description="learning rate (choice)")
    bound: Bound = Field(default="log", description="bound on the ascent (choice)")
    ceiling: float = Field(default=2.0, gt=0, description="where the hinge is flat (choice)")
    train: str = Field(default="all", description="weights that move")

    def begin(self, task: Task) -> Method:
        """Builds the run."""
        return AscentRun(self, task)


class AscentRun(Method):
    """One run of ascent."""

    def __init__(self, how: Ascent, task: Task) -> None:
        super().__init__(task, how.train)
        self.how = how
        self.updaters["ascent"] = Updater(self.weights.values(), rate=how.rate, accelerator=task.accelerator)

    def step(self, index: int, generator: torch.Generator) -> Logs:
        """One step up the concept's loss."""
        latents, cond = self.task.concept.batch(self.how.batch_size, generator)
        loss = self.task.model.mean_loss(latents, cond, generator)
        self.updaters["ascent"].descend(-bounded(loss, self.how.bound, self.how.ceiling))
        return {"concept": loss.item()}
