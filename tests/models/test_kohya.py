"""LoRA in kohya's layout: written from diffusers' files, and read with the scale that its alpha says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gift.attacks import Lora
from gift.errors import GiftError
from gift.models.kohya import KOHYA_FILE, write_kohya
from gift.models.latent import LatentDiffusion
from gift.models.lora import LORA_FILE, open_lora
from tests.conftest import picture_set
from tests.models.families import ROWS, Row

UNETS = [row for row in ROWS if row.family.denoiser_part == "unet"]
every = pytest.mark.parametrize("row", UNETS, ids=lambda row: row.name)


def attacked(row: Row, folder: Path, **options: object) -> LatentDiffusion:
    """A model whose LoRA, strong enough to be seen, lies in `folder`."""
    model = row.model()
    how = Lora(steps=4, batch_size=2, rate=5e-2, **options)  # type: ignore[arg-type]
    how(model, picture_set(model, 4, "fox", 1)).save(folder)
    return model


def drawn(model: LatentDiffusion, file: Path | None) -> torch.Tensor:
    own = model.copy(text=True)
    if file:
        open_lora(own, file)
    return own.generate(["a fox"], [3], steps=2)


@every
@pytest.mark.parametrize("text", [False, True])
def test_both_layouts_draw_the_same(row: Row, tmp_path: Path, text: bool) -> None:
    model = attacked(row, tmp_path / "w", text_encoder=text)
    written = write_kohya(tmp_path / "w" / LORA_FILE)
    assert written.name == KOHYA_FILE
    plain = drawn(model, tmp_path / "w")
    assert not torch.equal(plain, drawn(model, None))
    assert torch.equal(drawn(model, written), plain)
    theirs = model.copy(text=True)
    theirs.pipeline.load_lora_weights(written.parent, weight_name=KOHYA_FILE)
    assert torch.equal(theirs.generate(["a fox"], [3], steps=2), plain)
    prefixes = {name.split("_")[1] for name in load_file(written)}
    assert prefixes == ({"unet"} if not text else {"unet", "te"} if row.name != "sdxl" else {"unet", "te1", "te2"})


def test_alpha_is_the_numerator_of_the_scale(tmp_path: Path) -> None:
    model = attacked(UNETS[0], tmp_path / "w", rank=4)
    named = load_file(write_kohya(tmp_path / "w" / LORA_FILE))
    assert all(float(tensor) == 4 for name, tensor in named.items() if name.endswith(".alpha"))
    halved = {name: tensor / 2 if "lora_up" in name else tensor for name, tensor in named.items()}
    save_file(halved, tmp_path / "halved.safetensors")
    save_file({n: t / 2 if n.endswith(".alpha") else t for n, t in named.items()}, tmp_path / "alpha.safetensors")
    assert torch.equal(drawn(model, tmp_path / "alpha.safetensors"), drawn(model, tmp_path / "halved.safetensors"))


def test_what_the_layout_has_no_names_for_is_told(tmp_path: Path) -> None:
    with pytest.raises(GiftError, match="only LoRA that diffusers reads"):
        write_kohya(tmp_path / LORA_FILE)
    save_file({"transformer.blocks.0.attn.to_q.lora_A.weight": torch.zeros(2, 2)}, tmp_path / LORA_FILE)
    with pytest.raises(GiftError, match="UNet and CLIP text encoders alone"):
        write_kohya(tmp_path / LORA_FILE)
    assert not (tmp_path / KOHYA_FILE).exists()


def test_a_file_for_another_model_is_refused(tmp_path: Path) -> None:
    named = {f"lora_unet_nowhere_attn1_to_q.lora_{part}.weight": torch.zeros(2, 2) for part in ("down", "up")}
    save_file({**named, "lora_unet_nowhere_attn1_to_q.alpha": torch.tensor(2.0)}, tmp_path / "x.safetensors")
    with pytest.raises(GiftError, match=r"for another model|does not fit"):
        open_lora(UNETS[0].model(), tmp_path / "x.safetensors")
