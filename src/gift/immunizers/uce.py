"""UCE: unified concept editing (Gandikota et al., WACV 2024, arXiv 2308.14761). Erasure in closed form, without training."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from pydantic import Field

from gift.immunizers.base import Immunizer, Method, Task
from gift.immunizers.inputs import linear_layers, prompt_inputs, token_sums
from gift.sharding import refuse
from gift.training.loop import Logs


class Uce(Immunizer):
    """W <- W (lambda I + e sum g c^T + p mean s s^T) (lambda I + e sum c c^T + p mean s s^T)^-1 for every W that reads text.

    Equation 7 of the paper, for c of the concept's prompts, s of the safe prompts and g of the guide's prompt: W c becomes what W g
    was, W s stays. W are the keys and values of the cross-attention; where text joins the picture's attention (SD3, FLUX,
    Qwen-Image), the layers that take the encodings in, as in the published code for FLUX. Different here: the prompts are the
    sets' own captions, in which the concept may stand anywhere. So c and s are every token of a prompt, padding included where
    the model attends to it, and g is the guide's token at the same place (its last where it is shorter); the code takes a bare
    name's last token, and in its first version those behind it, too. Safe prompts count by their mean, a sum over their tokens, so
    that the set's size does not matter; the code adds them up. All is in float64, and nothing is drawn at random.
    """

    name: ClassVar[str] = "uce"
    title: ClassVar[str] = "Erased (UCE)"
    about: ClassVar[str] = "Erases the concept by one closed-form edit of what reads its prompts; no defence is meant."
    draws_pictures: ClassVar[bool] = False

    steps: int = Field(default=1, ge=0, le=1, description="the edit, or none")
    erase: float = Field(default=1.0, gt=0, description="e, weight of each of the concept's prompts (the code: 1)")
    preserve: float = Field(default=100.0, ge=0, description="p, weight of the safe prompts together (the code: 1 for each)")
    stay: float = Field(default=0.5, gt=0, description="lambda, weight of the old weights (the code: 0.5)")
    guide: str = Field(default="", description="the prompt that the concept's prompts are led to (the code's for objects: empty)")
    batch_size: int = Field(default=16, ge=1, description="prompts a forward (choice)")
    adapter_rank: None = Field(default=None, description="always none: whole weights are edited")

    def begin(self, task: Task) -> Method:
        """Builds the run."""
        return UceRun(self, task)


class UceRun(Method):
    """One edit."""

    def __init__(self, how: Uce, task: Task) -> None:
        refuse("UCE", "use esd")
        super().__init__(task, "text-inputs")
        self.how = how
        self.layers = linear_layers(task.model, self.weights)

    @torch.no_grad()
    def step(self, index: int, generator: torch.Generator) -> Logs:
        """The edit of every layer."""
        how, task = self.how, self.task
        guide = prompt_inputs(task.model, self.layers, task.model.encode_prompts([how.guide]))
        sums = partial(token_sums, task.model, self.layers, batch_size=how.batch_size)
        led, named, kept = sums(task.concept, guide=guide), sums(task.concept), sums(task.safe)
        change = []
        for name, weight in self.weights.items():
            kept_mean = kept[name] / len(task.safe.prompts)
            still = how.preserve * kept_mean + how.stay * torch.eye(len(kept_mean)).to(kept_mean)
            old = weight.double()
            new = torch.linalg.solve(still + how.erase * named[name], (old @ (still + how.erase * led[name])).T).T
            change.append((new - old).norm() / old.norm())
            weight.copy_(new)
        return {"change": torch.stack(change).mean().item()}
