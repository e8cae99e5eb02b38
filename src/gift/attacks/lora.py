"""LoRA fine-tuning of the attention projections."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from torch import nn

from gift.attacks.base import Attack
from gift.models import DenoisingModel
from gift.models.lora import attach_lora, save_lora


class Lora(Attack):
    """Trains a low-rank adapter, as diffusers' `train_text_to_image_lora.py` does; the base weights stay."""

    name: ClassVar[str] = "lora"
    title: ClassVar[str] = "LoRA"
    about: ClassVar[str] = "A low-rank adapter on the attention projections is trained on captioned pictures of the concept."

    rate: float = Field(
        default=2e-3, gt=0, description="learning rate (choice for the bundled model; on Stable Diffusion 1e-4 is usual)"
    )
    rank: int = Field(default=8, ge=1, description="LoRA rank (choice; diffusers' trainer: 4)")

    def attach(self, model: DenoisingModel) -> dict[str, nn.Parameter]:
        """The adapter's factors."""
        return attach_lora(model, self.rank)

    def save(self, model: DenoisingModel, folder: Path) -> Path:
        """`pytorch_lora_weights.safetensors`, as `pipeline.load_lora_weights` opens it."""
        return save_lora(model, folder)
