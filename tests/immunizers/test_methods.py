"""What each method's step computes, against a computation of its own."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import nn

from gift.immunizers import (
    Ascent,
    Attacker,
    Esd,
    Gift,
    Imma,
    Immunizer,
    Joint,
    MetaUnlearning,
    Mima,
    Pgu,
    ResAlign,
    Seam,
    Uce,
    Undo,
)
from gift.immunizers.base import Method, Task
from gift.immunizers.gift import GiftRun
from gift.immunizers.imma import ADAPTER, ImmaRun
from gift.immunizers.safe import SafeBatches, SafeLoss, SafeOptions
from gift.immunizers.terms import Bound, bounded
from gift.immunizers.undo import UndoRun, damage
from gift.models.lora import switch_lora
from gift.models.sd import StableDiffusion
from gift.training.loop import step_generator
from tests.conftest import State, fixed_loss, moved, same_state, state_of

PLAIN = Gift.plain(steps=3, batch_size=2, ascent_weight=0.0, project=False, safe_rate=1e-3)


def stepped(how: Immunizer, task: Task, steps: int = 1) -> tuple[Method, list[dict[str, float]]]:
    method = how.begin(task)
    return method, [method.step(i, step_generator(0, i)) for i in range(steps)]


def adamw(model: StableDiffusion, rate: float) -> torch.optim.AdamW:
    model.denoiser.requires_grad_(True)
    return torch.optim.AdamW(model.denoiser.parameters(), lr=rate, weight_decay=0.0, fused=True)


def take_step(model: StableDiffusion, optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.denoiser.parameters(), 1.0)
    optimiser.step()


@pytest.mark.parametrize("safe_steps", [1, 2])
def test_gift_without_its_upper_terms_is_plain_training(random_model: StableDiffusion, task: Task, safe_steps: int) -> None:
    how = PLAIN.model_copy(update={"safe_steps": safe_steps})
    out = how(random_model, task.concept, task.safe)
    plain = random_model.copy()
    optimiser = adamw(plain, 1e-3)
    for i in range(3):
        generator = step_generator(0, i)
        for _ in range(safe_steps):
            latents, cond = task.safe.batch(2, generator)
            take_step(plain, optimiser, plain.loss(latents, cond, generator).mean())
    assert same_state(state_of(out), state_of(plain))


def test_gifts_round_is_a_safe_step_and_a_projected_rescaled_ascent(random_model: StableDiffusion, task: Task) -> None:
    how = Gift.plain(
        steps=1, batch_size=3, safe_rate=1e-3, immunize_rate=0.02, immunize_optimiser="sgd", ascent_weight=2.0, rescale=0.5
    )
    out = how(random_model, task.concept, task.safe)
    plain, generator = random_model.copy(), step_generator(0, 0)
    optimiser, parameters = adamw(plain, 1e-3), list(plain.denoiser.parameters())
    latents, cond = task.safe.batch(3, generator)
    take_step(plain, optimiser, plain.loss(latents, cond, generator).mean())
    safe = [p.grad.clone() for p in parameters if p.grad is not None]
    optimiser.zero_grad()
    latents, cond = task.concept.batch(3, generator)
    (-2 * torch.log(1 + plain.loss(latents, cond, generator).mean())).backward()
    ascent = [p.grad.clone() for p in parameters if p.grad is not None]
    for i, (g, s) in enumerate(zip(ascent, safe, strict=True)):
        if (dot := (g * s).sum()) < 0:
            ascent[i] = g - s * dot / (s * s).sum()
    sizes = [torch.cat([t.flatten() for t in tensors]).norm() for tensors in (safe, ascent)]
    ascent = [g * 0.5 * sizes[0] / sizes[1] for g in ascent]
    with torch.no_grad():
        for parameter, gradient in zip(parameters, ascent, strict=True):
            parameter.sub_(0.02 * gradient)
    for name, tensor in state_of(plain).items():
        torch.testing.assert_close(state_of(out)[name], tensor, rtol=1e-4, atol=1e-6)


def test_a_weight_that_the_loss_does_not_touch_stays(random_model: StableDiffusion, task: Task) -> None:
    random_model.denoiser.register_parameter("idle", nn.Parameter(torch.ones(3)))
    before = state_of(random_model)
    changed = moved(before, state_of(Gift.plain(steps=1, batch_size=1, rescale=1.0)(random_model, task.concept, task.safe)))
    assert changed == before.keys() - {"idle"}


def test_gift_settles_at_a_falling_rate(task: Task) -> None:
    how = Gift.plain(steps=2, settle_steps=4, batch_size=1, safe_rate=1e-3)
    assert how.total_steps == 6
    assert Gift.plain(steps=0, settle_steps=4).total_steps == 0
    method = how.begin(task)
    rates, logged = [], []
    for i in range(6):
        logged.append(set(method.step(i, step_generator(0, i))))
        rates.append(method.updaters["safe"].optimiser.param_groups[0]["lr"])
    half = 0.5**0.5 / 2
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 1e-3 * (0.5 + half), 5e-4, 1e-3 * (0.5 - half)])
    assert logged == [{"safe", "concept", "objective"}] * 2 + [{"safe"}] * 4


@pytest.mark.parametrize(
    ("falling", "fading", "safe", "immunize"),
    [
        (0.5, 0.0, [1, 1, 1, 1, 0.75, 0.25], [1, 1, 1, 1, 0.75, 0.25]),
        (0.0, 0.5, [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0.75, 0.25]),
        (0.5, 1.0, [1, 1, 1, 1, 0.75, 0.25], [1, 0.9330127, 0.75, 0.5, 0.1875, 0.016746825]),
    ],
)
def test_rates_fall_in_the_last_rounds(task: Task, falling: float, fading: float, safe: list[float], immunize: list[float]) -> None:
    shares = {"falling_share": falling, "fading_share": fading}
    method = Gift.plain(steps=6, safe_steps=2, batch_size=1, safe_rate=1e-3, immunize_rate=2e-3, **shares).begin(task)
    rates = []
    for i in range(6):
        method.step(i, step_generator(0, i))
        rates.append([method.updaters[name].optimiser.param_groups[0]["lr"] for name in ("safe", "immunize")])
    assert rates == [pytest.approx([1e-3 * s, 2e-3 * i]) for s, i in zip(safe, immunize, strict=True)]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_some_safe_pictures_stand_without_their_prompt(task: Task, share: float) -> None:
    draw = SafeBatches.of(SafeOptions(safe_factor=200, empty_share=share, varied_share=0), task, 2)
    latents, cond = draw(step_generator(0, 0))
    plain, own = task.safe.batch(400, step_generator(0, 0))
    assert torch.equal(latents, plain)
    empty = task.model.encode_prompts([""])
    for name, tensor in cond.items():
        blank = torch.tensor([torch.equal(row, empty[name][0]) for row in tensor])
        assert torch.equal(tensor[~blank], own[name][~blank])
        assert abs(float(blank.float().mean()) - share) < 0.08


def test_varied_copies_come_last_and_are_held_to_the_originals_outputs(random_model: StableDiffusion, task: Task) -> None:
    loss = SafeLoss(SafeOptions(empty_share=0, varied_share=0.25), task, 4, steps=1, batches=lambda index: 1)
    draw = loss.draw
    assert draw.varied is not None
    generator = step_generator(0, 0)
    latents, cond = draw(generator)
    noised = random_model.noised(latents, generator)
    assert all(any(torch.equal(row, own) for own in task.safe.latents) for row in latents[:6])
    assert all(any(torch.equal(row, own) for own in draw.varied.latents) for row in latents[6:])
    assert loss.targets is not None
    [target] = loss.targets
    with torch.no_grad():
        outputs = random_model.predict(noised.latents, noised.timesteps, cond)
    torch.testing.assert_close(target, outputs[6:])
    assert not torch.allclose(target, noised.target[6:], atol=1e-2)


@pytest.mark.parametrize(
    "how", [Gift.plain(steps=1, varied_share=0.5, batch_size=4), Joint(steps=1, batch_size=2, ascent_weight=0)]
)
def test_the_safe_loss_is_of_both_kinds_of_pictures(how: Gift | Joint, random_model: StableDiffusion, task: Task) -> None:
    draw = SafeBatches.of(how, task, how.batch_size)
    generator = step_generator(0, 0)
    latents, cond = draw(generator)
    noised = random_model.noised(latents, generator)
    with torch.no_grad():
        error = (random_model.predict(noised.latents, noised.timesteps, cond) - noised.target).square().mean((1, 2, 3))
    _, logs = stepped(how, task)
    assert logs[0]["safe"] == pytest.approx(float(error[:2].sum()) / 4, rel=1e-4)  # the copies' distance is 0 at theta_0


def test_distillation_stands_still_at_the_original(random_model: StableDiffusion, task: Task) -> None:
    how = PLAIN.model_copy(update={"safe_target": "reference"})
    _, logs = stepped(how, task)
    assert logs[0]["safe"] == 0
    assert fixed_loss(how(random_model, task.concept, task.safe), task.safe) == pytest.approx(fixed_loss(random_model, task.safe))


def test_distillation_is_onto_the_originals_outputs(random_model: StableDiffusion, task: Task) -> None:
    how = Gift.plain(steps=2, settle_steps=2, safe_steps=2, batch_size=2, safe_rate=1e-3, safe_target="reference")
    method = how.begin(task)
    for i in range(how.total_steps):
        generator = step_generator(0, i)
        latents, cond = task.safe.batch(2, generator)
        noised = task.model.noised(latents, generator)
        with torch.no_grad():
            target, out = (m.predict(noised.latents, noised.timesteps, cond) for m in (random_model, task.model))
        log = method.step(i, step_generator(0, i))
        if i >= how.steps:  # a step with one safe batch, at weights that the rounds have moved
            assert log["safe"] == pytest.approx(float((out - target).square().mean()), rel=1e-4)
            assert log["safe"] > 0


@pytest.mark.parametrize(
    "how",
    [PLAIN, Gift(steps=2, settle_steps=2, batch_size=2, attacker=Attacker(steps=1, rank=1)), Esd(steps=2, batch_size=1)],
    ids=repr,
)
def test_in_place_gives_the_same_weights_and_no_second_denoiser(
    random_model: StableDiffusion, task: Task, how: Immunizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = state_of(how(random_model, task.concept, task.safe))
    monkeypatch.setattr(StableDiffusion, "copy", None)
    out = how(random_model, task.concept, task.safe, in_place=True)
    assert out is random_model
    assert same_state(state_of(out), apart)


def test_projection_on_the_mean_safe_gradient(task: Task) -> None:
    how = Gift.plain(steps=2, batch_size=2, project_on="momentum", immunize_optimiser="sgd")
    method = how.begin(task)
    assert isinstance(method, GiftRun)
    method.step(0, step_generator(0, 0))
    seen: list[list[torch.Tensor | None]] = []
    method.change_gradients = seen.append  # type: ignore[method-assign, assignment]
    method.step(1, step_generator(0, 1))
    means = [method.updaters["safe"].optimiser.state[p]["exp_avg"] for p in method.weights.values()]
    assert all(kept is mean for kept, mean in zip(seen[0], means, strict=True))  # the optimiser's own tensors: no copies


ADAPTED = [
    Ascent(steps=3, batch_size=2, adapter_rank=2),
    Joint(steps=3, batch_size=2, adapter_rank=2),
    Imma(steps=3, batch_size=2, rank=1, adapter_rank=2),
    Esd(steps=3, batch_size=2, sampler_steps=3, adapter_rank=2),
    Gift(steps=2, settle_steps=1, batch_size=2, attacker=Attacker(steps=2, batch_size=2, rank=1), adapter_rank=2),
]


@pytest.mark.parametrize("how", ADAPTED, ids=repr)
def test_an_adapter_is_trained_and_merged(task: Task, how: Immunizer) -> None:
    task = replace(task, rank=how.adapter_rank)
    torch.manual_seed(0)  # peft draws the adapter from the global generator
    method, before = how.begin(task), state_of(task.model)
    for i in range(how.total_steps):
        method.step(i, step_generator(0, i))
    size = sum(p.numel() for p in method.weights.values())
    kept = sum(t.numel() for t in method.updaters[min(method.updaters)].optimiser.state_dict()["state"][0].values() if t.ndim)
    assert kept <= 2 * size < 0.2 * sum(t.numel() for t in before.values())
    latents, cond = task.safe.at(torch.arange(2))
    generator = torch.Generator().manual_seed(5)
    noised = task.model.noised(latents, generator)
    with torch.no_grad():
        attached = task.model.predict(noised.latents, noised.timesteps, cond)
        if isinstance(method, ImmaRun):  # its own adaptation is not released
            switch_lora(task.model, ADAPTER, on=False)
            attached = task.model.predict(noised.latents, noised.timesteps, cond)
        method.finish()
        method.close()
        merged = task.model.predict(noised.latents, noised.timesteps, cond)
    torch.testing.assert_close(merged, attached, rtol=1e-4, atol=1e-5)
    changed = moved(
        {name.replace(".base_layer.", "."): t for name, t in before.items() if "lora_" not in name}, state_of(task.model)
    )
    assert changed
    assert all(re.search(r"\.to_(q|k|v|out\.0)\.weight$", name) for name in changed)


def esd_by_hand(how: Esd, task: Task, original: nn.Module) -> float:
    generator = step_generator(0, 0)
    pick = torch.randint(len(task.concept.prompts), (how.batch_size,), generator=generator)
    seeds = torch.randint(2**31, (how.batch_size,), generator=generator).tolist()
    stop = int(torch.randint(1, how.sampler_steps, (1,), generator=generator))
    prompts = [task.concept.prompts[i] for i in pick.tolist()]
    x, at = task.model.sample_latents(prompts, seeds, steps=how.sampler_steps, guidance=how.guidance, stop_after=stop)
    named, blank = (task.model.encode_prompts(p)["states"] for p in (prompts, [""] * how.batch_size))
    total = 0.0
    with torch.no_grad():
        for i in range(how.batch_size):
            with_concept, without = (original(x[i : i + 1], at, c[i : i + 1]).sample for c in (named, blank))
            target = without - how.eta * (with_concept - without)
            total += float(((task.model.pipeline.unet(x[i : i + 1], at, named[i : i + 1]).sample - target) ** 2).mean())
    return total / how.batch_size


@pytest.mark.parametrize("eta", [0.0, 2.0])
def test_esd_regresses_onto_the_negative_guidance(task: Task, eta: float) -> None:
    how, original = Esd(batch_size=3, sampler_steps=4, eta=eta, rate=1e-3), task.model.copy().denoiser
    expected = esd_by_hand(how, task, original)
    assert expected > 0
    method, (log,) = stepped(how, task)
    assert log["erase"] == pytest.approx(expected, rel=1e-4)
    for _ in range(20):
        method.step(0, step_generator(0, 0))
    expected = esd_by_hand(how, task, original)  # theta_0 is still what it regresses onto
    last = method.step(0, step_generator(0, 0))["erase"]
    assert last == pytest.approx(expected, rel=1e-4)
    assert last < log["erase"] / 2


def names_matching(state: State, *words: str) -> set[str]:
    return {name for name in state if any(word in name for word in words)}


@pytest.mark.parametrize(
    ("how", "words", "inside"),
    [
        (Imma(steps=2, batch_size=1), (".to_q.", ".to_k.", ".to_v.", ".to_out."), True),
        (Esd(steps=2, batch_size=1, sampler_steps=2, variant="x"), (".attn2.",), True),
        (Esd(steps=2, batch_size=1, sampler_steps=2, variant="u"), (".attn2.",), False),
        (Uce(), (".attn2.to_k.", ".attn2.to_v."), True),
        (Pgu(steps=2, batch_size=1, train="cross-attention"), (".attn2.to_",), True),
        (Mima(steps=2, batch_size=1), (".attn2.",), True),
        (MetaUnlearning(steps=2, batch_size=1, sampler_steps=2, variant="x", attacker=Attacker(steps=1)), (".attn2.",), True),
        (ResAlign(steps=2, batch_size=1, attacker=Attacker(steps=1, rank=1), train="^mid_block"), ("mid_block.",), True),
        (Undo(steps=2, batch_size=1, train="cross-attention"), (".attn2.",), True),
        (Seam(steps=2, batch_size=1, train="cross-attention"), (".attn2.",), True),
        (Ascent(steps=2, batch_size=1, train="cross-attention"), (".attn2.",), True),
        (Joint(steps=2, batch_size=1, train="^mid_block"), ("mid_block.",), True),
        (
            Gift.plain(steps=2, batch_size=1, train=r"attn2\.to_k\.weight$", attacker=Attacker(steps=1, rank=1)),
            (".attn2.to_k.weight",),
            True,
        ),
    ],
    ids=repr,
)
def test_only_the_chosen_weights_move(
    random_model: StableDiffusion, task: Task, how: Immunizer, words: tuple[str, ...], inside: bool
) -> None:
    before = state_of(random_model)
    changed = moved(before, state_of(how(random_model, task.concept, task.safe)))
    chosen = names_matching(before, *words)
    assert changed
    assert changed <= (chosen if inside else before.keys() - chosen)
    if inside:  # biases aside that have no gradient, all of them
        assert {name for name in chosen if name.endswith("weight")} <= changed


@pytest.mark.parametrize(
    "how",
    [
        Ascent(steps=15, batch_size=4, rate=1e-3),
        Ascent(steps=15, batch_size=4, rate=1e-3, bound="identity"),
        Joint(steps=15, batch_size=4, rate=1e-3, ascent_weight=5.0),
        Gift.plain(steps=15, batch_size=4, immunize_rate=2e-3, project=False),
        Gift.plain(steps=15, batch_size=4, immunize_rate=2e-3, project=False, attacker=Attacker(steps=1, batch_size=2)),
        Imma(steps=15, batch_size=4, immunize_rate=1e-2),
        Pgu(steps=15, batch_size=4, rate=1e-2),
        Seam(steps=15, batch_size=4, rate=1e-3, ascent_weight=5.0),
        Mima(steps=15, batch_size=4, rate=5e-3, prior_weight=0.0),
        ResAlign(steps=15, batch_size=4, rate=1e-3, retain=0.0, attacker=Attacker(steps=1, batch_size=2)),
        MetaUnlearning(steps=15, batch_size=4, rate=1e-3, erase=0.0, resist=5.0, attacker=Attacker(steps=1, batch_size=2)),
    ],
    ids=repr,
)
def test_the_concepts_loss_rises(random_model: StableDiffusion, task: Task, how: Immunizer) -> None:
    before = fixed_loss(random_model, task.concept)
    assert fixed_loss(how(random_model, task.concept, task.safe), task.concept) > 1.03 * before


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.1), (1.0, 0.5), (0.0, 1.0)])
def test_undo_shrinks_weights_and_adds_xaviers_noise(alpha: float, beta: float) -> None:
    layers = nn.ModuleList([nn.Linear(40, 60), nn.Conv2d(16, 32, 3), nn.GroupNorm(2, 8)])
    before = [p.detach().clone() for p in layers.parameters()]
    damage(layers.parameters(), alpha, beta, torch.Generator().manual_seed(3))
    for old, new in zip(before, layers.parameters(), strict=True):
        noise = (new.detach() - (1 - alpha) * old) / alpha / beta if alpha else new.detach() - old
        if old.ndim == 1 or not alpha:
            torch.testing.assert_close(noise, torch.zeros_like(noise), atol=1e-5, rtol=0)
            continue
        fan_in, fan_out = (old.shape[i] * old[0, 0].numel() for i in (1, 0))
        width = (6 / (fan_in + fan_out)) ** 0.5
        assert 0.99 * width < float(noise.abs().max()) < 1.001 * width
        assert float(noise.square().mean()) == pytest.approx(width**2 / 3, rel=0.05)


def test_undo_distils_what_the_weights_were_before_the_damage(random_model: StableDiffusion, task: Task) -> None:
    how = Undo(steps=40, batch_size=3, safe_factor=1, empty_share=0.0, varied_share=0.0, alpha=0.5, rate=3e-3)
    method, (log,) = stepped(how, task)
    assert isinstance(method, UndoRun)
    damaged = random_model.copy()
    damage(damaged.denoiser.parameters(), 0.5, 0.1, step_generator(0, -1))
    generator = step_generator(0, 0)
    latents, cond = task.safe.batch(3, generator)
    noised = random_model.noised(latents, generator)
    with torch.no_grad():
        teacher, student = (m.predict(noised.latents, noised.timesteps, cond) for m in (random_model, damaged))
    assert log["distance"] == pytest.approx(float((teacher - student).square().mean()), rel=1e-4)
    last = [method.step(i, step_generator(0, i))["distance"] for i in range(1, 40)][-1]
    assert last < log["distance"] / 3


def test_the_hinge_ends_the_ascent(random_model: StableDiffusion, task: Task) -> None:
    out = Ascent(steps=3, batch_size=4, bound="hinge", ceiling=1e-3)(random_model, task.concept, task.safe)
    assert same_state(state_of(out), state_of(random_model))  # the loss is over the ceiling from the start


@pytest.mark.parametrize("bound", ["identity", "log"])
def test_joint_and_ascent_take_the_gradient_of_their_formula(random_model: StableDiffusion, task: Task, bound: Bound) -> None:
    kinds: list[Literal["joint", "ascent"]] = ["joint", "ascent"]
    for kind in kinds:
        how: Immunizer = (
            Joint(
                steps=2,
                batch_size=2,
                rate=1e-3,
                ascent_weight=0.7,
                bound=bound,
                safe_factor=1,
                empty_share=0,
                varied_share=0,
                varied_concept=0,
            )
            if kind == "joint"
            else Ascent(steps=2, batch_size=2, rate=1e-3, bound=bound)
        )
        out, plain = how(random_model, task.concept, task.safe), random_model.copy()
        optimiser = adamw(plain, 1e-3)
        for i in range(2):
            generator = step_generator(0, i)
            safe = torch.zeros(())
            if kind == "joint":
                latents, cond = task.safe.batch(2, generator)
                safe = plain.loss(latents, cond, generator).mean()
            latents, cond = task.concept.batch(2, generator)
            rise = bounded(plain.loss(latents, cond, generator).mean(), bound, 2.0)
            take_step(plain, optimiser, safe - (0.7 if kind == "joint" else 1.0) * rise)
        assert same_state(state_of(out), state_of(plain))
