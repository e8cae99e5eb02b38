"""Memory and time against rounding: what is exact stays exact, bf16 comes near, weights stay fp32."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal
from unittest.mock import Mock

import pytest
import torch

from gift.attacks import Attack, DreamBooth, Full, Lora, TextualInversion
from gift.data.latents import LatentSet
from gift.errors import GiftError, Interrupted, NonFiniteError
from gift.immunizers import Attacker, Esd, Gift
from gift.models import DenoisingModel
from gift.models.sd import StableDiffusion
from gift.training.checkpoint import Checkpoints
from gift.training.precision import Saving
from gift.training.progress import Silent
from tests.conftest import StopAt, moved, same_state, state_of


def seen_dtypes(model: StableDiffusion) -> set[torch.dtype]:
    """Fills up while the model's class computes attention projections."""
    seen: set[torch.dtype] = set()
    for name, module in model.denoiser.named_modules():
        if name.endswith("to_q"):
            module.register_forward_hook(lambda _, args, output: seen.add(output.dtype))
    return seen


@pytest.mark.parametrize("how", [Full(steps=3, batch_size=2), Lora(steps=3, batch_size=2)], ids=["full", "lora"])
def test_gradient_checkpointing_changes_no_loss(random_model: StableDiffusion, concept_set: LatentSet, how: Full | Lora) -> None:
    plain = how(random_model, concept_set)
    spared = how(random_model, concept_set, saving=Saving(gradient_checkpointing=True))
    assert [x["loss"] for x in spared.logs] == pytest.approx([x["loss"] for x in plain.logs], rel=1e-5)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in spared.model.denoiser.modules())


def test_bf16_computes_in_bf16_and_trains_fp32_weights(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    plain = Full(steps=3, batch_size=2)(random_model, concept_set)
    seen = seen_dtypes(random_model)  # a copy takes the hooks along
    rough = Full(steps=3, batch_size=2)(random_model, concept_set, saving=Saving(precision="bf16"))
    assert torch.bfloat16 in seen
    assert [x["loss"] for x in rough.logs] == pytest.approx([x["loss"] for x in plain.logs], rel=0.03)
    assert [x["loss"] for x in rough.logs] != [x["loss"] for x in plain.logs]
    assert {p.dtype for p in rough.model.denoiser.parameters()} == {torch.float32}
    assert rough.model.compute is torch.float32, "it draws as any other"


@pytest.mark.parametrize(
    "how",
    [Gift(steps=2, batch_size=2, settle_steps=1, attacker=Attacker(steps=2, batch_size=2)), Esd(steps=2, sampler_steps=3)],
    ids=["gift", "esd"],
)
def test_immunizers_take_both(random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet, how: Gift | Esd) -> None:
    seen = seen_dtypes(random_model)
    out = how(random_model, concept_set, safe_set, saving=Saving(precision="bf16", gradient_checkpointing=True))
    assert torch.bfloat16 in seen
    before, after = state_of(random_model), state_of(out)
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert {t.dtype for t in after.values() if t.is_floating_point()} == {torch.float32}


def test_what_a_launcher_asks_for(random_model: StableDiffusion) -> None:
    Saving().apply(random_model, Mock(mixed_precision="bf16", scaler=None))
    assert random_model.compute is torch.bfloat16
    scaler = torch.amp.GradScaler("cpu")
    Saving().apply(random_model, Mock(mixed_precision="fp16", scaler=scaler))
    assert random_model.compute is torch.float16
    assert random_model.scaler is scaler
    with pytest.raises(GiftError, match="'fp8' is not supported; use one of no, fp32, bf16, fp16"):
        Saving().apply(random_model, Mock(mixed_precision="fp8", scaler=None))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_fp16_computes_in_fp16_with_a_scaled_loss(random_model: StableDiffusion, concept_set: LatentSet, accumulate: int) -> None:
    plain = Full(steps=4, batch_size=4)(random_model, concept_set)
    seen = seen_dtypes(random_model)
    rough = Full(steps=4, batch_size=4)(random_model, concept_set, saving=Saving(precision="fp16", accumulate=accumulate))
    assert torch.float16 in seen
    assert [x["loss"] for x in rough.logs] == pytest.approx([x["loss"] for x in plain.logs], rel=0.02)
    norms = [[x["gradient_norm"] for x in done.logs] for done in (rough, plain)]
    assert norms[0] == pytest.approx(norms[1], rel=0.05), "unscaled before they are clipped and told"
    assert {p.dtype for p in rough.model.denoiser.parameters()} == {torch.float32}
    assert rough.model.scaler is None


def overflowing(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """A loss of which only a small enough scale keeps the gradient finite."""
    real = StableDiffusion.per_sample_loss

    def large(self: StableDiffusion, *tensors: torch.Tensor) -> torch.Tensor:
        return real(self, *tensors) * factor

    monkeypatch.setattr(StableDiffusion, "per_sample_loss", large)


def test_fp16_leaves_out_steps_that_overflow_until_the_scale_fits(
    random_model: StableDiffusion, concept_set: LatentSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflowing(monkeypatch, 30.0)
    how, fp16 = Full(steps=8, batch_size=2), Saving(precision="fp16")
    done = how(random_model, concept_set, saving=fp16)
    skipped = [not math.isfinite(x["gradient_norm"]) for x in done.logs]
    assert skipped[0]
    assert not skipped[-1]
    assert not same_state(state_of(done.model), state_of(random_model))
    kept = Checkpoints(tmp_path, fp16.settings())
    with pytest.raises(Interrupted):
        how(random_model, concept_set, saving=fp16, checkpoints=kept, reporter=StopAt(2))
    assert same_state(state_of(how(random_model, concept_set, saving=fp16, checkpoints=kept).model), state_of(done.model))
    with pytest.raises(GiftError, match=r'saving.precision: "fp16" -> null'):
        how(random_model, concept_set, checkpoints=Checkpoints(tmp_path, Saving(accumulate=2).settings()))
    overflowing(monkeypatch, 1e8)
    before = state_of(random_model)
    with pytest.raises(NonFiniteError, match=r"the gradient is .* use bf16 or fp32"):
        Full(steps=30, batch_size=2)(random_model, concept_set, saving=fp16)
    assert same_state(state_of(random_model), before)


def test_the_optimisers_of_a_defence_share_a_scale_that_a_resumed_run_takes_up(
    random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflowing(monkeypatch, 30.0)
    how = Gift(steps=3, batch_size=2, settle_steps=2, attacker=Attacker(steps=2, batch_size=2, rank=2))
    saving, kept = Saving(precision="fp16", accumulate=2), Checkpoints(tmp_path, {})
    whole = how(random_model, concept_set, safe_set, saving=saving)
    with pytest.raises(Interrupted):
        how(random_model, concept_set, safe_set, saving=saving, checkpoints=kept, reporter=StopAt(2))
    found = kept.latest()
    assert found
    scales = [state["scaler"]["scale"] for state in found[1]["stepper"]["updaters"].values()]
    assert len(scales) == 2
    assert scales[0] == scales[1] < 65536
    again = how(random_model, concept_set, safe_set, saving=saving, checkpoints=kept)
    assert same_state(state_of(again), state_of(whole))
    assert not same_state(state_of(again), state_of(random_model))


@pytest.mark.parametrize(
    "how",
    [
        Lora(steps=3, batch_size=5, rank=2, text_encoder=True),
        TextualInversion(steps=3, batch_size=5),
        DreamBooth(steps=3, batch_size=4, prior=True, class_pictures=2),
    ],
    ids=["text lora", "ti", "prior"],
)
def test_micro_batches_change_no_attack(random_model: StableDiffusion, concept_set: LatentSet, how: Attack) -> None:
    plain, parts = (how(random_model, concept_set, saving=saving).logs for saving in (Saving(), Saving(accumulate=2)))
    for name in ("loss", "gradient_norm"):
        assert [x[name] for x in parts] == pytest.approx([x[name] for x in plain], rel=1e-4)


def test_micro_batches_are_of_an_erasure_too(
    random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights to rounding; no more than a part of the batch goes through the denoiser with gradients."""
    how, sizes, usual = Esd(steps=3, batch_size=4, sampler_steps=3), list[int](), StableDiffusion.predict_in_training
    plain = how(random_model, concept_set, safe_set)

    def watched(self: StableDiffusion, latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        sizes.append(len(latents))
        return usual(self, latents, *rest)

    monkeypatch.setattr(StableDiffusion, "predict_in_training", watched)
    parts = how(random_model, concept_set, safe_set, saving=Saving(accumulate=2))
    assert sizes == [2] * 6
    assert not same_state(state_of(plain), state_of(random_model))
    for name, value in state_of(plain).items():
        torch.testing.assert_close(state_of(parts)[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bound", ["identity", "log"])
def test_micro_batches_change_no_defence(
    random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet, bound: Literal["identity", "log"]
) -> None:
    how = Gift.plain(steps=2, batch_size=3, settle_steps=1, bound=bound, attacker=Attacker(steps=2, batch_size=2))
    sizes, logged = list[int](), dict[int, list[dict[str, float]]]()
    real = StableDiffusion.predict

    class Kept(Silent):
        def step(self, done: int, logs: Any) -> None:
            logged.setdefault(len(sizes) > 0, []).append(dict(logs))

    def watched(self: StableDiffusion, latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        if torch.is_grad_enabled():
            sizes.append(len(latents))
        return real(self, latents, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StableDiffusion, "predict", watched)
        how(random_model, concept_set, safe_set, saving=Saving(accumulate=3, gradient_checkpointing=True), reporter=Kept())
    assert set(sizes) == {1}
    sizes.clear()
    how(random_model, concept_set, safe_set, reporter=Kept())
    assert len(logged[True]) == 3
    for parts, whole in zip(logged[True], logged[False], strict=True):
        assert parts == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("saving", [Saving(accumulate=2), Saving(compile="aot_eager")])
def test_noising_needs_whole_forwards(
    random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet, saving: Saving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StableDiffusion, "predict", Mock(side_effect=AssertionError("it is told before any work")))
    with pytest.raises(GiftError, match="leave accumulate and compile out"):
        Gift(steps=1, noise_weight=0.1)(random_model, concept_set, safe_set, saving=saving)


def test_the_mean_of_the_weights_is_released(random_model: StableDiffusion, concept_set: LatentSet, tmp_path: Path) -> None:
    how, saving, seen = Full(steps=4, batch_size=2, rate=1e-2), Saving(ema=0.5), list[dict[str, torch.Tensor]]()

    def look(step: int, model: DenoisingModel) -> int:
        seen.append(state_of(model))
        return step

    every = how(random_model, concept_set, at=range(5), observe=look)
    expected = seen[0]
    for n, state in enumerate(seen[1:], 1):
        decay = min(0.5, n / (9 + n)) if n > 1 else 0.0  # diffusers' first step takes the weights as they are
        expected = {name: decay * expected[name] + (1 - decay) * tensor for name, tensor in state.items()}
    seen.clear()
    done = how(random_model, concept_set, at=range(5), observe=look, saving=saving)
    assert [x["loss"] for x in done.logs] == [x["loss"] for x in every.logs], "what is averaged does not train"
    for name, tensor in state_of(done.model).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6)
        assert torch.equal(tensor, seen[-1][name]), "what is looked at is the mean, too"
    kept = Checkpoints(tmp_path, {})
    with pytest.raises(Interrupted):
        how(random_model, concept_set, saving=saving, checkpoints=kept, reporter=StopAt(2))
    assert same_state(state_of(how(random_model, concept_set, saving=saving, checkpoints=kept).model), state_of(done.model))


def test_an_immunizer_releases_the_mean_too(
    random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet, tmp_path: Path
) -> None:
    how = Gift.plain(steps=3, batch_size=2, adapter_rank=2, attacker=Attacker(steps=2, batch_size=2, rank=2))
    plain, mean = (state_of(how(random_model, concept_set, safe_set, saving=s)) for s in (Saving(), Saving(ema=0.9)))
    changed = moved(state_of(random_model), mean)
    assert changed
    assert not same_state(plain, mean)
    kept, saving = Checkpoints(tmp_path, {}), Saving(ema=0.9)
    with pytest.raises(Interrupted):
        how(random_model, concept_set, safe_set, saving=saving, checkpoints=kept, reporter=StopAt(2))
    assert same_state(state_of(how(random_model, concept_set, safe_set, saving=saving, checkpoints=kept)), mean)


@pytest.mark.slow
def test_compiled_forwards_give_the_same(random_model: StableDiffusion, concept_set: LatentSet, safe_set: LatentSet) -> None:
    compiled = Saving(compile="aot_eager")
    attack = Lora(steps=2, batch_size=2, rank=2)
    plain, fast = (attack(random_model, concept_set, saving=saving) for saving in (Saving(), Saving(compile="eager")))
    assert [x["loss"] for x in fast.logs] == pytest.approx([x["loss"] for x in plain.logs], rel=1e-4)
    assert state_of(fast.model).keys() == state_of(plain.model).keys()
    how = Gift(steps=2, batch_size=2, settle_steps=1, attacker=Attacker(steps=2, batch_size=2, rank=2))
    slow, out = (how(random_model, concept_set, safe_set, saving=saving) for saving in (Saving(), compiled))
    assert out.copy().denoiser._compiled_call_impl is None
    before, by_eager, by_compiled = (state_of(model) for model in (random_model, slow, out))
    apart = {name: (by_compiled[name] - by_eager[name]).norm() for name in before}
    way = {name: (by_eager[name] - before[name]).norm() for name in before}
    assert all(apart[name] <= 0.5 * way[name] for name in before), "Adam steps as far along rounding, but not in most of a tensor"
    assert sum(apart.values()) < 0.1 * sum(way.values())


def test_a_compiler_that_is_not_there_or_fails(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    with pytest.raises(GiftError, match=r"torch\.compile has no backend 'nonsense'; use one of"):
        Full(steps=1)(random_model, concept_set, saving=Saving(compile="nonsense"))

    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler")

    torch._dynamo.register_backend(name="broken")(broken)
    with pytest.raises(GiftError, match=r"torch\.compile with 'broken' failed \(no compiler\); mend that or leave"):
        Full(steps=1)(random_model, concept_set, saving=Saving(compile="broken"))


def test_deepspeed_is_refused(random_model: StableDiffusion, concept_set: LatentSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(GiftError, match="DeepSpeed is not supported; launch with FSDP instead"):
        Full(steps=1)(random_model, concept_set)
