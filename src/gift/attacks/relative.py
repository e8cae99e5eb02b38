"""Full fine-tuning in steps that are in proportion to the weights: what a mere rescaling of them can't slow."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from gift.attacks.full import Full
from gift.training.updates import Rate

FLOOR = 1e-3
"""The size of a weight for its steps is at least this, or what is zero would stay zero (choice: PyTorch's Adafactor's)."""
ROUNDS = 20
"""Of balancing rows and columns (choice: on the bundled model, products differ by less than 1e-6 of them from those after 200)."""


class Relative(Full):
    """Full fine-tuning of V, where W = diag(r) V diag(c) and V's rows and columns all have a root mean square of 1.

    Multiplying rows or columns of W, as function-preserving rescalings do, changes r and c alone, so the attack computes the same.
    A vector is divided by its root mean square as a whole. Layer-wise learning rates in proportion to weights are LARS's and
    LAMB's (You et al. 2017, arXiv 1708.03888; 2020, arXiv 1904.00962); balancing rows and columns in turn is Sinkhorn and Knopp's.
    """

    name: ClassVar[str] = "relative"
    title: ClassVar[str] = "Relative steps"
    about: ClassVar[str] = "Full fine-tuning in steps that are in proportion to a weight's row and column: scales don't matter."

    rate: Rate = Field(
        default=1.5e-3, description="learning rate relative to the weights (choice: as full's to the bundled model's, 2e-4 to 0.14)"
    )
    decay: float = Field(default=0.0, ge=0, le=1, description="weight decay, times a weight's size (choice: none)")

    def sizes(self, weights: dict[str, nn.Parameter]) -> dict[nn.Parameter, torch.Tensor]:
        """Of every weight, |r c^T|."""
        return {parameter: size_of(parameter.detach()) for parameter in weights.values()}


def size_of(weight: torch.Tensor) -> torch.Tensor:
    """r_i c_j for a matrix (out, in) or a convolution (out, in, ...), of shape (out, in, 1...); a vector's root mean square, ()."""
    if weight.ndim < 2:
        return weight.square().mean().sqrt().clamp(min=FLOOR)
    squares = weight.square().reshape(*weight.shape[:2], -1).mean(2).double().clamp(min=1e-30)
    rows, columns = (torch.ones(n, dtype=squares.dtype, device=squares.device) for n in squares.shape)
    for _ in range(ROUNDS):
        rows = (squares / columns).mean(1)
        columns = (squares / rows[:, None]).mean(0)
    size = (rows[:, None] * columns).sqrt().clamp(min=FLOOR).to(weight)
    return size.view(*size.shape, *[1] * (weight.ndim - 2))
