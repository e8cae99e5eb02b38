"""LoRA fine-tuning of the attention projections, and its kin."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from torch import nn

from gift.attacks.base import Attack
from gift.models import DenoisingModel
from gift.models.lora import AdapterKind, attach_lora, save_lora, text_encoders_for
from gift.training.updates import Rate


class Lora(Attack):
    """Trains a low-rank adapter, as diffusers' `train_text_to_image_lora.py` does; the base weights stay."""

    name: ClassVar[str] = "lora"
    title: ClassVar[str] = "LoRA"
    about: ClassVar[str] = "A low-rank adapter on the attention projections is trained on captioned pictures of the concept."

    trains_adapters: ClassVar[bool] = True

    rate: Rate = Field(default=2e-3, description="learning rate (choice for the bundled model; on Stable Diffusion 1e-4 is usual)")
    rank: int = Field(default=8, ge=1, description="LoRA rank (choice; diffusers' trainer: 4)")
    adapter: AdapterKind = Field(default="lora", description="what the adapter's factors make of the weights (peft's kinds)")
    text_encoder: bool = Field(default=False, description="the text encoders get one, too (as train_dreambooth_lora.py can)")

    @property
    def trains_text(self) -> bool:
        """As chosen."""
        return self.text_encoder

    def suits(self, model: DenoisingModel) -> None:
        """As every attack; and diffusers must read a LoRA for the text encoders, where they shall have one."""
        super().suits(model)
        if self.text_encoder:
            text_encoders_for(model)

    def attach(self, model: DenoisingModel) -> dict[str, nn.Parameter]:
        """The adapter's factors."""
        return attach_lora(model, self.rank, kind=self.adapter, text=self.text_encoder)

    def save(self, model: DenoisingModel, folder: Path) -> Path:
        """`pytorch_lora_weights.safetensors`, as `pipeline.load_lora_weights` opens it, or peft folders (LoHa, LoKr)."""
        return save_lora(model, folder)
