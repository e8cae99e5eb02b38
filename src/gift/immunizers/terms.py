"""The terms of the upper level: bounded ascent, representation noising, and the gradient-aware change of the gradient."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from gift.errors import GiftError
from gift.models import DenoisingModel
from gift.models.parameters import SEPARATE, groups_of
from gift.sharding import whole

Bound = Literal["identity", "log", "hinge"]
Distance = Literal["mse", "mmd"]
Noise = Literal["standard", "matched"]
Vectors = list[torch.Tensor]
"""One tensor for each weight, of its shape."""

LAYERS = SEPARATE.layers
FLOOR = 0.1
"""Of the sensitivity that `sparing` divides by, relative to its mean: for weights that the safe loss hardly sees (choice)."""


def bounded(loss: torch.Tensor, bound: Bound, ceiling: float) -> torch.Tensor:
    """b(L): keeps the ascent from running away.

    'identity' is L; 'log' is log(1 + L) (RepNoise, Rosati et al. 2024); 'hinge' is min(L, ceiling), flat above the ceiling.
    """
    if bound == "log":
        return torch.log1p(loss)
    return loss.clamp(max=ceiling) if bound == "hinge" else loss


def mmd(a: torch.Tensor, b: torch.Tensor, scales: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)) -> torch.Tensor:
    """Squared maximum mean discrepancy (Gretton et al. 2012, biased estimate) with a sum of Gaussian kernels.

    Bandwidths are multiples of the mean squared distance of the joined sample, which is not differentiated.

    Args:
        a: (N, D).
        b: (M, D).
        scales: multiples of the bandwidth.

    Returns:
        A scalar, zero when the samples are the same.
    """
    joined = torch.cat([a, b])
    squared = torch.cdist(joined, joined).square()
    width = squared.detach().mean().clamp(min=1e-12)
    kernel = torch.stack([torch.exp(-squared / (width * scale)) for scale in scales]).mean(0)
    n = len(a)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


class Representations:
    """Watches hidden layers of a denoiser and measures how far they are from noise.

    Args:
        denoiser: the network.
        layers: the name of a group of layers (`gift.models.parameters`), or a pattern over module names.
        noise: 'standard' normal, or 'matched': normal with the layer's own running mean and deviation per channel.
        distance: mean squared error, or multi-kernel MMD over at most `rows` positions.
        rows: positions a layer for the MMD.
        momentum: of the running moments.

    Raises:
        GiftError: the pattern is not valid, or no module matches.
    """

    def __init__(
        self, denoiser: nn.Module, layers: str, noise: Noise, distance: Distance, rows: int = 256, momentum: float = 0.9
    ) -> None:
        named = groups_of(denoiser).layers
        try:
            pattern = re.compile(named.get(layers, layers))
        except re.error as error:
            raise GiftError(f"'{layers}' is neither one of {', '.join(named)} nor a valid pattern ({error})") from error
        self.modules = {name: m for name, m in denoiser.named_modules() if pattern.search(name)}
        if not self.modules:
            raise GiftError(f"'{layers}' matches no layer; use one of {', '.join(named)}, or a pattern over module names")
        self.noise, self.distance, self.rows, self.momentum = noise, distance, rows, momentum
        self.moments: dict[str, dict[str, torch.Tensor]] = {}
        self._seen: dict[str, torch.Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keeps the layers' outputs of the forwards inside the block."""

        def keep(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                self._seen[name] = output[0] if isinstance(output, tuple) else output

            return hook

        handles = [module.register_forward_hook(keep(name)) for name, module in self.modules.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def distance_to_noise(self, generator: torch.Generator) -> torch.Tensor:
        """R: the mean over layers of the distance between the layer's output and noise. Uses up what was watched."""
        values = []
        for name, hidden in self._seen.items():
            rows = (
                (hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden).flatten(0, -2).float()
            )  # (positions, channels)
            noise = torch.randn(rows.shape, generator=generator).to(rows)
            if self.noise == "matched":
                mean, deviation = self._running(name, rows)
                noise = noise * deviation + mean
            if self.distance == "mse":
                values.append((rows - noise).square().mean())
            else:
                pick = torch.randperm(len(rows), generator=generator)[: self.rows].to(rows.device)
                values.append(mmd(rows[pick], noise[pick]))
        self._seen.clear()
        return torch.stack(values).mean()

    def _running(self, name: str, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, deviation = rows.detach().mean(0), rows.detach().std(0)
        old = self.moments.get(name)
        if old:
            mean = self.momentum * old["mean"].to(mean) + (1 - self.momentum) * mean
            deviation = self.momentum * old["deviation"].to(mean) + (1 - self.momentum) * deviation
        self.moments[name] = {"mean": mean, "deviation": deviation}
        return mean, deviation


def watch_layers(model: DenoisingModel, layers: str, noise: Noise, distance: Distance) -> Representations:
    """`Representations` of a model in training.

    Raises:
        GiftError: its forwards can't be watched: they are compiled, or see a part of a batch at a time.
    """
    if model.micro_batches > 1 or model.compiled:
        raise GiftError("representation noising looks into whole, uncompiled forwards; leave accumulate and compile out")
    return Representations(model.denoiser, layers, noise, distance)


def project_away(gradient: torch.Tensor, safe: torch.Tensor) -> None:
    """Takes out of `gradient`, in place, the component whose descent would raise the safe loss.

    Descending g changes the safe loss by -lr * <g, s>; where <g, s> is negative, the component along s is removed
    (per tensor, as PCGrad does per task: Yu et al. 2020).
    """
    shared = isinstance(gradient, DTensor)
    dot = whole((gradient * safe).sum()) if shared else torch.dot(gradient.flatten(), safe.flatten())
    if dot < 0:
        gradient.sub_(safe, alpha=float(dot / whole(safe.square().sum()).clamp(min=1e-20)))


@torch.no_grad()
def add_gradients(weights: Iterable[nn.Parameter], more: Iterable[torch.Tensor | None], factor: float = 1.0) -> None:
    """Adds gradients of another place to those that the weights hold, times a factor; None stands for zero."""
    for parameter, gradient in zip(weights, more, strict=True):
        if gradient is not None:
            parameter.grad = factor * gradient if parameter.grad is None else parameter.grad + factor * gradient


def taken(weights: Iterable[nn.Parameter]) -> Vectors:
    """The weights' gradients, which the weights no longer hold; zeros where there is none."""
    gradients = []
    for parameter in weights:
        gradients.append(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
        parameter.grad = None
    return gradients


def total_norm(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Euclidean norm over all tensors together."""
    return torch.linalg.vector_norm(torch.stack([whole(torch.linalg.vector_norm(t)) for t in tensors]))


@torch.no_grad()
def sparing(weights: Sequence[nn.Parameter], safe: torch.optim.Optimizer, power: float) -> Callable[[nn.Parameter], torch.Tensor]:
    """Factors on a step that keep it off the weights on which the safe loss depends.

    A weight's sensitivity F is the running mean of its squared safe gradient, which Adam keeps anyway: like the diagonal of the
    Fisher information, by which Kirkpatrick et al. 2017 (arXiv 1612.00796) weigh what may move. The factor is
    (F / mean F + 0.1)^-power, scaled to a root mean square of 1 over all weights: where steps are of one size, as Adam's, their
    length stays.

    Args:
        weights: those that move.
        safe: the optimiser of the safe loss, of Adam's kind.
        power: 0 spares nothing.

    Returns:
        What gives a weight's factors, of its shape.
    """

    def seen(parameter: nn.Parameter) -> torch.Tensor:
        found = safe.state.get(parameter, {}).get("exp_avg_sq")
        return torch.zeros_like(parameter) if found is None else found

    count = sum(p.numel() for p in weights)
    mean = max(sum(float(whole(seen(p).sum())) for p in weights) / count, 1e-30)

    def factors(parameter: nn.Parameter) -> torch.Tensor:
        return (seen(parameter) / mean + FLOOR) ** -power

    length = (sum(float(whole(factors(p).square().sum())) for p in weights) / count) ** 0.5
    return lambda parameter: factors(parameter) / length
