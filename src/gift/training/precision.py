"""What training computes in, and what it keeps: memory and time against rounding."""

from __future__ import annotations

from typing import Any, Literal

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field

from gift.errors import GiftError
from gift.models import DenoisingModel

Precision = Literal["fp32", "bf16"]


class Saving(BaseModel):
    """How a training run saves memory and time. The defaults are exact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Precision = Field(default="fp32", description="of the denoiser's training forwards; weights stay fp32")
    gradient_checkpointing: bool = Field(default=False, description="compute activations anew instead of keeping them")

    def apply(self, model: DenoisingModel, accelerator: Accelerator) -> None:
        """Sets a copy up for training. `accelerate launch --mixed_precision bf16` asks for bf16 as well.

        Raises:
            GiftError: fp16 is asked for, or the denoiser can't compute activations anew.
        """
        asked = accelerator.mixed_precision
        if asked not in {"no", "bf16"}:
            raise GiftError(f"mixed precision '{asked}' is not supported; use bf16, which needs no loss scaling, or no")
        model.compute = torch.bfloat16 if "bf16" in {asked, self.precision} else torch.float32
        if self.gradient_checkpointing:
            denoiser: Any = model.denoiser
            try:
                denoiser.enable_gradient_checkpointing()
            except (AttributeError, ValueError) as error:
                raise GiftError(
                    f"{type(denoiser).__name__} can't compute activations anew; leave gradient_checkpointing out"
                ) from error

    def release(self, model: DenoisingModel) -> None:
        """Leaves the model as any other."""
        model.compute = torch.float32
        if self.gradient_checkpointing:
            denoiser: Any = model.denoiser
            denoiser.disable_gradient_checkpointing()


EXACT = Saving()
