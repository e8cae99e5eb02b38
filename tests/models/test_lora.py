"""Adapters change nothing until they are trained, come off without a trace, and load elsewhere or say why not (30, 31)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gift.errors import GiftError
from gift.models import lora
from gift.models.lora import (
    CONFIGS,
    LORA_FILE,
    AdapterKind,
    attach_lora,
    detach_lora,
    has_lora,
    open_lora,
    redraw_lora,
    save_lora,
    switch_lora,
)
from gift.models.sd import StableDiffusion
from tests.conftest import same_state, state_of


@torch.no_grad()
def output(model: StableDiffusion) -> torch.Tensor:
    x = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(3))
    return model.predict(x, torch.tensor([10, 700]), model.encode_prompts(["a fox", "sea"]))


@torch.no_grad()
def shake(weights: dict[str, nn.Parameter]) -> None:
    for i, weight in enumerate(weights.values()):
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)))


def test_attaching_changes_nothing_and_only_the_factors_train(random_model: StableDiffusion) -> None:
    before, names = output(random_model), [n for n, _ in random_model.denoiser.named_modules() if n.endswith(lora.TARGETS)]
    weights = attach_lora(random_model, 3)
    assert torch.equal(output(random_model), before)
    assert len(weights) == 2 * len(names) > 0
    assert {min(w.shape) for w in weights.values()} == {3}
    assert {id(p) for p in random_model.denoiser.parameters() if p.requires_grad} == {id(w) for w in weights.values()}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("text", [False, True])
def test_every_kind_starts_as_no_change_and_can_change_all(random_model: StableDiffusion, kind: AdapterKind, text: bool) -> None:
    model = random_model.copy(text=text)
    before, encoder = output(model), model.pipeline.text_encoder
    weights = attach_lora(model, 2, kind=kind, text=text)
    assert torch.equal(output(model), before)
    parts = [*model.denoiser.parameters(), *encoder.parameters()]
    assert {id(p) for p in parts if p.requires_grad} == {id(w) for w in weights.values()}
    assert any(name.startswith("text_encoder.") for name in weights) is text
    was = encoder(torch.tensor([[1, 2]]))[0].detach()
    shake(weights)
    assert not torch.allclose(output(model), before)
    assert torch.allclose(encoder(torch.tensor([[1, 2]]))[0], was) is not text


def test_detaching_leaves_no_trace(random_model: StableDiffusion) -> None:
    before, was = state_of(random_model), output(random_model)
    shake(attach_lora(random_model, 2, "one"))
    assert not torch.equal(output(random_model), was)
    detach_lora(random_model)
    assert same_state(state_of(random_model), before)
    assert torch.equal(output(random_model), was)
    attach_lora(random_model, 2, "one")  # the name is free again
    detach_lora(random_model)
    assert same_state(state_of(random_model), before)


def test_switching_and_redrawing(random_model: StableDiffusion) -> None:
    was = output(random_model)
    weights = attach_lora(random_model, 2)
    shake(weights)
    changed = output(random_model)
    switch_lora(random_model, "default", on=False)
    assert torch.equal(output(random_model), was)
    switch_lora(random_model, "default", on=True)
    assert torch.equal(output(random_model), changed)
    redraw_lora(weights, torch.Generator().manual_seed(0))
    first = {name: w.detach().clone() for name, w in weights.items()}
    assert torch.equal(output(random_model), was)
    assert all(w.any() == ("lora_A" in name) for name, w in weights.items())
    redraw_lora(weights, torch.Generator().manual_seed(0))
    assert all(torch.equal(first[name], w) for name, w in weights.items())


@pytest.mark.parametrize("alpha", [None, 1.0, 8.0])
@pytest.mark.parametrize("as_file", [False, True])
def test_saved_files_give_the_same_model_elsewhere(
    random_model: StableDiffusion, tmp_path: Path, alpha: float | None, as_file: bool
) -> None:
    other = random_model.copy()
    shake(attach_lora(random_model, 2, alpha=alpha))
    folder = save_lora(random_model, tmp_path / "lora")
    assert [p.name for p in folder.iterdir()] == [LORA_FILE]
    before = output(other)
    open_lora(other, folder / LORA_FILE if as_file else folder)
    assert not torch.equal(output(other), before)
    torch.testing.assert_close(output(other), output(random_model))


def test_an_adapter_that_matches_nothing_is_refused(random_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "TARGETS", ("nothing_here",))
    with pytest.raises(GiftError, match="LoRA matches no module of UNet2DConditionModel") as caught:
        attach_lora(random_model, 2)
    assert "\n" not in str(caught.value)


def foreign(file: Path) -> None:
    save_file({"unet.other.to_q.lora.down.weight": torch.zeros(2, 8), "unet.other.to_q.lora.up.weight": torch.zeros(8, 2)}, file)


def misfit(file: Path) -> None:
    where = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file({f"{where}.lora_A.weight": torch.zeros(2, 99), f"{where}.lora_B.weight": torch.zeros(99, 2)}, file)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda file: None, "no pytorch_lora_weights"),
    "empty": (lambda file: file.write_bytes(b""), "truncated or not a safetensors"),
    "pickle": (lambda file: file.write_bytes(b"\x80\x04x"), "pickle"),
    "no tensors": (lambda file: save_file({}, file), "matches no module"),
    "another model's": (foreign, "is for another model"),
    "another width": (misfit, "does not fit"),
    "unreadable header": (
        lambda file: file.write_bytes((37).to_bytes(8, "little") + b'{"a":{"dtype":7,"data_offsets":[0,0]}}'[:37]),
        "header|truncated",
    ),
    "unknown number type": (
        lambda file: file.write_bytes((56).to_bytes(8, "little") + b'{"a":{"dtype":"Q9","shape":[0],"data_offsets":[0,0]}}   '),
        "can't be read|header|does not fit",
    ),
}


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_file_of_which_a_part_fits_is_refused(random_model: StableDiffusion, tmp_path: Path, share: float) -> None:
    """An adapter that is half on looks like a weak attack."""
    other = random_model.copy()
    shake(attach_lora(random_model, 2))
    file = save_lora(random_model, tmp_path / "lora") / LORA_FILE
    weights = load_file(file)
    kept = sorted(weights)[: round(share * len(weights)) - 2]
    save_file({key if key in kept else key.replace("attn", "otherattn"): value for key, value in weights.items()}, file)
    was = output(other)
    with pytest.raises(GiftError, match=rf"(?s)({len(weights) - len(kept)} of the {len(weights)} tensors in|does not fit)"):
        open_lora(other, file)
    assert torch.equal(output(other), was)


def test_a_file_for_the_text_encoder_alone_is_read(random_model: StableDiffusion, tmp_path: Path) -> None:
    other = random_model.copy(text=True)
    shake(attach_lora(random_model, 2, text=True))
    file = save_lora(random_model, tmp_path / "lora") / LORA_FILE
    save_file({key: value for key, value in load_file(file).items() if key.startswith("text_encoder")}, file)
    before = other.encode_prompts(["a fox"])["states"]
    open_lora(other, file)
    assert not torch.equal(other.encode_prompts(["a fox"])["states"], before)
    assert not has_lora(other), "the denoiser has none"


@pytest.mark.parametrize("kind", BAD)
def test_files_that_do_not_fit_are_told(random_model: StableDiffusion, tmp_path: Path, kind: str) -> None:
    make, words = BAD[kind]
    make(tmp_path / LORA_FILE)
    before, was = state_of(random_model), output(random_model)
    with pytest.raises(GiftError, match=words) as caught:
        open_lora(random_model, tmp_path)
    assert "\n" not in str(caught.value)
    assert same_state(state_of(random_model), before)
    assert torch.equal(output(random_model), was)
