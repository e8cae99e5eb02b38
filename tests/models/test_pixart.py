"""What is PixArt's own: the mask, small letters, and the size that alpha is told."""

from __future__ import annotations

import torch
from diffusers import PixArtAlphaPipeline, PixArtSigmaPipeline

from gift.models.base import unpadded
from gift.models.pixart import PixArtAlpha, PixArtSigma
from tests.models.families import pixart_pipeline


def sigma() -> PixArtSigma:
    return PixArtSigma(pixart_pipeline(PixArtSigmaPipeline, told=False), "random")


def alpha() -> PixArtAlpha:
    return PixArtAlpha(pixart_pipeline(PixArtAlphaPipeline, told=True), "random", 16)


def test_prompts_are_as_long_as_the_pipelines_and_in_small_letters() -> None:
    assert sigma().encode_prompts(["a fox"])["states"].shape == (1, 300, 16)
    cond = alpha().encode_prompts([" A Fox ", "a fox"])
    assert cond["states"].shape == (2, 120, 16)
    assert torch.equal(cond["states"][0], cond["states"][1])
    assert cond["mask"].sum(1).tolist() == [5, 5]  # ' a', ' f', 'o', 'x', the end


def test_padding_is_cut_off_and_never_read() -> None:
    model = sigma()
    cond = model.encode_prompts(["a fox", "sea"])
    assert [tensor.shape[1] for tensor in unpadded(cond)] == [5, 5]
    x, times = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0)), torch.tensor([10, 900])
    with torch.no_grad():
        output = model.predict(x, times, cond)
        assert torch.equal(model.predict(x, times, cond | {"states": cond["states"] + 9 * (1 - cond["mask"])[..., None]}), output)
        assert not torch.allclose(model.predict(x, times, cond | {"mask": torch.ones_like(cond["mask"])}), output, atol=1e-5)


def test_alpha_is_told_the_pictures_size_and_sigma_is_not() -> None:
    model = alpha()
    larger = PixArtAlpha(model.pipeline, "random", 32)
    x, times, cond = torch.zeros(1, *model.latent_shape), torch.tensor([10]), model.encode_prompts(["a fox"])
    with torch.no_grad():
        assert not torch.allclose(model.predict(x, times, cond), larger.predict(x, times, cond), atol=1e-5)
        small = sigma()
        other = PixArtSigma(small.pipeline, "random", 32)
        cond = small.encode_prompts(["a fox"])
        assert torch.equal(small.predict(x, times, cond), other.predict(x, times, cond))
