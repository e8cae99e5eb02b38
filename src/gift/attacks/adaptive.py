"""Attackers who know that there is a defence: fresh layers, a step back toward a public base, an adapter from elsewhere."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from gift.attacks.full import Full
from gift.attacks.lora import Lora
from gift.errors import GiftError
from gift.models import DenoisingModel
from gift.models.parameters import named_by
from gift.training.updates import LARGEST_RATE


def _fitting(base: DenoisingModel | None, model: DenoisingModel) -> DenoisingModel:
    """The base, whose weights are those of the model under attack, tensor for tensor.

    Raises:
        GiftError: it is of another architecture.
    """
    assert base is not None  # `Attack.__call__` has refused
    there, here = ({name: p.shape for name, p in each.denoiser.named_parameters()} for each in (base, model))
    if there != here:
        raise GiftError(f"{base.source} is of another architecture than {model.source}; give the base that it was made from")
    return base


@torch.no_grad()
def _begin_anew(layer: nn.Module) -> None:
    """A layer's own parameters where its class has no `reset_parameters`: norms at scale 1, shift 0; tables small and random."""
    for name, parameter in layer.named_parameters(recurse=False):
        if parameter.ndim == 1:
            parameter.fill_(0.0 if name == "bias" else 1.0)
        else:
            parameter.copy_(torch.randn(parameter.shape) / parameter.shape[-1] ** 0.5)


class Reinit(Full):
    """Full fine-tuning after chosen layers have lost what the defence wrote into them, and all else."""

    name: ClassVar[str] = "reinit"
    title: ClassVar[str] = "Fresh layers"
    about: ClassVar[str] = "Chosen layers are initialised anew, then the denoiser is trained on the concept."

    fresh: str = Field(default="cross-attention", description="layers that start anew, whole ones (choice)")

    def prepare(self, work: DenoisingModel, base: DenoisingModel | None, seed: int) -> None:
        """Initialises the chosen layers as PyTorch does a new one; those without a start of their own as diffusers does."""
        layers = {name.rpartition(".")[0] for name in named_by(work.denoiser, self.fresh)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for name in sorted(layers):
                layer: Any = work.denoiser.get_submodule(name)
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()
                else:
                    _begin_anew(layer)


class TowardBase(Full):
    """Full fine-tuning from a point between the defended weights and a public base model's."""

    name: ClassVar[str] = "toward-base"
    title: ClassVar[str] = "Toward a base"
    about: ClassVar[str] = "The weights go part of the way to a public base model's, then the denoiser is trained on the concept."
    needs_base: ClassVar[bool] = True

    rate: float = Field(
        default=2e-4, ge=0, le=LARGEST_RATE, description="learning rate, 0 for the way alone (choice for the bundled model)"
    )
    way: float = Field(default=0.5, gt=0, le=1, description="how far to the base's weights; 1 is the base itself (choice)")

    @torch.no_grad()
    def prepare(self, work: DenoisingModel, base: DenoisingModel | None, seed: int) -> None:
        """Interpolates every weight of the denoiser: theta + way * (base - theta).

        Raises:
            GiftError: the base is of another architecture.
        """
        there = dict(_fitting(base, work).denoiser.named_parameters())
        for name, parameter in work.denoiser.named_parameters():
            parameter.lerp_(there[name].to(parameter), self.way)


class Transplant(Lora):
    """A LoRA that never saw the defended model: trained on a public base, put on the defended weights as it is."""

    name: ClassVar[str] = "transplant"
    title: ClassVar[str] = "Transplant"
    about: ClassVar[str] = "An adapter is trained on a public base model and put on the defended one without further training."
    needs_base: ClassVar[bool] = True

    def start(self, model: DenoisingModel, base: DenoisingModel | None) -> DenoisingModel:
        """A copy of the base.

        Raises:
            GiftError: the base is of another architecture.
        """
        return _fitting(base, model).copy(text=self.trains_text)

    @torch.no_grad()
    def shown(self, model: DenoisingModel, work: DenoisingModel, weights: dict[str, nn.Parameter]) -> DenoisingModel:
        """The model under attack with the adapter on."""
        out = model.copy(text=self.trains_text)
        with torch.random.fork_rng(devices=[]):  # an observer must not move the run's draws
            for name, parameter in self.attach(out).items():
                parameter.copy_(weights[name])
        return out
