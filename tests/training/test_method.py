"""What every run says and keeps, whatever it computes (field failures 15 and 31)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gift.attacks import Attack, Full, Lora
from gift.data.latents import LatentSet
from gift.errors import NonFiniteError
from gift.immunizers import Ascent, Immunizer
from gift.models.sd import StableDiffusion
from gift.training.checkpoint import Checkpoints
from gift.training.precision import Saving
from gift.training.updates import Updater
from tests.conftest import Heard


def test_what_is_trained_is_counted_aloud(random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet) -> None:
    denoiser = sum(p.numel() for p in random_model.denoiser.parameters())
    tensors = len(list(random_model.denoiser.parameters()))
    heard = Heard()
    Full(steps=1, batch_size=2)(random_model, concept_set, reporter=heard)
    assert f"full: trains {denoiser:,} weights in {tensors} tensors" in heard.lines
    done = Lora(steps=1, batch_size=2, rank=2)(random_model, concept_set, reporter=heard)
    factors = [p for name, p in done.model.denoiser.named_parameters() if ".lora_" in name]
    assert f"lora: trains {sum(p.numel() for p in factors):,} weights in {done.matched} tensors" in heard.lines
    assert len(factors) == done.matched
    Ascent(steps=1, batch_size=2, train="cross-attention")(random_model, concept_set, safe_set, reporter=heard)
    moved = [p for name, p in random_model.denoiser.named_parameters() if ".attn2." in name]
    assert f"ascent: trains {sum(p.numel() for p in moved):,} weights in {len(moved)} tensors" in heard.lines


@pytest.mark.parametrize(
    ("how", "saving"),
    [
        (Full(steps=2, batch_size=2), Saving(ema=0.5)),
        (Lora(steps=2, batch_size=2), Saving(ema=0.5)),
        (Ascent(steps=2, batch_size=2), Saving(ema=0.5)),
        (Ascent(steps=2, batch_size=2, adapter_rank=2), Saving()),
        (Ascent(steps=2, batch_size=2, adapter_rank=2), Saving(ema=0.5)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_mean_and_no_merged_adapter_is_ever_not_finite(
    random_model: StableDiffusion,
    concept_set: LatentSet,
    safe_set: LatentSet,
    tmp_path: Path,
    how: Attack | Immunizer,
    saving: Saving,
    value: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoil(self: Updater, factor: float = 1.0, scale: Any = None) -> float:
        self.parameters[0].data.flatten()[0] = value
        return 1.0

    monkeypatch.setattr(Updater, "apply", spoil)
    kept = Checkpoints(tmp_path, {}, every=1)
    run: Any = how
    with pytest.raises(NonFiniteError, match="NaN or infinite values in"):
        run(random_model, concept_set, *([] if isinstance(how, Attack) else [safe_set]), checkpoints=kept, saving=saving)
    assert kept.latest() is None
    assert all(torch.isfinite(p).all() for p in random_model.denoiser.parameters())
