"""Batches of the safe set for the lower level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import BaseModel, Field

from gift.immunizers.base import Task
from gift.models.base import Cond


class SafeOptions(BaseModel):
    """How a method draws from D_s."""

    safe_factor: int = Field(default=2, ge=1, description="safe pictures a step, times batch_size (tuned: docs/results.md)")
    empty_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of safe pictures that stand without their prompt, which guidance needs (as in its own training)",
    )


@dataclass(frozen=True)
class SafeBatches:
    """Draws batches of the safe set, some of whose pictures stand without their prompt.

    Guidance takes the difference of two predictions, with the prompt and without. Where only prompts are kept, the upper level
    moves the prediction without one, and with it every picture that is drawn.
    """

    task: Task
    size: int
    empty: Cond
    share: float

    @classmethod
    def of(cls, how: SafeOptions, task: Task, batch_size: int) -> SafeBatches:
        """For a task's safe set; `batch_size` is the concept's."""
        model = task.model
        empty = model.unconditional(model.encode_prompts([""])) if how.empty_share else {}
        return cls(task, how.safe_factor * batch_size, empty, how.empty_share)

    def __call__(self, generator: torch.Generator) -> tuple[torch.Tensor, Cond]:
        """Latents (N, C, h, w) and conditioning."""
        latents, cond = self.task.safe.batch(self.size, generator)
        if not self.share:
            return latents, cond
        blank = torch.rand(self.size, generator=generator) < self.share

        def swapped(name: str, tensor: torch.Tensor) -> torch.Tensor:
            rows = blank.to(tensor.device).view(-1, *[1] * (tensor.ndim - 1))
            return torch.where(rows, self.empty[name].to(tensor), tensor)

        return latents, {name: swapped(name, tensor) for name, tensor in cond.items()}
