"""One table: every attack is a row and keeps the same promises (field failures 15, 22, 30, 31)."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from pydantic import ValidationError

from gift.attacks import ATTACKS, Attack, Full, Lora
from gift.data.latents import LatentSet
from gift.errors import GiftError, Interrupted, NonFiniteError
from gift.models import DenoisingModel, lora
from gift.models.sd import StableDiffusion
from gift.settings import make_attack
from gift.training.checkpoint import Checkpoints
from gift.training.updates import Updater
from tests.conftest import StopAt, fixed_loss, moved, same_state, state_of

RATES: dict[Attack, float] = {  # rows, each with a rate at which forty steps teach the random model something
    Lora(steps=5, batch_size=2): 2e-2,
    Lora(steps=5, batch_size=2, rank=2, schedule="cosine", warmup=2): 1e-1,
    Full(steps=5, batch_size=2): 3e-3,
    Full(steps=5, batch_size=2, train="cross-attention", schedule="linear"): 3e-2,
    Full(steps=5, batch_size=2, optimiser="adam"): 3e-3,
    Full(steps=5, batch_size=2, optimiser="adafactor"): 3e-2,
    Full(steps=5, batch_size=2, optimiser="sgd", clip=10.0): 5e-2,
}
every = pytest.mark.parametrize("how", RATES, ids=repr)


@torch.no_grad()
def output(pipeline: Any) -> torch.Tensor:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    states = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(4))
    return pipeline.unet(x, torch.tensor([10, 700]), encoder_hidden_states=states).sample


def opened(folder: Path, original: StableDiffusion) -> Any:
    """What a reader of the attacker's files gets from plain diffusers."""
    if (folder / "model_index.json").exists():
        return StableDiffusionPipeline.from_pretrained(folder)
    pipeline = original.copy().pipeline
    pipeline.load_lora_weights(folder)
    return pipeline


def test_every_attack_has_a_row() -> None:
    assert {how.name for how in RATES} == set(ATTACKS)


@every
def test_the_original_is_left_alone(random_model: StableDiffusion, concept_set: LatentSet, how: Attack) -> None:
    before, was = state_of(random_model), output(random_model.pipeline)
    attacked = how(random_model, concept_set)
    assert same_state(state_of(random_model), before)
    assert torch.equal(output(random_model.pipeline), was)
    assert not torch.equal(output(attacked.model.pipeline), was)
    assert not attacked.model.denoiser.training
    assert not any(p.requires_grad for p in attacked.model.denoiser.parameters())
    assert attacked.matched > 0
    assert attacked.seconds > 0
    assert attacked.peak_mb > 0
    assert attacked.attack is how


@every
def test_loss_and_norm_of_every_step_are_logged(random_model: StableDiffusion, concept_set: LatentSet, how: Attack) -> None:
    logs = how(random_model, concept_set).logs
    assert len(logs) == how.steps
    assert all(log.keys() == {"loss", "gradient_norm"} and all(map(math.isfinite, log.values())) for log in logs)
    assert all(log["loss"] > 0 < log["gradient_norm"] for log in logs)


@every
def test_it_learns(random_model: StableDiffusion, concept_set: LatentSet, how: Attack) -> None:
    longer = how.model_copy(update={"steps": 40, "rate": RATES[how], "batch_size": 4})
    before = fixed_loss(random_model, concept_set)
    assert fixed_loss(longer(random_model, concept_set).model, concept_set) < 0.95 * before


@every
def test_the_seed_decides(random_model: StableDiffusion, concept_set: LatentSet, how: Attack) -> None:
    first, again, other = (state_of(how(random_model, concept_set, seed=seed).model) for seed in (1, 1, 2))
    assert same_state(first, again)
    assert not same_state(first, other)


@every
def test_zero_steps_change_no_output(random_model: StableDiffusion, concept_set: LatentSet, how: Attack) -> None:
    attacked = how.model_copy(update={"steps": 0})(random_model, concept_set, at=[0], observe=lambda step, model: step)
    assert torch.equal(output(attacked.model.pipeline), output(random_model.pipeline))
    assert attacked.observations == [(0, 0)]


@every
def test_it_is_observed_at_the_asked_steps_alone(random_model: StableDiffusion, concept_set: LatentSet, how: Attack) -> None:
    def observe(step: int, model: DenoisingModel) -> float:
        return output(model.pipeline).sum().item()

    attacked = how(random_model, concept_set, at=[0, 3, 5, 99], observe=observe)
    assert [step for step, _ in attacked.observations] == [0, 3, 5]
    sums = [value for _, value in attacked.observations]
    assert sums[0] == output(random_model.pipeline).sum().item()
    assert sums[2] == output(attacked.model.pipeline).sum().item()
    assert len(set(sums)) == 3
    assert same_state(state_of(attacked.model), state_of(how(random_model, concept_set).model))  # looking changes nothing


@every
def test_a_twice_interrupted_attack_goes_on_bit_for_bit(
    random_model: StableDiffusion, concept_set: LatentSet, tmp_path: Path, how: Attack
) -> None:
    def observe(step: int, model: DenoisingModel) -> dict[str, Any]:
        return {"step": step, "sum": output(model.pipeline).sum().item(), "parts": [1.5, "x"]}

    asked: dict[str, Any] = {"seed": 1, "at": [0, 1, 3, 4], "observe": observe}
    kept = Checkpoints(tmp_path, {"how": repr(how)})
    for stop in (1, 3):
        with pytest.raises(Interrupted, match=f"{how.name} stopped at step {stop} of 5"):
            how(random_model, concept_set, **asked, checkpoints=kept, reporter=StopAt(stop))
        torch.rand(7)  # the global generator stands elsewhere by the time of the next call
    resumed, whole = how(random_model, concept_set, **asked, checkpoints=kept), how(random_model, concept_set, **asked)
    assert same_state(state_of(resumed.model), state_of(whole.model))
    assert resumed.observations == whole.observations
    assert resumed.logs == whole.logs


@every
def test_its_files_give_the_same_model_in_plain_diffusers(
    random_model: StableDiffusion, concept_set: LatentSet, tmp_path: Path, how: Attack
) -> None:
    attacked = how(random_model, concept_set)
    pipeline = opened(attacked.save(tmp_path / "out"), random_model)
    torch.testing.assert_close(output(pipeline), output(attacked.model.pipeline))
    assert not torch.allclose(output(pipeline), output(random_model.pipeline))
    drawn = StableDiffusion(pipeline, "x").sample_latents(["fox"], [1], steps=2)[0]
    assert not torch.allclose(drawn, random_model.sample_latents(["fox"], [1], steps=2)[0])


@every
def test_a_loss_of_nan_stops_it(random_model: StableDiffusion, concept_set: LatentSet, how: Attack) -> None:
    broken = LatentSet(concept_set.latents * float("nan"), concept_set.cond, concept_set.which, concept_set.prompts)
    before = state_of(random_model)
    with pytest.raises(NonFiniteError, match="lower the learning rate"):
        how(random_model, broken)
    assert same_state(state_of(random_model), before)


@every
@pytest.mark.parametrize("steps", [1, 3])
def test_infinite_weights_are_neither_kept_nor_handed_out(
    random_model: StableDiffusion,
    concept_set: LatentSet,
    tmp_path: Path,
    how: Attack,
    steps: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def overflow(self: Updater, factor: float = 1.0) -> float:
        self.parameters[-1].data.fill_(float("inf"))  # as a step at far too high a rate does
        return 1.0

    kept = Checkpoints(tmp_path, {}, every=1)
    monkeypatch.setattr(Updater, "apply", overflow)
    with pytest.raises(NonFiniteError, match="lower the learning rate"):
        how.model_copy(update={"steps": steps})(random_model, concept_set, checkpoints=kept)
    assert kept.latest() is None


def test_what_matches_nothing_is_refused(
    random_model: StableDiffusion, concept_set: LatentSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GiftError, match="matches no weight"):
        Full(steps=1, train="nothing-here")(random_model, concept_set)
    monkeypatch.setattr(lora, "TARGETS", ("nothing_here",))
    with pytest.raises(GiftError, match="matches no module"):
        Lora(steps=1)(random_model, concept_set)


def test_full_trains_its_choice_alone(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    attacked = Full(steps=2, batch_size=2, train="cross-attention")(random_model, concept_set)
    changed = moved(state_of(random_model), state_of(attacked.model))
    assert changed
    assert all(".attn2." in name for name in changed)


@every
def test_hyperparameters_are_shown_frozen_and_checked(how: Attack) -> None:
    for name in type(how).model_fields:
        assert f"{name}={getattr(how, name)!r}" in repr(how)
        with pytest.raises(ValidationError, match="frozen"):
            setattr(how, name, getattr(how, name))
    with pytest.raises(GiftError, match="no option of attack"):
        make_attack(how.name, {"no_such_option": 1})
    assert pickle.loads(pickle.dumps(how)) == how  # noqa: S301 - our own bytes
