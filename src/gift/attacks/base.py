"""What every fine-tuning attack is: hyperparameters that check themselves, what is trained, and how it is saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from gift.attacks.tuning import FineTuning
from gift.data.latents import LatentSet
from gift.errors import GiftError
from gift.models import DenoisingModel
from gift.models.lora import refuse_lora
from gift.sharding import refuse
from gift.training.checkpoint import Checkpoints
from gift.training.loop import Logs
from gift.training.measure import Meter
from gift.training.precision import EXACT, Saving, make_accelerator
from gift.training.progress import Reporter, say_repeats
from gift.training.updates import OptimiserName, Rate, ScheduleName

Observe = Callable[[int, DenoisingModel], Any]
"""Called with (attack step, attacked model) at the asked steps; what it returns is kept."""

DRAWINGS = 64
"""Bundled drawings that an attacker has where nobody says otherwise (choice)."""
FEW = 7
"""The same for attacks that learn from a few pictures (choice). An object's first eight are as the artists drew them, those after
them turned and recoloured, which teach no word (docs/results.md, DreamBooth and Textual Inversion)."""


@dataclass
class Attacked:
    """The outcome of an attack.

    Attributes:
        model: the attacked copy, adapters and all.
        logs: loss and gradient norm of every step.
        observations: (step, what `observe` returned).
        matched: how many weight tensors were trained.
        seconds: wall time of the attack alone, without observing, and with what was spent before an interruption.
        peak_mb: highest memory of the process (or the GPU) during it, without observing.
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
    needs_base: ClassVar[bool] = False
    trains_adapters: ClassVar[bool] = False
    """Whether all that it trains are adapters, which are fp32 whatever the model's weights are."""
    few: ClassVar[int | None] = None
    """So many bundled drawings suit it; None for `DRAWINGS`."""

    steps: int = Field(default=150, ge=0, description="optimiser steps")
    rate: Rate = Field(default=1e-3, description="learning rate")
    batch_size: int = Field(default=8, ge=1, description="pictures a step")
    optimiser: OptimiserName = Field(default="adamw", description="as diffusers' trainers")
    decay: float = Field(default=1e-2, ge=0, le=1, description="weight decay, not of 'adam' and 'sgd' (diffusers' trainers: 1e-2)")
    schedule: ScheduleName = Field(default="constant", description="as diffusers' trainers")
    warmup: int = Field(default=0, ge=0, description="steps of rising rate")
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm (diffusers' trainers: 1.0)")
    harmless_steps: int = Field(default=0, ge=0, description="the first steps, which see harmless pictures alone")
    share: float = Field(
        default=1.0, ge=0, le=1, description="share of the concept's pictures in the steps after those; the rest are harmless"
    )

    @property
    def needs_harmless(self) -> bool:
        """Whether a second data set is asked for."""
        return self.harmless_steps > 0 or self.share < 1

    @property
    def usual_harmless(self) -> int:
        """How many harmless steps it begins with where nothing else is said."""
        return 0

    @property
    def before_concept(self) -> int:
        """The first steps, which see nothing of the concept though later ones do; 0 where none ever does, as with a share of 0."""
        return self.harmless_steps if self.share else 0

    def drawings(self, asked: int | None) -> int:
        """How many bundled drawings its attacker has: as many as are asked for, else what suits it, else `DRAWINGS`."""
        return asked or self.few or DRAWINGS

    def suits(self, model: DenoisingModel) -> None:
        """Verifies that it can be run on a model.

        Raises:
            GiftError: the model has no place for what it trains, or holds its weights in too low a precision to be trained.
        """
        held = next(model.denoiser.parameters()).dtype
        if held is not torch.float32 and not self.trains_adapters:
            raise GiftError(
                f"attack '{self.name}' trains weights, and these are {held}; hold the model in fp32, or train a LoRA on it"
            )

    def refuse_unused(self, *, base: bool, harmless_images: bool) -> None:
        """Verifies that what is given is of use to this attack.

        Raises:
            GiftError: a base model or harmless pictures are given, and would not be looked at.
        """
        if base and not self.needs_base:
            raise GiftError(f"attack '{self.name}' leans on no base model; leave it out, or take attack toward-base or transplant")
        if harmless_images and not self.needs_harmless:
            raise GiftError(f"attack '{self.name}' uses no harmless pictures; leave them out, or give it harmless_steps=10")

    @property
    def heading(self) -> str:
        """The title, with the harmless steps where they are not the attack's own idea."""
        first = self.harmless_steps if self.harmless_steps != self.usual_harmless else 0
        return f"{self.title} after {first} harmless step{'s' if first > 1 else ''}" if first else self.title

    @property
    def trains_text(self) -> bool:
        """Whether weights of the text encoders are trained: the copy then has its own, and captions are encoded each step."""
        return False

    def word(self, mention: str) -> str:
        """The attacker's own words for those that name the concept (which may be ''); the same by default."""
        return mention

    def start(self, model: DenoisingModel, base: DenoisingModel | None) -> DenoisingModel:
        """The copy that is trained."""
        return model.copy(text=self.trains_text)

    def chosen(self, data: LatentSet, generator: torch.Generator) -> LatentSet:
        """The pictures that are used, of those that there are."""
        return data

    def prior_term(self, model: DenoisingModel, data: LatentSet, seed: int) -> tuple[float, LatentSet] | None:
        """A second term of the loss, if there is one: its weight, and its pictures.

        Args:
            model: the model under attack.
            data: the pictures that are used, with their original prompts.
            seed: of the draws.
        """
        return None

    def prepare(self, work: DenoisingModel, base: DenoisingModel | None, seed: int) -> None:
        """Changes weights before the first step. Called again, on the same weights, when a run goes on from a checkpoint."""

    def sizes(self, weights: dict[str, nn.Parameter]) -> dict[nn.Parameter, torch.Tensor] | None:
        """What weights are divided by before they are trained, each broadcast to its weight's shape; None for nothing."""
        return None

    def shown(self, model: DenoisingModel, work: DenoisingModel, weights: dict[str, nn.Parameter]) -> DenoisingModel:
        """The attacked model, given the model under attack, the copy in training and its trained weights."""
        return work

    def release(self, work: DenoisingModel) -> None:
        """Brings the copy into its final form after the last step."""

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
        harmless: LatentSet | None = None,
        base: DenoisingModel | None = None,
        seed: int = 0,
        at: Sequence[int] = (),
        observe: Observe | None = None,
        checkpoints: Checkpoints | None = None,
        reporter: Reporter | None = None,
        accelerator: Accelerator | None = None,
        saving: Saving = EXACT,
    ) -> Attacked:
        """Fine-tunes a copy of `model` on `data`.

        Args:
            model: the weights under attack; unchanged.
            data: the attacker's pictures; where the attacker has a word of their own, their prompts are changed to it.
            harmless: other pictures, for attacks that hide the concept among them or behind them.
            base: a public model of the same architecture, for attacks that lean on one; unchanged.
            seed: of every draw.
            at: steps at which `observe` is called (0 is before the first).
            observe: measures the attacked model; None for not at all.
            checkpoints: where to keep and find checkpoints; None for none.
            reporter: told of progress.
            accelerator: the devices; a plain one by default.
            saving: of memory and time, against rounding.

        Raises:
            GiftError: harmless pictures or a base model are needed and not given.
            NonFiniteError: the loss, a gradient or a weight became NaN.
            Interrupted: stopped on request; a checkpoint was written.
        """
        if self.needs_harmless and harmless is None:
            raise GiftError(f"attack '{self.name}' with these options needs harmless pictures, too; give them as harmless=")
        if self.needs_base and base is None:
            raise GiftError(f"attack '{self.name}' needs a public base model; give it as base=")
        if type(self).prepare is not Attack.prepare or type(self).sizes is not Attack.sizes:
            refuse(f"attack '{self.name}'", "use lora, full or dreambooth")
        self.suits(model)
        refuse_lora(model)
        say_repeats(reporter, "pictures", len(data), self.batch_size)
        work = self.start(model, base)
        work.denoiser.train()
        accelerator = accelerator or make_accelerator(model)
        saving.apply(work, accelerator)

        def after(done: int) -> None:
            if observe and done in at:
                with meter.aside(), fine_tuning.average.shown():
                    seen = self.shown(model, work, fine_tuning.weights)
                    fine_tuning.observations.append([done, observe(done, seen)])

        with Meter() as meter:
            checkpoints = replace(checkpoints, meter=meter) if checkpoints else None
            data = self.chosen(data, torch.Generator().manual_seed(seed))
            prior = self.prior_term(model, data, seed) if self.steps else None
            torch.manual_seed(seed)  # peft draws the adapter's first weights from the global generator
            fine_tuning = FineTuning(self, work, data, accelerator, harmless=harmless, prior=prior, base=base, seed=seed)
            logs = fine_tuning.carry_out(
                saving, steps=self.steps, seed=seed, title=self.name, checkpoints=checkpoints, reporter=reporter, after=after
            )
        fine_tuning.check()
        saving.release(work)
        self.release(work)
        attacked = self.shown(model, work, fine_tuning.weights)
        for part in (attacked.denoiser, *(attacked.text_encoders.values() if self.trains_text else ())):
            part.eval().requires_grad_(False)
        observations = [(int(step), value) for step, value in fine_tuning.observations]
        return Attacked(attacked, self, logs, observations, len(fine_tuning.weights), meter.seconds, meter.peak_mb)
