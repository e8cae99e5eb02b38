"""The simulated attacker: before the immunizing gradient is taken, the weights are attacked for some steps, and put back after."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import nn

from gift.immunizers.base import Task
from gift.models.lora import attach_lora, redraw_lora, switch_lora
from gift.sharding import refuse
from gift.training.updates import OptimiserName, Rate, Updater

Kind = Literal["full", "lora"]
ADAPTER = "simulated"


def _rising(rates: tuple[float, float]) -> tuple[float, float]:
    if rates[0] > rates[1]:
        raise ValueError("the lower rate comes first")
    return rates


Rates = Annotated[tuple[Rate, Rate], AfterValidator(_rising)]


class Attacker(BaseModel):
    """A distribution of attacks; each draw is one. All defaults are choices."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(default=16, ge=0, description="most steps of a simulated attack; 0 switches it off (choice)")
    kinds: tuple[Kind, ...] = Field(
        default=("full", "lora"),
        min_length=1,
        description="what the attack trains; 'full' takes memory for the weights that move three times over (values, optimiser)",
    )
    full_rates: Rates = Field(default=(1e-4, 1e-3), description="range of learning rates, log-uniform")
    lora_rates: Rates = Field(default=(5e-4, 5e-3), description="range of learning rates, log-uniform")
    rank: int = Field(default=8, ge=1, description="LoRA rank")
    optimisers: tuple[OptimiserName, ...] = Field(default=("adamw",), min_length=1)
    batch_size: int = Field(default=8, ge=1)
    harmless: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the draws that train on safe pictures, as an attacker's first steps may (choice)",
    )


@contextmanager
def put_back(weights: dict[str, nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Whatever is done to weights inside the block is undone after it, bit for bit; gives the weights."""
    before = [p.detach().clone() for p in weights.values()]
    try:
        yield list(weights.values())
    finally:
        with torch.no_grad():
            for parameter, old in zip(weights.values(), before, strict=True):
                parameter.copy_(old)


class SimulatedAttack:
    """Runs draws of an `Attacker` on a task's weights, in place, and undoes them: no second model is held."""

    def __init__(self, how: Attacker, task: Task) -> None:
        self.how, self.task = how, task
        self.lora: dict[str, nn.Parameter] = {}
        if how.steps and "lora" in how.kinds:
            refuse("a simulated LoRA attacker", "use attacker.kinds=[full] or attacker.steps=0")
            self.lora = attach_lora(task.model, how.rank, ADAPTER)
            switch_lora(task.model, ADAPTER, on=False)

    @contextmanager
    def __call__(self, weights: dict[str, nn.Parameter], generator: torch.Generator) -> Iterator[int]:
        """Inside the block the model is attacked; afterwards its weights are bit-identical to before, its gradients are kept.

        Yields:
            How many steps the attack took.
        """
        if not self.how.steps:
            yield 0
            return

        def draw(n: int) -> int:
            return int(torch.randint(n, (1,), generator=generator))

        kind = self.how.kinds[draw(len(self.how.kinds))]
        optimiser = self.how.optimisers[draw(len(self.how.optimisers))]
        low, high = (math.log(r) for r in (self.how.full_rates if kind == "full" else self.how.lora_rates))
        rate = math.exp(low + (high - low) * float(torch.rand(1, generator=generator)))
        steps = 1 + draw(self.how.steps)
        hidden = self.how.harmless and float(torch.rand(1, generator=generator)) < self.how.harmless
        data = self.task.safe if hidden else self.task.concept
        with put_back(weights) if kind == "full" else self._adapter(weights, generator) as trained:
            updater = Updater(trained, name=optimiser, rate=rate, accelerator=self.task.accelerator)
            for _ in range(steps):
                latents, cond = data.batch(self.how.batch_size, generator)
                updater.descend(self.task.model.mean_loss(latents, cond, generator))
            updater.optimiser.zero_grad(set_to_none=True)
            for parameter in weights.values():
                parameter.requires_grad_(True)
            yield steps

    @contextmanager
    def _adapter(self, weights: dict[str, nn.Parameter], generator: torch.Generator) -> Iterator[list[nn.Parameter]]:
        redraw_lora(self.lora, generator)
        switch_lora(self.task.model, ADAPTER, on=True)
        for parameter in weights.values():
            parameter.requires_grad_(False)
        for parameter in self.lora.values():
            parameter.requires_grad_(True)
        try:
            yield list(self.lora.values())
        finally:
            switch_lora(self.task.model, ADAPTER, on=False)
            for parameter in self.lora.values():
                parameter.requires_grad_(False)
            for parameter in weights.values():
                parameter.requires_grad_(True)
