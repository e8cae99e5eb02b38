"""UNDO: unlearn, noise, distil on outputs (Lee et al., NeurIPS 2025, arXiv 2506.06278), ported from language models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from gift.immunizers.base import Immunizer, Method, Task
from gift.immunizers.safe import SafeLoss, SafeOptions
from gift.sharding import share_like
from gift.training.loop import Logs, step_generator
from gift.training.updates import Rate, ScheduleName, Updater, scheduled

BEFORE = -1
"""The step whose generator draws the noise: before the run's first."""


class Undo(SafeOptions, Immunizer):
    """theta <- (1 - alpha) theta + alpha beta N, then theta <- theta - lr grad |f_theta - f_theta0|^2 on D_s.

    The last two of the method's three parts; the first, an unlearning, is a step of its own before it, as `esd+undo`. theta_0 is
    what that left. The concept is forgotten with all else that the weights held, and only what the safe set shows is taught again.
    N is Xavier uniform for weights of two dimensions, as published, and here for convolutions; zero for all others, which shrink.

    Different here: outputs are compared by their squared distance, the KL divergence of two normals of one width, instead of that
    of two distributions over tokens. Only D_s is distilled on: the published code adds the unlearned topic's own texts, with the
    unlearned model's answers. It runs for a number of steps, not until the teacher's loss is nearly reached.
    """

    name: ClassVar[str] = "undo"
    title: ClassVar[str] = "UNDO"
    about: ClassVar[str] = "Damages all weights, then distils the model as it was into them on the safe set; after an erasure."

    steps: int = Field(default=500, ge=0, description="distillation steps (choice)")
    alpha: float = Field(default=0.3, ge=0, le=1, description="share of the weights that is replaced (the paper sweeps it)")
    beta: float = Field(default=0.1, ge=0, le=1, description="size of the noise beside Xavier's (the code: 0.1)")
    rate: Rate = Field(default=1e-3, description="learning rate (the code: 9e-4)")
    schedule: ScheduleName = Field(default="cosine", description="of the rate (the code's; there it ends at 7e-4, here at zero)")
    train: str = Field(default="all", description="weights that are damaged and move")
    adapter_rank: None = Field(default=None, description="always none: whole weights are damaged")

    def begin(self, task: Task) -> Method:
        """Builds the run."""
        return UndoRun(self, task)


class UndoRun(Method):
    """One run of UNDO."""

    def __init__(self, how: Undo, task: Task) -> None:
        super().__init__(task, how.train)
        self.how = how
        self.loss = SafeLoss(how, task, how.batch_size, steps=how.steps, batches=lambda index: 1, everywhere=True)
        damage(self.weights.values(), how.alpha, how.beta, step_generator(task.seed, BEFORE))
        self.updaters["distil"] = Updater(self.weights.values(), rate=how.rate, accelerator=task.accelerator)

    def step(self, index: int, generator: torch.Generator) -> Logs:
        """One step towards theta_0's outputs."""
        loss = self.loss(index, generator)
        self.updaters["distil"].descend(loss, scheduled(self.how.schedule, index, self.how.steps, 0))
        return {"distance": loss.item()}


@torch.no_grad()
def damage(weights: Iterable[nn.Parameter], alpha: float, beta: float, generator: torch.Generator) -> None:
    """Shrinks weights to 1 - alpha of them, in place, and adds alpha beta N, Xavier's where there are two or more dimensions."""
    for parameter in weights:
        noise = torch.zeros(parameter.shape)
        if noise.ndim > 1:
            nn.init.xavier_uniform_(noise, generator=generator)
        parameter.mul_(1 - alpha).add_(share_like(noise.to(parameter.device), parameter), alpha=alpha * beta)
