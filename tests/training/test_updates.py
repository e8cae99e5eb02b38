"""One optimiser and its guards: NaN never reaches the weights, and a state that was saved goes on bit for bit (15, 17, 22)."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import get_args

import pytest
import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gift.errors import GiftError, NonFiniteError
from gift.training.checkpoint import flatten, unflatten
from gift.training.updates import (
    LARGEST_RATE,
    OptimiserName,
    ScheduleName,
    Updater,
    check_loss,
    make_optimiser,
    parts,
    scheduled,
)

EIGHT_BITS = find_spec("bitsandbytes") is not None
OPTIMISERS = [name for name in get_args(OptimiserName) if name != "adamw8bit" or EIGHT_BITS]
BAD = [float("nan"), float("inf"), -float("inf")]


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 4), (5,))]


def loss_of(parameters: list[nn.Parameter], step: int = 0) -> torch.Tensor:
    return torch.stack([(p - step).square().mean() + p.sin().sum() for p in parameters]).sum()


def bits(parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    return [p.detach().clone() for p in parameters]


@pytest.mark.parametrize(
    ("name", "step", "steps", "warmup", "factor"),
    [
        ("constant", 0, 10, 0, 1.0),
        ("constant", 9, 10, 0, 1.0),
        ("constant", 0, 10, 4, 0.25),
        ("constant", 3, 10, 4, 1.0),
        ("linear", 0, 10, 0, 1.0),
        ("linear", 5, 10, 0, 0.5),
        ("linear", 9, 10, 0, 0.1),
        ("linear", 4, 10, 4, 1.0),
        ("linear", 7, 10, 4, 0.5),
        ("cosine", 0, 10, 0, 1.0),
        ("cosine", 5, 10, 0, 0.5),
        ("cosine", 9, 10, 0, 0.5 * (1 + math.cos(0.9 * math.pi))),
        ("cosine", 1, 2, 9, 2 / 9),
    ],
)
def test_schedules(name: ScheduleName, step: int, steps: int, warmup: int, factor: float) -> None:
    assert scheduled(name, step, steps, warmup) == pytest.approx(factor, abs=1e-6)


@given(st.sampled_from(get_args(ScheduleName)), st.integers(1, 200), st.integers(0, 250))
def test_schedules_rise_to_the_rate_and_never_rise_again(name: ScheduleName, steps: int, warmup: int) -> None:
    factors = [scheduled(name, step, steps, warmup) for step in range(steps)]
    assert all(0 <= f <= 1 for f in factors)
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)


@pytest.mark.parametrize(("name", "theirs"), [("constant", "constant_with_warmup"), ("linear", "linear"), ("cosine", "cosine")])
@pytest.mark.parametrize(("steps", "warmup"), [(20, 0), (20, 5), (150, 30)])
def test_schedules_are_those_of_diffusers_trainers(name: ScheduleName, theirs: str, steps: int, warmup: int) -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(theirs, optimiser, num_warmup_steps=warmup, num_training_steps=steps)
    for step in range(steps):
        expected = scheduler.get_last_lr()[0]
        ours = scheduled(name, step, steps, warmup)
        # theirs begins a warm-up with a step at rate zero, ours a step further on
        assert ours == pytest.approx(expected + 1 / warmup if step < warmup else expected, abs=1e-6)
        optimiser.step()
        scheduler.step()


def test_adafactor_moves_a_factor_that_starts_at_zero_by_the_rate() -> None:
    zero, small = (nn.Parameter(torch.full((6, 4), value)) for value in (0.0, 0.02))
    optimiser = make_optimiser("adafactor", [zero, small], 0.01, 0.0)
    signs = torch.tensor([1.0, -1.0]).repeat(12).view(6, 4)
    for parameter in (zero, small):
        parameter.grad = 0.3 * signs
    optimiser.step()  # all gradients alike but for the sign: each entry moves by the rate, clipped at a root mean square of 1
    torch.testing.assert_close(zero.detach(), -0.01 * signs)
    torch.testing.assert_close(small.detach(), 0.02 - 0.01 * signs)


def test_adafactor_learns_a_low_rank_product() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, x = (torch.randn(shape, generator=generator) for shape in ((4, 16), (12, 4), (64, 16)))
    before = (x @ a.T @ b.T).square().mean().item()

    def left(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> float:
        down = nn.Parameter(torch.randn(4, 16, generator=torch.Generator().manual_seed(1)) / 4)
        up = nn.Parameter(torch.zeros(12, 4))
        optimiser = make([down, up])
        for _ in range(200):
            optimiser.zero_grad()
            (x @ down.T @ up.T - x @ a.T @ b.T).square().mean().backward()
            optimiser.step()
        return (x @ down.T @ up.T - x @ a.T @ b.T).square().mean().item() / before

    assert left(lambda p: make_optimiser("adafactor", p, 0.02, 0.0)) < 0.01
    assert left(lambda p: torch.optim.Adafactor(p, lr=0.02)) > 0.5  # PyTorch's own scale


def test_eight_bit_adam_without_its_library_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.delitem(sys.modules, "bitsandbytes.optim", raising=False)
    with pytest.raises(GiftError, match="pip install 'gift-diffusion"):
        make_optimiser("adamw8bit", weights(), 0.1, 0.0)


@pytest.mark.skipif(not EIGHT_BITS, reason="bitsandbytes is not installed")
def test_eight_bit_adam_descends(accelerator: Accelerator) -> None:
    weight = nn.Parameter(torch.full((64, 128), 2.0))  # smaller tensors keep states of 32 bits
    updater = Updater([weight], name="adamw8bit", rate=0.1, accelerator=accelerator)
    losses = [weight.square().mean().item() for _ in range(10) if updater.descend(weight.square().mean())]
    assert losses == sorted(losses, reverse=True)
    assert any(x.dtype == torch.uint8 for x in updater.optimiser.state[weight].values() if isinstance(x, torch.Tensor))


def test_a_gradient_spoilt_after_the_scaler_saw_it_is_left_out_too() -> None:
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    parameters = weights()
    updater = Updater(parameters, rate=0.1, accelerator=accelerator)
    before = bits(parameters)
    for scale in (4.0, 2.0, 1.0):
        updater.gradients(loss_of(parameters))
        parameters[0].grad = torch.full_like(parameters[0], math.nan)
        assert math.isnan(updater.apply())
        assert accelerator.scaler.get_scale() == scale
        assert all(torch.equal(p, old) for p, old in zip(parameters, before, strict=True))
    updater.descend(loss_of(parameters))
    assert not any(torch.equal(p, old) for p, old in zip(parameters, before, strict=True))
    updater.gradients(loss_of(parameters))
    parameters[0].grad = torch.full_like(parameters[0], math.nan)
    with pytest.raises(NonFiniteError, match="use bf16 or fp32"):
        updater.apply()


@pytest.mark.parametrize("rate", [1e31, float("inf"), float("nan"), -1.0])
def test_a_rate_beyond_fp32_is_refused(accelerator: Accelerator, rate: float) -> None:
    with pytest.raises(GiftError, match=r"a learning rate of .* can't be used"):
        Updater(weights(), rate=rate, accelerator=accelerator)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_largest_rate_does_not_overflow_inside_an_optimiser(accelerator: Accelerator, name: OptimiserName) -> None:
    parameters = weights()
    Updater(parameters, name=name, rate=LARGEST_RATE, decay=1.0, accelerator=accelerator).descend(loss_of(parameters))


def test_it_is_plain_adamw_with_clipping(accelerator: Accelerator) -> None:
    ours, plain = weights(), weights()
    updater = Updater(ours, rate=0.1, decay=0.01, clip=0.5, accelerator=accelerator)
    optimiser = torch.optim.AdamW(plain, lr=0.1, weight_decay=0.01, fused=True)  # its other kernels round differently on some CPUs
    for step in range(4):
        norm = updater.descend(loss_of(ours, step), 1 - step / 4)
        optimiser.zero_grad()
        loss_of(plain, step).backward()
        assert norm == pytest.approx(float(torch.cat([p.grad.flatten() for p in plain if p.grad is not None]).norm()))
        nn.utils.clip_grad_norm_(plain, 0.5)
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 4)
        optimiser.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


@pytest.mark.parametrize(("clip", "moved"), [(None, 3.0), (10.0, 3.0), (0.5, 0.5)])
def test_clipping_bounds_the_step(accelerator: Accelerator, clip: float | None, moved: float) -> None:
    weight = nn.Parameter(torch.zeros(1))
    updater = Updater([weight], name="sgd", rate=1.0, clip=clip, accelerator=accelerator)
    assert updater.descend(3 * weight.sum()) == pytest.approx(3.0)
    assert weight.item() == pytest.approx(-moved, rel=1e-4)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_state_goes_on_bit_for_bit(accelerator: Accelerator, name: OptimiserName) -> None:
    def fresh(parameters: list[nn.Parameter]) -> Updater:
        return Updater(parameters, name=name, rate=0.05, decay=0.01, accelerator=accelerator)

    whole, parts = weights(), weights()
    updater = fresh(whole)
    for step in range(6):
        updater.descend(loss_of(whole, step))
    first = fresh(parts)
    for step in range(3):
        first.descend(loss_of(parts, step))
    tensors: dict[str, torch.Tensor] = {}
    layout = json.loads(json.dumps(flatten(first.state(), tensors)))
    copied = {key: tensor.clone() for key, tensor in tensors.items()}
    again = [nn.Parameter(p.detach().clone()) for p in parts]
    second = fresh(again)
    second.load_state(unflatten(layout, copied))
    for step in range(3, 6):
        second.descend(loss_of(again, step))
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_never_reaches_the_weights(accelerator: Accelerator, bad: float, where: str) -> None:
    parameters = weights()
    updater = Updater(parameters, rate=0.1, accelerator=accelerator)
    updater.descend(loss_of(parameters))
    before, state = bits(parameters), json.dumps(flatten(updater.state(), {}))
    loss = loss_of(parameters)
    if where == "loss":
        loss = loss * bad
    else:
        loss.register_hook(lambda gradient: gradient * bad)  # a finite loss with a broken gradient
    with pytest.raises(NonFiniteError, match=f"the {where} is .*lower the learning rate") as caught:
        updater.descend(loss)
    assert caught.value.exit_code == 3
    assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))
    assert json.dumps(flatten(updater.state(), {})) == state
    updater.descend(loss_of(parameters))  # a whole step still works
    assert all(torch.isfinite(p).all() for p in parameters)


@pytest.mark.parametrize("bad", BAD)
def test_one_bad_sample_is_enough(bad: float) -> None:
    check_loss(torch.zeros(3))
    with pytest.raises(NonFiniteError, match="this is"):
        check_loss(torch.tensor([1.0, bad, 2.0]), "this")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_refused(accelerator: Accelerator, dtype: torch.dtype) -> None:
    with pytest.raises(GiftError, match="hold the model in fp32"):
        Updater([*weights(), nn.Parameter(torch.zeros(2, dtype=dtype))], rate=0.1, accelerator=accelerator)


def test_nothing_to_train_is_refused(accelerator: Accelerator) -> None:
    with pytest.raises(GiftError, match="nothing to train"):
        Updater([], rate=0.1, accelerator=accelerator)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_scaled_step_is_the_plain_one_times_its_factors(accelerator: Accelerator, name: OptimiserName) -> None:
    plain, scaled = weights(), weights()
    before = [p.detach().clone() for p in plain]
    factors = [torch.linspace(0, 2, p.numel()).reshape(p.shape) for p in plain]
    one, other = (Updater(parameters, name=name, rate=1e-2, accelerator=accelerator) for parameters in (plain, scaled))
    one.descend(loss_of(plain))
    other.gradients(loss_of(scaled))
    by_weight = {id(p): factor for p, factor in zip(scaled, factors, strict=True)}
    other.apply(scale=lambda p: by_weight[id(p)])
    for old, p, q, factor in zip(before, plain, scaled, factors, strict=True):
        torch.testing.assert_close(q.detach() - old, (p.detach() - old) * factor, rtol=1e-3, atol=1e-6)


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 12))
def test_parts_are_in_order_and_no_larger_than_asked_but_for_single_weights(sizes: list[int], most: int) -> None:
    moving = [(nn.Parameter(torch.zeros(size)), i) for i, size in enumerate(sizes)]
    found = list(parts(moving, most))
    assert [i for part in found for _, i in part] == list(range(len(sizes)))
    held = [sum(p.numel() for p, _ in part) for part in found]
    assert all(size <= most or len(part) == 1 for size, part in zip(held, found, strict=True))
    assert all(size + part[0][0].numel() > most for size, part in zip(held, found[1:], strict=False))  # none could have been larger
