"""A batch's loss in micro-batches: the activations of one are in memory at a time, whatever is made of the loss afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

Rows = Callable[[slice, Sequence[torch.Tensor]], torch.Tensor]
"""Rows of the batch, and the inputs that it is differentiated by, to the sum of the rows' losses, ()."""


class _Summed(torch.autograd.Function):
    """The sum of all rows' losses, whose gradient by the inputs is computed along with it."""

    @staticmethod
    def forward(ctx: Any, loss: Rows, parts: Sequence[slice], scale: float, *inputs: torch.Tensor) -> torch.Tensor:
        # Leaves of the inner graphs: weights as they are, other tensors cut from what made them.
        leaves = [x if x.is_leaf else x.detach().requires_grad_(True) for x in inputs]
        total, gradients = torch.zeros((), device=inputs[0].device), list[torch.Tensor | None]([None] * len(inputs))
        for part in parts:
            with torch.enable_grad():
                value = loss(part, leaves)
                found = torch.autograd.grad(value * scale, leaves, allow_unused=True)
            for i, gradient in enumerate(found):
                so_far = gradients[i]
                gradients[i] = gradient if so_far is None else so_far if gradient is None else so_far.add_(gradient)
            total += value.detach()
        ctx.gradients, ctx.scale = gradients, scale
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        factor = upstream[0] / ctx.scale
        return None, None, None, *(None if gradient is None else gradient.mul_(factor) for gradient in ctx.gradients)


def summed_loss(loss: Rows, rows: int, parts: int, inputs: Sequence[torch.Tensor], scale: float = 1.0) -> torch.Tensor:
    """The sum over a batch's rows of their losses, (), computed in `parts` micro-batches.

    Its gradient is exact for any function of it, since it does not depend on what comes after: each micro-batch is differentiated
    at once, the results are added up, and the backward pass multiplies them by the gradient that reaches this sum. It can be taken
    once, and only of first order.

    Args:
        loss: of some rows.
        rows: of the batch.
        parts: micro-batches; no more than there are rows are made.
        inputs: what the loss is differentiated by.
        scale: the losses are multiplied by it inside, where half precision would lose small gradients.
    """
    size = -(-rows // min(parts, rows))
    cuts = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    if not torch.is_grad_enabled() or not inputs:
        return torch.stack([loss(cut, inputs) for cut in cuts]).sum()
    total: torch.Tensor = _Summed.apply(loss, cuts, scale, *inputs)
    return total
