"""What is special about FLUX; the rest is in the families' contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gift.attacks import TextualInversion
from gift.models.flux import Flux
from tests.conftest import picture_set
from tests.models.families import flux_pipeline

DISTILLED = pytest.mark.parametrize("distilled", [True, False], ids=["dev", "schnell"])


def model_of(distilled: bool) -> Flux:
    return Flux(flux_pipeline(distilled=distilled), "flux", 16)


@DISTILLED
def test_guidance_is_an_input_and_no_second_prediction(distilled: bool) -> None:
    model, seen = model_of(distilled), []

    def watch(module: Any, args: Any, kwargs: Any) -> None:
        patches = args[0] if args else kwargs["hidden_states"]
        seen.append((len(patches), None if kwargs["guidance"] is None else kwargs["guidance"].tolist()))

    model.denoiser.register_forward_pre_hook(watch, with_kwargs=True)
    model.loss(torch.zeros(2, *model.latent_shape), model.encode_prompts(["a", "b"]), torch.Generator().manual_seed(0))
    strong, _ = model.sample_latents(["a", "b", "c"], [0, 1, 2], steps=1, guidance=3.5)
    assert seen == [(2, [1.0, 1.0] if distilled else None), (3, [3.5, 3.5, 3.5] if distilled else None)]
    weak, _ = model.sample_latents(["a", "b", "c"], [0, 1, 2], steps=1, guidance=1.0)
    assert torch.equal(strong, weak) is not distilled


@DISTILLED
def test_the_samplers_shift_follows_the_size_where_it_is_dynamic(distilled: bool) -> None:
    times = []
    for size in (16, 32):
        model = Flux(flux_pipeline(distilled=distilled), "flux", size)
        times.append(model.sample_latents(["a"], [0], steps=4, stop_after=2)[1])
    assert (times[0] < times[1]) == distilled


def test_a_new_word_of_several_vectors_is_read_by_both_encoders(tmp_path: Path) -> None:
    model = model_of(True)
    attacked = TextualInversion(steps=2, batch_size=2, vectors=2, rate=0.5)(model, picture_set(model, 4, "fox"))
    folder = attacked.save(tmp_path / "files")
    theirs = model.copy(text=True).pipeline
    theirs.load_textual_inversion(folder, weight_name="learned_embeds.safetensors")
    theirs.load_textual_inversion(
        folder, weight_name="learned_embeds_2.safetensors", text_encoder=theirs.text_encoder_2, tokenizer=theirs.tokenizer_2
    )
    states, pooled, _ = theirs.encode_prompt(["a <concept>"])
    torch.testing.assert_close(attacked.model.encode_prompts(["a <concept>"]), {"states": states, "pooled": pooled})
    before = model.pipeline.encode_prompt(["a <concept>"])
    assert not torch.allclose(states, before[0], atol=1e-2)
    assert not torch.allclose(pooled, before[1], atol=1e-2)
