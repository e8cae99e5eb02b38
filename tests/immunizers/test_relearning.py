"""What MIMA, ResAlign and meta-unlearning compute, against a computation of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from gift.data.latents import join_sets
from gift.errors import GiftError
from gift.immunizers import Attacker, Immunizer, MetaUnlearning, Mima, ResAlign
from gift.immunizers.base import Task
from gift.immunizers.meta_unlearning import by_relation
from gift.immunizers.mima import RIDGE, MimaRun
from gift.immunizers.resalign import ResAlignRun, through_envelope
from gift.models.parameters import select_parameters
from gift.models.sd import StableDiffusion
from gift.training.loop import step_generator
from tests.conftest import State, picture_set, state_of

STILL = Attacker(steps=0)


def by_hand(
    model: StableDiffusion, how: Any, decay: float, loss: Callable[[StableDiffusion, torch.Generator], torch.Tensor]
) -> Any:
    """The denoiser's weights after two steps of AdamW on a loss, gradients clipped to 1."""
    weights = list(select_parameters(model.denoiser, getattr(how, "train", "all")).values())
    optimiser = torch.optim.AdamW(weights, lr=how.rate, weight_decay=decay)
    for index in range(2):
        optimiser.zero_grad()
        loss(model, step_generator(0, index)).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
    return state_of(model)


def after_two_steps(how: Immunizer, task: Task) -> State:
    method = how.begin(task)
    for index in range(2):
        method.step(index, step_generator(0, index))
    return state_of(task.model)


def same(a: State, b: State) -> None:
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-4, atol=2e-6)


def shifting(deltas: dict[str, torch.Tensor]) -> Callable[..., AbstractContextManager[int]]:
    """An 'adaptation' that is known."""

    @contextmanager
    def adapt(weights: dict[str, nn.Parameter], generator: torch.Generator) -> Iterator[int]:
        before = {name: p.detach().clone() for name, p in weights.items()}
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.add_(deltas[name])
        yield 1
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.copy_(before[name])

    return adapt


def test_mimas_merge_is_the_least_squares_of_its_concepts(task: Task) -> None:
    others = picture_set(task.model, 4, "a tall tree", 3)
    task = replace(task, concept=join_sets([task.concept, others], [3.0, 1.0]))
    how = Mima(stay=0.7, batch_size=3)
    method = how.begin(task)
    assert isinstance(method, MimaRun)
    shares = [share for share, _ in method.concepts]
    assert shares == pytest.approx([0.75, 0.25])
    generator = torch.Generator().manual_seed(0)
    deltas = [{n: torch.randn(p.shape, generator=generator) for n, p in method.adapted.items()} for _ in range(2)]
    method.adaptations = [shifting(each) for each in deltas]  # type: ignore[misc]
    change = method.merged(generator)
    assert change.keys() == {n for n, _ in task.model.denoiser.named_parameters() if "attn2.to_k" in n or "attn2.to_v" in n}

    def tokens(prompts: list[str]) -> torch.Tensor:
        """Every prompt's tokens, so that the mean over prompts is a sum of squares."""
        return task.model.encode_prompts(prompts)["states"].double().flatten(0, 1) / len(prompts) ** 0.5

    rows = [tokens(["fox", "a fox"]), tokens(["a tall tree", "a a tall tree"]), 0.7**0.5 * tokens(["sea", "a sea"])]
    name = min(change)
    wanted = [row @ delta[name].double().T for row, delta in zip(rows[:2], deltas, strict=True)]
    matrix, goal = torch.cat(rows), torch.cat([*wanted, torch.zeros(len(rows[2]), len(change[name])).double()])
    small = (RIDGE * matrix.square().sum(0).mean()).sqrt() * torch.eye(matrix.shape[1]).double()
    goal = torch.cat([goal, torch.zeros(len(small), goal.shape[1]).double()])
    best = torch.linalg.lstsq(torch.cat([matrix, small]), goal, driver="gelsd").solution.T
    assert best.any()
    torch.testing.assert_close(change[name].double(), best, rtol=1e-3, atol=1e-4)


def test_mima_steps_at_the_merged_weights_and_comes_back(task: Task) -> None:
    method = Mima(adapt_steps=2).begin(task)
    assert isinstance(method, MimaRun)
    before = state_of(task.model)
    change = method.merged(torch.Generator().manual_seed(0))
    assert all(delta.any() for delta in change.values())
    assert all(torch.equal(a, b) for a, b in zip(state_of(task.model).values(), before.values(), strict=True))
    with method.added(change):
        inside = state_of(task.model)
        for name, delta in change.items():
            torch.testing.assert_close(inside[name], before[name] + delta)
    assert all(torch.equal(a, b) for a, b in zip(state_of(task.model).values(), before.values(), strict=True))


def test_mima_without_adaptation_is_weighed_ascent_with_a_prior(random_model: StableDiffusion, task: Task) -> None:
    how = Mima(adapt_steps=0, rate=1e-3, prior_weight=0.3, batch_size=2)

    def loss(model: StableDiffusion, generator: torch.Generator) -> torch.Tensor:
        concept = model.loss(*task.concept.batch(2, generator), generator).mean()
        return 0.3 * model.loss(*task.safe.batch(2, generator), generator).mean() - concept

    same(after_two_steps(how, task), by_hand(random_model.copy(), how, 1e-2, loss))


def envelope(g: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """The fixed point's answer after many terms, of a vector in two parts."""

    def product(parts: list[torch.Tensor]) -> list[torch.Tensor]:
        return list((hessian @ torch.cat(parts)).split(2))

    return torch.cat(through_envelope(list(g.split(2)), product, 300))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), values=st.lists(st.floats(-0.5, 0.9), min_size=4, max_size=4))
@example(seed=1, values=[0.0, 0.5, 1.4, 2.5])  # the plain sum would run away
@example(seed=2, values=[-0.5, 1.0, 3.0, 6.0])
def test_the_fixed_point_solves_the_envelopes_equation(seed: int, values: list[float]) -> None:
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    hessian = basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T
    g = torch.randn(4, generator=generator, dtype=torch.float64)
    exact = torch.linalg.solve(torch.eye(4, dtype=torch.float64) + hessian, g)
    torch.testing.assert_close(envelope(g, hessian), exact, rtol=1e-3, atol=1e-6)


def test_a_fixed_point_that_runs_away_is_left_out() -> None:
    g = [torch.ones(3)]
    assert not through_envelope(g, lambda parts: [-5 * parts[0]], 5)[0].any()
    assert torch.equal(through_envelope(g, lambda parts: [-5 * parts[0]], 1)[0], g[0])


def test_resaligns_products_are_with_the_hessian_of_the_fine_tuning(task: Task) -> None:
    method = ResAlign(iterations=2, attacker=STILL, batch_size=4, tuned_on="safe").begin(task)
    assert isinstance(method, ResAlignRun)
    weights = list(method.weights.values())

    def gradient() -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(6)
        loss = task.model.loss(*task.safe.batch(4, generator), generator).mean()
        return [g.clone() for g in torch.autograd.grad(loss, weights, materialize_grads=True)]

    g = gradient()
    length = float(torch.stack([x.square().sum() for x in g]).sum().sqrt())
    found, ends, reach = method.through(g, torch.Generator().manual_seed(6)), [], 1e-2 / length
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, x in zip(weights, g, strict=True):
                parameter.add_(x, alpha=sign * reach)
        ends.append(gradient())
        with torch.no_grad():
            for parameter, x in zip(weights, g, strict=True):
                parameter.sub_(x, alpha=sign * reach)
    product = [(a - b) / (2 * reach) for a, b in zip(*ends, strict=True)]
    one, other, image = (torch.cat([x.flatten() for x in xs]) for xs in (found, g, product))
    # one term more than g itself: s (g + (1 - s) g - s H g), s the first of 1, 1/2, 1/4, ... at which that is no longer than g
    size = next(s for s in (0.5**k for k in range(6)) if ((1 - s) * other - s * image).norm() <= other.norm())
    expected = size * (other + (1 - size) * other - size * image)
    assert (one - expected).norm() < 0.02 * expected.norm()
    assert (size * (2 - size) * other - expected).norm() > 0.05 * expected.norm()  # the Hessian matters here


def test_resalign_without_resilience_is_bounded_ascent(random_model: StableDiffusion, task: Task) -> None:
    how = ResAlign(resilience=0.0, retain=0.0, rate=1e-3, attacker=STILL, batch_size=2, iterations=1)

    def loss(model: StableDiffusion, generator: torch.Generator) -> torch.Tensor:
        latents, _ = task.safe.batch(2, generator)
        model.noised(latents, generator)
        return -torch.log1p(model.loss(*task.concept.batch(2, generator), generator).mean())

    same(after_two_steps(how, task), by_hand(random_model.copy(), how, 1e-2, loss))


def test_resalign_says_what_it_can_not_differentiate(task: Task) -> None:
    task.model.micro_batches = 2
    with pytest.raises(GiftError, match="differentiates twice; leave accumulate"):
        ResAlign().begin(task)


def test_meta_unlearning_takes_the_gradient_of_its_formula(random_model: StableDiffusion, task: Task) -> None:
    weights: dict[str, Any] = {
        "keep_unrelated": 0.2,
        "keep_related": 0.3,
        "resist": 0.5,
        "break_related": 0.4,
        "break_unrelated": 0.6,
    }
    how = MetaUnlearning(rate=1e-3, erase=0.0, attacker=STILL, batch_size=2, related=0.5, **weights)
    near, far = by_relation(task.concept, task.safe, 0.5)

    def loss(model: StableDiffusion, generator: torch.Generator) -> torch.Tensor:
        order = [(task.concept, -0.5), (near, -0.4), (far, -0.6), (far, 0.2), (near, 0.3)]
        return torch.stack([w * model.loss(*data.batch(2, generator), generator).mean() for data, w in order]).sum()

    same(after_two_steps(how, task), by_hand(random_model.copy(), how, 1e-4, loss))


def test_meta_unlearnings_gradient_is_taken_after_fine_tuning(task: Task) -> None:
    strong = Attacker(steps=3, kinds=("full",), full_rates=(5e-3, 1e-2))
    some: dict[str, Any] = {"erase": 0.0, "keep_unrelated": 0.0, "keep_related": 0.0, "batch_size": 4}
    (log,) = ([how.begin(task).step(0, step_generator(0, 0))] for how in [MetaUnlearning(attacker=strong, **some)])
    with torch.no_grad():
        generator = step_generator(0, 0)
        alone = float(task.model.loss(*task.concept.batch(4, generator), generator).mean())
    assert log[0]["concept"] != pytest.approx(alone, rel=1e-3)


def test_related_pictures_are_those_with_the_nearest_prompts(task: Task) -> None:
    words = ["a red fox", "the sea", "a green tree", "fox"]
    safe = join_sets([picture_set(task.model, 2, word, number) for number, word in enumerate(words)])
    near, far = by_relation(task.concept, safe, 0.25)
    assert (len(near), len(far)) == (2, 6)
    assert set(near.prompts) <= {"fox", "a fox", "a red fox"}
    both = torch.cat([near.latents, far.latents])
    assert sorted(both.flatten(1).sum(1).tolist()) == pytest.approx(sorted(safe.latents.flatten(1).sum(1).tolist()))
    one = safe.only(torch.tensor([3]))
    assert [len(part) for part in by_relation(task.concept, one, 0.25)] == [1, 1]
