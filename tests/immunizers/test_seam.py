"""SEAM's step against a computation of its own, with second derivatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gift.errors import GiftError
from gift.immunizers import Seam, Task
from gift.immunizers.seam import SeamRun, restored, slope
from gift.immunizers.terms import Bound, bounded
from tests.conftest import same_state, state_of

PLAIN: dict[str, Any] = {"batch_size": 3, "safe_factor": 1, "empty_share": 0.0, "varied_share": 0.0, "varied_concept": 0.0}


@pytest.mark.parametrize("coupling", [0.0, 0.5, 20.0])
@pytest.mark.parametrize("bound", ["identity", "log"])
def test_the_step_is_along_the_formulas_gradient(
    task: Task, monkeypatch: pytest.MonkeyPatch, bound: Bound, coupling: float
) -> None:
    how = Seam(**PLAIN, coupling=coupling, ascent_weight=0.7, bound=bound)
    before = state_of(task.model)
    run = how.begin(task)
    assert isinstance(run, SeamRun)
    monkeypatch.setattr(run.updaters["seam"], "apply", lambda: None)  # gradients stay on the weights
    log = run.step(0, torch.Generator().manual_seed(4))
    assert same_state(state_of(task.model), before)  # moved and put back, bit for bit
    weights = list(run.weights.values())
    draws = torch.Generator().manual_seed(4)
    with sdpa_kernel(SDPBackend.MATH):
        safe = task.model.loss(*task.safe.batch(3, draws), draws).mean()
        concept = task.model.loss(*task.concept.batch(3, draws), draws).mean()
        g_s, g_h = (
            torch.cat([g.flatten() for g in torch.autograd.grad(x, weights, create_graph=True, materialize_grads=True)])
            for x in (safe, concept)
        )
        cosine = torch.nn.functional.cosine_similarity(g_s, g_h, dim=0)
        loss = safe - 0.7 * (torch.log1p(concept) if bound == "log" else concept) + coupling * cosine
        expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, materialize_grads=True)])
    found = torch.cat([p.grad.flatten() for p in weights if p.grad is not None])
    assert log["cosine"] == pytest.approx(float(cosine.detach()), abs=1e-5)
    assert (found - expected).norm() < 5e-3 * expected.norm()


def test_the_cosine_falls(task: Task) -> None:
    how = Seam(**PLAIN, coupling=5.0, ascent_weight=0.0, rate=1e-3)
    run = how.begin(task)
    logs = [run.step(0, torch.Generator().manual_seed(4)) for _ in range(12)]  # one and the same draw
    assert logs[-1]["cosine"] < logs[0]["cosine"] - 0.2


@pytest.mark.parametrize("bound", ["identity", "log", "hinge"])
@pytest.mark.parametrize("at", [0.3, 5.0])
def test_the_slope_is_the_bounds_derivative(bound: Bound, at: float) -> None:
    step = 1e-6
    value = torch.tensor(at, dtype=torch.float64)
    expected = (bounded(value + step, bound, 2.0) - bounded(value - step, bound, 2.0)) / (2 * step)
    assert float(slope(value, bound, 2.0)) == pytest.approx(float(expected), abs=1e-6)


def test_restored_draws_again() -> None:
    generator = torch.Generator().manual_seed(1)
    torch.randn(3, generator=generator)
    state = generator.get_state()
    assert torch.equal(torch.randn(5, generator=generator), torch.randn(5, generator=restored(state)))


def test_half_precision_is_refused(task: Task) -> None:
    task.model.compute = torch.bfloat16
    with pytest.raises(GiftError, match="half precision rounds to the same; use the precision fp32"):
        Seam().begin(task)
