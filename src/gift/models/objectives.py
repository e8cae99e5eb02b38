"""The two forward processes that families train with: DDPM noising and flow matching."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from diffusers import DDPMScheduler

from gift.errors import GiftError
from gift.models.base import Noised

PREDICTIONS = ("epsilon", "v_prediction", "sample")


class Objective(ABC):
    """Draws x_t and what the denoiser is trained to predict from it.

    Attributes:
        prediction_type: what that is.
    """

    prediction_type: str

    @abstractmethod
    def noised(self, latents: torch.Tensor, generator: torch.Generator) -> Noised:
        """Draws noise, then timesteps, both from `generator`, for latents (N, C, h, w)."""


class Ddpm(Objective):
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps at uniform timesteps (Ho et al. 2020, equation 4).

    The target is, as the scheduler says, eps, x_0, or the velocity sqrt(a_t) eps - sqrt(1 - a_t) x_0 (Salimans and Ho 2022,
    appendix D).
    """

    def __init__(self, scheduler: Any) -> None:
        self.prediction_type = str(scheduler.config.get("prediction_type"))
        self.scheduler = DDPMScheduler.from_config(scheduler.config)

    def noised(self, latents: torch.Tensor, generator: torch.Generator) -> Noised:
        """Uniform whole timesteps."""
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        steps = torch.randint(self.scheduler.config.num_train_timesteps, (len(latents),), generator=generator).to(latents.device)
        noisy = self.scheduler.add_noise(latents, noise, steps)
        target = {"epsilon": noise, "sample": latents}.get(self.prediction_type)
        if target is None:
            target = self.scheduler.get_velocity(latents, noise, steps)
        return Noised(noisy, steps, target)


class Flow(Objective):
    """x_t = (1 - sigma) x_0 + sigma eps with the target eps - x_0: rectified flow (Esser et al. 2024, section 2).

    sigma is the logistic function of a standard normal, the 'logit-normal(0, 1)' of section 3.1 there, and all samples weigh alike;
    then it goes through the scheduler's shift, sigma' = shift sigma / (1 + (shift - 1) sigma) (section 5.3.2), where that is fixed:
    so do diffusers' trainers, which read shifted values off the scheduler. Unlike theirs, sigma is not rounded to a multiple of
    1 / num_train_timesteps.
    """

    prediction_type = "flow"

    def __init__(self, scheduler: Any) -> None:
        config = scheduler.config
        self.steps = int(config.num_train_timesteps)
        self.shift = 1.0 if config.get("use_dynamic_shifting") else float(config.get("shift") or 1.0)

    def noised(self, latents: torch.Tensor, generator: torch.Generator) -> Noised:
        """Timesteps are sigma * num_train_timesteps."""
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        sigma = torch.sigmoid(torch.randn(len(latents), generator=generator)).to(latents)
        sigma = self.shift * sigma / (1 + (self.shift - 1) * sigma)
        mix = sigma.view(-1, 1, 1, 1)
        return Noised((1 - mix) * latents + mix * noise, sigma * self.steps, noise - latents)


def objective_of(scheduler: Any, source: str) -> Objective:
    """The forward process that a pipeline's scheduler runs backward.

    Raises:
        GiftError: it is neither of the two.
    """
    if type(scheduler).__name__.startswith("FlowMatch"):
        return Flow(scheduler)
    kind = scheduler.config.get("prediction_type")
    if kind not in PREDICTIONS:
        raise GiftError(f"{source}: prediction type '{kind}' is not supported; supported: {', '.join(PREDICTIONS)}")
    if "beta_schedule" not in scheduler.config:  # another noising, such as EDM's
        raise GiftError(f"{source}: scheduler {type(scheduler).__name__} is not supported; give the pipeline a DDIMScheduler")
    return Ddpm(scheduler)
