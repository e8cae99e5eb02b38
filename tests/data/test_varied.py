"""Varied copies of a training set."""

from __future__ import annotations

import pytest
import torch

from gift.data.latents import LatentSet, join_sets
from gift.data.varied import COPIES, vary_set, with_varied
from gift.models.sd import StableDiffusion


def test_pictures_change_and_prompts_stay(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    varied = vary_set(random_model, concept_set, 0)
    assert varied.latents.shape == concept_set.latents.shape
    assert varied.latents.dtype == concept_set.latents.dtype
    assert all(not torch.allclose(new, old, atol=1e-2) for new, old in zip(varied.latents, concept_set.latents, strict=True))
    assert torch.equal(varied.which, concept_set.which)
    assert varied.prompts == concept_set.prompts
    assert varied.identity != concept_set.identity


def test_the_seed_decides(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    first, again, other = (vary_set(random_model, concept_set, seed) for seed in (3, 3, 4))
    assert torch.equal(first.latents, again.latents)
    assert not torch.equal(first.latents, other.latents)


def test_no_picture_depends_on_its_company(
    random_model: StableDiffusion, concept_set: LatentSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = vary_set(random_model, concept_set, 0)
    monkeypatch.setattr("gift.data.varied.AT_ONCE", 1)
    torch.testing.assert_close(vary_set(random_model, concept_set, 0).latents, together.latents, atol=1e-4, rtol=1e-4)


def test_copies_share_their_pictures_place(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    some = concept_set.only(torch.tensor([0, 1, 2]))
    weighted = join_sets([some, concept_set.only(torch.tensor([3]))], balance=[3.0, 1.0])
    mixed = with_varied(random_model, weighted, 0.4, 0)
    assert mixed.weights is not None
    assert mixed.concept_of is not None
    assert len(mixed) == (1 + COPIES) * 4
    assert torch.equal(mixed.latents[:4], weighted.latents)
    assert float(mixed.weights[:4].sum()) == pytest.approx(0.6)
    assert float(mixed.weights[mixed.concept_of == 1].sum()) == pytest.approx(0.25)
    assert mixed.which.tolist() == weighted.which.tolist() * (1 + COPIES)
    assert with_varied(random_model, weighted, 0.0, 0) is weighted
