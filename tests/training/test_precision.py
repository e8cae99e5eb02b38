"""Memory and time against rounding: what is exact stays exact, bf16 comes near, weights stay fp32."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch

from gift.attacks import Full, Lora
from gift.data.latents import LatentSet
from gift.errors import GiftError
from gift.immunizers import Attacker, Esd, Gift
from gift.models.sd import StableDiffusion
from gift.training.precision import Saving
from tests.conftest import state_of


def seen_dtypes(model: StableDiffusion) -> set[torch.dtype]:
    """Fills up while the model's class computes attention projections."""
    seen: set[torch.dtype] = set()
    for name, module in model.denoiser.named_modules():
        if name.endswith("to_q"):
            module.register_forward_hook(lambda _, args, output: seen.add(output.dtype))
    return seen


@pytest.mark.parametrize("how", [Full(steps=3, batch_size=2), Lora(steps=3, batch_size=2)], ids=["full", "lora"])
def test_gradient_checkpointing_changes_no_loss(random_model: StableDiffusion, concept_set: LatentSet, how: Full | Lora) -> None:
    plain = how(random_model, concept_set)
    spared = how(random_model, concept_set, saving=Saving(gradient_checkpointing=True))
    assert [x["loss"] for x in spared.logs] == pytest.approx([x["loss"] for x in plain.logs], rel=1e-5)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in spared.model.denoiser.modules())


def test_bf16_computes_in_bf16_and_trains_fp32_weights(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    plain = Full(steps=3, batch_size=2)(random_model, concept_set)
    seen = seen_dtypes(random_model)  # a copy takes the hooks along
    rough = Full(steps=3, batch_size=2)(random_model, concept_set, saving=Saving(precision="bf16"))
    assert torch.bfloat16 in seen
    assert [x["loss"] for x in rough.logs] == pytest.approx([x["loss"] for x in plain.logs], rel=0.03)
    assert [x["loss"] for x in rough.logs] != [x["loss"] for x in plain.logs]
    assert {p.dtype for p in rough.model.denoiser.parameters()} == {torch.float32}
    assert rough.model.compute is torch.float32, "it draws as any other"


@pytest.mark.parametrize(
    "how",
    [Gift(steps=2, batch_size=2, settle_steps=1, attacker=Attacker(steps=2, batch_size=2)), Esd(steps=2, sampler_steps=3)],
    ids=["gift", "esd"],
)
def test_immunizers_take_both(random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet, how: Gift | Esd) -> None:
    seen = seen_dtypes(random_model)
    out = how(random_model, concept_set, safe_set, saving=Saving(precision="bf16", gradient_checkpointing=True))
    assert torch.bfloat16 in seen
    before, after = state_of(random_model), state_of(out)
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert {t.dtype for t in after.values() if t.is_floating_point()} == {torch.float32}


def test_what_a_launcher_asks_for(random_model: StableDiffusion) -> None:
    Saving().apply(random_model, Mock(mixed_precision="bf16"))
    assert random_model.compute is torch.bfloat16
    with pytest.raises(GiftError, match="'fp16' is not supported; use bf16"):
        Saving().apply(random_model, Mock(mixed_precision="fp16"))
