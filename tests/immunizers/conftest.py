"""What the immunizers' tests share: a task on a random-weight model."""

from __future__ import annotations

import pytest
from accelerate import Accelerator

from gift.data.latents import LatentSet
from gift.immunizers.base import Task
from gift.models.sd import StableDiffusion


@pytest.fixture
def task(random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet) -> Task:
    """A copy of the random model that is in training, and its two sets."""
    model = random_model.copy()
    model.denoiser.train()
    return Task(model, concept_set, safe_set, Accelerator(cpu=True), 0)
