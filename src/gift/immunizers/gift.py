"""GIFT: bi-level immunization. The lower level keeps the safe set, the upper level makes the concept unlearnable.

After Abdalla et al. 2025 (arXiv 2507.13598), of which only the abstract, a summary and the reviews were at hand: the levels, their
terms and the symbols are the paper's; every number, the layers and the simulated attacker are this project's.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator

from gift.immunizers.base import Immunizer, Method, Task
from gift.immunizers.concept_loss import ConceptLoss, ConceptTerms
from gift.immunizers.safe import SafeLoss, SafeOptions
from gift.immunizers.simulated import Attacker, AttackingMethod, SimulatedAttack
from gift.immunizers.terms import project_away, sparing, total_norm
from gift.training.loop import Logs
from gift.training.updates import OptimiserName, Rate, Updater, scheduled

SafeTarget = Literal["data", "reference"]
Direction = Literal["gradient", "momentum"]
PLAIN: dict[str, Any] = {
    "attacker": {"steps": 0}, "safe_target": "data", "settle_steps": 0, "safe_steps": 1, "safe_factor": 1, "empty_share": 0.0,
    "varied_share": 0.0, "varied_concept": 0.0, "immunize_rate": 5e-4, "spare": 0.0,
}  # fmt: skip
"""Options of the plain method, as a configuration says them."""


class Gift(SafeOptions, ConceptTerms, Immunizer):
    """K times theta -= a_P grad L(theta; D_s); then theta -= a_I G(grad[beta R(theta; D_h) - gamma b(L(theta; D_h))])."""

    name: ClassVar[str] = "gift"
    title: ClassVar[str] = "GIFT"
    about: ClassVar[str] = (
        "Bi-level: raises the concept's loss, at weights that a simulated attacker has moved if asked, while ordinary training "
        "keeps the safe set."
    )

    steps: int = Field(default=120, ge=0, description="rounds of lower and upper level (choice)")
    safe_steps: int = Field(default=2, ge=1, description="K, safe steps a round (tuned: docs/tuning.md)")
    safe_rate: Rate = Field(default=5e-4, description="a_P (choice)")
    immunize_rate: Rate = Field(default=3e-3, description="a_I (tuned, with spare: docs/tuning.md)")
    falling_share: float = Field(
        default=0.0, ge=0, le=1, description="share of the rounds, the last ones, in which both rates fall to zero (choice)"
    )
    fading_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the rounds, the last ones, in which the immunizing rate alone falls to zero (choice)",
    )
    immunize_optimiser: OptimiserName = Field(default="adamw", description="turns the immunizing gradient into a step (choice)")
    project: bool = Field(default=True, description="G: take out the component that would raise the safe loss (choice)")
    project_on: Direction = Field(
        default="gradient",
        description="G: the last safe gradient, or the safe optimiser's running mean of them, which takes no memory of its own",
    )
    rescale: float | None = Field(
        default=None, gt=0, description="G: norm of the gradient relative to the safe one's; off by default"
    )
    spare: float = Field(
        default=0.5,
        ge=0,
        le=2,
        description="keep the immunizing step off weights that the safe loss needs, to this power (tuned: docs/tuning.md)",
    )
    attacker: Attacker = Field(
        default=Attacker(steps=0),
        description="the simulated attacker; off by default, any part of it that is given switches it on (docs/tuning.md)",
    )
    safe_target: SafeTarget = Field(
        default="data", description="lower level: the training target, or 'reference', theta_0's output (docs/tuning.md)"
    )
    settle_steps: int = Field(
        default=0, ge=0, description="safe-only steps at the end, the rate falling to zero (none: docs/tuning.md)"
    )
    train: str = Field(default="all", description="weights that move")

    @model_validator(mode="after")
    def _rescaling_has_a_measure(self) -> Self:
        if self.rescale is not None and self.safe_target == "reference":
            raise ValueError(
                "rescale needs safe_target='data': at theta_0 the distance to theta_0's outputs has no gradient to scale to"
            )
        return self

    @classmethod
    def plain(cls, **options: Any) -> Self:
        """The paper's two levels alone: one safe step a round on as many pictures as the concept's, all with their prompts."""
        return cls(**{**PLAIN, **options})

    @property
    def total_steps(self) -> int:
        """Rounds, then settling."""
        return self.steps + self.settle_steps if self.steps else 0

    def begin(self, task: Task) -> Method:
        """Builds the run."""
        return GiftRun(self, task)


class GiftRun(AttackingMethod):
    """One run of GIFT."""

    def __init__(self, how: Gift, task: Task) -> None:
        self.how = how
        task = how.with_varied_concept(task)
        self.attack = SimulatedAttack(how.attacker, task)  # before the weights are chosen: it renames those that it wraps
        super().__init__(task, how.train)
        self.concept_loss = ConceptLoss(how, task, how.batch_size)
        self.safe_loss = SafeLoss(
            how,
            task,
            how.batch_size,
            steps=how.total_steps,
            batches=lambda index: how.safe_steps if index < how.steps else 1,
            everywhere=how.safe_target == "reference",
        )
        weights = list(self.weights.values())
        self.updaters["safe"] = Updater(weights, rate=how.safe_rate, accelerator=task.accelerator)
        self.updaters["immunize"] = Updater(
            weights, name=how.immunize_optimiser, rate=how.immunize_rate, accelerator=task.accelerator
        )
        self.watches_safe = how.project or how.rescale is not None

    def step(self, index: int, generator: torch.Generator) -> Logs:
        """K safe steps and an immunizing one; or, in the settling phase, one safe step."""
        how = self.how
        if index >= how.steps:
            batch = how.steps * how.safe_steps + index - how.steps
            return {"safe": self.keep(batch, generator, scheduled("cosine", index - how.steps, how.settle_steps, 0))}
        factor = falls(index, how.steps, how.falling_share)
        safe = [self.keep(index * how.safe_steps + k, generator, factor) for k in range(how.safe_steps)][-1]
        held = self.safe_direction() if self.watches_safe else []
        for parameter in self.weights.values():
            parameter.grad = None
        updater = self.updaters["immunize"]
        with self.attack(self.weights, generator):
            loss, objective = self.concept_loss(generator, self.attack.embed)
            updater.gradients(objective)
        if self.watches_safe:
            self.change_gradients(held)
        spared = sparing(updater.parameters, self.updaters["safe"].optimiser, how.spare) if how.spare else None
        updater.apply(factor * falls(index, how.steps, how.fading_share), spared)
        return {"safe": safe, "concept": loss.item(), "objective": objective.item()}

    def keep(self, batch: int, generator: torch.Generator, factor: float) -> float:
        """One step of the lower level, down L(theta; D_s) or the distance to theta_0's outputs; its gradient stays.

        Args:
            batch: how many safe batches came before.
            generator: of the draws.
            factor: on the learning rate.
        """
        loss = self.safe_loss(batch, generator)
        self.updaters["safe"].descend(loss, factor)
        return loss.item()

    def safe_direction(self) -> list[torch.Tensor | None]:
        """What G looks at: each weight's last safe gradient, or their running mean in the safe optimiser."""
        if self.how.project_on == "gradient":
            return [p.grad for p in self.weights.values()]
        means = self.updaters["safe"].optimiser.state
        return [means[p].get("exp_avg") for p in self.weights.values()]

    @torch.no_grad()
    def change_gradients(self, safe: list[torch.Tensor | None]) -> None:
        """G: projection per tensor, then rescaling, on the gradients in place."""
        both = zip(self.weights.values(), safe, strict=True) if safe else ()
        pairs = [(p.grad, s) for p, s in both if p.grad is not None and s is not None]
        if self.how.project:
            for gradient, kept in pairs:
                project_away(gradient, kept)
        if self.how.rescale is not None:
            factor = self.how.rescale * total_norm([s for _, s in pairs]) / total_norm([g for g, _ in pairs]).clamp(min=1e-12)
            for gradient, _ in pairs:
                gradient.mul_(factor)

    def extra_state(self) -> dict[str, Any]:
        """The concept loss's, too."""
        return {**super().extra_state(), **self.concept_loss.state()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes it up."""
        super().load_extra_state(state)
        self.concept_loss.load_state(state)


def falls(step: int, steps: int, share: float) -> float:
    """The factor on a rate that falls to zero, by a cosine, in the last `share` of `steps`; 1 before that."""
    falling = round(steps * share)
    return scheduled("cosine", max(0, step - steps + falling), max(1, falling), 0)
