"""The state that every training run has: weights that move, optimisers, and what else a resumed run needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gift.errors import NonFiniteError
from gift.models import DenoisingModel
from gift.models.parameters import not_finite
from gift.sharding import Shares, share_like, whole, whole_tree
from gift.training.averaging import Average
from gift.training.checkpoint import Checkpoints
from gift.training.loop import Logs, run
from gift.training.precision import Saving
from gift.training.progress import Reporter
from gift.training.updates import Updater


class TrainingRun(ABC):
    """A stepper over named weights. Subclasses fill `updaters` and write `step`.

    Attributes:
        average: of the weights, which is released in their stead; nothing by default.
    """

    def __init__(self, model: DenoisingModel, weights: dict[str, nn.Parameter]) -> None:
        self.shares = Shares(model, weights)
        self.weights = self.shares.weights
        self.updaters: dict[str, Updater] = {}
        self.average = Average((), None)

    @abstractmethod
    def step(self, index: int, generator: torch.Generator) -> Logs:
        """Takes one step."""

    def extra_state(self) -> dict[str, Any]:
        """What else a resumed run needs."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:  # noqa: B027 - optional
        """Takes up what `extra_state` gave."""

    def check(self) -> None:
        """Keeps broken weights out of checkpoints and results.

        Raises:
            NonFiniteError: a weight is NaN or infinite.
        """
        if broken := not_finite(self.weights.items()):
            raise NonFiniteError(f"training left NaN or infinite values in {broken}; nothing was saved: lower the learning rate")

    def state(self) -> dict[str, Any]:
        """Weights, optimisers and the rest; `check` comes first."""
        self.check()
        return {
            "weights": {name: whole(p.detach()) for name, p in self.weights.items()},
            "updaters": {name: whole_tree(updater.state()) for name, updater in self.updaters.items()},
            "average": whole_tree(self.average.state()),
            "extra": self.extra_state(),
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up a checkpoint."""
        for name, parameter in self.weights.items():
            parameter.copy_(share_like(state["weights"][name], parameter))
        for name, updater in self.updaters.items():
            updater.load_state(state["updaters"][name])
        self.average.load_state(state["average"])
        self.load_extra_state(state["extra"])

    def close(self) -> None:  # noqa: B027 - optional
        """Takes off whatever was attached to the model."""

    def carry_out(
        self,
        saving: Saving,
        *,
        steps: int,
        seed: int,
        title: str,
        checkpoints: Checkpoints | None = None,
        reporter: Reporter | None = None,
        after: Callable[[int], None] | None = None,
    ) -> list[Logs]:
        """`run`, with the running mean that is asked for; the model's weights are then whole, and the mean's if there is one."""
        self.average = Average(list(self.weights.values()), saving.ema)
        if reporter:
            count = sum(p.numel() for p in self.weights.values())
            reporter.say(f"{title}: trains {count:,} weights in {len(self.weights)} tensors")

        def stepped(done: int) -> None:
            if done:
                self.average.step()
            if after:
                after(done)

        with saving.explained():
            logs = run(self, steps=steps, seed=seed, title=title, checkpoints=checkpoints, reporter=reporter, after=stepped)
        self.average.take()
        self.shares.undo()
        return logs
