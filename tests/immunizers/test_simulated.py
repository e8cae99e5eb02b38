"""The simulated attacker leaves no trace but a gradient taken elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from pydantic import ValidationError

from gift.data.latents import LatentSet
from gift.errors import NonFiniteError
from gift.immunizers import Gift, Immunizer, MetaUnlearning, ResAlign
from gift.immunizers.base import Task
from gift.immunizers.simulated import Attacker, Kind, SimulatedAttack, put_back
from gift.models.base import Cond
from gift.models.lora import detach_lora, has_lora
from gift.models.parameters import select_parameters
from gift.training.loop import step_generator
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


class Kept:
    """A set that keeps how many pictures each batch took of it."""

    def __init__(self, kept: LatentSet) -> None:
        self.kept, self.sizes = kept, list[int]()

    def batch(self, size: int, *rest: Any) -> tuple[torch.Tensor, Cond]:
        self.sizes.append(size)
        return self.kept.batch(size, *rest)


@kinds
def test_a_share_of_each_batch_is_the_concepts_and_the_rest_safe(task: Task, kind: Kind) -> None:
    concept, safe = Kept(task.concept), Kept(task.safe)
    how = strong(1, kind).model_copy(update={"shares": (0.25, 0.25), "batch_size": 8, "replay": 0.5})
    attack = SimulatedAttack(how, replace(task, concept=concept, safe=safe))  # type: ignore[arg-type]
    weights, generator = select_parameters(task.model.denoiser, "all"), torch.Generator().manual_seed(0)
    for _ in range(30):
        with attack(weights, generator):
            pass
    assert sum(concept.sizes) + sum(safe.sizes) == 240
    assert 35 <= sum(concept.sizes) <= 90
    take_off(task)


def test_shares_are_drawn_in_their_range_once_an_attack(task: Task) -> None:
    how = strong(1, "full").model_copy(update={"shares": (0.3, 0.9), "batch_size": 2, "replay": 0.8})
    attack, weights = SimulatedAttack(how, task), select_parameters(task.model.denoiser, "all")
    generator, seen = torch.Generator().manual_seed(0), list[tuple[int, float]]()
    for _ in range(60):
        with attack(weights, generator) as steps:
            pass
        seen.append((steps, attack.last["full"].share))
    shares = {share for _, share in seen}
    assert 4 <= len(shares) <= 30
    assert all(0.3 <= share <= 0.9 for share in shares)
    assert min(shares) < 0.5
    assert max(shares) > 0.7
    assert all(share == before for (steps, share), (_, before) in zip(seen[1:], seen, strict=False) if steps > 1)


def test_without_shares_a_batch_is_what_the_set_gives(task: Task) -> None:
    attack = SimulatedAttack(Attacker(batch_size=4), task)
    for share, data in ((1.0, task.concept), (0.0, task.safe)):
        latents, cond = attack._batch(share, torch.Generator().manual_seed(5))
        expected, same = data.batch(4, torch.Generator().manual_seed(5))
        assert torch.equal(latents, expected)
        assert all(torch.equal(cond[name], same[name]) for name in same)
    take_off(task)


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


def text_of(task: Task) -> dict[str, torch.Tensor]:
    """A copy of the text encoders' weights."""
    return {name: p.detach().clone() for encoder in task.model.text_encoders.values() for name, p in encoder.named_parameters()}


def on_text(steps: int, share: float = 1.0) -> Attacker:
    """A strong attack on the denoiser and the text encoder."""
    return strong(steps, "full").model_copy(update={"text_encoder": share})


def test_text_encoders_are_attacked_and_put_back(task: Task) -> None:
    before, text, kept = state_of(task.model), text_of(task), task.concept.cond["states"].clone()
    attack = SimulatedAttack(on_text(5), task)
    weights = select_parameters(task.model.denoiser, "all")
    with attack(weights, torch.Generator().manual_seed(0)):
        inside = text_of(task)
        assert sum(not torch.equal(inside[name], text[name]) for name in text) > len(text) / 2
        assert attack.embed is not None
        _, cond = task.concept.at(torch.arange(4), attack.embed)
        assert not cond["states"].requires_grad  # the immunizing gradient is the denoiser's alone
        assert not torch.allclose(cond["states"], kept[task.concept.which[:4]], atol=1e-3)
    assert attack.embed is None
    after = text_of(task)
    assert all(torch.equal(after[name], text[name]) for name in text)
    assert same_state(state_of(task.model), before)
    assert not any(p.requires_grad or p.grad is not None for e in task.model.text_encoders.values() for p in e.parameters())


def test_some_draws_train_the_text_encoders_and_no_lora_does(task: Task) -> None:
    attack = SimulatedAttack(on_text(1, 0.5).model_copy(update={"kinds": ("full", "lora"), "rank": 1}), task)
    weights, seen = select_parameters(task.model.denoiser, "all"), []
    for seed in range(40):
        with attack(weights, torch.Generator().manual_seed(seed)):
            seen.append(attack.embed is not None)
    assert 4 <= sum(seen) <= 16  # half of the half that are full


def test_an_error_inside_puts_the_text_encoders_back(task: Task) -> None:
    text = text_of(task)
    attack = SimulatedAttack(on_text(3), task)
    with pytest.raises(ZeroDivisionError), attack(select_parameters(task.model.denoiser, "all"), torch.Generator().manual_seed(0)):
        raise ZeroDivisionError
    after = text_of(task)
    assert all(torch.equal(after[name], text[name]) for name in text)
    broken, weights = beside_a_broken_concept(task, on_text(3))
    with pytest.raises(NonFiniteError), broken(weights, torch.Generator().manual_seed(0)):
        pass
    after = text_of(task)
    assert all(torch.equal(after[name], text[name]) for name in text)
    assert attack.embed is broken.embed is None


@pytest.mark.parametrize(
    "how",
    [
        Gift.plain(batch_size=2),
        Gift.plain(batch_size=2, other_words=0.5),
        ResAlign(batch_size=2, iterations=1),
        ResAlign(batch_size=2, iterations=2),
        MetaUnlearning(batch_size=2, erase=0.0),
    ],
    ids=["gift", "gift, other words", "resalign", "resalign, second order", "meta-unlearning"],
)
def test_losses_after_an_attack_on_text_are_computed_with_the_attacked_encoder(
    task: Task, how: Immunizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(task, safe=task.concept)
    attacker = on_text(1).model_copy(update={"batch_size": 2})
    method = how.model_copy(update={"attacker": attacker}).begin(task)
    attack: SimulatedAttack = method.attack  # type: ignore[attr-defined]
    given: list[torch.Tensor] = []
    real = task.model.mean_loss

    def spy(latents: torch.Tensor, cond: Cond, *rest: Any) -> torch.Tensor:
        if attack.embed is not None:
            given.append(cond["states"].detach().clone())
        return real(latents, cond, *rest)

    monkeypatch.setattr(task.model, "mean_loss", spy)
    method.step(0, step_generator(0, 0))
    first, *after = given
    rows = task.concept.cond["states"]
    assert after
    assert all(any(torch.equal(one, row) for row in rows) for one in first)  # before its only step
    assert not any(torch.equal(one, row) for states in after for one in states for row in rows)


@kinds
@optimisers
def test_an_attack_that_goes_on_takes_the_steps_of_one_that_was_not_left(task: Task, kind: Kind, optimiser: str) -> None:
    """Two rounds of one step and one round of two, from the same draws: the optimiser goes on, too."""
    how = strong(1, kind).model_copy(update={"optimisers": (optimiser,), "replay": 0.99, "batch_size": 2})
    weights = select_parameters(task.model.denoiser, "all")
    attack = SimulatedAttack(how, task)
    torch.manual_seed(0)
    for seed in (0, 1):
        with attack(weights, torch.Generator().manual_seed(seed)) as steps:
            assert steps == seed + 1
            here = fixed_loss(task.model, task.concept)
    # By hand: the same draws and steps, without putting anything back.
    generator = torch.Generator().manual_seed(0)
    trained = list(attack.lora.values()) if kind == "lora" else list(weights.values())
    drawn = attack._draw((kind,), generator)
    torch.randint(1, (1,), generator=generator)
    with attack._adapter(weights, generator) if kind == "lora" else put_back(weights):
        updater = Updater(trained, name=drawn.optimiser, rate=drawn.rate, accelerator=task.accelerator)
        for seed in (0, 1):
            if seed:
                generator = torch.Generator().manual_seed(1)
                torch.rand(1, generator=generator)  # whether it goes on
                torch.randint(1, (1,), generator=generator)
                if kind == "lora":
                    torch.randn(sum(p.numel() for name, p in attack.lora.items() if "lora_A" in name), generator=generator)
            latents, cond = task.concept.batch(2, generator)
            updater.descend(task.model.mean_loss(latents, cond, generator))
        assert fixed_loss(task.model, task.concept) == pytest.approx(here, rel=1e-5)


def test_a_full_attack_goes_on_from_weights_that_have_moved(task: Task) -> None:
    attack = SimulatedAttack(strong(1, "full").model_copy(update={"replay": 0.99}), task)
    weights = select_parameters(task.model.denoiser, "all")
    with attack(weights, torch.Generator().manual_seed(0)):
        attacked = {name: p.detach().clone() for name, p in weights.items()}
    name, bias = next((n, p) for n, p in weights.items() if n.endswith("bias"))
    change = dict(zip(weights, attack.last["full"].change, strict=True))
    assert all(torch.allclose(p + change[n], attacked[n], atol=1e-6) for n, p in weights.items())
    with torch.no_grad():
        bias.add_(1)
    moved_bias = bias.detach().clone()
    with attack(weights, torch.Generator().manual_seed(1)) as steps:
        assert steps == 2
        assert (bias - attacked[name] - 1).abs().max() < 0.1
    assert torch.equal(bias, moved_bias)


def test_attacks_go_on_as_often_as_is_asked(task: Task) -> None:
    attack = SimulatedAttack(strong(1, "lora").model_copy(update={"replay": 0.75, "rank": 1, "batch_size": 1}), task)
    weights, begun = select_parameters(task.model.denoiser, "mid"), 0
    for seed in range(60):
        with attack(weights, torch.Generator().manual_seed(seed)) as steps:
            begun += steps == 1
    assert 7 <= begun <= 24


def test_only_a_share_of_the_rounds_is_attacked_and_the_others_are_bit_equal_to_none(task: Task) -> None:
    how = strong(1, "full").model_copy(update={"attacked_share": 0.5, "replay": 0.99, "batch_size": 1})
    attack = SimulatedAttack(how, task)
    weights = select_parameters(task.model.denoiser, "mid")
    before = [p.detach().clone() for p in weights.values()]
    taken = []
    for seed in range(30):
        with attack(weights, torch.Generator().manual_seed(seed)) as steps:
            same = all(torch.equal(p, old) for p, old in zip(weights.values(), before, strict=True))
            taken.append(steps)
            assert same is (steps == 0)
    attacked = [steps for steps in taken if steps]
    assert 7 <= len(attacked) <= 23
    assert attacked == list(range(1, len(attacked) + 1)), "an attack goes on after rounds without one"


def test_kinds_take_turns_and_each_goes_on_where_its_own_stopped(task: Task) -> None:
    how = Attacker(
        steps=1, kinds=("full", "lora"), optimisers=("adafactor",), lora_optimisers=("adamw",), rank=2, batch_size=1, replay=0.99
    )
    attack = SimulatedAttack(how, task)
    weights = select_parameters(task.model.denoiser, "cross-attention")
    before = [p.detach().clone() for p in weights.values()]
    taken, moved = [], []
    for seed in range(6):
        with attack(weights, torch.Generator().manual_seed(seed)) as steps:
            taken.append(steps)
            moved.append(any(not torch.equal(p, old) for p, old in zip(weights.values(), before, strict=True)))
    assert taken == [1, 1, 2, 2, 3, 3]
    assert moved == [True, False] * 3  # LoRA leaves the weights alone
    assert {(drawn.kind, drawn.optimiser, drawn.steps) for drawn in attack.last.values()} == {
        ("full", "adafactor", 3), ("lora", "adamw", 3),
    }  # fmt: skip
    again = SimulatedAttack(how.model_copy(update={"kinds": ("full",), "lora_optimisers": ()}), task)
    again.load_state({**attack.state(), "turn": 1}, weights)
    with again(weights, torch.Generator().manual_seed(6)) as steps:
        assert steps == 4


@pytest.mark.parametrize(
    ("steps", "replay", "reach"), [(0, 0.9, 0), (16, 0.0, 16), (4, 0.9, 25), (5, 0.5, 6), (4, 0.1, 4), (1, 0.99, 100)]
)
def test_how_far_attacks_reach(steps: int, replay: float, reach: int) -> None:
    assert Attacker(steps=steps, replay=replay).reach == reach


def test_a_lora_attacker_trains_no_text_encoder() -> None:
    with pytest.raises(ValidationError, match="text_encoder is a share of the draws of kind 'full'"):
        Attacker(kinds=("lora",), text_encoder=0.5)


def test_a_full_attacker_has_no_optimisers_of_lora() -> None:
    with pytest.raises(ValidationError, match="lora_optimisers are those of kind 'lora'"):
        Attacker(kinds=("full",), lora_optimisers=("adamw",))
    for told in ({"kinds": ("lora",), "optimisers": ("sgd",)}, {"kinds": ("full",), "optimisers": ("adamw",)}):
        with pytest.raises(ValidationError, match="sgd_rates are those of 'full' by SGD"):
            Attacker(sgd_rates=(0.1, 1.0), **told)  # type: ignore[arg-type]


@pytest.mark.parametrize("sgd_rates", [None, (0.05, 1.0)])
def test_draws_cover_the_distribution(task: Task, monkeypatch: pytest.MonkeyPatch, sgd_rates: tuple[float, float] | None) -> None:
    from gift.immunizers import simulated

    drawn: list[tuple[str, float, bool]] = []
    real = simulated.Updater

    def spy(parameters: list[torch.nn.Parameter], *, name: str, rate: float, accelerator: Accelerator) -> simulated.Updater:
        drawn.append((name, rate, any(p is q for p in parameters for q in attack.lora.values())))
        return real(parameters, name=name, rate=rate, accelerator=accelerator)  # type: ignore[arg-type]

    monkeypatch.setattr(simulated, "Updater", spy)
    how = Attacker(
        steps=2,
        full_rates=(1e-4, 1e-3),
        lora_rates=(1e-2, 1e-1),
        sgd_rates=sgd_rates,
        optimisers=("adamw", "sgd"),
        batch_size=1,
        rank=1,
    )
    attack = SimulatedAttack(how, task)
    weights = select_parameters(task.model.denoiser, "cross-attention")
    steps = []
    for seed in range(60):
        with attack(weights, torch.Generator().manual_seed(seed)) as taken:
            steps.append(taken)
    assert set(steps) == {1, 2}
    assert {name for name, _, _ in drawn} == {"adamw", "sgd"}
    ranges = {(name, False): how.full_rates for name in how.optimisers} | {(name, True): how.lora_rates for name in how.optimisers}
    ranges[("sgd", False)] = sgd_rates or how.full_rates
    for (optimiser, is_lora), (low, high) in ranges.items():
        rates = [rate for name, rate, adapter in drawn if (name, adapter) == (optimiser, is_lora)]
        assert len(rates) > 5
        assert low <= min(rates) < (low * high) ** 0.5 < max(rates) <= high
