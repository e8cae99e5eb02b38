"""UCE: unified concept editing (Gandikota et al., WACV 2024, arXiv 2308.14761). Erasure in closed form, without training."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from gift.data.latents import LatentSet
from gift.immunizers.base import Immunizer, Method, Task
from gift.immunizers.inputs import linear_layers, watching_inputs
from gift.models.base import Cond
from gift.sharding import refuse
from gift.training.loop import Logs


class Uce(Immunizer):
    """W <- W (lambda I + e sum g c^T + p sum s s^T) (lambda I + e sum c c^T + p sum s s^T)^-1 for every W that reads text.

    Equation 7 of the paper, for c of the concept's prompts, s of the safe prompts and g of the guide's prompt: W c becomes what W g
    was, W s stays. W are the keys and values of the cross-attention; where text joins the picture's attention (SD3, FLUX,
    Qwen-Image), the layers that take the encodings in, as in the published code for FLUX. Different here: the prompts are the
    sets' own captions, in which the concept may stand anywhere. So c and s are every token of a prompt, padding included where
    the model attends to it, and g is the guide's token at the same place (its last where it is shorter); the code takes a bare
    name's last token, and in its first version those behind it, too. Sums and solution are in float64. Nothing is drawn at random.
    """

    name: ClassVar[str] = "uce"
    title: ClassVar[str] = "Erased (UCE)"
    about: ClassVar[str] = "Erases the concept by one closed-form edit of what reads its prompts; no defence is meant."

    steps: int = Field(default=1, ge=0, le=1, description="the edit, or none")
    erase: float = Field(default=1.0, gt=0, description="e, weight of the concept's tokens (the code: 1)")
    preserve: float = Field(default=1.0, ge=0, description="p, weight of the safe prompts' tokens (the code: 1)")
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

    def read(self, cond: Cond) -> dict[str, torch.Tensor]:
        """What each layer is given of N prompts, (N, tokens, in), tokens 1 where it is given a summary."""
        seen: dict[str, torch.Tensor] = {}

        def see(name: str, given: torch.Tensor) -> None:
            seen[name] = given.double().view(len(given), -1, given.shape[-1])

        model, rows = self.task.model, len(next(iter(cond.values())))
        blank = torch.zeros(rows, *model.latent_shape, device=model.device)
        with watching_inputs(self.layers, see):
            model.predict(blank, torch.zeros(rows, device=model.device), cond)
        return seen

    def sums(self, data: LatentSet, guide: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
        """sum t c^T over the tokens c of a set's distinct prompts, (in, in); t is the guide's token, or c itself without one."""
        total: dict[str, torch.Tensor] = {}
        for rows in torch.arange(len(data.prompts)).split(self.how.batch_size):
            cond = {name: tensor[rows.to(tensor.device)] for name, tensor in data.cond.items()}
            for name, given in self.read(cond).items():
                toward = given
                if guide is not None:
                    places = torch.arange(given.shape[1]).clamp(max=guide[name].shape[1] - 1)
                    toward = guide[name][:, places].expand_as(given)
                if "mask" in cond and given.shape[1] > 1:
                    given = given * cond["mask"][:, : given.shape[1], None]
                total[name] = total.get(name, 0.0) + toward.flatten(0, 1).T @ given.flatten(0, 1)
        return total

    @torch.no_grad()
    def step(self, index: int, generator: torch.Generator) -> Logs:
        """The edit of every layer."""
        how, task = self.how, self.task
        guide = self.read(task.model.encode_prompts([how.guide]))
        led, named, kept = self.sums(task.concept, guide), self.sums(task.concept, None), self.sums(task.safe, None)
        change = []
        for name, weight in self.weights.items():
            still = how.preserve * kept[name] + how.stay * torch.eye(len(kept[name])).to(kept[name])
            old = weight.double()
            new = torch.linalg.solve(still + how.erase * named[name], (old @ (still + how.erase * led[name])).T).T
            change.append((new - old).norm() / old.norm())
            weight.copy_(new)
        return {"change": torch.stack(change).mean().item()}
