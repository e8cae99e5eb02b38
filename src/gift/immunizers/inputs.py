"""What linear layers are given: their inputs during forwards, for methods that see a weight from the side of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from gift.errors import GiftError
from gift.models import DenoisingModel


def linear_layers(model: DenoisingModel, weights: Iterable[str]) -> dict[str, nn.Linear]:
    """The linear layers whose weights (out, in) are among the named ones, by the weight's name.

    Raises:
        GiftError: there are none, or the denoiser is compiled, so that its layers can't be watched.
    """
    if model.compiled:
        raise GiftError("this method looks into uncompiled forwards; leave compile out")
    linear = {f"{name}.weight": module for name, module in model.denoiser.named_modules() if isinstance(module, nn.Linear)}
    chosen = {name: linear[name] for name in weights if name in linear}
    if not chosen:
        raise GiftError("none of the chosen weights is a linear layer's; use another part of the denoiser, as cross-attention")
    return chosen


@contextmanager
def watching_inputs(layers: dict[str, nn.Linear], see: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Inside the block `see` is told every layer's name and input (..., in), at each of its forwards."""

    def tell(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            see(name, inputs[0].detach())

        return hook

    handles = [layer.register_forward_pre_hook(tell(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
