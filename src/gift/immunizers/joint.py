"""One joint loss instead of two levels: the control that asks whether bi-level buys anything."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field

from gift.immunizers.base import Immunizer, Method, Task
from gift.immunizers.concept_loss import ConceptLoss, ConceptTerms
from gift.immunizers.safe import SafeLoss, SafeOptions
from gift.training.loop import Logs
from gift.training.updates import Rate, Updater


class Joint(SafeOptions, ConceptTerms, Immunizer):
    """theta <- theta - lr grad[L(theta; D_s) + beta R(theta; D_h) - gamma b(L(theta; D_h))], one optimiser."""

    name: ClassVar[str] = "joint"
    title: ClassVar[str] = "Joint loss"
    about: ClassVar[str] = "The same terms as GIFT in one loss with one optimiser: the control for the two levels."

    steps: int = Field(default=150, ge=0, description="steps (choice: as GIFT's rounds)")
    rate: Rate = Field(default=5e-4, description="learning rate (choice: as GIFT's safe rate)")
    ascent_weight: float = Field(default=0.2, ge=0, description="gamma, weight of loss maximisation (choice)")
    train: str = Field(default="all", description="weights that move")

    def begin(self, task: Task) -> Method:
        """Builds the run."""
        return JointRun(self, task)


class JointRun(Method):
    """One run of the joint loss."""

    def __init__(self, how: Joint, task: Task) -> None:
        task = how.with_varied_concept(task)
        super().__init__(task, how.train)
        self.safe_loss = SafeLoss(how, task, how.batch_size, steps=how.steps, batches=lambda index: 1)
        self.concept_loss = ConceptLoss(how, task, how.batch_size)
        self.updaters["joint"] = Updater(self.weights.values(), rate=how.rate, accelerator=task.accelerator)

    def step(self, index: int, generator: torch.Generator) -> Logs:
        """One step down the joint loss."""
        safe = self.safe_loss(index, generator)
        loss, objective = self.concept_loss(generator)
        self.updaters["joint"].descend(safe + objective)
        return {"safe": safe.item(), "concept": loss.item()}

    def extra_state(self) -> dict[str, Any]:
        """The concept loss's."""
        return self.concept_loss.state()

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes it up."""
        self.concept_loss.load_state(state)
