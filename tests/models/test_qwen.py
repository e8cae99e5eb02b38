"""What is Qwen-Image's own: the template around a prompt, the mask, guidance."""

from __future__ import annotations

import logging

import pytest
import torch

from gift.models.base import unpadded
from gift.models.qwen import QwenImage
from tests.models.families import qwen_pipeline


@pytest.fixture(scope="module")
def model() -> QwenImage:
    """With random weights."""
    return QwenImage(qwen_pipeline(), "random", 16)


PROMPTS = ["a fox", "the sea at night", ""]


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_templates_head_is_dropped_and_padding_goes_last(model: QwenImage, side: str) -> None:
    own = model.copy(text=True)
    own.pipeline.tokenizer.padding_side = side
    states, mask = unpadded(own.encode_prompts(PROMPTS))
    tail = len(own.pipeline.tokenizer("<|im_end|>\n<|im_start|>assistant\n").input_ids)
    assert mask.sum(1).tolist() == [len(own.pipeline.tokenizer(prompt).input_ids) + tail for prompt in PROMPTS]
    with torch.no_grad():
        theirs, their_mask = own.pipeline.encode_prompt(PROMPTS)
    assert torch.equal(mask, their_mask)
    torch.testing.assert_close(states, theirs, rtol=1e-4, atol=1e-5)


def test_long_prompts_are_cut_as_the_pipeline_cuts_them(model: QwenImage) -> None:
    prompts = ["fox " * 300, "fox"]
    cond = model.encode_prompts(prompts)
    assert cond["mask"].sum(1).tolist() == [512, 8]
    with torch.no_grad():
        theirs, _ = model.pipeline.encode_prompt(prompts, max_sequence_length=512)
    torch.testing.assert_close(cond["states"], theirs, rtol=1e-4, atol=1e-5)


def test_padding_is_never_read(model: QwenImage) -> None:
    cond = model.encode_prompts(PROMPTS)
    x, times = torch.randn(3, *model.latent_shape, generator=torch.Generator().manual_seed(0)), torch.tensor([10.0, 500.0, 900.0])
    with torch.no_grad():
        output = model.predict(x, times, cond)
        other = model.predict(x, times, cond | {"states": cond["states"] + 9 * (1 - cond["mask"])[..., None]})
        torch.testing.assert_close(other, output, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(model.predict(x, times, cond | {"mask": torch.ones_like(cond["mask"])}), output, atol=1e-5)


def test_guidance_above_one_alone_asks_for_the_empty_prompt(model: QwenImage, caplog: pytest.LogCaptureFixture) -> None:
    cond = model.encode_prompts(["a fox"])
    blank = model.encode_prompts([""])
    assert not any(name.startswith("negative") for name in model.guided(cond, blank, 1.0))
    asked = model.guided(cond, blank, 4.0)
    assert asked["true_cfg_scale"] == 4.0
    assert torch.equal(asked["negative_prompt_embeds"], unpadded(blank)[0])
    logging.getLogger("diffusers").propagate = True
    with caplog.at_level(logging.WARNING):
        pictures = [model.generate(["a fox"], [1], steps=2, guidance=scale) for scale in (1.0, 4.0)]
    assert not [record for record in caplog.records if "pipeline_qwenimage" in record.name]
    assert not torch.equal(*pictures)
