"""ResAlign (Li et al., NeurIPS 2025, arXiv 2507.16302): unlearning that outlives fine-tuning, by a gradient through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch.nn.attention import SDPBackend, sdpa_kernel

from gift.errors import GiftError
from gift.immunizers.base import Immunizer, Method, Task
from gift.immunizers.original import outputs_ahead
from gift.immunizers.simulated import Attacker, AttackingMethod, SimulatedAttack
from gift.immunizers.terms import Bound, Vectors, add_gradients, bounded, taken, total_norm
from gift.models import DenoisingModel
from gift.parallel import average_gradients
from gift.sharding import refuse
from gift.training.loop import Logs
from gift.training.updates import Rate, Updater

HALVINGS = 5
"""How often the fixed-point iteration's step is halved before the term is left out (the code's)."""


class ResAlign(Immunizer):
    """theta <- theta - lr grad[E(theta) + r (E(theta_ft) - E(theta)) + w |f_theta - f_theta0|^2 on D_s], E = -b(L(.; D_h)).

    theta_ft is theta after a fine-tuning drawn from a distribution of them. As a minimum of the Moreau envelope,
    theta_ft = argmin_phi L(phi; D_ft) + |phi - theta|^2 / 2, it has the gradient (I + H)^-1 grad E(theta_ft), H the Hessian of
    L(.; D_ft) there; a fixed-point iteration with Hessian-vector products stands for the inverse, as in the published code.
    Different here: the weights themselves move rather than a LoRA (`adapter_rank` gives one); a LoRA fine-tuning's Hessian is that
    of the weights that it is added to; a step draws one fine-tuning, the code three; w is constant, the code raises it from 1.6.
    The paper is about harm that comes back by benign fine-tuning, and its code fine-tunes on sets apart from the harmful one;
    `tuned_on` says which set D_ft is here.
    """

    name: ClassVar[str] = "resalign"
    title: ClassVar[str] = "ResAlign"
    about: ClassVar[str] = "Raises the concept's loss before and after simulated fine-tuning, by an implicit gradient through it."

    steps: int = Field(default=100, ge=0, description="steps (choice; the code: 160)")
    rate: Rate = Field(default=2e-4, description="learning rate, AdamW (the code's)")
    decay: float = Field(default=1e-2, ge=0, description="weight decay (the code's)")
    resilience: float = Field(default=0.8, ge=0, description="r, weight of the fine-tuned weights' term (the code's)")
    retain: float = Field(
        default=2.0, ge=0, description="w, weight of the distance to theta_0 on the safe set (the code ends at 2)"
    )
    iterations: int = Field(default=5, ge=1, description="of the fixed point (the code's); with 1 no second order is computed")
    tuned_on: Literal["safe", "concept"] = Field(default="concept", description="D_ft, what theta_ft is fine-tuned on (choice)")
    attacker: Attacker = Field(default=Attacker(), description="the fine-tunings (choice; the code: 5 to 30 steps of GD or Adam)")
    bound: Bound = Field(default="log", description="b (choice; the code: identity)")
    ceiling: float = Field(default=2.0, gt=0, description="where the hinge is flat (choice)")
    batch_size: int = Field(default=8, ge=1, description="pictures of each set a step (choice; the code: 1, of the safe set 4)")
    train: str = Field(default="all", description="weights that move (choice; the code: a LoRA on all attention)")

    def begin(self, task: Task) -> Method:
        """Builds the run."""
        return ResAlignRun(self, task)


class ResAlignRun(AttackingMethod):
    """One run of ResAlign."""

    def __init__(self, how: ResAlign, task: Task) -> None:
        refuse("ResAlign", "use gift")
        refuse_what_has_no_second_order(task.model)
        self.how = how
        self.tuning = task.concept if how.tuned_on == "concept" else task.safe
        self.attack = SimulatedAttack(how.attacker, replace(task, concept=self.tuning))  # before the weights are chosen
        super().__init__(task, how.train)
        self.targets = outputs_ahead(
            task.model,
            lambda generator: task.safe.batch(how.batch_size, generator),
            seed=task.seed,
            steps=how.steps,
            batches=lambda index: 1,
        )
        self.updaters["resalign"] = Updater(self.weights.values(), rate=how.rate, decay=how.decay, accelerator=task.accelerator)

    def erasing(self, generator: torch.Generator) -> torch.Tensor:
        """E on one batch, ()."""
        batch = self.task.concept.batch(self.how.batch_size, generator, self.attack.embed)
        return -bounded(self.task.model.mean_loss(*batch, generator), self.how.bound, self.how.ceiling)

    def step(self, index: int, generator: torch.Generator) -> Logs:
        """The gradient at theta, then the implicit one through a fine-tuning, and one step along both."""
        how, updater, weights = self.how, self.updaters["resalign"], list(self.weights.values())
        batch = self.task.safe.batch(how.batch_size, generator)
        kept = self.task.model.mean_loss(*batch, generator, self.targets[index])
        erased = self.erasing(generator)
        updater.gradients(how.retain * kept + (1 - how.resilience) * erased)
        held = taken(weights)
        with self.attack(self.weights, generator):
            after = self.erasing(generator)
            updater.gradients(after)
            through = self.through(taken(weights), generator)
        for parameter, gradient in zip(weights, held, strict=True):
            parameter.grad = gradient
        add_gradients(weights, through, how.resilience)
        updater.apply()
        return {"retain": kept.item(), "erase": erased.item(), "after": after.item()}

    def through(self, gradient: Vectors, generator: torch.Generator) -> Vectors:
        """The gradient with respect to theta of what has `gradient` at theta_ft, at which the model is now."""
        if self.how.iterations == 1:
            return gradient
        weights = list(self.weights.values())
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
            batch = self.tuning.batch(self.how.batch_size, generator, self.attack.embed)
            loss = self.task.model.mean_loss(*batch, generator)
            first = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
            curved = [i for i, g in enumerate(first) if g.requires_grad]

            def product(vectors: Vectors) -> Vectors:
                for parameter, image in zip(
                    weights,
                    torch.autograd.grad(
                        [first[i] for i in curved],
                        weights,
                        [vectors[i] for i in curved],
                        retain_graph=True,
                        materialize_grads=True,
                    ),
                    strict=True,
                ):
                    parameter.grad = image
                average_gradients(weights)
                return taken(weights)

            return through_envelope(gradient, product, self.how.iterations)


def refuse_what_has_no_second_order(model: DenoisingModel) -> None:
    """Stops what can't be differentiated twice.

    Raises:
        GiftError: forwards in parts, compiled, or in half precision with a scaled loss.
    """
    if model.micro_batches > 1 or model.scaler is not None or model.compiled:
        raise GiftError("ResAlign differentiates twice; leave accumulate, compile and fp16 out (bf16 works)")


def through_envelope(gradient: Vectors, product: Callable[[Vectors], Vectors], iterations: int) -> Vectors:
    """(I + H)^-1 g, as far as a fixed-point iteration comes: s sum_k ((1 - s) I - s H)^k g for k < iterations.

    Args:
        gradient: g.
        product: v to H v.
        iterations: how many terms.

    Returns:
        The sum for the largest s of 1, 1/2, 1/4, ... at which no term is longer than the one before; zeros after `HALVINGS`.
    """
    image = product(gradient)
    for halving in range(HALVINGS + 1):
        size = 0.5**halving
        total, term = gradient, gradient
        for k in range(iterations - 1):
            before = term
            moved = product(term) if k else image
            term = [(1 - size) * v - size * m for v, m in zip(term, moved, strict=True)]
            if total_norm(term) > total_norm(before):
                break
            total = [t + v for t, v in zip(total, term, strict=True)]
        else:
            return [size * v for v in total]
    return [torch.zeros_like(v) for v in gradient]
