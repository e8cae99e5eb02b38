"""What is special about Stable Diffusion XL; the rest is in the families' contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gift.data.latents import encode_set
from gift.errors import NonFiniteError
from gift.immunizers import Esd
from gift.models.sdxl import StableDiffusionXL
from gift.pixels import as_float
from tests.conftest import picture_set
from tests.models.families import sdxl_pipeline


@pytest.fixture(params=[True, False], ids=["zeros", "encoded"])
def forced(request: pytest.FixtureRequest) -> bool:
    """Whether an absent negative prompt is zeros."""
    return request.param


@pytest.fixture
def model(forced: bool) -> StableDiffusionXL:
    return StableDiffusionXL(sdxl_pipeline(forced), "xl")


def plain(model: StableDiffusionXL, **options: Any) -> torch.Tensor:
    """Latents of a plain call of the pipeline."""
    generator = [torch.Generator().manual_seed(1)]
    return model.pipeline(
        ["a fox"], generator=generator, num_inference_steps=3, guidance_scale=4.0, output_type="latent", **options
    ).images


def test_prompts_have_both_encoders_states_and_the_seconds_summary(model: StableDiffusionXL) -> None:
    cond = model.encode_prompts(["a fox", "sea", ""])
    assert {name: tuple(tensor.shape) for name, tensor in cond.items()} == {"states": (3, 16, 16 + 24), "pooled": (3, 24)}


def test_no_prompt_is_zeros_where_the_configuration_forces_them(model: StableDiffusionXL, forced: bool) -> None:
    empty = model.encode_prompts([""])
    blank = model.unconditional(empty)
    for name, tensor in empty.items():
        assert tensor.any()
        assert torch.equal(blank[name], torch.zeros_like(tensor) if forced else tensor)
    ours, _ = model.sample_latents(["a fox"], [1], steps=3, guidance=4.0)
    torch.testing.assert_close(ours, plain(model), rtol=1e-4, atol=1e-5)
    encoded = plain(model, negative_prompt="")  # an empty negative prompt that is there is never zeros
    assert torch.allclose(ours, encoded, rtol=1e-4, atol=1e-5) is not forced


def test_copies_and_esd_hold_to_it(model: StableDiffusionXL, forced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.copy().pipeline.config.force_zeros_for_empty_prompt is forced
    seen: list[bool] = []
    predict = StableDiffusionXL.predict

    def watch(self: StableDiffusionXL, latents: torch.Tensor, timesteps: torch.Tensor, cond: dict[str, torch.Tensor]) -> Any:
        if not torch.is_grad_enabled():
            seen.append(bool(cond["states"][-1].any()))  # the second half of the reference's batch is without a prompt
        return predict(self, latents, timesteps, cond)

    monkeypatch.setattr(StableDiffusionXL, "predict", watch)
    Esd(steps=2, batch_size=2, sampler_steps=3)(model, picture_set(model, 4, "fox"), picture_set(model, 4, "sea"))
    assert seen == [not forced] * 2


def test_the_denoiser_is_told_the_pictures_size() -> None:
    seen: list[list[list[float]]] = []
    for size, model in ((16, StableDiffusionXL(sdxl_pipeline(), "xl")), (32, StableDiffusionXL(sdxl_pipeline(), "xl", 32))):
        handle = model.denoiser.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs["added_cond_kwargs"]["time_ids"].tolist()), with_kwargs=True
        )
        model.loss(torch.zeros(2, *model.latent_shape), model.encode_prompts(["a", "b"]), torch.Generator().manual_seed(0))
        model.sample_latents(["a"], [0], steps=1, guidance=1.0)
        handle.remove()
        assert seen[-2:] == [[[size, size, 0, 0, size, size]] * 2, [[size, size, 0, 0, size, size]]]


def test_an_autoencoder_that_overflows_in_half_precision_is_used_in_full(tmp_path: Path) -> None:
    pipeline = sdxl_pipeline()
    with torch.no_grad():
        pipeline.vae.encoder.conv_in.weight.mul_(1e5)  # activations beyond 65,504, as the published autoencoder's
    pipeline.to(torch.float16)
    images = torch.randint(256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert not torch.isfinite(pipeline.vae.encode(as_float(images).half()).latent_dist.mean).all()
    model = StableDiffusionXL(pipeline, "xl")
    latents = model.encode_images(images)
    assert latents.dtype == torch.float32
    assert torch.isfinite(latents).all()
    assert model.decode(latents).shape == images.shape
    assert {p.dtype for p in model.denoiser.parameters()} == {torch.float16}
    model.pipeline.vae.to(torch.float16)
    with pytest.raises(NonFiniteError, match="the autoencoder gives NaN or infinite latents; use it in fp32") as caught:
        encode_set(model, images, ["a", "b"], cache=tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())  # nothing broken is cached
