"""What a method trains on: batches of the safe set for the lower level, and the concept's pictures with varied copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from pydantic import BaseModel, Field

from gift.data.latents import LatentSet
from gift.data.varied import vary_set, with_varied
from gift.immunizers.base import Task
from gift.immunizers.original import outputs_ahead
from gift.models.base import Cond, swapped


class SafeOptions(BaseModel):
    """How a method draws from D_s, and varies its pictures and those of D_h."""

    safe_factor: int = Field(default=2, ge=1, description="safe pictures a step, times batch_size (tuned: docs/tuning.md)")
    empty_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of safe pictures that stand without their prompt, which guidance needs (as in its own training)",
    )
    varied_share: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="share of safe pictures that are rotated, scaled, mirrored and recoloured, and held to theta_0's outputs "
        "(measured: docs/tuning.md)",
    )
    varied_concept: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="share of the concept's pictures that are rotated, scaled, mirrored and recoloured (choice: as the safe)",
    )

    def with_varied_concept(self, task: Task) -> Task:
        """The task with varied copies in D_h: an attacker's pictures are not the model's own."""
        return replace(task, concept=with_varied(task.model, task.concept, self.varied_concept, task.seed))


@dataclass(frozen=True)
class SafeBatches:
    """Draws batches of the safe set, some of whose pictures stand without their prompt, and some of which are varied copies.

    Guidance takes the difference of two predictions, with the prompt and without. Where only prompts are kept, the upper level
    moves the prediction without one, and with it every picture that is drawn.

    A model's own pictures are few of those that it can be taught: away from them the upper level goes unchecked, and the weights
    learn harmless pictures badly afterwards. Varied copies cover more. They come last in a batch, and are compared with theta_0's
    outputs (`SafeLoss`): trained on as they are, they would be drawn.
    """

    task: Task
    size: int
    empty: Cond
    share: float
    varied: LatentSet | None
    plain: int

    @classmethod
    def of(cls, how: SafeOptions, task: Task, batch_size: int) -> SafeBatches:
        """For a task's safe set; `batch_size` is the concept's."""
        model = task.model
        empty = model.unconditional(model.encode_prompts([""])) if how.empty_share else {}
        size = how.safe_factor * batch_size
        copies = round(size * how.varied_share)
        varied = vary_set(model, task.safe, task.seed) if copies else None
        return cls(task, size, empty, how.empty_share, varied, size - copies)

    def __call__(self, generator: torch.Generator) -> tuple[torch.Tensor, Cond]:
        """Latents (N, C, h, w) and conditioning."""
        latents, cond = self.task.safe.batch(self.plain, generator)
        if self.varied is not None:
            more, others = self.varied.batch(self.size - self.plain, generator)
            latents, cond = torch.cat([latents, more]), {name: torch.cat([rows, others[name]]) for name, rows in cond.items()}
        if not self.share:
            return latents, cond
        blank = torch.rand(self.size, generator=generator) < self.share
        return latents, swapped(cond, blank, self.empty)


class SafeLoss:
    """L(theta; D_s) on batches of the safe set, some of whose rows are compared with theta_0's outputs instead.

    Those are computed here, for all of a run: the model has to be theta_0 still.

    Args:
        how: how batches are drawn.
        task: the model and D_s.
        batch_size: the concept's.
        steps: of the run.
        batches: how many safe batches step `i` draws, before anything else.
        everywhere: compare all rows with theta_0's outputs, not varied copies alone.
    """

    def __init__(
        self,
        how: SafeOptions,
        task: Task,
        batch_size: int,
        *,
        steps: int,
        batches: Callable[[int], int],
        everywhere: bool = False,
    ) -> None:
        self.model = task.model
        self.draw = SafeBatches.of(how, task, batch_size)
        self.targets: list[torch.Tensor] | None = None
        if self.draw.varied is not None or everywhere:
            first = 0 if everywhere else self.draw.plain
            self.targets = outputs_ahead(self.model, self.draw, seed=task.seed, steps=steps, batches=batches, first=first)

    def __call__(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """The loss on the run's next batch, (); `batch` were drawn before it."""
        return self.model.mean_loss(*self.draw(generator), generator, self.targets[batch] if self.targets else None)
