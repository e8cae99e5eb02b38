"""The two forward processes against the schedulers that run them backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EDMEulerScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from gift.errors import GiftError
from gift.models.objectives import Ddpm, Flow, objective_of

LATENTS = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_flow_mixes_noise_in_by_sigma_and_aims_from_the_picture_to_the_noise() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    noised = Flow(scheduler).noised(LATENTS, seeded())
    noise = torch.randn(LATENTS.shape, generator=seeded())
    torch.testing.assert_close(noised.target, noise - LATENTS)
    sigma = (noised.timesteps / 1000).view(-1, 1, 1, 1)
    torch.testing.assert_close(noised.latents - sigma * noised.target, LATENTS)  # one step of the sampler to sigma 0
    torch.testing.assert_close(noised.latents + (1 - sigma) * noised.target, noise)
    assert noised.timesteps.shape == (5,)
    assert noised.timesteps.is_floating_point()


def test_a_step_of_the_sampler_with_the_target_leads_to_the_picture() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(4)
    noise = torch.randn(LATENTS.shape, generator=seeded())
    x = noise
    for t in scheduler.timesteps:
        x = scheduler.step(noise - LATENTS, t, x).prev_sample
    torch.testing.assert_close(x, LATENTS, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("shift", "dynamic"), [(1.0, False), (3.0, False), (3.0, True)])
def test_sigma_is_logit_normal_and_shifted_where_the_shift_is_fixed(shift: float, dynamic: bool) -> None:
    flow = objective_of(FlowMatchEulerDiscreteScheduler(shift=shift, use_dynamic_shifting=dynamic), "x")
    sigma = flow.noised(torch.zeros(20_000, 1, 1, 1), seeded()).timesteps.double() / 1000
    assert 0 < sigma.min() < sigma.max() < 1
    if shift != 1 and not dynamic:
        sigma = sigma / (shift - (shift - 1) * sigma)
    normal = torch.logit(sigma)
    assert abs(float(normal.mean())) < 0.03
    assert abs(float(normal.std()) - 1) < 0.03
    assert abs(float((normal.abs() < 1).double().mean()) - 0.6827) < 0.02
    assert flow.prediction_type == "flow"


@pytest.mark.parametrize("kind", [FlowMatchEulerDiscreteScheduler(), DDIMScheduler()])
def test_draws_come_from_the_generator_alone(kind: Any) -> None:
    objective = objective_of(kind, "x")
    first, again = (objective.noised(LATENTS, seeded()) for _ in range(2))
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.timesteps, again.timesteps)
    assert not torch.equal(first.latents, objective.noised(LATENTS, seeded(2)).latents)


def test_ddpm_noising_does_not_depend_on_the_sampler() -> None:
    options = {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.01, "prediction_type": "v_prediction"}
    first, other = (
        objective_of(kind(**options), "x").noised(LATENTS, seeded()) for kind in (DDIMScheduler, EulerDiscreteScheduler)
    )
    for name in ("latents", "timesteps", "target"):
        assert torch.equal(getattr(first, name), getattr(other, name))


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (EDMEulerScheduler(), "x: scheduler EDMEulerScheduler is not supported; give the pipeline a DDIMScheduler"),
        (DDIMScheduler(prediction_type="flow_prediction"), "x: prediction type 'flow_prediction' is not supported"),
    ],
)
def test_other_processes_are_refused(scheduler: Any, words: str) -> None:
    with pytest.raises(GiftError, match=words):
        objective_of(scheduler, "x")


def test_the_schedulers_config_decides() -> None:
    assert isinstance(objective_of(DDIMScheduler(), "x"), Ddpm)
    assert isinstance(objective_of(FlowMatchEulerDiscreteScheduler(), "x"), Flow)
