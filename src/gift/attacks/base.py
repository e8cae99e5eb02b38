"""What every fine-tuning attack is: hyperparameters that check themselves, what is trained, and how it is saved."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from gift.data.latents import LatentSet
from gift.models import DenoisingModel
from gift.training.checkpoint import Checkpoints
from gift.training.loop import Logs, run
from gift.training.measure import Meter
from gift.training.method import TrainingRun
from gift.training.progress import Reporter
from gift.training.updates import OptimiserName, ScheduleName, Updater, scheduled

Observe = Callable[[int, DenoisingModel], Any]
"""Called with (attack step, attacked model) at the asked steps; what it returns is kept."""


@dataclass
class Attacked:
    """The outcome of an attack.

    Attributes:
        model: the attacked copy, adapters and all.
        logs: loss and gradient norm of every step.
        observations: (step, what `observe` returned).
        matched: how many weight tensors were trained.
        seconds: wall time of the attack alone, without observing.
        peak_mb: highest memory of the process (or the GPU) during it.
    """

    model: DenoisingModel
    attack: Attack
    logs: list[Logs]
    observations: list[tuple[int, Any]] = field(default_factory=list)
    matched: int = 0
    seconds: float = 0.0
    peak_mb: float = 0.0

    def save(self, folder: Path | str) -> Path:
        """Writes what an attacker would share: adapter files, or the whole pipeline."""
        return self.attack.save(self.model, Path(folder))


class Attack(BaseModel, ABC):
    """Hyperparameters of an attack. Calling it fine-tunes a copy; the model itself is not changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str]
    title: ClassVar[str]
    about: ClassVar[str]

    steps: int = Field(default=150, ge=0, description="optimiser steps")
    rate: float = Field(default=1e-3, gt=0, description="learning rate")
    batch_size: int = Field(default=8, ge=1, description="pictures a step")
    optimiser: OptimiserName = Field(default="adamw", description="as diffusers' trainers")
    decay: float = Field(default=1e-2, ge=0, description="weight decay (diffusers' trainers: 1e-2)")
    schedule: ScheduleName = Field(default="constant", description="as diffusers' trainers")
    warmup: int = Field(default=0, ge=0, description="steps of rising rate")
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm (diffusers' trainers: 1.0)")

    @abstractmethod
    def attach(self, model: DenoisingModel) -> dict[str, nn.Parameter]:
        """Makes `model` ready and returns the weights that are trained."""

    @abstractmethod
    def save(self, model: DenoisingModel, folder: Path) -> Path:
        """Writes the attacked model in its usual files."""

    def __call__(
        self,
        model: DenoisingModel,
        data: LatentSet,
        *,
        seed: int = 0,
        at: Sequence[int] = (),
        observe: Observe | None = None,
        checkpoints: Checkpoints | None = None,
        reporter: Reporter | None = None,
        accelerator: Accelerator | None = None,
    ) -> Attacked:
        """Fine-tunes a copy of `model` on `data`.

        Args:
            model: the weights under attack; unchanged.
            data: the attacker's pictures.
            seed: of every draw.
            at: steps at which `observe` is called (0 is before the first).
            observe: measures the attacked model; None for not at all.
            checkpoints: where to keep and find checkpoints; None for none.
            reporter: told of progress.
            accelerator: device and precision; a plain one by default.

        Raises:
            NonFiniteError: the loss, a gradient or a weight became NaN.
            Interrupted: stopped on request; a checkpoint was written.
        """
        work = model.copy()
        work.denoiser.train()
        torch.manual_seed(seed)  # peft draws the adapter's first weights from the global generator
        accelerator = accelerator or Accelerator(cpu=model.device.type == "cpu")
        fine_tuning = FineTuning(self, work, data, accelerator)
        watching = 0.0

        def after(done: int) -> None:
            nonlocal watching
            if observe and done in at:
                began = time.perf_counter()
                fine_tuning.observations.append([done, observe(done, work)])
                watching += time.perf_counter() - began

        with Meter() as meter:
            logs = run(
                fine_tuning, steps=self.steps, seed=seed, title=self.name, checkpoints=checkpoints, reporter=reporter, after=after
            )
        fine_tuning.check()
        work.denoiser.eval().requires_grad_(False)
        seen = [(int(step), value) for step, value in fine_tuning.observations]
        return Attacked(work, self, logs, seen, len(fine_tuning.weights), meter.seconds - watching, meter.peak_mb)


class FineTuning(TrainingRun):
    """One run: the model's own training objective on the attacker's pictures."""

    def __init__(self, how: Attack, model: DenoisingModel, data: LatentSet, accelerator: Accelerator) -> None:
        super().__init__(how.attach(model))
        self.how, self.model, self.data = how, model, data
        self.observations: list[list[Any]] = []
        self.updaters["attack"] = Updater(
            self.weights.values(), name=how.optimiser, rate=how.rate, decay=how.decay, clip=how.clip, accelerator=accelerator
        )

    def step(self, index: int, generator: torch.Generator) -> Logs:
        """One optimiser step."""
        latents, cond = self.data.batch(self.how.batch_size, generator)
        loss = self.model.loss(latents, cond, generator).mean()
        norm = self.updaters["attack"].descend(loss, scheduled(self.how.schedule, index, self.how.steps, self.how.warmup))
        return {"loss": loss.item(), "gradient_norm": norm}

    def extra_state(self) -> dict[str, Any]:
        """What was observed so far."""
        return {"observations": self.observations}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes it up."""
        self.observations = state["observations"]
