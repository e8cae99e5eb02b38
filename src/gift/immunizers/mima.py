"""MIMA (Zheng and Yeh, AAAI 2025, arXiv 2412.15320): immunize against several concepts through a merge of their adaptations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field

from gift.data.latents import LatentSet
from gift.immunizers.base import Immunizer, Method, Task
from gift.immunizers.inputs import linear_layers, token_sums
from gift.immunizers.simulated import Attacker, SimulatedAttack, put_back
from gift.models.parameters import named_by
from gift.sharding import refuse
from gift.training.loop import Logs
from gift.training.updates import Rate, Updater

ADAPTED = "text-inputs"
RIDGE = 1e-6
"""Of the merge's matrix, relative to its mean diagonal: for directions that no prompt has (choice)."""


class Mima(Immunizer):
    """theta <- theta - lr grad[w L(theta'; D_s) - sum_n p_n L(theta'; D_n)] at theta' = Merge(theta_1, theta_2, ...).

    theta_n is theta after steps of gradient descent on concept n's pictures, which move the keys and values of the cross-attention
    (where text joins the picture's attention, as in SD3, the layers that take the encodings in). The merge is the least squares

        W' = argmin_V sum_n mean_c |V c - W_n c|^2 + lambda mean_s |V s - W s|^2  (c: tokens of n's prompts, s: of the safe ones)
           = W + [sum_n (W_n - W) C_n] (sum_n C_n + lambda S)^-1,                 C_n = mean c c^T, S = mean s s^T,

    in float64. Different in the published code: V c = W_n c holds exactly, of bare names' tokens; the other weights are adapted
    too, by averaged steps; the adaptation's loss has the prior term as well; and an adaptation stays in theta when the next step
    begins, while here theta is put back, as in the paper. The gradient at theta' is applied to theta, as the code does (first
    order). p_n are the concepts' shares of a batch; the prior is the safe set instead of pictures of each concept's class.
    """

    name: ClassVar[str] = "mima"
    title: ClassVar[str] = "MIMA"
    about: ClassVar[str] = "Raises the concepts' loss at a merge of weights that were adapted to each of them, with safe training."

    steps: int = Field(default=100, ge=0, description="outer steps (the code: 500)")
    adapt_steps: int = Field(
        default=4, ge=0, description="most inner steps for each concept, drawn at random (choice; the code: 1)"
    )
    adapt_rate: Rate = Field(
        default=0.1, description="inner rate, plain gradient descent (choice; the code: 1e-5 on Stable Diffusion)"
    )
    rate: Rate = Field(default=2e-4, description="outer rate, AdamW (choice; the code: 3e-5 on Stable Diffusion)")
    decay: float = Field(default=1e-2, ge=0, description="weight decay (the code's)")
    prior_weight: float = Field(default=1.0, ge=0, description="w, weight of the safe set's training loss (the code's)")
    stay: float = Field(default=0.5, ge=0, description="lambda (the code's 0.5, which its own merge does not use)")
    batch_size: int = Field(default=8, ge=1, description="pictures of each concept and of the safe set (choice; the code: 1)")
    train: str = Field(default="cross-attention", description="weights that move (the code's)")

    def begin(self, task: Task) -> Method:
        """Builds the run."""
        return MimaRun(self, task)


class MimaRun(Method):
    """One run of MIMA."""

    def __init__(self, how: Mima, task: Task) -> None:
        refuse("MIMA", "use gift")
        super().__init__(task, how.train)
        self.how = how
        self.concepts = task.concept.by_concept()
        self.adapted = named_by(task.model.denoiser, ADAPTED)
        inner = Attacker(
            steps=how.adapt_steps,
            kinds=("full",),
            full_rates=(how.adapt_rate, how.adapt_rate),
            optimisers=("sgd",),
            batch_size=how.batch_size,
        )
        self.adaptations = [SimulatedAttack(inner, replace(task, concept=data)) for _, data in self.concepts]
        self.merging = merging(self.how, task, [data for _, data in self.concepts])
        self.updaters["immunize"] = Updater(self.weights.values(), rate=how.rate, decay=how.decay, accelerator=task.accelerator)

    def step(self, index: int, generator: torch.Generator) -> Logs:
        """An adaptation to each concept, their merge, and a step up at the merged weights."""
        how, model, updater = self.how, self.task.model, self.updaters["immunize"]
        with self.added(self.merged(generator)):
            losses = [p * model.mean_loss(*data.batch(how.batch_size, generator), generator) for p, data in self.concepts]
            concept = torch.stack(losses).sum()
            safe = model.mean_loss(*self.task.safe.batch(how.batch_size, generator), generator)
            updater.gradients(how.prior_weight * safe - concept)
        updater.apply()
        return {"safe": safe.item(), "concept": concept.item()}

    def merged(self, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """W' - W of every adapted weight, (out, in)."""
        for parameter in self.weights.values():
            parameter.requires_grad_(False)
        for parameter in self.adapted.values():
            parameter.requires_grad_(True)
        total = {name: torch.zeros_like(p) for name, p in self.adapted.items()}
        before = {name: p.detach().clone() for name, p in self.adapted.items()}
        for adapt, factors in zip(self.adaptations, self.merging, strict=True):
            with adapt(self.adapted, generator), torch.no_grad():
                for name, weight in self.adapted.items():
                    total[name] += (weight - before[name]) @ factors[name]
        for parameter in self.adapted.values():
            parameter.requires_grad_(False)
        for parameter in self.weights.values():
            parameter.requires_grad_(True)
        return total

    @contextmanager
    def added(self, change: dict[str, torch.Tensor]) -> Iterator[None]:
        """Inside the block the adapted weights are changed; afterwards they are bit-identical to before."""
        with put_back(self.adapted):
            with torch.no_grad():
                for name, parameter in self.adapted.items():
                    parameter.add_(change[name])
            yield


def merging(how: Mima, task: Task, concepts: list[LatentSet]) -> list[dict[str, torch.Tensor]]:
    """For each concept C_n (sum_n C_n + lambda S)^-1 of every adapted weight, (in, in): W' - W = sum_n (W_n - W) times it."""
    layers = linear_layers(task.model, named_by(task.model.denoiser, ADAPTED))

    def means(data: LatentSet) -> dict[str, torch.Tensor]:
        sums = token_sums(task.model, layers, data, batch_size=how.batch_size)
        return {name: total / len(data.prompts) for name, total in sums.items()}

    named, safe = [means(data) for data in concepts], means(task.safe)
    out: list[dict[str, torch.Tensor]] = [{} for _ in concepts]
    for name, layer in layers.items():
        matrix = sum((each[name] for each in named), how.stay * safe[name])
        matrix += RIDGE * matrix.diagonal().mean() * torch.eye(len(matrix)).to(matrix)
        for factors, each in zip(out, named, strict=True):
            factors[name] = torch.linalg.solve(matrix, each[name]).T.to(layer.weight)
    return out
