"""One joint loss instead of two levels: the control that asks whether bi-level buys anything."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field

from gift.immunizers.base import Immunizer, Method, Task
from gift.immunizers.safe import SafeBatches, SafeOptions
from gift.immunizers.terms import Bound, Distance, Noise, bounded, watch_layers
from gift.training.loop import Logs
from gift.training.updates import Rate, Updater


class Joint(SafeOptions, Immunizer):
    """theta <- theta - lr grad[L(theta; D_s) + beta R(theta; D_h) - gamma b(L(theta; D_h))], one optimiser."""

    name: ClassVar[str] = "joint"
    title: ClassVar[str] = "Joint loss"
    about: ClassVar[str] = "The same terms as GIFT in one loss with one optimiser: the control for the two levels."

    steps: int = Field(default=150, ge=0, description="steps (choice: as GIFT's rounds)")
    rate: Rate = Field(default=5e-4, description="learning rate (choice: as GIFT's safe rate)")
    noise_weight: float = Field(default=0.0, ge=0, description="beta (choice)")
    ascent_weight: float = Field(default=0.2, ge=0, description="gamma (choice)")
    bound: Bound = Field(default="log", description="b (choice)")
    ceiling: float = Field(default=2.0, gt=0, description="where the hinge is flat (choice)")
    layers: str = Field(default="attention", description="layers whose representations are noised (choice)")
    distance: Distance = Field(default="mse", description="distance to noise (choice)")
    noise: Noise = Field(default="standard", description="kind of noise (choice)")
    train: str = Field(default="all", description="weights that move")

    def begin(self, task: Task) -> Method:
        """Builds the run."""
        return JointRun(self, task)


class JointRun(Method):
    """One run of the joint loss."""

    def __init__(self, how: Joint, task: Task) -> None:
        task = how.with_varied_concept(task)
        super().__init__(task, how.train)
        self.how = how
        self.safe_batch = SafeBatches.of(how, task, how.batch_size)
        self.targets = self.safe_batch.targets(steps=how.steps, batches=lambda index: 1)
        self.updaters["joint"] = Updater(self.weights.values(), rate=how.rate, accelerator=task.accelerator)
        self.layers = watch_layers(task.model, how.layers, how.noise, how.distance) if how.noise_weight else None

    def step(self, index: int, generator: torch.Generator) -> Logs:
        """One step down the joint loss."""
        how, model = self.how, self.task.model
        target = None if self.targets is None else self.targets[index]
        safe = model.mean_loss(*self.safe_batch(generator), generator, target)
        batch = self.task.concept.batch(how.batch_size, generator)
        noising: torch.Tensor | float = 0.0
        if self.layers:
            with self.layers.watching():
                concept = model.mean_loss(*batch, generator)
            noising = self.layers.distance_to_noise(generator)
        else:
            concept = model.mean_loss(*batch, generator)
        total = safe + how.noise_weight * noising - how.ascent_weight * bounded(concept, how.bound, how.ceiling)
        self.updaters["joint"].descend(total)
        return {"safe": safe.item(), "concept": concept.item()}

    def extra_state(self) -> dict[str, Any]:
        """The layers' running moments."""
        return {"moments": self.layers.moments} if self.layers else {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes them up."""
        if self.layers:
            self.layers.moments = state["moments"]
