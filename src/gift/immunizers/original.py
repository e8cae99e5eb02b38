"""theta_0 without a second model: its outputs computed ahead of training, or its values of the weights that move kept aside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from gift.models import DenoisingModel
from gift.models.base import Cond
from gift.parallel import share
from gift.training.loop import step_generator


class Original:
    """theta_0's values of the weights that move, which take the weights' place inside a block.

    Args:
        weights: the weights, still theta_0's. Their values are copied: as much memory again as they take.
    """

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        self.weights = list(weights)
        self.values = [p.detach().clone() for p in self.weights]

    def _swap(self) -> None:
        for i, parameter in enumerate(self.weights):
            if isinstance(parameter, DTensor):  # the sharding reads the values from where they were
                now = parameter.detach().clone()
                parameter.detach().copy_(self.values[i])
                self.values[i].copy_(now)
            else:
                parameter.data, self.values[i] = self.values[i], parameter.data

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Inside the block the model is theta_0. Nothing that a backward pass still needs may be computed inside."""
        self._swap()
        try:
            with torch.no_grad():
                yield
        finally:
            self._swap()


@torch.no_grad()
def outputs_ahead(
    model: DenoisingModel,
    draw: Callable[[torch.Generator], tuple[torch.Tensor, Cond]],
    *,
    seed: int,
    steps: int,
    batches: Callable[[int], int],
    first: int = 0,
) -> list[torch.Tensor]:
    """The outputs of a model, as it is now, on the batches that a run's steps will draw first.

    Args:
        model: theta_0.
        draw: draws a batch, latents and conditioning.
        seed: of the run: step `i` draws from `step_generator(seed, i)`.
        steps: of the run.
        batches: how many batches step `i` draws before anything else, each followed by its noise and timesteps.
        first: the first row of a batch for which they are asked.

    Returns:
        One tensor (N - first, C, h, w) a batch, in the order in which they are drawn; of several processes each has its share.
    """
    rows = []
    for index in range(steps):
        generator = step_generator(seed, index)
        for _ in range(batches(index)):
            latents, cond = draw(generator)
            noised, cond = model.noised_share(latents, cond, generator)
            asked = torch.arange(len(latents))[share(len(latents))] >= first
            run = asked if asked.any() else torch.ones_like(asked)  # with shared weights a forward is everyone's
            given = {name: tensor[run] for name, tensor in cond.items()}
            rows.append(model.predict(noised.latents[run], noised.timesteps[run], given)[asked[run]])
    return rows
