"""The running mean of a run's weights (EMA), by diffusers' `EMAModel`, whose decay rises as (1 + n) / (10 + n) to the asked one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from diffusers.training_utils import EMAModel
from torch import nn

from gift.sharding import share_like


class Average:
    """The mean of some weights, or nothing at all.

    Args:
        weights: whose mean it is.
        decay: of the mean; None for no mean.
    """

    def __init__(self, weights: Sequence[nn.Parameter], decay: float | None) -> None:
        self.weights = list(weights)
        self.mean: Any = None if decay is None else EMAModel(self.weights, decay=decay)

    def step(self) -> None:
        """After an optimiser's step."""
        if self.mean:
            self.mean.step(self.weights)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside the block the weights have their mean's values."""
        if not self.mean:
            yield
            return
        self.mean.store(self.weights)
        self.mean.copy_to(self.weights)
        try:
            yield
        finally:
            self.mean.restore(self.weights)

    def take(self) -> None:
        """Gives the weights their mean's values for good."""
        if self.mean:
            self.mean.copy_to(self.weights)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"mean": self.mean.shadow_params, "steps": self.mean.optimization_step} if self.mean else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up a checkpoint's."""
        if self.mean:
            for kept, value in zip(self.mean.shadow_params, state["mean"], strict=True):
                kept.copy_(share_like(value, kept))
            self.mean.optimization_step = int(state["steps"])
