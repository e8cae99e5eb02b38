"""One run of an attack: what its step computes, and what a resumed run needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import nn

from gift.data.latents import LatentSet, join_sets
from gift.models import DenoisingModel
from gift.training.loop import Logs
from gift.training.method import TrainingRun
from gift.training.updates import Updater, scheduled

if TYPE_CHECKING:
    from gift.attacks.base import Attack


class FineTuning(TrainingRun):
    """One run: the model's own training objective on the attacker's pictures."""

    def __init__(
        self,
        how: Attack,
        model: DenoisingModel,
        data: LatentSet,
        accelerator: Accelerator,
        *,
        harmless: LatentSet | None = None,
        prior: tuple[float, LatentSet] | None = None,
        base: DenoisingModel | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(model, how.attach(model))
        self.how, self.model, self.base, self.prior, self.seed = how, model, base, prior, seed
        self.data, self.harmless = data.reworded(model, how.word), harmless
        if harmless and how.share < 1:
            self.data = join_sets([self.data, harmless], [how.share, 1 - how.share]) if how.share else harmless
        self.prepared = False
        self.sizes: dict[nn.Parameter, torch.Tensor] | None = None
        self.observations: list[list[Any]] = []
        self.updaters["attack"] = Updater(
            self.weights.values(), name=how.optimiser, rate=how.rate, decay=how.decay, clip=how.clip, accelerator=accelerator
        )

    def step(self, index: int, generator: torch.Generator) -> Logs:
        """One optimiser step."""
        self.prepare()
        alone = self.harmless if index < self.how.harmless_steps else None
        loss = self.loss(alone or self.data, generator)
        if self.prior:
            weight, pictures = self.prior
            loss = loss + weight * self.loss(pictures, generator)
        updater = self.updaters["attack"]
        updater.gradients(loss)
        for parameter, size in (self.sizes or {}).items():
            if parameter.grad is not None:
                parameter.grad.mul_(size)
        factor = scheduled(self.how.schedule, index, self.how.steps, self.how.warmup)
        norm = updater.apply(factor, self.sizes.__getitem__ if self.sizes else None)
        return {"loss": loss.item(), "gradient_norm": norm}

    def loss(self, data: LatentSet, generator: torch.Generator) -> torch.Tensor:
        """The mean loss () of a batch of `data`."""
        embed = self.model.embed if self.how.trains_text else None
        return self.model.mean_loss(*data.batch(self.how.batch_size, generator, embed), generator)

    def prepare(self) -> None:
        """What the attack does to the weights before its first step: not before, so that zero steps change nothing."""
        if not self.prepared:
            self.how.prepare(self.model, self.base, self.seed)
            self.sizes = self.how.sizes(self.weights)
        self.prepared = True

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up a checkpoint."""
        self.prepare()  # may have changed weights that are not trained, and so are not in the checkpoint
        super().load_state(state)

    def extra_state(self) -> dict[str, Any]:
        """What was observed so far."""
        return {"observations": self.observations}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes it up."""
        self.observations = state["observations"]
