"""PGU: projected gradient unlearning (Aladawi et al., arXiv 2604.21041, 2026), a hardening step after an erasure."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from gift.data.latents import LatentSet
from gift.immunizers.base import Immunizer, Method, Task
from gift.immunizers.inputs import linear_layers, watching_inputs
from gift.immunizers.terms import Bound, bounded
from gift.models import DenoisingModel
from gift.sharding import refuse
from gift.training.loop import Logs
from gift.training.updates import Rate, Updater


class Pgu(Immunizer):
    """W <- W - D (I - U U^T) with D the optimiser's step for grad[-b(L(theta; D_h))], and U the core space of W's inputs.

    U (in, k) are the fewest principal directions of what a linear layer is given on the safe set, at the weights before the first
    step, that hold `energy` of its squared norm: what W does to them stays. Only a description of the paper was at hand (a core
    space spanned by the retain set's activations; updates in its orthogonal complement; on top of ESD or UCE). The objective, the
    rates and the layers are this project's. So is projecting the steps as well as the gradients: an adaptive optimiser leaves the
    complement by itself. The principal directions come from the inputs' second moments in float64, which has the same directions
    as a singular value decomposition of the inputs. Weights of other layers and biases stay.
    """

    name: ClassVar[str] = "pgu"
    title: ClassVar[str] = "PGU"
    about: ClassVar[str] = "Raises the concept's loss without changing what layers do to safe inputs; for use after ESD."

    steps: int = Field(default=100, ge=0, description="steps (choice)")
    rate: Rate = Field(default=5e-4, description="learning rate (choice)")
    energy: float = Field(default=0.95, gt=0, lt=1, description="share of the safe inputs' squared norm in the core space (choice)")
    core_pictures: int = Field(default=192, ge=1, description="safe pictures that span the core space (choice)")
    bound: Bound = Field(default="log", description="bound on the ascent (choice)")
    ceiling: float = Field(default=2.0, gt=0, description="where the hinge is flat (choice)")
    train: str = Field(default="all", description="weights that move, of them those of linear layers (choice)")
    adapter_rank: None = Field(default=None, description="always none: whole weights are projected")

    def begin(self, task: Task) -> Method:
        """Builds the run."""
        return PguRun(self, task)


class PguRun(Method):
    """One run of PGU."""

    def __init__(self, how: Pgu, task: Task) -> None:
        refuse("PGU", "use gift")
        super().__init__(task, how.train)
        self.how = how
        layers = linear_layers(task.model, self.weights)
        for name, weight in self.weights.items():
            weight.requires_grad_(name in layers)
        self.weights = {name: self.weights[name] for name in layers}
        generator = torch.Generator().manual_seed(task.seed)
        safe = task.safe.some(how.core_pictures, generator)
        self.core = core_space(task.model, safe, layers, how.energy, how.batch_size, generator)
        self.updaters["pgu"] = Updater(self.weights.values(), rate=how.rate, accelerator=task.accelerator)

    def step(self, index: int, generator: torch.Generator) -> Logs:
        """One step up the concept's loss, beside the core space."""
        latents, cond = self.task.concept.batch(self.how.batch_size, generator)
        loss = self.task.model.mean_loss(latents, cond, generator)
        updater = self.updaters["pgu"]
        updater.gradients(-bounded(loss, self.how.bound, self.how.ceiling))
        for name, weight in self.weights.items():
            if weight.grad is not None:
                take_out(weight.grad, self.core[name])
        before = [weight.detach().clone() for weight in self.weights.values()]
        updater.apply()
        with torch.no_grad():
            for (name, weight), old in zip(self.weights.items(), before, strict=True):
                moved = weight - old
                take_out(moved, self.core[name])
                weight.copy_(old + moved)
        return {"concept": loss.item()}


def take_out(change: torch.Tensor, core: torch.Tensor) -> None:
    """change <- change (I - U U^T), in place.

    Args:
        change: of a linear layer's weight, (out, in).
        core: U, orthonormal columns (in, k).
    """
    change.sub_((change @ core) @ core.T)


@torch.no_grad()
def core_space(
    model: DenoisingModel, data: LatentSet, layers: dict[str, nn.Linear], energy: float, batch_size: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """The core space of every layer's inputs.

    Args:
        model: whose forwards are watched, on each picture once with noise and timestep of the objective.
        data: the pictures.
        layers: linear layers by name.
        energy: share of the inputs' squared norm that the space holds at least.
        batch_size: pictures a forward.
        generator: of noise and timesteps.

    Returns:
        For each layer U, orthonormal columns (in, k), k as small as can be.
    """
    moments: dict[str, torch.Tensor] = {}

    def see(name: str, given: torch.Tensor) -> None:
        rows = given.flatten(0, -2).double()
        moments[name] = moments.get(name, 0.0) + rows.T @ rows

    with watching_inputs(layers, see):
        for pick in torch.arange(len(data)).split(batch_size):
            latents, cond = data.at(pick)
            noised = model.noised(latents, generator)
            model.predict(noised.latents, noised.timesteps, cond)
    core = {}
    for name, moment in moments.items():
        values, directions = torch.linalg.eigh(moment)
        shares = values.flip(0).clamp(min=0).cumsum(0) / values.clamp(min=0).sum().clamp(min=1e-300)
        count = int((shares < energy).sum()) + 1
        core[name] = directions.flip(1)[:, :count].to(layers[name].weight)
    return core
