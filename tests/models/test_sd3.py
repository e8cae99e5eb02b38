"""What is special about Stable Diffusion 3; the rest is in the families' contract."""

from __future__ import annotations

from pathlib import Path

import torch

from gift.models import load
from gift.models.parameters import named_by
from gift.models.sd3 import T5_TOKENS, StableDiffusion3
from tests.models.families import sd3_pipeline


def test_prompts_are_clips_states_in_the_width_of_t5_and_then_t5s() -> None:
    model = StableDiffusion3(sd3_pipeline(), "sd3")
    cond = model.encode_prompts(["a fox", "sea", ""])
    assert {name: tuple(tensor.shape) for name, tensor in cond.items()} == {"states": (3, 16 + 256, 48), "pooled": (3, 16 + 24)}
    assert not cond["states"][:, :16, 16 + 24 :].any()
    assert cond["states"][:, :16, : 16 + 24].any()
    states, _, pooled, _ = model.pipeline.encode_prompt(["a fox", "sea", ""], None, None, do_classifier_free_guidance=False)
    torch.testing.assert_close(cond, {"states": states, "pooled": pooled})


def test_without_a_t5_its_states_are_zeros(tmp_path: Path) -> None:
    whole, model = StableDiffusion3(sd3_pipeline(), "sd3"), StableDiffusion3(sd3_pipeline(third=False), "sd3")
    assert list(model.text_encoders) == ["text_encoder", "text_encoder_2"]
    assert whole.encode_prompts(["a"])["states"][:, 16:].any()
    for one in (model, model.copy(text=True), load(model.save(tmp_path / "m"), device="cpu")):
        states = one.encode_prompts(["a"])["states"]
        assert states.shape == (1, 16 + T5_TOKENS, 48)
        assert not states[:, 16:].any()
        assert one.pipeline.text_encoder_3 is None


def test_guidance_is_against_the_encoded_empty_prompt() -> None:
    model = StableDiffusion3(sd3_pipeline(), "sd3")
    ours, _ = model.sample_latents(["a fox"], [1], steps=3, guidance=4.0)
    how = {"generator": [torch.Generator().manual_seed(1)], "num_inference_steps": 3, "guidance_scale": 4.0}
    torch.testing.assert_close(ours, model.pipeline(["a fox"], output_type="latent", **how).images, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours, model.sample_latents(["a fox"], [1], steps=3, guidance=1.0)[0], atol=1e-3)


def test_the_second_attention_of_medium_is_no_cross_attention() -> None:
    denoiser = sd3_pipeline(dual=True).transformer
    second = {name for name, _ in denoiser.named_parameters() if ".attn2." in name}
    assert second
    assert second < set(named_by(denoiser, "attention"))
    assert not second & set(named_by(denoiser, "cross-attention"))
