"""Embedders: the labelled stand-in, and networks of the true classes from a local folder."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
)

from gift.data.art import load_art
from gift.errors import GiftError, NonFiniteError
from gift.metrics.embedders import BATCH, Embedder, load_embedder

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    clip, dino = tmp_path_factory.mktemp("clip"), tmp_path_factory.mktemp("dino")
    CLIPVisionModelWithProjection(CLIPVisionConfig(**SMALL, intermediate_size=32, projection_dim=8)).save_pretrained(clip)
    Dinov2Model(Dinov2Config(**SMALL, mlp_ratio=2)).save_pretrained(dino)
    for folder in (clip, dino):
        CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return {"clip": clip, "dino": dino}


@pytest.mark.parametrize(("kind", "width"), [("clip", 8), ("dino", 16)])
def test_a_local_network_gives_its_own_embeddings(folders: dict[str, Path], kind: str, width: int) -> None:
    images = load_art().atlas("noto")[:3]
    embedder = load_embedder(f"{kind}:{folders[kind]}")
    rows = embedder(images)
    assert rows.shape == (3, width)
    assert torch.allclose(rows.norm(dim=1), torch.ones(3), atol=1e-5)
    processor = CLIPImageProcessor.from_pretrained(folders[kind])
    pixels = processor(images=list(images.permute(0, 2, 3, 1).numpy()), return_tensors="pt").pixel_values
    with torch.no_grad():
        if kind == "clip":
            wanted = CLIPVisionModelWithProjection.from_pretrained(folders[kind]).eval()(pixels).image_embeds
        else:
            wanted = Dinov2Model.from_pretrained(folders[kind]).eval()(pixels).last_hidden_state[:, 0]
    assert torch.allclose(rows, torch.nn.functional.normalize(wanted, dim=-1), atol=1e-5)


def test_code_that_comes_with_a_network_is_never_run(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(_: str) -> str:
        raise AssertionError("the user is asked whether to run it")

    monkeypatch.setattr("builtins.input", asked)
    folder, mark = tmp_path / "clip", tmp_path / "mark"
    shutil.copytree(folders["clip"], folder)
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    for name, auto in (("preprocessor_config.json", "AutoImageProcessor"), ("config.json", "AutoConfig")):
        content = json.loads((folder / name).read_text())
        own = {"model_type": "evil", "image_processor_type": "Evil", "auto_map": {auto: "evil.Evil"}}
        (folder / name).write_text(json.dumps(content | own))
        with pytest.raises(GiftError, match="can't open clip weights"):
            load_embedder(f"clip:{folder}")
    assert not mark.exists()


def test_the_stand_in_says_so_and_tells_objects_apart() -> None:
    art, embedder = load_art(), load_embedder()
    assert "stand-in" in embedder.name
    mushroom, pizza = art.names.index("mushroom"), art.names.index("pizza")
    shown = torch.stack([art.atlas(style)[mushroom] for style in art.trained_styles])
    other = torch.stack([art.atlas(style)[pizza] for style in art.trained_styles])
    same, different = embedder.similarity(shown[:3], shown[3:]), embedder.similarity(shown[:3], other[3:])
    assert min(same) > max(different)


@pytest.fixture
def pictures() -> torch.Tensor:
    return load_art().atlas("noto")[: BATCH + 3]


@pytest.mark.parametrize("cosine", [True, False])
def test_similarities_are_what_a_loop_over_pairs_gives(pictures: torch.Tensor, cosine: bool) -> None:
    def embed(images: torch.Tensor) -> torch.Tensor:
        return images[:, :, ::9, ::9].flatten(1) / 255

    embedder = Embedder("pixels", "pixels", "", cosine, embed)
    reference = pictures.flip(0).flip(-1)[: BATCH + 1]

    def one(a: torch.Tensor, b: torch.Tensor) -> float:
        x, y = embed(a[None])[0].double(), embed(b[None])[0].double()
        return float((x @ y) / (x.norm() * y.norm())) if cosine else float(1 - ((x - y) ** 2).sum())

    wanted = torch.tensor([[one(a, b) for b in reference] for a in pictures])
    assert torch.allclose(embedder.compare(embedder(pictures), embedder(reference)), wanted, rtol=1e-4, atol=1e-4)
    assert embedder.similarity(pictures, reference) == pytest.approx(wanted.mean(1).tolist(), rel=1e-4)
    assert embedder.paired(pictures[: BATCH + 1], reference) == pytest.approx(wanted.diagonal().tolist(), rel=1e-4)


def test_a_distance_over_millions_of_features_keeps_its_digits() -> None:
    rows = torch.rand(2, 3_000_000, generator=torch.Generator().manual_seed(0)) * 1e-3
    wanted = 1 - (rows[0].double() - rows[1].double()).square().sum().item()
    assert load_embedder("bundled-lpips").compare(rows, rows)[0, 1].item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("which", ["bundled", "bundled-lpips"])
def test_a_stand_in_gives_one_for_the_same_picture_and_less_the_more_noise(pictures: torch.Tensor, which: str) -> None:
    embedder, shown = load_embedder(which), pictures[:6]
    assert embedder.key == which
    assert "stand-in" in embedder.name
    assert embedder.paired(shown, shown) == pytest.approx([1.0] * 6, abs=1e-5)
    noise = torch.randn(shown.shape, generator=torch.Generator().manual_seed(0))
    noisy = [(shown + level * noise).clamp(0, 255).to(torch.uint8) for level in (10, 40, 120)]
    rows = [embedder.paired(shown, worse) for worse in noisy]
    means = [sum(row) / len(row) for row in rows]
    assert 1 > means[0] > means[1] > means[2] > 0
    assert embedder.paired(noisy[1], shown) == pytest.approx(rows[1], abs=1e-5)


def test_what_cannot_be_compared_is_told(pictures: torch.Tensor) -> None:
    embedder = load_embedder("bundled-lpips")
    with pytest.raises(GiftError, match="3 pictures can't be paired with 2"):
        embedder.paired(pictures[:3], pictures[:2])
    with pytest.raises(GiftError, match="64x64 and 64x32; give pictures of one size"):
        embedder.similarity(pictures[:2], pictures[:2, :, :32])
    with pytest.raises(GiftError, match="at least 2"):
        embedder.paired(pictures[:1], pictures[:1])
    with pytest.raises(GiftError, match="of one embedder"):
        embedder.compare(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(NonFiniteError):
        embedder.compare(torch.full((2, 3), float("nan")), torch.zeros(2, 3))


def test_the_identity_follows_the_network_and_its_processor_not_the_path(folders: dict[str, Path], tmp_path: Path) -> None:
    known = {key: load_embedder(f"{key}:{folder}") for key, folder in folders.items()}
    for key, embedder in known.items():
        assert embedder.key == key
        assert re.fullmatch("[0-9a-f]{16}", embedder.identity)
        shutil.copytree(folders[key], tmp_path / f"other-{key}")
        assert load_embedder(f"{key}:{tmp_path / f'other-{key}'}").identity == embedder.identity
    stand_ins = [load_embedder(), load_embedder("bundled-lpips")]
    assert len({e.identity for e in [*known.values(), *stand_ins]}) == 4
    assert load_embedder().identity == stand_ins[0].identity

    folder = tmp_path / "other-clip"
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {"do_center_crop": False}))
    cropless = load_embedder(f"clip:{folder}").identity
    network = CLIPVisionModelWithProjection.from_pretrained(folder)
    network.visual_projection.weight.data[0, 0] += 1
    network.save_pretrained(folder)
    assert len({known["clip"].identity, cropless, load_embedder(f"clip:{folder}").identity}) == 3


@pytest.mark.parametrize("which", ["clap:folder", "bundled:folder", "bundled-lpips:file", "dino", "lpips:"])
def test_an_unknown_one_is_told(which: str) -> None:
    with pytest.raises(GiftError, match=r"no embedder|needs its weights"):
        load_embedder(which)


def test_a_folder_without_the_network_is_told(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(GiftError, match="can't open clip weights"):
        load_embedder(f"clip:{tmp_path}")
    with pytest.raises(GiftError, match="no folder"):
        load_embedder(f"clip:{tmp_path / 'none'}")
    with pytest.raises(GiftError, match="of type clip_vision_model; give one of type dinov2"):
        load_embedder(f"dino:{folders['clip']}")


def test_weights_that_are_damaged_or_incomplete_are_told(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "dino"
    shutil.copytree(folders["dino"], folder)
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "norm1.weight" in name)
    save_file({k: v for k, v in weights.items() if k != lost}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GiftError, match=r"1 weights .* are missing or of another shape, as .*norm1\.weight"):
        load_embedder(f"dino:{folder}")
    save_file(weights | {lost: torch.ones(3)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GiftError, match=r"of another shape, as .*norm1\.weight"):
        load_embedder(f"dino:{folder}")
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(GiftError, match="can't open dino weights"):
        load_embedder(f"dino:{folder}")
