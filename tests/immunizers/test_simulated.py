"""The simulated attacker leaves no trace but a gradient taken elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from gift.errors import NonFiniteError
from gift.immunizers.base import Task
from gift.immunizers.simulated import Attacker, Kind, SimulatedAttack
from gift.models.lora import detach_lora, has_lora
from gift.models.parameters import select_parameters
from gift.training.updates import Updater, check_loss
from tests.conftest import fixed_loss, same_state, state_of

kinds = pytest.mark.parametrize("kind", ["full", "lora"])
optimisers = pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd", "adafactor"])


def strong(steps: int, kind: Kind) -> Attacker:
    """An attack that moves the random model visibly."""
    return Attacker(steps=steps, kinds=(kind,), full_rates=(5e-3, 1e-2), lora_rates=(2e-2, 5e-2))


def take_off(task: Task) -> None:
    if has_lora(task.model):
        detach_lora(task.model)


def gradients(task: Task, attacker: Attacker, seed: int = 0, choice: str = "all") -> dict[str, torch.Tensor]:
    """What a method gets: the concept's gradient at the attacked weights."""
    attack = SimulatedAttack(attacker, task)
    weights = select_parameters(task.model.denoiser, choice)
    latents, cond = task.concept.at(torch.arange(4))
    for parameter in weights.values():
        parameter.grad = None
    with attack(weights, torch.Generator().manual_seed(seed)):
        task.model.loss(latents, cond, torch.Generator().manual_seed(9)).mean().backward()
        inside = {name: p.grad.clone() for name, p in weights.items() if p.grad is not None}
    assert inside.keys() == weights.keys()
    assert all(p.grad is not None and torch.equal(p.grad, inside[name]) for name, p in weights.items())
    assert all(p.requires_grad for p in weights.values())
    take_off(task)
    return {name.replace(".base_layer.", "."): g for name, g in inside.items()}


@kinds
@optimisers
@pytest.mark.parametrize("choice", ["all", "cross-attention"])
def test_weights_come_back_bit_for_bit_and_gradients_stay(task: Task, kind: Kind, optimiser: str, choice: str) -> None:
    before = state_of(task.model)
    names = [name for name, _ in task.model.denoiser.named_modules()]
    attacker = Attacker(steps=3, kinds=(kind,), optimisers=(optimiser,), batch_size=2, rank=2)  # type: ignore[arg-type]
    gradients(task, attacker, choice=choice)
    assert same_state(state_of(task.model), before)
    assert [name for name, _ in task.model.denoiser.named_modules()] == names


@kinds
def test_the_gradient_is_taken_at_the_attacked_weights(task: Task, kind: Kind) -> None:
    plain = gradients(task, Attacker(steps=0))
    attacked = gradients(task, strong(3, kind))
    assert plain.keys() == attacked.keys()
    assert not any(torch.allclose(plain[name], attacked[name], rtol=1e-3) for name in plain if plain[name].abs().max() > 1e-4)
    again = gradients(task, strong(3, kind))
    assert all(torch.equal(attacked[name], again[name]) for name in attacked)
    other = gradients(task, strong(3, kind), seed=1)
    assert not all(torch.equal(attacked[name], other[name]) for name in attacked)


@kinds
def test_the_concept_is_learned_inside_and_forgotten_outside(task: Task, kind: Kind) -> None:
    attack = SimulatedAttack(strong(40, kind), task)
    weights = select_parameters(task.model.denoiser, "all")
    before = fixed_loss(task.model, task.concept)
    generator = torch.Generator().manual_seed(3)  # draws a long attack
    with attack(weights, generator) as steps:
        assert steps > 20
        assert fixed_loss(task.model, task.concept) < 0.95 * before
    assert fixed_loss(task.model, task.concept) == before
    with attack(weights, generator):
        pass
    assert fixed_loss(task.model, task.concept) == before


def beside_a_broken_concept(task: Task, how: Attacker) -> tuple[SimulatedAttack, dict[str, torch.nn.Parameter]]:
    """An attack that breaks down where it sees the concept, and the weights."""
    broken = replace(task, concept=replace(task.concept, latents=task.concept.latents * float("nan")))
    return SimulatedAttack(how, broken), select_parameters(task.model.denoiser, "all")


@kinds
def test_harmless_draws_see_safe_pictures_alone(task: Task, kind: Kind) -> None:
    attack, weights = beside_a_broken_concept(task, strong(12, kind).model_copy(update={"harmless": 1.0}))
    before = fixed_loss(task.model, task.safe)
    for seed in range(3):
        with attack(weights, torch.Generator().manual_seed(seed)):
            assert fixed_loss(task.model, task.safe) < before
    assert fixed_loss(task.model, task.safe) == before


@kinds
def test_half_harmless_draws_are_of_both_sorts(task: Task, kind: Kind) -> None:
    attack, weights = beside_a_broken_concept(task, strong(1, kind).model_copy(update={"harmless": 0.5}))
    failed = 0
    for seed in range(20):
        try:
            with attack(weights, torch.Generator().manual_seed(seed)):
                pass
        except NonFiniteError:
            failed += 1
    assert 4 <= failed <= 16


@kinds
def test_an_error_inside_puts_the_weights_back(task: Task, kind: Kind) -> None:
    before, weights_before = state_of(task.model), fixed_loss(task.model, task.concept)
    attack = SimulatedAttack(strong(2, kind), task)
    weights = select_parameters(task.model.denoiser, "all")
    with pytest.raises(ZeroDivisionError), attack(weights, torch.Generator().manual_seed(0)):
        raise ZeroDivisionError
    assert fixed_loss(task.model, task.concept) == weights_before
    take_off(task)
    assert same_state(state_of(task.model), before)


@kinds
@pytest.mark.parametrize("when", ["its loss", "its step"])
def test_an_attacker_that_breaks_down_leaves_nothing_behind(
    task: Task, kind: Kind, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_of(task.model)
    attack = SimulatedAttack(strong(2, kind), task)
    weights = select_parameters(task.model.denoiser, "all")
    if when == "its loss":
        task = replace(task, concept=replace(task.concept, latents=task.concept.latents * float("nan")))
        attack.task = task
    else:

        def overflow(self: Updater, factor: float = 1.0) -> float:
            for parameter in self.parameters:
                parameter.data.fill_(float("inf"))
            return 1.0

        monkeypatch.setattr(Updater, "apply", overflow)
    with pytest.raises(NonFiniteError, match="lower the learning rate"), attack(weights, torch.Generator().manual_seed(0)):
        check_loss(task.model.mean_loss(*task.safe.batch(2, torch.Generator().manual_seed(1)), torch.Generator().manual_seed(2)))
    take_off(task)
    assert same_state(state_of(task.model), before)


def test_switched_off_it_does_nothing(task: Task) -> None:
    before, generator = state_of(task.model), torch.Generator().manual_seed(0)
    was = generator.get_state()
    attack = SimulatedAttack(Attacker(steps=0), task)
    with attack(select_parameters(task.model.denoiser, "all"), generator) as steps:
        assert steps == 0
        assert same_state(state_of(task.model), before)
    assert torch.equal(generator.get_state(), was)


def test_draws_cover_the_distribution(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    from gift.immunizers import simulated

    drawn: list[tuple[str, float, bool]] = []
    real = simulated.Updater

    def spy(parameters: list[torch.nn.Parameter], *, name: str, rate: float, accelerator: Accelerator) -> simulated.Updater:
        drawn.append((name, rate, any(p is q for p in parameters for q in attack.lora.values())))
        return real(parameters, name=name, rate=rate, accelerator=accelerator)  # type: ignore[arg-type]

    monkeypatch.setattr(simulated, "Updater", spy)
    how = Attacker(steps=2, full_rates=(1e-4, 1e-3), lora_rates=(1e-2, 1e-1), optimisers=("adamw", "sgd"), batch_size=1, rank=1)
    attack = SimulatedAttack(how, task)
    weights = select_parameters(task.model.denoiser, "cross-attention")
    steps = []
    for seed in range(30):
        with attack(weights, torch.Generator().manual_seed(seed)) as taken:
            steps.append(taken)
    assert set(steps) == {1, 2}
    assert {name for name, _, _ in drawn} == {"adamw", "sgd"}
    for is_lora, (low, high) in ((False, how.full_rates), (True, how.lora_rates)):
        rates = [rate for _, rate, adapter in drawn if adapter is is_lora]
        assert len(rates) > 5
        assert low <= min(rates) < (low * high) ** 0.5 < max(rates) <= high
