"""Full fine-tuning of the denoiser."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from torch import nn

from gift.attacks.base import Attack
from gift.models import DenoisingModel
from gift.models.parameters import select_parameters


class Full(Attack):
    """Trains every weight of the denoiser, or a choice of them, as diffusers' `train_text_to_image.py` does."""

    name: ClassVar[str] = "full"
    title: ClassVar[str] = "Full fine-tuning"
    about: ClassVar[str] = "Every weight of the denoiser is trained on captioned pictures of the concept."

    rate: float = Field(
        default=2e-4, gt=0, description="learning rate (choice for the bundled model; on Stable Diffusion 1e-5 is usual)"
    )
    train: str = Field(default="all", description="weights that are trained")

    def attach(self, model: DenoisingModel) -> dict[str, nn.Parameter]:
        """The chosen weights."""
        return select_parameters(model.denoiser, self.train)

    def save(self, model: DenoisingModel, folder: Path) -> Path:
        """A diffusers folder."""
        return model.save(folder)
