"""What tells models apart in a grid."""

from __future__ import annotations

from pathlib import Path

import pytest

from gift.bench.identity import model_identity
from gift.models import load
from gift.models.sd import StableDiffusion
from tests.conftest import random_pipeline
from tests.models.families import ROWS


def test_the_same_model_elsewhere_is_the_same(random_model: StableDiffusion, tmp_path: Path) -> None:
    assert model_identity(load(random_model.save(tmp_path / "a"))) == model_identity(random_model)


def test_pictures_of_another_size_are_another_models() -> None:
    pipeline = random_pipeline("epsilon", seed=0)
    assert model_identity(StableDiffusion(pipeline, "a", 32)) != model_identity(StableDiffusion(pipeline, "a"))


@pytest.mark.parametrize("forced", [True, False])
def test_what_stands_for_no_prompt_counts(forced: bool) -> None:
    (row,) = (row for row in ROWS if row.name == "sdxl")
    model, before = row.model(), model_identity(row.model())
    model.pipeline.register_to_config(force_zeros_for_empty_prompt=forced)
    assert (model_identity(model) == before) is (row.model().pipeline.config.force_zeros_for_empty_prompt == forced)
