"""ESD: erased Stable Diffusion (Gandikota et al., ICCV 2023). Erasure alone, the usual start of an immunization."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from gift.immunizers.base import Immunizer, Method, Task
from gift.immunizers.original import Original
from gift.training.loop import Logs
from gift.training.updates import Rate, Updater

VARIANTS = {"x": "cross-attention", "u": "non-cross-attention", "full": "all"}


class Esd(Immunizer):
    """Regresses f_theta(x_t, c_h) onto f_theta0(x_t, 0) - eta (f_theta0(x_t, c_h) - f_theta0(x_t, 0)).

    Equation 6 of the paper. x_t comes from a partial sampling run of theta with guidance. Unlike the published code, a step takes
    several samples that share one timestep, and the runs are this library's sampler's.
    """

    name: ClassVar[str] = "esd"
    title: ClassVar[str] = "Erased (ESD)"
    about: ClassVar[str] = "Erases the concept by steering its prompt away from it; no defence against fine-tuning is meant."
    uses_safe: ClassVar[bool] = False
    draws_pictures: ClassVar[bool] = False

    steps: int = Field(default=80, ge=0, description="steps (the paper's code: 200, at its own rate)")
    rate: Rate = Field(default=2e-4, description="learning rate (choice; the paper's code: 5e-5 on Stable Diffusion)")
    eta: float = Field(default=2.0, ge=0, description="negative guidance (the paper's code: 2)")
    variant: Literal["x", "u", "full"] = Field(default="x", description="weights that move: ESD-x, ESD-u or all (choice)")
    batch_size: int = Field(default=4, ge=1, description="samples a step, at one timestep (choice; the paper's code: 1)")
    sampler_steps: int = Field(default=15, ge=2, description="of the partial run (choice; the paper's code: 50)")
    guidance: float = Field(default=3.0, ge=0, description="of the partial run (the paper's code: 3)")

    def begin(self, task: Task) -> Method:
        """Builds the run."""
        return EsdRun(self, task)


class EsdRun(Method):
    """One run of ESD."""

    def __init__(self, how: Esd, task: Task) -> None:
        super().__init__(task, VARIANTS[how.variant])
        self.how = how
        self.original = Original(self.weights.values())
        self.updaters["esd"] = Updater(self.weights.values(), name="adam", rate=how.rate, clip=None, accelerator=task.accelerator)
        self.empty = task.model.unconditional(task.model.encode_prompts([""]))

    def erasing(self, generator: torch.Generator) -> torch.Tensor:
        """The regression's loss on samples from a partial run, ()."""
        how, task = self.how, self.task
        pick = task.concept.draw_prompts(how.batch_size, generator)
        cond = {name: tensor[pick.to(tensor.device)] for name, tensor in task.concept.cond.items()}
        seeds = torch.randint(2**31, (how.batch_size,), generator=generator).tolist()
        stop = int(torch.randint(1, how.sampler_steps, (1,), generator=generator))
        prompts = [task.concept.prompts[i] for i in pick.tolist()]
        latents, at = task.model.sample_latents(prompts, seeds, steps=how.sampler_steps, guidance=how.guidance, stop_after=stop)
        times = at.expand(len(latents))
        with self.original():
            both = {name: torch.cat([tensor, self.empty[name].expand_as(tensor)]) for name, tensor in cond.items()}
            named, blank = task.model.predict(latents.repeat(2, 1, 1, 1), times.repeat(2), both).chunk(2)
            target = blank - how.eta * (named - blank)
        return task.model.regression(latents, times, cond, target)

    def step(self, index: int, generator: torch.Generator) -> Logs:
        """One regression step."""
        loss = self.erasing(generator)
        self.updaters["esd"].descend(loss)
        return {"erase": loss.item()}
