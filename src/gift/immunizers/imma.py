"""IMMA (Zheng and Yeh, ECCV 2024): immunize by ascending the loss at weights that an adaptation keeps fitting."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field

from gift.immunizers.base import Immunizer, Method, Task
from gift.models.lora import attach_lora, switch_lora
from gift.sharding import refuse
from gift.training.loop import Logs, another_stream
from gift.training.updates import Rate, Updater

ADAPTER = "adaptation"


class Imma(Immunizer):
    """One step each in turn: a LoRA descends L(D_h); then the attention projections ascend the same L with the LoRA on.

    The loop, optimiser, decay, clipping and weights are those of the published code (its LoRA setting). Different here: the
    data are drawn from the model, the rates are scaled to the bundled model's, and the adaptation is LoRA only. No safe term,
    first order.
    """

    name: ClassVar[str] = "imma"
    title: ClassVar[str] = "IMMA"
    about: ClassVar[str] = (
        "Alternates a LoRA that learns the concept with ascent on the attention projections at the adapted weights."
    )
    uses_safe: ClassVar[bool] = False

    steps: int = Field(default=150, ge=0, description="steps (the code: 1000)")
    adapt_rate: Rate = Field(default=1e-3, description="inner rate (the code: 1e-4 on Stable Diffusion)")
    immunize_rate: Rate = Field(default=1e-4, description="outer rate (the code: 1e-5 on Stable Diffusion)")
    rank: int = Field(default=4, ge=1, description="rank of the adaptation (the code: 4)")
    decay: float = Field(default=1e-2, ge=0, description="weight decay (the code's)")
    batch_size: int = Field(default=8, ge=1, description="pictures a step (choice; the code: 1)")
    train: str = Field(default="attention-projections", description="weights that move (the code's)")

    def begin(self, task: Task) -> Method:
        """Builds the run."""
        return ImmaRun(self, task)


class ImmaRun(Method):
    """One run of IMMA."""

    def __init__(self, how: Imma, task: Task) -> None:
        refuse("IMMA", "use gift")
        self.lora = attach_lora(task.model, how.rank, ADAPTER)
        super().__init__(task, how.train)
        switch_lora(task.model, ADAPTER, on=True)
        self.how = how
        shared: dict[str, Any] = {"decay": how.decay, "accelerator": task.accelerator}
        self.updaters["adapt"] = Updater(self.lora.values(), rate=how.adapt_rate, **shared)
        self.updaters["immunize"] = Updater(self.weights.values(), rate=how.immunize_rate, **shared)

    def move(self, adaptation: bool) -> None:
        """Says whose turn it is."""
        for parameter in self.lora.values():
            parameter.requires_grad_(adaptation)
        for parameter in self.weights.values():
            parameter.requires_grad_(not adaptation)

    def step(self, index: int, generator: torch.Generator) -> Logs:
        """The adaptation's step down, then the projections' step up."""
        losses, generator = [], another_stream(generator)  # batches of 8, as attacks have
        for adaptation, name, sign in ((True, "adapt", 1.0), (False, "immunize", -1.0)):
            self.move(adaptation)
            latents, cond = self.task.concept.batch(self.how.batch_size, generator)
            loss = self.task.model.mean_loss(latents, cond, generator)
            self.updaters[name].descend(sign * loss)
            losses.append(loss.item())
        return {"adapt": losses[0], "concept": losses[1]}

    def extra_state(self) -> dict[str, Any]:
        """The adaptation's weights."""
        return {"lora": {name: p.detach() for name, p in self.lora.items()}}

    @torch.no_grad()
    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes them up."""
        for name, parameter in self.lora.items():
            parameter.copy_(state["lora"][name])
