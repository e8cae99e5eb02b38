"""The terms of the upper level against computations of their own."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gift.errors import GiftError
from gift.immunizers.terms import LAYERS, Bound, Distance, Representations, bounded, mmd, project_away, sparing, total_norm
from gift.models.sd import StableDiffusion

few = settings(max_examples=60, deadline=None)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("bound", "loss", "value", "slope"),
    [
        ("identity", 3.0, 3.0, 1.0),
        ("identity", 0.5, 0.5, 1.0),
        ("log", 0.0, 0.0, 1.0),
        ("log", 3.0, math.log(4), 0.25),
        ("log", 1e6, math.log1p(1e6), 1e-6),
        ("hinge", 1.5, 1.5, 1.0),
        ("hinge", 2.5, 2.0, 0.0),
    ],
)
def test_bounds_and_their_gradients(bound: Bound, loss: float, value: float, slope: float) -> None:
    x = torch.tensor(loss, requires_grad=True)
    y = bounded(x, bound, 2.0)
    y.backward()
    assert y.item() == pytest.approx(value)
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(slope, rel=1e-4)


def slow_mmd(a: torch.Tensor, b: torch.Tensor) -> float:
    joined = [row.tolist() for row in torch.cat([a, b]).double()]

    def squared(x: list[float], y: list[float]) -> float:
        return sum((p - q) ** 2 for p, q in zip(x, y, strict=True))

    width = sum(squared(x, y) for x in joined for y in joined) / len(joined) ** 2

    def kernel(x: list[float], y: list[float]) -> float:
        return sum(math.exp(-squared(x, y) / (width * s)) for s in (0.25, 0.5, 1.0, 2.0, 4.0)) / 5

    def mean(left: list[list[float]], right: list[list[float]]) -> float:
        return sum(kernel(x, y) for x in left for y in right) / (len(left) * len(right))

    first, second = joined[: len(a)], joined[len(a) :]
    return mean(first, first) + mean(second, second) - 2 * mean(first, second)


@few
@given(n=st.integers(2, 9), m=st.integers(2, 9), width=st.integers(1, 5), shift=st.floats(0, 4), seed=st.integers(0, 99))
def test_mmd_is_the_double_sum(n: int, m: int, width: int, shift: float, seed: int) -> None:
    a, b = normal(n, width, seed=seed), normal(m, width, seed=seed + 1) + shift
    assert mmd(a, b).item() == pytest.approx(slow_mmd(a, b), abs=1e-4)
    assert mmd(a, b).item() == pytest.approx(mmd(b, a).item(), abs=1e-5)


def test_mmd_is_zero_for_equal_samples_and_grows_with_distance() -> None:
    a = normal(40, 6)
    assert mmd(a, a[torch.randperm(40)]).item() == pytest.approx(0, abs=1e-5)
    assert mmd(torch.ones(4, 2), torch.ones(4, 2)).item() == pytest.approx(0, abs=1e-6)
    far = [mmd(a, normal(40, 6, seed=1) + shift).item() for shift in (0.0, 0.5, 1.0, 3.0)]
    assert far == sorted(far)
    assert far[0] < 0.1 < far[-1]


@pytest.mark.parametrize("n", [10, 60])
def test_mmds_gradient_is_finite_and_draws_samples_together(n: int) -> None:
    a, b = (normal(n, 6, seed=1) + 2).requires_grad_(), normal(n, 6)
    a.data[1] = a.data[0]  # equal rows: the distance has no slope at zero
    for _ in range(5):
        value = mmd(a, b)
        (gradient,) = torch.autograd.grad(value, a)
        assert torch.isfinite(gradient).all()
        a.data -= 20 * gradient
        assert mmd(a, b) < value


def vectors(n: int) -> st.SearchStrategy[torch.Tensor]:
    sizes = st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
    return st.lists(sizes, min_size=n, max_size=n).map(torch.tensor)


@few
@given(vectors(4), vectors(4))
def test_projection_takes_out_what_would_raise_the_safe_loss_and_no_more(gradient: torch.Tensor, safe: torch.Tensor) -> None:
    before, kept = gradient.clone().view(2, 2), safe.clone().view(2, 2)
    result = before.clone()
    project_away(result, kept)
    scale = float(before.norm() * kept.norm())
    assert float((result * kept).sum()) >= -1e-5 * scale
    assert torch.equal(kept.flatten(), safe)
    if float((before * kept).sum()) >= 0:
        assert torch.equal(result, before)
    else:
        expected = before.double() - kept.double() * float((before.double() * kept.double()).sum() / kept.double().square().sum())
        torch.testing.assert_close(result.double(), expected, rtol=1e-4, atol=1e-4 * float(before.norm()))


def test_total_norm() -> None:
    parts = [normal(3, 4), normal(5, seed=1)]
    torch.testing.assert_close(total_norm(parts), torch.cat([p.flatten() for p in parts]).norm())


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 4, 1))


def rows_of(hidden: torch.Tensor) -> torch.Tensor:
    """(N, C, h, w) to (N h w, C), by hand."""
    n, c, h, w = hidden.shape
    return torch.stack([hidden[i, :, y, x] for i in range(n) for y in range(h) for x in range(w)]).view(n * h * w, c)


@pytest.mark.parametrize("layers", ["^0$", r"^[01]$"])
@pytest.mark.parametrize("distance", ["mse", "mmd"])
def test_the_distance_to_standard_noise_by_hand(layers: str, distance: Distance) -> None:
    net, x = two_layers(), normal(2, 2, 3, 3)
    watch = Representations(net, layers, "standard", distance)
    with watch.watching():
        net(x)
    value = watch.distance_to_noise(torch.Generator().manual_seed(6))
    generator, expected = torch.Generator().manual_seed(6), []
    for hidden in [net[0](x), net[1](net[0](x))][: len(watch.modules)]:
        rows = rows_of(hidden)
        noise = torch.randn(rows.shape, generator=generator)
        if distance == "mse":
            expected.append(((rows - noise) ** 2).mean())
        else:
            torch.randperm(len(rows), generator=generator)
            expected.append(torch.tensor(slow_mmd(rows, noise)))
    torch.testing.assert_close(value, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)
    value.backward()
    gradient = next(net.parameters()).grad
    assert gradient is not None
    assert gradient.any()


def test_matched_noise_has_the_layers_own_moments() -> None:
    net = two_layers()
    with torch.no_grad():
        list(net[0].parameters())[1].add_(torch.tensor([5.0, -3.0, 0.0]))
    watch = Representations(net, "^0$", "matched", "mse")
    seen: list[torch.Tensor] = []
    for seed in (1, 2, 3):
        x = normal(4, 2, 5, 5, seed=seed) * seed
        with watch.watching():
            net(x)
        value = watch.distance_to_noise(torch.Generator().manual_seed(seed))
        seen.append(rows_of(net[0](x).detach()))
        mean, deviation = seen[0].mean(0), seen[0].std(0)
        for rows in seen[1:]:
            mean, deviation = 0.9 * mean + 0.1 * rows.mean(0), 0.9 * deviation + 0.1 * rows.std(0)
        torch.testing.assert_close(watch.moments["0"], {"mean": mean, "deviation": deviation})
        noise = torch.randn(seen[-1].shape, generator=torch.Generator().manual_seed(seed)) * deviation + mean
        torch.testing.assert_close(value, ((seen[-1] - noise) ** 2).mean())


@pytest.mark.parametrize("layers", LAYERS)
def test_named_layers_of_the_denoiser_are_watched(random_model: StableDiffusion, layers: str) -> None:
    denoiser = random_model.denoiser
    watch = Representations(denoiser, layers, "standard", "mse", rows=8)
    cond = random_model.encode_prompts(["fox", "sea"])
    with watch.watching():
        assert sum(len(m._forward_hooks) for m in denoiser.modules()) == len(watch.modules) > 0
        random_model.predict(normal(2, 4, 8, 8), torch.tensor([3, 4]), cond)
    assert not any(m._forward_hooks for m in denoiser.modules())
    value = watch.distance_to_noise(torch.Generator().manual_seed(0))
    assert value.isfinite()
    value.backward()
    with pytest.raises(ZeroDivisionError), watch.watching():
        raise ZeroDivisionError
    assert not any(m._forward_hooks for m in denoiser.modules())


def test_layers_that_match_nothing_are_told(random_model: StableDiffusion) -> None:
    for layers, words in (("no-such-layer", "matches no layer"), ("(", "valid pattern")):
        with pytest.raises(GiftError, match=words):
            Representations(random_model.denoiser, layers, "standard", "mse")


@few
@given(st.lists(st.floats(0, 1e3), min_size=3, max_size=3), st.floats(0.1, 2))
def test_a_step_is_kept_off_what_the_safe_loss_needs(squares: list[float], power: float) -> None:
    first, second, unseen = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    safe = torch.optim.AdamW([first, second, unseen])
    safe.state[first]["exp_avg_sq"] = torch.tensor(squares[:2])
    safe.state[second]["exp_avg_sq"] = torch.tensor(squares[2:])
    scale = sparing([first, second, unseen], safe, power)
    found = torch.cat([scale(p) for p in (first, second, unseen)]).tolist()
    mean = max(sum(squares) / 4, 1e-30)
    plain = [(value / mean + 0.1) ** -power for value in (*squares, 0.0)]
    length = math.sqrt(sum(value**2 for value in plain) / 4)
    assert found == pytest.approx([value / length for value in plain], rel=1e-3)
    assert unseen not in safe.state
