"""One optimiser over some weights, with the checks that keep NaN out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import Annotated, Any, Literal, cast

import torch
from accelerate import Accelerator
from pydantic import Field
from torch import nn

from gift.errors import GiftError, NonFiniteError
from gift.parallel import average_gradients
from gift.sharding import share_like, whole
from gift.training.adafactor import Adafactor

OptimiserName = Literal["adamw", "adam", "sgd", "adafactor", "adamw8bit"]
ScheduleName = Literal["constant", "cosine", "linear"]

LARGEST_RATE = 1e30
"""fp32 ends at 3.4e38, and Adam's first step divides the rate by 1 - beta: beyond this, PyTorch overflows inside the optimiser."""

SMALLEST_SCALE = 1.0
"""Of the loss in fp16 (choice): where a gradient still overflows here, scaling is not what is wrong. From PyTorch's first scale of
65536, which each overflow halves, that is 17 in a row."""

FUSED = frozenset({"cpu", "cuda", "mps", "xpu"})
"""Devices on which PyTorch has Adam's whole step as one kernel, without temporaries."""

Rate = Annotated[float, Field(gt=0, le=LARGEST_RATE)]
"""A learning rate that an optimiser can hold."""


def make_optimiser(name: OptimiserName, parameters: Sequence[nn.Parameter], rate: float, decay: float) -> torch.optim.Optimizer:
    """An optimiser by name, with PyTorch's own defaults for everything else but Adafactor's scale.

    PyTorch's Adafactor moves a tensor by `rate * max(eps2, RMS(tensor))` with eps2 = 1e-3: a LoRA factor that starts at zero hardly
    moves. Here eps2 is 1, which makes the rate absolute, as `scale_parameter=False, relative_step=False` does in transformers'
    Adafactor, which its documentation advises for fine-tuning at a rate of one's own; the update's clipping (d = 1) stays.

    Raises:
        GiftError: 'adamw8bit' without bitsandbytes.
    """
    fused = all(p.device.type in FUSED for p in parameters)
    makers: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adamw": lambda: torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=fused),
        "adam": lambda: torch.optim.Adam(parameters, lr=rate, fused=fused),
        "sgd": lambda: torch.optim.SGD(parameters, lr=rate),
        "adafactor": lambda: Adafactor(parameters, rate, decay),
        "adamw8bit": lambda: _adamw_8bit(parameters, rate, decay),
    }
    return makers[name]()


def _adamw_8bit(parameters: Sequence[nn.Parameter], rate: float, decay: float) -> torch.optim.Optimizer:
    try:
        make = import_module("bitsandbytes.optim").AdamW8bit
    except ImportError as error:
        raise GiftError("the optimiser 'adamw8bit' needs bitsandbytes: pip install 'gift-diffusion[8bit]'") from error
    return cast(torch.optim.Optimizer, make(parameters, lr=rate, weight_decay=decay))


def scheduled(name: ScheduleName, step: int, steps: int, warmup: int) -> float:
    """The factor on the learning rate at `step` of `steps` (0-based)."""
    if step < warmup:
        return (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    if name == "cosine":
        return 0.5 * (1 + float(torch.cos(torch.tensor(share * torch.pi))))
    return 1 - share if name == "linear" else 1.0


def check_loss(value: torch.Tensor, what: str = "the loss", remedy: str = "lower the learning rate") -> None:
    """Stops before a non-finite loss reaches the weights.

    Raises:
        NonFiniteError: the value is NaN or infinite.
    """
    if not torch.isfinite(value).all():
        raise NonFiniteError(f"{what} is {value.detach().mean().item()}; the weights before this step are kept: {remedy}")


class Updater:
    """Descends losses on a fixed list of weights.

    Args:
        parameters: the weights that move; must be fp32.
        name: the optimiser.
        rate: learning rate.
        decay: weight decay.
        clip: largest gradient norm; None for no clipping.
        accelerator: device, precision and backward.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        name: OptimiserName = "adamw",
        rate: float,
        decay: float = 0.0,
        clip: float | None = 1.0,
        accelerator: Accelerator,
    ) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            raise GiftError("nothing to train: no weight matches; name another part of the denoiser")
        wrong = next((p.dtype for p in self.parameters if p.dtype != torch.float32), None)
        if wrong is not None:
            raise GiftError(f"trainable weights are {wrong}; hold the model in fp32, or train a LoRA on it")
        if not 0 <= rate <= LARGEST_RATE:
            raise GiftError(f"a learning rate of {rate} can't be used; give one between 0 and {LARGEST_RATE:g}")
        self.rate, self.clip, self.accelerator = rate, clip, accelerator
        self.scaler: torch.amp.GradScaler | None = accelerator.scaler
        self.remedy = "lower the learning rate" + (", or use bf16 or fp32 instead of fp16" if self.scaler else "")
        self.optimiser = make_optimiser(name, self.parameters, rate, decay)

    def gradients(self, loss: torch.Tensor) -> None:
        """Checks the loss and puts fresh gradients on the weights.

        Raises:
            NonFiniteError: the loss is not finite; nothing was changed.
        """
        check_loss(loss, remedy=self.remedy)
        self.optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        average_gradients(self.parameters)
        if self.scaler:
            self.scaler.unscale_(self.optimiser)

    def apply(self, factor: float = 1.0, scale: Callable[[nn.Parameter], torch.Tensor] | None = None) -> float:
        """Clips and takes one step at `factor` times the rate; returns the gradient norm before clipping.

        `scale` gives, for each weight, factors of its shape on its change; None for none.

        With fp16's loss scaling a gradient that overflows is no error: the step is left out and the scale halved. So is a step
        whose gradient was made from another that overflowed, after the scaler had looked at it.

        Raises:
            NonFiniteError: a gradient is not finite, and no smaller scale of the loss would mend it; nothing was changed.
        """
        limit = self.clip if self.clip is not None else float("inf")
        norm = whole(nn.utils.clip_grad_norm_(self.parameters, limit))
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * factor
        loss_scale = self.scaler.get_scale() if self.scaler else SMALLEST_SCALE
        if loss_scale <= SMALLEST_SCALE:
            check_loss(norm, "the gradient", self.remedy)
        moves = bool(torch.isfinite(norm))
        if moves and scale:
            self._scaled_step(scale)
        elif moves:
            self.optimiser.step()
        if self.scaler:
            self.scaler.update()
            if not moves and self.scaler.get_scale() >= loss_scale:
                self.scaler.update(loss_scale * self.scaler.get_backoff_factor())
        return norm.item()

    @torch.no_grad()
    def _scaled_step(self, scale: Callable[[nn.Parameter], torch.Tensor]) -> None:
        """The optimiser's step on some weights at a time, which holds the old values of these alone; gradients are gone after."""
        moving = [(p, p.grad) for p in self.parameters if p.grad is not None]
        for parameter, _ in moving:
            parameter.grad = None
        for part in parts(moving, max((p.numel() for p, _ in moving), default=0)):
            before = [p.detach().clone() for p, _ in part]
            for parameter, gradient in part:
                parameter.grad = gradient
            self.optimiser.step()
            for (parameter, _), old in zip(part, before, strict=True):
                parameter.copy_(old + (parameter - old) * scale(parameter))
                parameter.grad = None

    def descend(self, loss: torch.Tensor, factor: float = 1.0) -> float:
        """`gradients`, then `apply`."""
        self.gradients(loss)
        return self.apply(factor)

    def state(self) -> dict[str, Any]:
        """The optimiser's state, for a checkpoint, with the loss's scale where there is one."""
        return self.optimiser.state_dict() | ({"scaler": self.scaler.state_dict()} if self.scaler else {})

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up a checkpoint's state."""

        def taken(number: int, part: Any) -> Any:
            return share_like(part, self.parameters[number]) if torch.is_tensor(part) else part

        kept = {n: {key: taken(int(n), part) for key, part in of.items()} for n, of in state["state"].items()}
        self.optimiser.load_state_dict({"state": kept, "param_groups": state["param_groups"]})
        if self.scaler and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])


def parts(moving: Sequence[tuple[nn.Parameter, Any]], most: int) -> Iterator[list[tuple[nn.Parameter, Any]]]:
    """Weights with what belongs to each, in order, in parts of at most `most` values together (of one weight where it has more)."""
    part: list[tuple[nn.Parameter, Any]] = []
    for pair in moving:
        if part and sum(p.numel() for p, _ in part) + pair[0].numel() > most:
            yield part
            part = []
        part.append(pair)
    if part:
        yield part
