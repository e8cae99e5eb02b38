"""Which weights move: exactly the chosen ones, with or without adapters, and never none (field failure 31)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from torch import nn

from gift.errors import GiftError
from gift.immunizers.terms import Representations
from gift.models.lora import attach_lora
from gift.models.parameters import CHOICES, GROUPS, JOINT, named_by, select_parameters
from gift.models.sd import StableDiffusion

RULES: dict[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "attention": lambda name: ".attn1." in name or ".attn2." in name,
    "cross-attention": lambda name: ".attn2." in name,
    "non-cross-attention": lambda name: ".attn2." not in name,
    "attention-projections": lambda name: any(f".attn{n}.to_{part}." in name for n in (1, 2) for part in ("q", "k", "v", "out")),
    "text-inputs": lambda name: name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")),
    r"attn2\.to_k\.weight$": lambda name: name.endswith("attn2.to_k.weight"),
    "^mid_block": lambda name: name.startswith("mid_block."),
}


def test_every_choice_has_a_rule() -> None:
    assert CHOICES.keys() <= RULES.keys()


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("choice", RULES)
def test_exactly_the_chosen_weights_move(random_model: StableDiffusion, choice: str, adapter: bool) -> None:
    expected = {id(p) for name, p in random_model.denoiser.named_parameters() if RULES[choice](name)}
    if adapter:
        attach_lora(random_model, 2)
    chosen = select_parameters(random_model.denoiser, choice)
    assert {id(p) for p in chosen.values()} == expected
    assert {id(p) for p in random_model.denoiser.parameters() if p.requires_grad} == expected
    named = dict(random_model.denoiser.named_parameters())
    assert all(named[name] is p for name, p in chosen.items())


@pytest.mark.parametrize(("choice", "words"), [("nothing-at-all", "matches no weight"), ("(", "nor a valid pattern")])
def test_a_choice_of_nothing_is_told(random_model: StableDiffusion, choice: str, words: str) -> None:
    with pytest.raises(GiftError, match=words) as caught:
        select_parameters(random_model.denoiser, choice)
    assert "\n" not in str(caught.value)


def sd3() -> nn.Module:
    """Two joint blocks, the first with a second attention of the picture to itself, as in SD3.5 medium."""
    return SD3Transformer2DModel(
        sample_size=4, num_layers=2, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=8, caption_projection_dim=16,
        pooled_projection_dim=8, dual_attention_layers=(0,), qk_norm="rms_norm", pos_embed_max_size=4,
    )  # fmt: skip


def flux() -> nn.Module:
    """One block of two streams, one of a single stream."""
    return FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=8,
        pooled_projection_dim=8, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip


@pytest.mark.parametrize("make", [sd3, flux])
def test_in_joint_attention_text_has_projections_of_its_own(make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = make()
    monkeypatch.setitem(GROUPS, type(denoiser).__name__, JOINT)
    names = {name for name, _ in denoiser.named_parameters()}
    attention = {name for name in names if ".attn." in name or ".attn2." in name}
    own = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_q", "norm_added_k")
    text = {name for name in attention if any(f".{part}." in name for part in own) or name.startswith("single_")}
    assert {part for part in own if any(f".{part}." in name for name in text)} == {*own}
    assert set(named_by(denoiser, "cross-attention")) == text
    assert set(named_by(denoiser, "non-cross-attention")) == names - text
    assert set(named_by(denoiser, "attention")) == attention
    assert set(named_by(denoiser, "attention-projections")) == {name for name in attention if ".norm_" not in name}
    assert not any(".attn2." in name for name in text)
    assert {name.split(".")[0] for name in named_by(denoiser, "text-inputs")} == {"context_embedder", "time_text_embed"}


@pytest.mark.parametrize(("layers", "ends"), [("attention", (".attn", ".attn2")), ("cross-attention", (".attn",))])
def test_layers_of_joint_attention_give_the_pictures_stream(
    layers: str, ends: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = sd3()
    monkeypatch.setitem(GROUPS, "SD3Transformer2DModel", JOINT)
    watch = Representations(denoiser, layers, "standard", "mse")
    assert set(watch.modules) == {name for name, _ in denoiser.named_modules() if name.endswith(ends)}
    with watch.watching():
        denoiser(torch.randn(1, 16, 4, 4), torch.randn(1, 3, 8), torch.randn(1, 8), torch.tensor([500.0]))
    assert {name: tuple(x.shape) for name, x in watch._seen.items()} == dict.fromkeys(watch.modules, (1, 4, 16))
    with pytest.raises(GiftError, match="'mid' matches no layer; use one of attention, cross-attention, self-attention, or"):
        Representations(denoiser, "mid", "standard", "mse")
