"""A Stable Diffusion behind the common face, against computations of its own (field failures 17, 20, 32)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from gift.errors import GiftError, NonFiniteError
from gift.models import Cond, load, take
from gift.models.objectives import PREDICTIONS
from gift.models.sd import StableDiffusion
from gift.pixels import as_bytes, as_float, contact_sheet
from tests.conftest import same_state, state_of

MakeModel = Callable[..., StableDiffusion]


def batch(model: StableDiffusion) -> tuple[torch.Tensor, Cond]:
    latents = torch.randn(3, *model.latent_shape, generator=torch.Generator().manual_seed(8))
    return latents, model.encode_prompts(["a fox", "sea", ""])


def alphas(n: int = 1000) -> torch.Tensor:
    betas = torch.linspace(0.0001**0.5, 0.02**0.5, n, dtype=torch.float64) ** 2  # the scheduler's defaults, 'scaled_linear'
    return torch.cumprod(1 - betas, 0)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_the_loss_is_the_mean_square_against_the_right_target(make_model: MakeModel, kind: str) -> None:
    model = make_model(prediction_type=kind)
    latents, cond = batch(model)
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(latents.shape, generator=generator)
    steps = torch.randint(1000, (3,), generator=generator)
    kept = alphas()[steps].float().view(3, 1, 1, 1)
    noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    target = {"epsilon": noise, "sample": latents, "v_prediction": kept.sqrt() * noise - (1 - kept).sqrt() * latents}[kind]
    output = model.pipeline.unet(noisy, steps, cond["states"]).sample
    expected = torch.stack([((output[i] - target[i]) ** 2).mean() for i in range(3)])
    torch.testing.assert_close(model.loss(latents, cond, torch.Generator().manual_seed(4)), expected)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_the_prediction_type_is_kept_and_told(make_model: MakeModel, tmp_path: Path, kind: str) -> None:
    model = make_model(prediction_type=kind)
    assert model.prediction_type == model.copy().prediction_type == kind
    assert kind in model.describe()
    opened = StableDiffusionPipeline.from_pretrained(model.save(tmp_path / "m"))
    assert opened.scheduler.config.prediction_type == kind


def test_an_unknown_prediction_type_is_refused(random_model: StableDiffusion) -> None:
    random_model.pipeline.scheduler.register_to_config(prediction_type="flow_prediction")
    with pytest.raises(GiftError, match="'flow_prediction' is not supported"):
        StableDiffusion(random_model.pipeline, "x")


def test_pictures_go_to_scaled_latents_and_back(random_model: StableDiffusion) -> None:
    images = torch.randint(256, (35, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    latents = random_model.encode_images(images)
    assert latents.shape == (35, *random_model.latent_shape)
    assert random_model.image_size == 16
    torch.testing.assert_close(random_model.encode_images(as_float(images)), latents)
    vae = random_model.pipeline.vae
    with torch.no_grad():
        mean = vae.encode(images.float() / 127.5 - 1).latent_dist.mean
        torch.testing.assert_close(latents, mean * 0.18215)
        expected = ((vae.decode(mean).sample.clamp(-1, 1) + 1) * 127.5).round()
    decoded = random_model.decode(latents)
    assert decoded.dtype == torch.uint8
    assert decoded.shape == images.shape
    assert (decoded.float() - expected).abs().max() <= 1


def test_bytes_and_floats_are_inverses() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    assert torch.equal(as_bytes(as_float(images)), images)
    assert as_bytes(torch.tensor([-9.0, -1.0, 1.0, 9.0])).tolist() == [0, 0, 255, 255]
    assert contact_sheet(torch.cat([images, images[:1]]), 2).size == (32, 32)


def test_prompts_are_encoded_one_by_one(random_model: StableDiffusion) -> None:
    prompts = ["a fox", "a very long prompt " * 9, ""]
    together = random_model.encode_prompts(prompts)
    assert together["states"].shape == (3, 16, 16)
    assert not together["states"].requires_grad
    for i, prompt in enumerate(prompts):
        torch.testing.assert_close(take(together, torch.tensor([i])), random_model.encode_prompts([prompt]))


def test_pictures_depend_on_prompt_and_seed_alone(random_model: StableDiffusion) -> None:
    prompts, seeds = ["fox", "fox", "sea", "fox", "tree"], [1, 2, 1, 1, 7]
    pictures = random_model.generate(prompts, seeds, steps=3)
    assert torch.equal(pictures, random_model.generate(prompts, seeds, steps=3))
    assert torch.equal(pictures[0], pictures[3])
    assert not torch.equal(pictures[0], pictures[1])
    for size in (1, 2, 4):
        again = random_model.generate(prompts, seeds, steps=3, batch=size)
        assert (again.int() - pictures.int()).abs().max() <= 1
    alone, _ = random_model.sample_latents(["tree"], [7], steps=3)
    together, _ = random_model.sample_latents(prompts, seeds, steps=3)
    torch.testing.assert_close(alone[0], together[4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stop", [1, 3, 5, None])
def test_a_partial_run_is_the_samplers_own_loop(random_model: StableDiffusion, stop: int | None) -> None:
    random_model.denoiser.train()
    latents, at = random_model.sample_latents(["fox", "sea"], [3, 4], steps=5, guidance=3.0, stop_after=stop)
    assert random_model.denoiser.training
    random_model.denoiser.eval()
    pipe = random_model.copy().pipeline
    pipe.scheduler.set_timesteps(5)
    states = random_model.encode_prompts(["", "", "fox", "sea"])["states"]
    x = torch.cat([torch.randn(1, *random_model.latent_shape, generator=torch.Generator().manual_seed(s)) for s in (3, 4)])
    times = pipe.scheduler.timesteps
    with torch.no_grad():
        for t in times[:stop]:
            blank, named = pipe.unet(torch.cat([x, x]), t, states).sample.chunk(2)
            x = pipe.scheduler.step(blank + 3.0 * (named - blank), t, x).prev_sample
    torch.testing.assert_close(latents, x, rtol=1e-4, atol=1e-5)
    assert int(at) == (int(times[stop]) if stop and stop < 5 else 0)
    after, _ = random_model.sample_latents(
        ["fox", "sea"], [3, 4], steps=5
    )  # a full run is not left early by an earlier partial one
    torch.testing.assert_close(after, random_model.copy().sample_latents(["fox", "sea"], [3, 4], steps=5)[0])


def test_a_copy_is_independent(random_model: StableDiffusion) -> None:
    before = state_of(random_model)
    other = random_model.copy()
    assert same_state(state_of(other), before)
    with torch.no_grad():
        for parameter in other.denoiser.parameters():
            parameter.add_(1)
    other.pipeline.scheduler.set_timesteps(3)
    assert same_state(state_of(random_model), before)
    assert random_model.pipeline.scheduler.num_inference_steps != 3
    assert other.pipeline.vae is random_model.pipeline.vae
    assert other.source == random_model.source


def test_a_copy_has_text_encoders_of_its_own_where_asked(random_model: StableDiffusion) -> None:
    assert list(random_model.text_encoders) == list(random_model.tokenizers) == ["text_encoder"]
    shared, own = random_model.copy(), random_model.copy(text=True)
    assert shared.pipeline.text_encoder is random_model.pipeline.text_encoder
    assert shared.pipeline.tokenizer is random_model.pipeline.tokenizer
    prompts = ["a fox", "sea"]
    before = random_model.encode_prompts(prompts)["states"]
    assert torch.equal(own.encode_prompts(prompts)["states"], before)
    with torch.no_grad():
        for parameter in own.pipeline.text_encoder.parameters():
            parameter.add_(1)
    own.pipeline.tokenizer.add_tokens(["fox"])
    assert torch.equal(random_model.encode_prompts(prompts)["states"], before)


def test_gradients_reach_the_text_encoder_where_its_weights_ask_for_them(random_model: StableDiffusion) -> None:
    assert not random_model.embed(["a fox"])["states"].requires_grad
    own = random_model.copy(text=True)
    own.pipeline.text_encoder.requires_grad_(True)
    embedded = own.embed(["a fox", "sea"])["states"]
    assert torch.equal(embedded.detach(), own.encode_prompts(["a fox", "sea"])["states"])
    assert not own.encode_prompts(["a fox"])["states"].requires_grad
    embedded.square().sum().backward()
    assert all(p.grad is not None for p in own.pipeline.text_encoder.parameters())
    assert all(p.grad is None for p in random_model.pipeline.text_encoder.parameters())


def test_a_failed_save_leaves_the_old_model(random_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = random_model.save(tmp_path / "m")
    before = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    monkeypatch.setattr(type(random_model.pipeline.vae), "save_pretrained", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        random_model.save(folder)
    assert {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_broken_weights_draw_an_error(random_model: StableDiffusion) -> None:
    with torch.no_grad():
        next(random_model.denoiser.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="NaN"):
        random_model.generate(["fox"], [1], steps=2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_broken_weights_are_neither_saved_nor_opened(
    random_model: StableDiffusion, tmp_path: Path, part: str, value: float
) -> None:
    random_model.save(tmp_path / "m")
    before = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    name, weight = list(getattr(random_model.pipeline, part).named_parameters())[-1]
    with torch.no_grad():
        weight.flatten()[0] = value
    with pytest.raises(NonFiniteError, match=f"{part}.{name} holds NaN or infinite values, so nothing was written"):
        random_model.save(tmp_path / "m")
    assert {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    random_model.pipeline.save_pretrained(tmp_path / "broken")
    with pytest.raises(NonFiniteError, match=f"is broken: {part}.{name} holds NaN or infinite values; get it again") as caught:
        load(tmp_path / "broken")
    assert "\n" not in str(caught.value)


def test_an_autoencoder_that_draws_nan_is_told(random_model: StableDiffusion) -> None:
    with torch.no_grad():
        random_model.pipeline.vae.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="the autoencoder draws NaN or infinite pictures"):
        random_model.generate(["fox"], [1], steps=2)
