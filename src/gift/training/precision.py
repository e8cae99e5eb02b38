"""What training computes in, and what it keeps: memory and time against rounding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field

from gift.errors import GiftError
from gift.launch import flagged
from gift.models import DenoisingModel
from gift.models.loading import HELD

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[str, torch.dtype] = {"no": torch.float32, **HELD, "fp16": torch.float16}


def make_accelerator(model: DenoisingModel) -> Accelerator:
    """The accelerator of a run on the model's device, as a launcher's environment asks for.

    Raises:
        GiftError: the launcher asks for what this device can't do.
    """
    if flagged("ACCELERATE_USE_DEEPSPEED"):
        raise GiftError("DeepSpeed is not supported; launch with FSDP instead, which shares out the same (docs/distributed.md)")
    try:
        return Accelerator(cpu=model.device.type == "cpu")
    except (ValueError, RuntimeError, ImportError) as error:
        raise GiftError(f"the launcher's settings don't fit: {' '.join(str(error).split())}; change or leave them out") from error


class Saving(BaseModel):
    """How a training run saves memory and time. The defaults are exact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Precision = Field(default="fp32", description="of the denoiser's training forwards; weights stay fp32")
    gradient_checkpointing: bool = Field(default=False, description="compute activations anew instead of keeping them")
    accumulate: int = Field(default=1, ge=1, description="micro-batches: parts of a batch that are computed one after the other")
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="release the weights' running mean, its decay rising as (1 + n) / (10 + n) to this; off by default",
    )
    compile: str | None = Field(
        default=None, description="torch.compile the denoiser with this backend, as 'inductor'; off by default"
    )

    def check(self) -> None:
        """Verifies what can be told without a model.

        Raises:
            GiftError: there is no such backend.
        """
        if self.compile is not None and self.compile not in (known := torch.compiler.list_backends(None)):
            raise GiftError(f"torch.compile has no backend '{self.compile}'; use one of {', '.join(known)}")

    def apply(self, model: DenoisingModel, accelerator: Accelerator) -> None:
        """Sets a copy up for training. `accelerate launch --mixed_precision` asks for bf16 or fp16 as well.

        Raises:
            GiftError: a precision or backend that there is not, or the denoiser can't compute activations anew.
        """
        asked = accelerator.mixed_precision if self.precision == "fp32" else self.precision
        if asked not in DTYPES:
            raise GiftError(f"mixed precision '{asked}' is not supported; use one of {', '.join(DTYPES)}")
        model.compute, model.micro_batches = DTYPES[asked], self.accumulate
        if model.compute is not torch.float16:
            accelerator.scaler = None
        elif accelerator.scaler is None or accelerator.mixed_precision != "fp16":  # the launcher's own, or a run's before this one
            accelerator.scaler = torch.amp.GradScaler(model.device.type)
        model.scaler = accelerator.scaler
        denoiser: Any = model.denoiser
        if self.gradient_checkpointing:
            try:
                denoiser.enable_gradient_checkpointing()
            except (AttributeError, ValueError) as error:
                raise GiftError(
                    f"{type(denoiser).__name__} can't compute activations anew; leave gradient_checkpointing out"
                ) from error
        if self.compile is not None:
            self.check()
            denoiser.compile(backend=self.compile)

    def release(self, model: DenoisingModel) -> None:
        """Leaves the model as any other."""
        model.compute, model.micro_batches, model.scaler = torch.float32, 1, None
        denoiser: Any = model.denoiser
        if self.gradient_checkpointing:
            denoiser.disable_gradient_checkpointing()
        if self.compile is not None:
            denoiser._compiled_call_impl = None

    def settings(self) -> dict[str, dict[str, Any]]:
        """What a run can't change when it goes on from a checkpoint; nothing by default."""
        kept = self.model_dump(include={"precision", "ema"}, exclude_defaults=True)
        return {"saving": kept} if kept else {}

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns a compiler's failure inside the block into one line.

        Raises:
            GiftError: the backend can't compile the denoiser here.
        """
        try:
            yield
        except RuntimeError as error:
            if self.compile is None or not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            cause = getattr(error, "inner_exception", error)
            reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
            raise GiftError(
                f"torch.compile with '{self.compile}' failed ({reason[:160]}); mend that or leave compile out"
            ) from error


EXACT = Saving()
