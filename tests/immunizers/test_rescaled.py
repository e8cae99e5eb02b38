"""The rescaled control: another size, the same function."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from gift.data.latents import LatentSet
from gift.errors import GiftError
from gift.immunizers import Rescaled
from gift.immunizers.rescaled import written
from gift.models import load
from gift.models.sd import StableDiffusion
from tests.conftest import fixed_loss, moved, picture_set, state_of
from tests.models.families import ROWS, Row


def test_the_function_stays_and_the_weights_are_multiplied(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    out = Rescaled(factor=8.0)(random_model, concept_set, concept_set)
    before, after = state_of(random_model), state_of(out)
    changed = moved(before, after)
    assert len({id(p) for p in written(out.denoiser)}) == len(list(written(out.denoiser))) >= len(changed) > 20
    for name in changed:
        assert torch.equal(after[name], 8 * before[name])
    assert fixed_loss(out, concept_set) == pytest.approx(fixed_loss(random_model, concept_set), rel=1e-3)


@pytest.mark.slow
def test_the_bundled_models_outputs_stay() -> None:
    model = load("tiny")
    nothing = LatentSet(torch.zeros(1, *model.latent_shape), model.encode_prompts([""]), torch.zeros(1, dtype=torch.long), [""])
    out = Rescaled(factor=10.0)(model, nothing, nothing)
    latents = torch.randn(4, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    at, cond = torch.tensor([10, 300, 600, 900]), model.encode_prompts(["a mushroom, emoji"] * 4)
    with torch.no_grad():
        first, second = (m.predict(latents, at, cond) for m in (model, out))
    torch.testing.assert_close(second, first, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_unet_keeps_its_function_and_others_are_told(row: Row) -> None:
    model = row.model()
    data = picture_set(model, 4, "fox", 1)
    if not isinstance(model.denoiser, UNet2DConditionModel):
        with pytest.raises(GiftError, match="written for UNets"):
            Rescaled()(model, data, data)
        return
    out = Rescaled(factor=8.0)(model, data, data)
    assert fixed_loss(out, data) == pytest.approx(fixed_loss(model, data), rel=1e-3)
