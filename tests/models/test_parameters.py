"""Which weights move: exactly the chosen ones, with or without adapters, and never none (field failure 31)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gift.errors import GiftError
from gift.models.lora import attach_lora
from gift.models.parameters import CHOICES, select_parameters
from gift.models.sd import StableDiffusion

RULES: dict[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "attention": lambda name: ".attn1." in name or ".attn2." in name,
    "cross-attention": lambda name: ".attn2." in name,
    "non-cross-attention": lambda name: ".attn2." not in name,
    "attention-projections": lambda name: any(f".attn{n}.to_{part}." in name for n in (1, 2) for part in ("q", "k", "v", "out")),
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
