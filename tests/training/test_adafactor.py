"""Adafactor against PyTorch's own, which it takes over from and hands over to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from gift.training.adafactor import Adafactor

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
SHAPES = st.lists(st.lists(st.integers(1, 9), max_size=4).map(tuple), min_size=1, max_size=3)


def theirs(rate: float, decay: float) -> Make:
    return lambda weights: torch.optim.Adafactor(weights, lr=rate, weight_decay=decay, eps=(None, 1.0))


def ours(rate: float, decay: float) -> Make:
    return lambda weights: Adafactor(weights, rate, decay)


def trained(make: Make, shapes: list[tuple[int, ...]], size: float, *, then: Make | None = None) -> list[nn.Parameter]:
    """Weights after six steps on random gradients, of which some are missing or zero; the last three by `then`, if given."""
    generator = torch.Generator().manual_seed(len(shapes))
    weights = [nn.Parameter(size * torch.randn(shape, generator=generator)) for shape in shapes]
    optimiser = make(weights)
    for step in range(6):
        if step == 3 and then is not None:
            kept = optimiser.state_dict()
            optimiser = then(weights)
            own, old = optimiser.state_dict()["param_groups"], kept["param_groups"]
            groups = [{**new, "params": group["params"]} for new, group in zip(own, old, strict=True)]
            optimiser.load_state_dict({"state": kept["state"], "param_groups": groups})
        for i, weight in enumerate(weights):
            drawn = 10.0 ** (step - 3) * torch.randn(weight.shape, generator=generator)
            weight.grad = None if i == 1 and step % 2 else drawn * (step != 4)
        optimiser.step()
    return weights


@given(SHAPES, st.sampled_from([1e-4, 0.3, 2.0]), st.sampled_from([0.0, 0.1]), st.sampled_from([0.0, 0.02, 30.0]))
@example([(2, 9), (2, 2, 8, 9), (6, 7, 3, 2)], 0.3, 0.1, 30.0)
def test_it_is_pytorchs(shapes: list[tuple[int, ...]], rate: float, decay: float, size: float) -> None:
    """To rounding, of which a part grows with a step: that is as long as the rate times the weights' root mean square."""
    for mine, reference in zip(trained(ours(rate, decay), shapes, size), trained(theirs(rate, decay), shapes, size), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=rate * (1e-5 + 1e-6 * size))


@pytest.mark.parametrize(("first", "second"), [(ours, theirs), (theirs, ours)])
def test_its_state_is_pytorchs(first: Callable[[float, float], Make], second: Callable[[float, float], Make]) -> None:
    shapes = [(8, 4, 3, 3), (5,), (6, 7)]
    changed = trained(first(0.01, 0.1), shapes, 0.1, then=second(0.01, 0.1))
    for mine, reference in zip(changed, trained(theirs(0.01, 0.1), shapes, 0.1), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-6)


def test_a_closure_is_run_with_gradients_and_its_value_given_back() -> None:
    weight = nn.Parameter(torch.ones(3, 2))

    def closure() -> torch.Tensor:
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert Adafactor([weight], 0.1).step(closure).item() == 6.0
    assert (weight < 1).all()
