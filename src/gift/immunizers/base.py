"""What every immunizer is: hyperparameters that check themselves, and a step. The books are kept here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gift.data.latents import LatentSet
from gift.errors import NonFiniteError
from gift.models import DenoisingModel
from gift.models.lora import attach_lora, detach_lora, has_lora, merge_lora, refuse_lora, switch_lora
from gift.models.parameters import not_finite, select_parameters
from gift.training.checkpoint import Checkpoints
from gift.training.method import TrainingRun
from gift.training.precision import EXACT, Saving, make_accelerator
from gift.training.progress import Reporter, say_repeats

LORA = "immunization"


@dataclass(frozen=True)
class Task:
    """What an immunizer works on.

    Attributes:
        model: theta, when a run begins still theta_0; its denoiser is trained in place.
        concept: D_h, the concept's set.
        safe: D_s, the safe set.
        accelerator: device, precision, backward.
        seed: of the run.
        rank: of the LoRA that is trained instead of the weights; None for the weights.
    """

    model: DenoisingModel
    concept: LatentSet
    safe: LatentSet
    accelerator: Accelerator
    seed: int
    rank: int | None = None


class Method(TrainingRun):
    """One run of an immunizer on its task: on the chosen weights, or on a LoRA that is merged into them at the end."""

    def __init__(self, task: Task, train: str) -> None:
        self.task = task
        if task.rank is None:
            super().__init__(task.model, select_parameters(task.model.denoiser, train))
        else:
            adapter = attach_lora(task.model, task.rank, LORA)
            switch_lora(task.model, LORA, on=True)  # where other adapters are switched off
            super().__init__(task.model, adapter)

    def finish(self) -> None:
        """After the last step."""
        if self.task.rank is not None:
            merge_lora(self.task.model, LORA)

    def close(self) -> None:
        """Takes every adapter off."""
        if has_lora(self.task.model):
            detach_lora(self.task.model)


class Immunizer(BaseModel, ABC):
    """Hyperparameters of a method. Calling it gives an immunized copy of a model; the model itself is not changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str]
    title: ClassVar[str]
    about: ClassVar[str]
    uses_safe: ClassVar[bool] = True
    draws_pictures: ClassVar[bool] = True

    steps: int = Field(default=100, ge=0, description="immunization steps")
    batch_size: int = Field(default=16, ge=1, description="pictures of each set a step (choice)")
    adapter_rank: int | None = Field(
        default=None, ge=1, description="train a LoRA of this rank, merged at the end, instead of the weights (off by default)"
    )

    @model_validator(mode="after")
    def _one_choice_of_weights(self) -> Self:
        for name in ("train", "variant"):
            field = type(self).model_fields.get(name)
            if self.adapter_rank is not None and field is not None and getattr(self, name) != field.default:
                raise ValueError(
                    f"{name} chooses weights, and adapter_rank={self.adapter_rank} trains a LoRA instead; give one of them"
                )
        return self

    @abstractmethod
    def begin(self, task: Task) -> Method:
        """Builds the run."""

    @property
    def total_steps(self) -> int:
        """Steps of the loop; more than `steps` where a method has a second phase."""
        return self.steps

    def __call__(
        self,
        model: DenoisingModel,
        concept: LatentSet,
        safe: LatentSet,
        *,
        seed: int = 0,
        checkpoints: Checkpoints | None = None,
        reporter: Reporter | None = None,
        accelerator: Accelerator | None = None,
        saving: Saving = EXACT,
        in_place: bool = False,
    ) -> DenoisingModel:
        """Immunizes a copy of `model`, or `model` itself.

        Args:
            model: theta_0; unchanged, unless `in_place`.
            concept: D_h.
            safe: D_s.
            seed: of every draw of the run.
            checkpoints: where to keep and find checkpoints; None for none.
            reporter: told of progress.
            accelerator: the devices; a plain one by default.
            saving: of memory and time, against rounding.
            in_place: change `model` itself, so that its weights are in memory once. A run that fails leaves it half changed.

        Returns:
            The immunized copy, or `model`. With zero steps its weights are bit-identical to the model's.

        Raises:
            GiftError: the model has an adapter on.
            NonFiniteError: a loss, gradient or weight became NaN; the last checkpoint is kept.
            Interrupted: stopped on request; a checkpoint was written.
        """
        refuse_lora(model)
        out = model if in_place else model.copy()
        if self.total_steps:
            if self.draws_pictures:
                say_repeats(reporter, "pictures of the concept", len(concept), self.batch_size)
                if self.uses_safe:
                    say_repeats(reporter, "safe pictures", len(safe), self.batch_size)
            accelerator = accelerator or make_accelerator(model)
            torch.manual_seed(seed)  # for libraries that initialise their own parts (peft); every draw of ours has its generator
            out.denoiser.train()
            saving.apply(out, accelerator)
            with saving.explained():
                method = self.begin(Task(out, concept, safe, accelerator, seed, self.adapter_rank))
            try:
                method.carry_out(
                    saving, steps=self.total_steps, seed=seed, title=self.name, checkpoints=checkpoints, reporter=reporter
                )
                method.finish()
            finally:
                method.close()
                saving.release(out)
            if broken := not_finite(out.denoiser.named_parameters()):
                raise NonFiniteError(
                    f"{self.name} left NaN or infinite values in {broken}; nothing was saved: lower the learning rate"
                )
        out.denoiser.eval().requires_grad_(False)
        return out
