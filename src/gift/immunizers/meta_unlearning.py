"""Meta-unlearning (Gao et al., ICCV 2025, arXiv 2410.12777): relearning the concept shall break what surrounds it."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch.nn.functional import normalize

from gift.data.latents import LatentSet
from gift.immunizers.base import Method, Task
from gift.immunizers.esd import Esd, EsdRun
from gift.immunizers.simulated import Attacker, AttackingMethod, SimulatedAttack
from gift.immunizers.terms import add_gradients
from gift.training.loop import Logs
from gift.training.updates import Rate, Updater


class MetaUnlearning(Esd):
    """theta <- theta - lr grad[e ESD(theta) + k_u L(theta; D_u) + k_r L(theta; D_r) - M(theta_ft)],
    M = c L(theta_ft; D_h) + b_r L(theta_ft; D_r) + b_u L(theta_ft; D_u).

    ESD is its regression (`Esd`); theta_ft is theta after a simulated fine-tuning on D_h, at which the gradient of M is taken and
    applied to theta (first order, as in the published code). D_r are the safe pictures that are related to the concept, D_u the
    others: here those whose prompts the encoder puts nearest to the concept's, while the paper draws two sets by chosen prompts.
    Different too: the fine-tunings are draws of this library's attacker, the code's one pass over D_h with AdamW; a step takes one
    batch of each set, the code a whole pass. After another erasure, as for the code's models erased by UCE, set erase=0.
    """

    name: ClassVar[str] = "meta-unlearning"
    title: ClassVar[str] = "Meta-unlearning"
    about: ClassVar[str] = "Erases as ESD does, and makes fine-tuning on the concept break what is related to it."
    uses_safe: ClassVar[bool] = True
    draws_pictures: ClassVar[bool] = True

    steps: int = Field(default=100, ge=0, description="steps (choice; the code: 1500, and 100 after UCE)")
    rate: Rate = Field(default=2e-4, description="learning rate, AdamW (choice; the code: 1e-5 on Stable Diffusion)")
    decay: float = Field(default=1e-4, ge=0, description="weight decay (the code's)")
    erase: float = Field(default=1.0, ge=0, description="e, weight of the erasure (the code: 1, or 0 after UCE)")
    keep_unrelated: float = Field(default=0.1, ge=0, description="k_u (the code's gamma 1,1)")
    keep_related: float = Field(default=0.1, ge=0, description="k_r (choice; the code's gamma 1,2: 0.01 or 0.1)")
    resist: float = Field(default=0.1, ge=0, description="c, the concept's loss after fine-tuning (the code's gamma 2,1)")
    break_related: float = Field(default=0.1, ge=0, description="b_r (the code's gamma 2,2)")
    break_unrelated: float = Field(default=0.01, ge=0, description="b_u (the code's gamma 2,3)")
    related: float = Field(default=0.25, gt=0, lt=1, description="share of the safe pictures that counts as related (choice)")
    attacker: Attacker = Field(default=Attacker(), description="the simulated fine-tuning (choice)")
    variant: Literal["x", "u", "full"] = Field(default="full", description="weights that move, as ESD's variants (the code's: all)")
    batch_size: int = Field(default=8, ge=1, description="samples or pictures of each set a step (choice; the code: 10)")

    def begin(self, task: Task) -> Method:
        """Builds the run."""
        return MetaUnlearningRun(self, task)


class MetaUnlearningRun(AttackingMethod, EsdRun):
    """One run of meta-unlearning."""

    def __init__(self, how: MetaUnlearning, task: Task) -> None:
        self.attack = SimulatedAttack(how.attacker, task)  # before the weights are chosen: it renames those that it wraps
        super().__init__(how, task)
        self.meta = how
        self.near, self.far = by_relation(task.concept, task.safe, how.related)
        weights = self.weights.values()
        self.updaters = {"meta": Updater(weights, rate=how.rate, decay=how.decay, accelerator=task.accelerator)}
        self.fine_tuned = Updater(weights, name="sgd", rate=how.rate, accelerator=task.accelerator)  # takes gradients, no steps

    def loss(self, data: LatentSet, generator: torch.Generator) -> torch.Tensor:
        """L on one batch of a set, ()."""
        return self.task.model.mean_loss(*data.batch(self.meta.batch_size, generator, self.attack.embed), generator)

    def step(self, index: int, generator: torch.Generator) -> Logs:
        """The gradient at fine-tuned weights, then the one at theta, and one step along both."""
        how, updater = self.meta, self.updaters["meta"]
        with self.attack(self.weights, generator):
            concept, near, far = (self.loss(data, generator) for data in (self.task.concept, self.near, self.far))
            self.fine_tuned.gradients(-how.resist * concept - how.break_related * near - how.break_unrelated * far)
        held = [None if p.grad is None else p.grad.clone() for p in self.weights.values()]
        erasing = self.erasing(generator) if how.erase else torch.zeros((), device=self.task.model.device)
        kept = how.keep_unrelated * self.loss(self.far, generator) + how.keep_related * self.loss(self.near, generator)
        updater.gradients(how.erase * erasing + kept)
        add_gradients(self.weights.values(), held)
        updater.apply()
        return {"erase": erasing.item(), "concept": concept.item(), "related": near.item()}


@torch.no_grad()
def by_relation(concept: LatentSet, safe: LatentSet, share: float) -> tuple[LatentSet, LatentSet]:
    """The safe pictures that are related to the concept, and the others.

    Args:
        concept: D_h.
        safe: D_s.
        share: how many of the safe pictures are related, at least one: those with the highest cosine between the mean state of
            their prompt and that of the concept's prompts, both seen from the mean safe prompt.

    Returns:
        (related, others); with a single safe picture that one twice.
    """
    ours, theirs = (data.cond["states"].float().mean(1) for data in (concept, safe))
    middle = theirs.mean(0)
    likeness = normalize(theirs - middle, dim=-1) @ normalize(ours.mean(0) - middle, dim=-1)
    order = likeness[safe.which].argsort(descending=True, stable=True)
    count = min(max(1, round(share * len(safe))), max(1, len(safe) - 1))
    return safe.only(order[:count]), safe.only(order[count:] if len(safe) > 1 else order)
