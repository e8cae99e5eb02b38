"""SEAM: self-destructive models (Wang et al., ICLR 2026, arXiv 2505.12186), ported from language models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from pydantic import Field

from gift.errors import GiftError
from gift.immunizers.base import Immunizer, Method, Task
from gift.immunizers.safe import SafeLoss, SafeOptions
from gift.immunizers.simulated import put_back
from gift.immunizers.terms import Bound, Vectors, bounded, taken, total_norm
from gift.sharding import refuse
from gift.training.loop import Logs
from gift.training.updates import Rate, Updater

TINY = 1e-12
"""Least norm that is divided by."""


class Seam(SafeOptions, Immunizer):
    """theta <- theta - lr grad[L(theta; D_s) - gamma b(L(theta; D_h)) + beta cos(g_h, g_s)], g the gradients of L on D_h and D_s.

    Where the gradients are opposite, descending the concept's loss climbs the safe one: the attack breaks the model. The cosine's
    gradient is estimated without a Hessian: with u = g_h / |g_h|, v = g_s / |g_s| and c their cosine it is, for a small epsilon,
    ([g_s(theta + epsilon (u - c v)) - g_s] / |g_s| + [g_h(theta + epsilon (v - c u)) - g_h] / |g_h|) / epsilon.

    Different here: the paper keeps a model useful by training it to refuse harmful prompts, which a denoiser can't; this keeps
    the safe set's loss, as the joint loss does, and is for use after an erasure. The ascent is on the loss alone; the published
    code's is on every hidden layer's, read out as tokens. The four gradients of a step are on two batches, the code's six on three.
    """

    name: ClassVar[str] = "seam"
    title: ClassVar[str] = "SEAM"
    about: ClassVar[str] = "Turns the concept's gradient against the safe set's, so that learning the one breaks the other."

    steps: int = Field(default=150, ge=0, description="steps (choice: as the joint loss)")
    rate: Rate = Field(default=5e-4, description="learning rate (choice: as the joint loss)")
    ascent_weight: float = Field(default=0.2, ge=0, description="gamma, weight of loss maximisation (choice: as the joint loss)")
    bound: Bound = Field(default="log", description="b (the code's)")
    ceiling: float = Field(default=2.0, gt=0, description="where the hinge is flat (choice)")
    coupling: float = Field(default=0.01, ge=0, description="beta, weight of the gradients' cosine (the code's)")
    epsilon: float = Field(default=1e-3, gt=0, description="length of the step over which gradients are compared (the code's)")
    train: str = Field(default="all", description="weights that move (the code's)")

    def begin(self, task: Task) -> Method:
        """Builds the run."""
        return SeamRun(self, task)


class SeamRun(Method):
    """One run of SEAM."""

    def __init__(self, how: Seam, task: Task) -> None:
        refuse("SEAM", "use gift")
        if task.model.compute is not torch.float32:
            raise GiftError("SEAM compares gradients that half precision rounds to the same; use the precision fp32")
        task = how.with_varied_concept(task)
        super().__init__(task, how.train)
        self.how = how
        self.safe_loss = SafeLoss(how, task, how.batch_size, steps=how.steps, batches=lambda index: 1)
        self.updaters["seam"] = Updater(self.weights.values(), rate=how.rate, accelerator=task.accelerator)

    def step(self, index: int, generator: torch.Generator) -> Logs:
        """Both gradients, both once more a small step away, and one step along all of it."""
        how = self.how
        before_safe = generator.get_state()
        safe_loss, safe = self.gradient(self.safe_loss(index, generator))
        batch = self.task.concept.batch(how.batch_size, generator)
        before_concept = generator.get_state()
        concept_loss, concept = self.gradient(self.task.model.mean_loss(*batch, generator))
        lengths = total_norm(safe).clamp(min=TINY), total_norm(concept).clamp(min=TINY)
        cosine = sum((s * h).sum() for s, h in zip(safe, concept, strict=True)) / lengths[0] / lengths[1]
        factor = how.ascent_weight * slope(concept_loss, how.bound, how.ceiling)
        total = [s - factor * h for s, h in zip(safe, concept, strict=True)]
        sides = (
            (safe, concept, *lengths, lambda: self.safe_loss(index, restored(before_safe))),
            (concept, safe, *lengths[::-1], lambda: self.task.model.mean_loss(*batch, restored(before_concept))),
        )
        for own, other, length, far, again in sides if how.coupling else ():
            with self.moved(how.epsilon / far, other, -how.epsilon * cosine / length, own):
                there = self.gradient(again())[1]
            for into, a, b in zip(total, there, own, strict=True):
                into.add_(how.coupling / how.epsilon / length * (a - b))
        for parameter, gradient in zip(self.weights.values(), total, strict=True):
            parameter.grad = gradient
        self.updaters["seam"].apply()
        return {"safe": safe_loss.item(), "concept": concept_loss.item(), "cosine": float(cosine)}

    def gradient(self, loss: torch.Tensor) -> tuple[torch.Tensor, Vectors]:
        """A loss, (), and its gradient, which the weights don't keep."""
        self.updaters["seam"].gradients(loss)
        return loss.detach(), taken(self.weights.values())

    @contextmanager
    def moved(self, first: torch.Tensor, one: Vectors, second: torch.Tensor, other: Vectors) -> Iterator[None]:
        """Inside the block the weights are moved by first * one + second * other; afterwards they are bit-identical to before."""
        with put_back(self.weights) as weights:
            with torch.no_grad():
                for parameter, a, b in zip(weights, one, other, strict=True):
                    parameter.add_(first * a + second * b)
            yield


def restored(state: torch.Tensor) -> torch.Generator:
    """A generator that draws what another drew from its `get_state` on."""
    generator = torch.Generator()
    generator.set_state(state)
    return generator


def slope(loss: torch.Tensor, bound: Bound, ceiling: float) -> torch.Tensor:
    """b'(L), ()."""
    with torch.enable_grad():
        at = loss.clone().requires_grad_()
        return torch.autograd.grad(bounded(at, bound, ceiling), at)[0]
