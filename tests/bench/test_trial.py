"""An attack scored on its way, with a stand-in for the recogniser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gift.attacks import ATTACKS
from gift.bench.trial import Scored, attack_and_score, score_model, steps_to_look
from gift.data.latents import LatentSet
from gift.data.mention import reworded
from gift.data.prompts import Ask
from gift.errors import Interrupted, NotEnoughMemory
from gift.models.sd import StableDiffusion
from gift.settings import make_attack
from gift.training.checkpoint import Checkpoints
from gift.training.progress import Silent
from tests.conftest import Heard

ASKS = [Ask("a fox", 1, mention="a fox"), Ask("a fox in the sea", 2, mention="a fox")]


def brightness(images: torch.Tensor) -> list[float]:
    """Scores by mean brightness: differs wherever a picture does."""
    return [float(image.float().mean() / 255) for image in images]


class Cramped(StableDiffusion):
    """Memory gives out where more than `room` pictures are drawn at once, from the draw after `free` draws on."""

    room, free = 1, 0

    def sample_latents(self, prompts: Any, seeds: Any, **options: Any) -> Any:
        type(self).free -= 1
        if self.free < 0 and len(prompts) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return super().sample_latents(prompts, seeds, **options)


def cramped(model: StableDiffusion, room: int, free: int = 0) -> StableDiffusion:
    """The same model with less memory."""
    return type("Cramped", (Cramped,), {"room": room, "free": free})(model.pipeline, model.source)


class Stop(Silent):
    """Stops the run at a step, without a checkpoint of its own."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, done: int, logs: object) -> None:
        if done == self.at:
            raise Interrupted("stop")


@pytest.mark.parametrize(
    ("steps", "look"),
    [
        (0, [0]),
        (1, [0, 1]),
        (10, [0, 10]),
        (11, [0, 10, 11]),
        (150, [0, 10, 20, 50, 100, 150]),
        (5000, [0, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]),
    ],
)
def test_curves_are_measured_at_the_start_and_the_end(steps: int, look: list[int]) -> None:
    assert steps_to_look(steps) == look


def test_a_score_is_the_mean_of_the_pictures(random_model: StableDiffusion) -> None:
    scored = score_model(random_model, ASKS, brightness)
    assert scored.images.shape == (2, 3, 16, 16)
    assert scored.score == pytest.approx(sum(scored.scores) / 2, abs=1e-6)
    assert Scored(scored.images[:0], []).score == 0.0


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_trial_leaves_the_model_and_gives_a_curve(
    attack: str, random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in random_model.denoiser.state_dict().items()}
    how = make_attack(attack, {"steps": 12, "batch_size": 2, "rate": 1e-2})
    extras: dict[str, Any] = {"harmless": safe_set, "base": random_model}
    trial = attack_and_score(random_model, how, concept_set, ASKS, brightness, seed=3, **extras)
    own = [replace(ask, prompt=reworded(ask.prompt, ask.mention, how.word)) for ask in ASKS]
    start = how.model_copy(update={"steps": 0})(random_model, concept_set, **extras).model  # knows the attacker's word
    assert [step for step, _ in trial.curve] == [0, 10, 12]
    assert trial.curve[0][1] == score_model(start, own, brightness).score
    assert (trial.curve[0][1] == score_model(random_model, ASKS, brightness).score) is (own == ASKS)
    assert trial.curve[-1][1] == score_model(trial.attacked.model, own, brightness).score
    assert trial.curve[-1][1] != trial.curve[0][1]
    assert random_model.denoiser.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in random_model.denoiser.state_dict().items())
    assert [p.name for p in trial.attacked.save(tmp_path / "weights").iterdir()]


def test_a_known_score_is_not_measured_again(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    known = Scored(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), [0.25])
    how = make_attack("full", {"steps": 0})
    trial = attack_and_score(random_model, how, concept_set, ASKS, brightness, seed=0, before=known)
    assert trial.curve == [(0, 0.25)]


def test_a_known_score_of_other_prompts_is_not_taken(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    known = Scored(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), [2.0, 2.0])
    how = make_attack("dreambooth", {"steps": 0})
    asked: list[list[str]] = []

    class Watched(StableDiffusion):
        def generate(self, prompts: Any, seeds: Any, **options: Any) -> torch.Tensor:
            asked.append([*prompts, *map(str, seeds)])
            return super().generate(prompts, seeds, **options)

    trial = attack_and_score(Watched(random_model.pipeline, "x"), how, concept_set, ASKS, brightness, seed=0, before=known)
    assert asked == [["a sks fox", "a sks fox in the sea", "1", "2"]]
    assert trial.curve[0][1] != 2.0


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_interrupted_trial_goes_on_to_the_same_curve(
    attack: str, random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet, tmp_path: Path
) -> None:
    how = make_attack(attack, {"steps": 12, "batch_size": 2})
    extras: dict[str, Any] = {"harmless": safe_set, "base": random_model}
    unbroken = attack_and_score(random_model, how, concept_set, ASKS, brightness, seed=3, **extras)
    for at in (3, 11):
        kept = Checkpoints(tmp_path / str(at), {"attack": repr(how)}, every=2)
        with pytest.raises(Interrupted):
            attack_and_score(
                random_model, how, concept_set, ASKS, brightness, seed=3, checkpoints=kept, reporter=Stop(at), **extras
            )
        assert kept.latest() is not None
        resumed = attack_and_score(random_model, how, concept_set, ASKS, brightness, seed=3, checkpoints=kept, **extras)
        assert resumed.curve == unbroken.curve, at
        assert resumed.attacked.logs == unbroken.attacked.logs, at
        for step, seen in unbroken.seen.items():
            assert torch.equal(seen.images, resumed.seen[step].images), at
            assert seen.scores == resumed.seen[step].scores, at


def test_where_memory_gives_out_pictures_are_drawn_one_by_one(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    how = make_attack("lora", {"steps": 11, "batch_size": 2})
    plain, tight = (
        attack_and_score(model, how, concept_set, ASKS, brightness, seed=3) for model in (random_model, cramped(random_model, 1))
    )
    assert [step for step, _ in tight.curve] == [0, 10, 11]
    assert [score for _, score in tight.curve] == pytest.approx([score for _, score in plain.curve], abs=1e-3)
    assert tight.attacked.logs == plain.attacked.logs


@pytest.mark.parametrize(("free", "seen"), [(0, []), (2, [0, 10])])
def test_looks_for_which_there_is_no_memory_are_left_out_and_the_training_goes_on(
    free: int, seen: list[int], random_model: StableDiffusion, concept_set: LatentSet, tmp_path: Path
) -> None:
    how, heard = make_attack("full", {"steps": 11, "batch_size": 2}), Heard()
    model = cramped(random_model, 0, free)
    trial = attack_and_score(model, how, concept_set, ASKS, brightness, seed=3, reporter=heard, patient=True)
    plain = attack_and_score(random_model, how, concept_set, ASKS, brightness, seed=3)
    assert [step for step, _ in trial.curve] == seen
    assert [line.split(":")[1] for line in heard.lines if line.startswith("warning")] == [
        f" no score at step {step}" for step in (0, 10, 11) if step not in seen
    ]
    assert all("even one at a time (CUDA out of memory" in line for line in heard.lines if line.startswith("warning"))
    assert trial.attacked.logs == plain.attacked.logs
    for (name, one), other in zip(
        trial.attacked.model.denoiser.state_dict().items(), plain.attacked.model.denoiser.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


def test_an_impatient_trial_stops_there_and_its_checkpoint_goes_on(
    random_model: StableDiffusion, concept_set: LatentSet, tmp_path: Path
) -> None:
    how = make_attack("full", {"steps": 11, "batch_size": 2})
    kept = Checkpoints(tmp_path, {"attack": repr(how)}, every=1)
    with pytest.raises(NotEnoughMemory, match="not enough memory to draw pictures, even one at a time"):
        attack_and_score(cramped(random_model, 0, 2), how, concept_set, ASKS, brightness, seed=3, checkpoints=kept)
    resumed = attack_and_score(random_model, how, concept_set, ASKS, brightness, seed=3, checkpoints=kept)
    assert resumed.curve == attack_and_score(random_model, how, concept_set, ASKS, brightness, seed=3).curve
