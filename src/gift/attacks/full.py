"""Full fine-tuning of the denoiser, and of the text encoders if asked."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from torch import nn

from gift.attacks.base import Attack
from gift.models import DenoisingModel
from gift.models.parameters import select_parameters
from gift.training.updates import Rate


class Full(Attack):
    """Trains every weight of the denoiser, or a choice of them, as diffusers' `train_text_to_image.py` does."""

    name: ClassVar[str] = "full"
    title: ClassVar[str] = "Full fine-tuning"
    about: ClassVar[str] = "Every weight of the denoiser is trained on captioned pictures of the concept."

    rate: Rate = Field(default=2e-4, description="learning rate (choice for the bundled model; on Stable Diffusion 1e-5 is usual)")
    train: str = Field(default="all", description="weights of the denoiser that are trained")
    text_encoder: bool = Field(default=False, description="the text encoders are trained, too (as train_dreambooth.py can)")

    @property
    def trains_text(self) -> bool:
        """As chosen."""
        return self.text_encoder

    def attach(self, model: DenoisingModel) -> dict[str, nn.Parameter]:
        """The chosen weights."""
        weights = select_parameters(model.denoiser, self.train)
        for part, encoder in model.text_encoders.items() if self.text_encoder else ():
            encoder.requires_grad_(True)
            weights |= {f"{part}.{name}": p for name, p in encoder.named_parameters()}
        return weights

    def save(self, model: DenoisingModel, folder: Path) -> Path:
        """A diffusers folder."""
        return model.save(folder)
