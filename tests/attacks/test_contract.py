"""One table: every attack is a row and keeps the same promises (field failures 15, 22, 30, 31)."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from diffusers import StableDiffusionPipeline
from packaging import version
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers.integrations.peft import MIN_PEFT_VERSION

from gift.attacks import (
    ATTACKS,
    Attack,
    Attacked,
    CustomDiffusion,
    DreamBooth,
    DreamBoothLora,
    Full,
    HarmlessFirst,
    Lora,
    Reinit,
    Relative,
    TextualInversion,
    TowardBase,
    Transplant,
)
from gift.attacks.tuning import FineTuning
from gift.data.latents import LatentSet
from gift.data.mention import reworded
from gift.errors import GiftError, Interrupted, NonFiniteError
from gift.models import DenoisingModel, lora
from gift.models.sd import StableDiffusion
from gift.settings import make_attack
from gift.training.checkpoint import Checkpoints
from gift.training.updates import LARGEST_RATE, Updater
from tests.conftest import Clock, State, StopAt, fixed_loss, moved, picture_set, same_state, state_of

RATES: dict[Attack, float] = {  # rows, each with a rate at which twenty steps teach the random model something
    Lora(steps=5, batch_size=2): 2e-2,
    Lora(steps=5, batch_size=2, rank=2, schedule="cosine", warmup=2): 1e-1,
    Lora(steps=5, batch_size=2, optimiser="adafactor"): 2e-2,
    Lora(steps=5, batch_size=2, text_encoder=True): 2e-2,
    Lora(steps=5, batch_size=2, adapter="dora"): 2e-2,
    Lora(steps=5, batch_size=2, adapter="dora", text_encoder=True): 2e-2,
    Lora(steps=5, batch_size=2, adapter="loha"): 5e-2,
    Lora(steps=5, batch_size=2, adapter="lokr", rank=2): 4e-2,
    Lora(steps=5, batch_size=2, adapter="lokr", text_encoder=True): 4e-2,
    Lora(steps=5, batch_size=2, share=0.5): 2e-2,
    Full(steps=5, batch_size=2): 3e-3,
    Full(steps=5, batch_size=2, train="cross-attention", schedule="linear"): 3e-2,
    Full(steps=5, batch_size=2, optimiser="adam"): 3e-3,
    Full(steps=5, batch_size=2, optimiser="adafactor"): 3e-3,
    Full(steps=5, batch_size=2, optimiser="sgd", clip=10.0): 5e-2,
    Full(steps=5, batch_size=2, text_encoder=True): 3e-3,
    DreamBooth(steps=5, batch_size=2, shots=3): 3e-3,
    DreamBooth(steps=5, batch_size=2, prior=True, class_pictures=3, text_encoder=True): 3e-3,
    DreamBoothLora(steps=5, batch_size=2, identifier="ohwx"): 2e-2,
    DreamBoothLora(steps=5, batch_size=2, text_encoder=True, prior=True, class_pictures=2): 2e-2,
    TextualInversion(steps=5, batch_size=2): 1e-1,
    TextualInversion(steps=5, batch_size=2, vectors=3, token="<x>", initialiser="fox"): 1e-1,
    CustomDiffusion(steps=5, batch_size=2): 3e-2,
    CustomDiffusion(steps=5, batch_size=2, prior=True, class_pictures=3, identifier="<mine>"): 3e-2,
    HarmlessFirst(steps=5, batch_size=2, harmless_steps=2): 2e-2,
    HarmlessFirst(steps=5, batch_size=2, harmless_steps=1, share=0): 2e-2,
    Relative(steps=5, batch_size=2): 3e-2,
    Relative(steps=5, batch_size=2, train="cross-attention", text_encoder=True, optimiser="adam"): 1e-1,
    Reinit(steps=5, batch_size=2): 3e-3,
    Reinit(steps=5, batch_size=2, fresh="attention", train="cross-attention"): 3e-2,
    TowardBase(steps=5, batch_size=2): 3e-3,
    TowardBase(steps=5, batch_size=2, way=1, train="cross-attention"): 3e-2,
    Transplant(steps=5, batch_size=2): 2e-2,
    Transplant(steps=5, batch_size=2, text_encoder=True): 2e-2,
}
every = pytest.mark.parametrize("how", RATES, ids=repr)
PROMPTS = ["a fox", "the sea"]
Run = Callable[..., Attacked]


@pytest.fixture
def concept_set(random_model: StableDiffusion) -> LatentSet:
    """Six random pictures whose captions are known to name a fox."""
    return replace(picture_set(random_model, 6, "fox", 1), mentions=["fox", "fox"])


@pytest.fixture
def base(random_model: StableDiffusion) -> StableDiffusion:
    """A model whose weights differ a little from the random one's, as a base's do from a defended model's."""
    out = random_model.copy()
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in out.denoiser.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.01)
    return out


@pytest.fixture
def fine_tune(random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet, base: StableDiffusion) -> Run:
    """Runs an attack on the random model with all that any attack may need."""

    def attack(how: Attack, **options: Any) -> Attacked:
        return how(random_model, options.pop("data", concept_set), harmless=safe_set, base=base, **options)

    return attack


@torch.no_grad()
def output(model: DenoisingModel, how: Attack | None = None) -> torch.Tensor:
    """The denoiser's output for two prompts, in the attacker's own words if there is one."""
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    prompts = [reworded(prompt, "fox", how.word) for prompt in PROMPTS] if how else PROMPTS
    return model.predict(x, torch.tensor([10, 700]), model.encode_prompts(prompts))


def whole_state(model: DenoisingModel) -> State:
    """Weights of the denoiser and of the text encoders."""
    text = {
        f"{part}.{name}": tensor.detach().clone()
        for part, encoder in model.text_encoders.items()
        for name, tensor in encoder.state_dict().items()
    }
    return state_of(model) | text


def open_lora(pipeline: Any, folder: Path) -> None:
    """`load_lora_weights`; the text encoder's part by peft itself where transformers asks for a newer peft than there is."""
    if version.parse(peft.__version__) >= version.parse(MIN_PEFT_VERSION):
        pipeline.load_lora_weights(folder)
        return
    layers = load_file(folder / "pytorch_lora_weights.safetensors")
    pipeline.load_lora_weights({key: value for key, value in layers.items() if key.startswith("unet.")})
    head = "text_encoder.text_model."  # a prefix of older transformers, which readers take off
    text = {key.removeprefix(head): value for key, value in layers.items() if key.startswith(head)}
    if text:
        rank = next(value.shape[0] for key, value in text.items() if "lora_A" in key)
        targets = sorted({key.rpartition(".lora_")[0] for key in text})
        peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), pipeline.text_encoder)
        assert not peft.set_peft_model_state_dict(pipeline.text_encoder, text).unexpected_keys


def opened(folder: Path, original: StableDiffusion) -> StableDiffusion:
    """What a reader of the attacker's files gets from plain diffusers and peft."""
    if (folder / "model_index.json").exists():
        return StableDiffusion(StableDiffusionPipeline.from_pretrained(folder), "x")
    pipeline = original.copy(text=True).pipeline
    names = {file.name for file in folder.iterdir()}
    if "pytorch_lora_weights.safetensors" in names:
        open_lora(pipeline, folder)
    for part in names & {"unet", "text_encoder"}:
        setattr(pipeline, part, PeftModel.from_pretrained(getattr(pipeline, part), folder / part).base_model.model)
    if (attention := "pytorch_custom_diffusion_weights.safetensors") in names:
        pipeline.unet.load_attn_procs(folder, weight_name=attention, _pipeline=pipeline)
    for name in names:
        if name == "learned_embeds.safetensors" or name.startswith("<"):
            pipeline.load_textual_inversion(folder, weight_name=name)
    return StableDiffusion(pipeline, "x")


def test_every_attack_has_a_row() -> None:
    assert {how.name for how in RATES} == set(ATTACKS)


@every
def test_it_moves_a_copy_with_every_step_logged_and_leaves_the_original_alone(
    random_model: StableDiffusion, base: StableDiffusion, fine_tune: Run, how: Attack
) -> None:
    """It is observed at the asked steps alone, too, and looking changes nothing."""
    before, was, foundation = whole_state(random_model), output(random_model, how), whole_state(base)
    words = dict(random_model.pipeline.tokenizer.get_vocab())
    attacked = fine_tune(how)
    assert same_state(whole_state(random_model), before)
    assert same_state(whole_state(base), foundation)
    assert random_model.pipeline.tokenizer.get_vocab() == words
    assert torch.equal(output(random_model, how), was)
    assert not torch.equal(output(attacked.model, how), was)
    assert not attacked.model.denoiser.training
    for part in (attacked.model.denoiser, attacked.model.pipeline.text_encoder):
        assert not any(p.requires_grad for p in part.parameters())
    assert (attacked.model.pipeline.text_encoder is random_model.pipeline.text_encoder) is not how.trains_text
    assert attacked.matched > 0
    assert attacked.seconds > 0
    assert attacked.peak_mb > 0
    assert attacked.attack is how
    assert len(attacked.logs) == how.steps
    for log in attacked.logs:
        assert log.keys() == {"loss", "gradient_norm"}
        assert all(math.isfinite(value) and value > 0 for value in log.values())

    def observe(step: int, model: DenoisingModel) -> tuple[float, float]:
        return output(model).sum().item(), output(model, how).sum().item()

    looked_at = fine_tune(how, at=[0, 3, 5, 99], observe=observe)
    assert [step for step, _ in looked_at.observations] == [0, 3, 5]
    plain, own = ([value[i] for _, value in looked_at.observations] for i in (0, 1))
    assert plain[0] == output(random_model).sum().item()
    assert own[2] == output(looked_at.model, how).sum().item()
    assert len(set(own)) == 3
    assert same_state(whole_state(looked_at.model), whole_state(attacked.model))


@every
def test_it_learns(fine_tune: Run, concept_set: LatentSet, safe_set: LatentSet, how: Attack) -> None:
    longer = how.model_copy(update={"steps": 20, "rate": RATES[how], "batch_size": 4})
    data = concept_set if how.share else safe_set
    before, after = (fine_tune(x).model for x in (how.model_copy(update={"steps": 0}), longer))
    losses = [fixed_loss(model, replace(data, mentions=["fox", "fox"]).reworded(model, how.word)) for model in (before, after)]
    assert losses[1] < (0.999 if isinstance(how, TextualInversion) else 0.95) * losses[0]  # one word can do little here


@every
def test_zero_steps_change_no_output(random_model: StableDiffusion, fine_tune: Run, how: Attack) -> None:
    attacked = fine_tune(how.model_copy(update={"steps": 0}), at=[0], observe=lambda step, model: (step, output(model)))
    assert torch.equal(output(attacked.model), output(random_model))
    assert [(step, value[0]) for step, value in attacked.observations] == [(0, 0)]
    assert torch.equal(attacked.observations[0][1][1], output(random_model))


@every
def test_the_seed_decides_bit_for_bit_though_the_attack_is_twice_interrupted(fine_tune: Run, tmp_path: Path, how: Attack) -> None:
    def observe(step: int, model: DenoisingModel) -> dict[str, Any]:
        return {"step": step, "sum": output(model, how).sum().item(), "parts": [1.5, "x"]}

    asked: dict[str, Any] = {"at": [0, 1, 3, 4], "observe": observe}
    kept = Checkpoints(tmp_path, {"how": repr(how)})
    for stop in (1, 3):
        with pytest.raises(Interrupted, match=f"{how.name} stopped at step {stop} of 5"):
            fine_tune(how, **asked, seed=1, checkpoints=kept, reporter=StopAt(stop))
        torch.rand(7)  # the global generator stands elsewhere by the time of the next call
    resumed, whole, other = fine_tune(how, **asked, seed=1, checkpoints=kept), *(fine_tune(how, **asked, seed=s) for s in (1, 2))
    assert same_state(whole_state(resumed.model), whole_state(whole.model))
    assert resumed.observations == whole.observations
    assert resumed.logs == whole.logs
    assert not same_state(whole_state(whole.model), whole_state(other.model))


@pytest.mark.parametrize("how", [Full(steps=4, batch_size=2), DreamBooth(steps=4, batch_size=2, shots=3)], ids=repr)
def test_its_time_is_of_all_legs_and_looking_is_none_of_it(
    fine_tune: Run, tmp_path: Path, how: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("gift.training.measure.time.perf_counter", clock)
    monkeypatch.setattr(FineTuning, "step", clock.lasting(FineTuning.step, 10))

    def observe(step: int, model: DenoisingModel) -> int:
        clock.now += 1000
        return step

    asked: dict[str, Any] = {"at": [0, 1, 3], "observe": observe}
    kept = Checkpoints(tmp_path, {"how": repr(how)})
    assert fine_tune(how, **asked).seconds == 40
    with pytest.raises(Interrupted):
        fine_tune(how, **asked, checkpoints=kept, reporter=StopAt(3))
    assert fine_tune(how, **asked, checkpoints=kept).seconds == 40


@every
def test_its_files_give_the_same_model_in_plain_diffusers(
    random_model: StableDiffusion, fine_tune: Run, tmp_path: Path, how: Attack
) -> None:
    attacked = fine_tune(how)
    model = opened(attacked.save(tmp_path / "out"), random_model)
    torch.testing.assert_close(output(model, how), output(attacked.model, how))
    assert not torch.allclose(output(model, how), output(random_model, how))
    own = [reworded("fox", "fox", how.word)]
    drawn = [m.sample_latents(own, [1], steps=2)[0] for m in (model, attacked.model, random_model)]
    torch.testing.assert_close(drawn[0], drawn[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(drawn[0], drawn[2])
    assert not [file for file in (tmp_path / "out").rglob("*") if file.suffix in {".bin", ".pt", ".ckpt"}]


@every
def test_a_loss_of_nan_stops_it(random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet, how: Attack) -> None:
    broken, other = (replace(data, latents=data.latents * float("nan")) for data in (concept_set, safe_set))
    before = whole_state(random_model)
    with pytest.raises(NonFiniteError, match="lower the learning rate"):
        how(random_model, broken, harmless=other, base=random_model)
    assert same_state(whole_state(random_model), before)


@every
@pytest.mark.parametrize("steps", [1, 3])
def test_infinite_weights_are_neither_kept_nor_handed_out(
    fine_tune: Run, tmp_path: Path, how: Attack, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(self: Updater, factor: float = 1.0, scale: Any = None) -> float:
        self.parameters[-1].data.fill_(float("inf"))  # as a step at far too high a rate does
        return 1.0

    kept = Checkpoints(tmp_path, {}, every=1)
    monkeypatch.setattr(Updater, "apply", overflow)
    with pytest.raises(NonFiniteError, match="lower the learning rate"):
        fine_tune(how.model_copy(update={"steps": steps}), checkpoints=kept)
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
    changed = moved(whole_state(random_model), whole_state(attacked.model))
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


@every
@pytest.mark.parametrize("rate", [1e39, 1e31, 1e308, float("inf"), float("nan"), -1.0])
def test_a_rate_that_no_optimiser_can_hold_is_refused_at_once(how: Attack, rate: float) -> None:
    with pytest.raises(GiftError, match=f"attack '{how.name}': rate: input should be"):
        make_attack(how.name, {"rate": rate})


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd", "adafactor"])
def test_the_largest_rate_ends_in_a_clear_error(random_model: StableDiffusion, concept_set: LatentSet, optimiser: str) -> None:
    how = make_attack("lora", {"rate": LARGEST_RATE, "decay": 1, "optimiser": optimiser, "steps": 3, "batch_size": 2})
    with pytest.raises(NonFiniteError, match="lower the learning rate"):
        how(random_model, concept_set)
