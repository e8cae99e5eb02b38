"""One table: every immunizer is a row and keeps the same promises (field failures 15, 20, 22, 29, 34)."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from pydantic import ValidationError

from gift.attacks import Full, Lora
from gift.data.latents import LatentSet
from gift.errors import GiftError, Interrupted, NonFiniteError
from gift.immunizers import (
    IMMUNIZERS,
    Ascent,
    Attacker,
    Esd,
    Gift,
    Imma,
    Immunizer,
    Joint,
    MetaUnlearning,
    Mima,
    Nothing,
    Pgu,
    RepNoise,
    ResAlign,
    Rescaled,
    Seam,
    Uce,
    Undo,
)
from gift.models import DenoisingModel
from gift.models.objectives import Ddpm
from gift.models.sd import StableDiffusion
from gift.settings import make_immunizers
from gift.training.checkpoint import Checkpoints
from tests.conftest import State, StopAt, moved, picture_set, same_state, state_of

ATTACKER = Attacker(steps=2, batch_size=2, rank=2)
MOVING: list[Immunizer] = [
    Esd(steps=4, batch_size=2, sampler_steps=3),
    Esd(steps=4, batch_size=1, sampler_steps=3, variant="x"),
    Ascent(steps=4, batch_size=2, bound="hinge"),
    Joint(steps=4, batch_size=2),
    Joint(steps=4, batch_size=2, noise_weight=0.5, noise="matched", distance="mmd"),
    RepNoise(steps=4, batch_size=2),
    Imma(steps=4, batch_size=2, rank=2),
    Pgu(steps=4, batch_size=2),
    Mima(steps=4, batch_size=2, adapt_steps=2),
    MetaUnlearning(steps=4, batch_size=2, sampler_steps=3, attacker=ATTACKER),
    ResAlign(steps=4, batch_size=2, attacker=ATTACKER, iterations=2),
    Undo(steps=4, batch_size=2),
    Seam(steps=4, batch_size=2),
    Gift.plain(steps=4, batch_size=2),
    Gift(steps=4, batch_size=2, spare=0.5, other_words=0.5),
    Gift.plain(steps=3, settle_steps=1, safe_steps=2, batch_size=2, noise_weight=0.5, noise="matched", rescale=1.0),
    Gift(steps=3, settle_steps=1, batch_size=2, attacker=ATTACKER),
    Gift.plain(steps=4, batch_size=2, attacker=ATTACKER, train="cross-attention", immunize_optimiser="sgd", project=False),
    Gift.plain(steps=4, batch_size=2, attacker=Attacker(steps=2, batch_size=2, kinds=("full",), optimisers=("sgd", "adam"))),
    Gift(steps=3, settle_steps=1, batch_size=2, attacker=ATTACKER, adapter_rank=2, project_on="momentum"),
    Gift.plain(
        steps=4, batch_size=2, attacker=Attacker(steps=2, batch_size=2, rank=2, text_encoder=0.7, replay=0.9), other_words=0.5
    ),
    ResAlign(steps=4, batch_size=2, attacker=Attacker(steps=2, batch_size=2, kinds=("full",), replay=0.9), iterations=1),
    MetaUnlearning(steps=4, batch_size=2, erase=0.0, attacker=Attacker(steps=2, batch_size=2, kinds=("lora",), rank=2, replay=0.9)),
]
CHANGING: list[Immunizer] = [Uce(batch_size=1), Rescaled(), *MOVING]
"""With those of one step, which draw nothing and have no loss."""
ALL: list[Immunizer] = [Nothing(), *CHANGING]
changing = pytest.mark.parametrize("how", CHANGING, ids=repr)
moving = pytest.mark.parametrize("how", MOVING, ids=repr)
every = pytest.mark.parametrize("how", ALL, ids=repr)
Sets = tuple[LatentSet, LatentSet]


@pytest.fixture
def sets(concept_set: LatentSet, safe_set: LatentSet) -> Sets:
    return concept_set, safe_set


def weights(model: DenoisingModel) -> State:
    """All of the pipeline's weights, not the denoiser's alone."""
    parts = {"unet": model.pipeline.unet, "vae": model.pipeline.vae, "text": model.pipeline.text_encoder}
    return {f"{part}.{name}": t.clone() for part, module in parts.items() for name, t in module.state_dict().items()}


def picture(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline("a fox", num_inference_steps=3, generator=torch.Generator().manual_seed(1), output_type="np").images


def test_every_immunizer_has_a_row() -> None:
    assert {how.name for how in ALL} == set(IMMUNIZERS)


@every
def test_the_callers_model_is_left_alone_and_the_copy_moves(random_model: StableDiffusion, sets: Sets, how: Immunizer) -> None:
    before, drawn = weights(random_model), picture(random_model.pipeline)
    training, grads = random_model.denoiser.training, [p.requires_grad for p in random_model.denoiser.parameters()]
    out = how(random_model, *sets)
    assert same_state(weights(random_model), before)
    assert (picture(random_model.pipeline) == drawn).all()
    assert random_model.denoiser.training is training
    assert [p.requires_grad for p in random_model.denoiser.parameters()] == grads
    assert all(p.grad is None for p in random_model.denoiser.parameters())
    after = weights(out)
    assert after.keys() == before.keys()  # no adapter is left behind
    assert [n for n, _ in out.denoiser.named_modules()] == [n for n, _ in random_model.denoiser.named_modules()]
    changed = moved(before, after)
    assert bool(changed) is (how.total_steps > 0)
    assert all(name.startswith("unet.") for name in changed)
    assert not out.denoiser.training
    assert not any(p.requires_grad for p in out.denoiser.parameters())
    assert not any(m._forward_hooks for m in out.denoiser.modules())


@every
def test_zero_steps_saved_and_loaded_are_bit_identical(
    random_model: StableDiffusion, sets: Sets, tmp_path: Path, how: Immunizer
) -> None:
    out = how.model_copy(update={"steps": 0})(random_model, *sets)
    opened = StableDiffusionPipeline.from_pretrained(out.save(tmp_path / "m"))
    assert same_state(weights(StableDiffusion(opened, "m")), weights(random_model))
    assert (picture(opened) == picture(random_model.pipeline)).all()


@changing
def test_the_result_opens_in_plain_diffusers(random_model: StableDiffusion, sets: Sets, tmp_path: Path, how: Immunizer) -> None:
    out = how(random_model, *sets)
    opened = StableDiffusionPipeline.from_pretrained(out.save(tmp_path / "m"))
    assert same_state(weights(StableDiffusion(opened, "m")), weights(out))
    drawn = picture(opened)
    assert (drawn == picture(out.pipeline)).all()
    assert drawn.shape == (1, 16, 16, 3)


@moving
def test_the_seed_decides_bit_for_bit_though_the_run_is_twice_interrupted(
    random_model: StableDiffusion, sets: Sets, tmp_path: Path, how: Immunizer
) -> None:
    kept = Checkpoints(tmp_path, {"how": repr(how)})
    for stop in (1, 3):
        with pytest.raises(Interrupted, match=f"{how.name} stopped at step {stop} of 4"):
            how(random_model, *sets, seed=1, checkpoints=kept, reporter=StopAt(stop))
        found = kept.latest()
        assert found is not None
        assert found[0] == stop
        torch.rand(7)  # the global generator stands elsewhere by the time of the next call
    resumed = how(random_model, *sets, seed=1, checkpoints=kept)
    whole, other = (state_of(how(random_model, *sets, seed=seed)) for seed in (1, 2))
    assert same_state(state_of(resumed), whole)
    assert not same_state(whole, other)


@moving
def test_a_loss_of_nan_stops_the_run(
    random_model: StableDiffusion, sets: Sets, tmp_path: Path, how: Immunizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, calls, real = weights(random_model), list[int](), StableDiffusion.per_sample_loss

    def breaking(self: StableDiffusion, *tensors: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return real(self, *tensors) * (float("nan") if kept.latest() else 1.0)

    kept = Checkpoints(tmp_path, {}, every=1)
    monkeypatch.setattr(StableDiffusion, "per_sample_loss", breaking)
    with pytest.raises(NonFiniteError, match="lower the learning rate"):
        how(random_model, *sets, checkpoints=kept)
    assert same_state(weights(random_model), before)
    found = kept.latest()
    assert found is not None
    assert found[0] == 1
    assert all(torch.isfinite(tensor).all() for tensor in found[1]["stepper"]["weights"].values())


@changing
def test_weights_of_nan_are_never_handed_out(random_model: StableDiffusion, sets: Sets, how: Immunizer) -> None:
    with torch.no_grad():
        random_model.pipeline.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(NonFiniteError):
        how(random_model, *sets)


@every
def test_hyperparameters_are_shown_frozen_and_checked(how: Immunizer) -> None:
    text = repr(how)
    assert text.startswith(f"{type(how).__name__}(")
    for name, field in type(how).model_fields.items():
        assert f"{name}={getattr(how, name)!r}" in text
        assert field.annotation is not None
        with pytest.raises(ValidationError, match="frozen"):
            setattr(how, name, getattr(how, name))
    with pytest.raises(ValidationError, match="extra_forbidden"):
        type(how)(**{"no_such_option": 1})
    with pytest.raises(GiftError, match="no option of method"):
        make_immunizers(how.name, {"no_such_option": 1})
    assert type(how)(**how.model_dump()) == how
    assert pickle.loads(pickle.dumps(how)) == how  # noqa: S301 - our own bytes
    assert how.about.endswith(".")
    assert how.title


@pytest.mark.parametrize("how", [h for h in MOVING if not h.uses_safe], ids=repr)
def test_what_uses_no_safe_set_does_not_depend_on_it(random_model: StableDiffusion, sets: Sets, how: Immunizer) -> None:
    concept, safe = sets
    assert same_state(state_of(how(random_model, concept, safe)), state_of(how(random_model, concept, concept)))


def test_methods_follow_each_other(random_model: StableDiffusion, sets: Sets) -> None:
    model: DenoisingModel = random_model
    before = state_of(random_model)
    for how in CHANGING:
        model = how(model, *sets)
    assert state_of(model).keys() == before.keys()
    assert same_state(state_of(random_model), before)


@pytest.mark.parametrize("kind", list(dict.fromkeys(type(how) for how in MOVING)), ids=lambda kind: kind.name)
def test_no_defence_trains_on_the_noise_and_timesteps_of_an_attack_of_its_seed(
    random_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch, kind: type[Immunizer]
) -> None:
    """With the batches of either's defaults: a defence that has seen the attacker's very draws looks better than it is."""
    drawn: list[bytes] = []
    noised = Ddpm.noised

    def seen(self: Ddpm, latents: torch.Tensor, generator: torch.Generator) -> Any:
        out = noised(self, latents, generator)
        drawn.append(out.latents.numpy().tobytes())
        return out

    monkeypatch.setattr(Ddpm, "noised", seen)
    concept, safe = (picture_set(random_model, 20, word, seed) for word, seed in (("fox", 1), ("sea", 2)))
    attacks: set[bytes] = set()
    for attack in (Lora(steps=3), Full(steps=3)):
        attack(random_model, concept, seed=5)
        attacks |= set(drawn)
    assert len(attacks) == 3, "the same for either"
    drawn.clear()
    kind(steps=2)(random_model, concept, safe, seed=5)
    assert not attacks & set(drawn)
