"""PyTorch's Adafactor, with the mean squares of convolutions taken faster."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import torch
from torch import nn

EPS = torch.finfo(torch.float32).eps
DECAY = -0.8
SHORT = 8
"""Terms (choice): a convolution's width and height are 3 or 1."""


class Adafactor(torch.optim.Optimizer):
    """Shazeer and Stern 2018 (arXiv 1804.04235), as `torch.optim.Adafactor` computes it with `eps=(None, 1.0)`.

    It differs from PyTorch's in rounding alone, and takes up its state. PyTorch takes the norms of a gradient along its last
    dimension but one; where the last two are short, as a convolution's 3 x 3, that is most of a step's time on a CPU. The means
    of squares that stand here are faster (`python -m gift.bench.speed` prints the ratio).

    Args:
        parameters: what moves; fp32.
        lr: learning rate, of which a step takes at most 1 / sqrt(step), times the weight's root mean square where that is above 1.
        weight_decay: decoupled, times the rate.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step on the weights that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, parameter.grad, self.state[parameter], group["lr"], group["weight_decay"])
        return loss


def move(weight: nn.Parameter, gradient: torch.Tensor, state: dict[str, Any], rate: float, decay: float) -> None:
    """One weight's step, in place; a new state is begun."""
    factored = gradient.dim() > 1
    if not state:
        shape = gradient.shape
        shapes = {"row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, shape[-1])} if factored else {"variance": shape}
        state.update({"step": torch.tensor(0.0), **{name: gradient.new_zeros(of) for name, of in shapes.items()}})
    state["step"] += 1
    step = state["step"].item()
    fresh, size = step**DECAY, weight.numel() ** 0.5
    length = max(1.0, weight.norm(2).item() / size) * min(rate, step**-0.5)
    if decay:
        weight.mul_(1 - rate * decay)
    squares = gradient.square()
    if factored:
        rows, columns = state["row_var"], state["col_var"]
        rows.lerp_(mean_along(squares, -1), fresh)
        columns.lerp_(mean_along(squares, -2), fresh)
        variance = (rows * columns).div_(rows.mean(-2, keepdim=True).clamp_(min=EPS))
    else:
        variance = state["variance"].lerp_(squares, fresh).clone()
    update = variance.clamp_(min=EPS * EPS).rsqrt_().mul_(gradient)
    weight.add_(update, alpha=-length / max(1.0, update.norm(2).item() / size))


def mean_along(values: torch.Tensor, dim: int) -> torch.Tensor:
    """The mean along a dimension, which stays; term by term where a convolution's is short, as reductions are slow there."""
    size = values.size(dim)
    short = values.dim() > 2 and size <= SHORT
    total = reduce(torch.add, values.unbind(dim)) if short else values.sum(dim)
    return (total / size).unsqueeze(dim)
