"""Steps in proportion to weights: what a rescaling does not change, against plain steps, which it slows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gift.attacks import Attack, Full, Relative, relative
from gift.attacks.relative import FLOOR, size_of
from gift.data.latents import LatentSet
from gift.immunizers import Rescaled
from gift.models import DenoisingModel, load
from gift.models.sd import StableDiffusion


@given(seed=st.integers(0, 999), rows=st.integers(2, 6), columns=st.integers(2, 6), kernel=st.sampled_from([(), (3, 3)]))
@settings(max_examples=30, deadline=None)
def test_sizes_take_up_every_rescaling_of_rows_and_columns(seed: int, rows: int, columns: int, kernel: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(rows, columns, *kernel, generator=generator) + 0.5
    more, and_more = (torch.exp(torch.randn(n, generator=generator)) for n in (rows, columns))
    factor = more[:, None] * and_more
    size = size_of(weight)
    torch.testing.assert_close(
        size_of(weight * factor.view(*factor.shape, *[1] * len(kernel))).view(rows, columns), size.view(rows, columns) * factor
    )
    balanced = (weight / size).square()
    ones = [d for d in range(weight.ndim) if d != 0], [d for d in range(weight.ndim) if d != 1]
    for over in ones:
        mean = balanced.mean(over)
        torch.testing.assert_close(mean, torch.ones_like(mean), rtol=1e-3, atol=0)


def test_what_is_zero_has_a_size() -> None:
    assert float(size_of(torch.zeros(7))) == pytest.approx(FLOOR)
    assert size_of(torch.zeros(2, 3)).unique().tolist() == pytest.approx([FLOOR])
    assert float(size_of(torch.full((4,), -2.0))) == 2.0


def test_rounds_and_rate_are_as_their_texts_say(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [p.detach() for p in load("tiny").denoiser.parameters()]
    rms = (sum(float(w.square().sum()) for w in weights) / sum(w.numel() for w in weights)) ** 0.5
    assert rms == pytest.approx(0.14, abs=0.005)
    assert Relative().rate == pytest.approx(Full().rate / rms, rel=0.05)
    few = [size_of(w) for w in weights]
    monkeypatch.setattr(relative, "ROUNDS", 200)
    assert max(float((a / size_of(w) - 1).abs().max()) for a, w in zip(few, weights, strict=True)) < 1e-6


def losses(how: Attack, model: DenoisingModel, data: LatentSet) -> list[float]:
    return [log["loss"] for log in how(model, data).logs]


def test_a_rescaling_slows_plain_steps_and_not_relative_ones(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    rescaled = Rescaled(factor=20.0)(random_model, concept_set, concept_set)
    plain = [losses(Full(steps=60, rate=2e-3), model, concept_set) for model in (random_model, rescaled)]
    relative = [losses(Relative(steps=60, rate=1e-2), model, concept_set) for model in (random_model, rescaled)]
    assert relative[1] == pytest.approx(relative[0], rel=0.03)
    gains = [run[0] - sum(run[-10:]) / 10 for run in plain + relative]
    assert gains[0] > 0.1
    assert gains[2] > 0.1
    assert gains[1] < 0.8 * gains[0]


def test_steps_are_in_proportion_to_rows_and_columns(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    out = Relative(steps=1, rate=1e-3)(random_model, concept_set).model.denoiser
    seen = 0
    for (name, old), new in zip(random_model.denoiser.named_parameters(), out.parameters(), strict=True):
        moved = (new - old).detach().abs() / size_of(old.detach())
        assert isinstance(old, nn.Parameter)
        if name.endswith("conv1.weight"):  # Adam's first step is its rate wherever there is a gradient
            assert float(moved.median()) == pytest.approx(1e-3, rel=1e-2)
            seen += 1
    assert seen
