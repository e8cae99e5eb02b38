"""What linear layers are given: their inputs during forwards, for methods that see a weight from the side of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from gift.data.latents import LatentSet
from gift.errors import GiftError
from gift.models import DenoisingModel
from gift.models.base import Cond


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


@torch.no_grad()
def prompt_inputs(model: DenoisingModel, layers: dict[str, nn.Linear], cond: Cond) -> dict[str, torch.Tensor]:
    """What layers that read prompts are given of N of them, (N, tokens, in) in float64; tokens 1 where it is a summary."""
    seen: dict[str, torch.Tensor] = {}

    def see(name: str, given: torch.Tensor) -> None:
        seen[name] = given.double().view(len(given), -1, given.shape[-1])

    rows = len(next(iter(cond.values())))
    blank = torch.zeros(rows, *model.latent_shape, device=model.device)
    with watching_inputs(layers, see):
        model.predict(blank, torch.zeros(rows, device=model.device), cond)
    return seen


def token_sums(
    model: DenoisingModel,
    layers: dict[str, nn.Linear],
    data: LatentSet,
    *,
    batch_size: int,
    guide: dict[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """sum t c^T over the tokens c of a set's distinct prompts, (in, in) in float64 for every layer that reads them.

    Args:
        model: whose forwards are watched.
        layers: linear layers by name.
        data: the set; padding that its mask tells counts for nothing.
        batch_size: prompts a forward.
        guide: `prompt_inputs` of one prompt: t is its token at the same place, or its last; without it t is c.
    """
    total: dict[str, torch.Tensor] = {}
    for rows in torch.arange(len(data.prompts)).split(batch_size):
        cond = {name: tensor[rows.to(tensor.device)] for name, tensor in data.cond.items()}
        for name, given in prompt_inputs(model, layers, cond).items():
            toward = given
            if guide is not None:
                places = torch.arange(given.shape[1]).clamp(max=guide[name].shape[1] - 1)
                toward = guide[name][:, places].expand_as(given)
            if "mask" in cond and given.shape[1] > 1:
                given = given * cond["mask"][:, : given.shape[1], None]
            total[name] = total.get(name, 0.0) + toward.flatten(0, 1).T @ given.flatten(0, 1)
    return total
