"""Embedders: the labelled stand-in, and networks of the true classes from a local folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
)

from gift.data.art import load_art
from gift.errors import GiftError
from gift.metrics.embedders import load_embedder, similarity

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


def test_the_stand_in_says_so_and_tells_objects_apart() -> None:
    art, embedder = load_art(), load_embedder()
    assert "stand-in" in embedder.name
    mushroom, pizza = art.names.index("mushroom"), art.names.index("pizza")
    shown = torch.stack([art.atlas(style)[mushroom] for style in art.trained_styles])
    other = torch.stack([art.atlas(style)[pizza] for style in art.trained_styles])
    same, different = similarity(shown[:3], shown[3:], embedder), similarity(shown[:3], other[3:], embedder)
    assert min(same) > max(different)


@pytest.mark.parametrize("which", ["clap:folder", "bundled:folder", "dino"])
def test_an_unknown_one_is_told(which: str) -> None:
    with pytest.raises(GiftError):
        load_embedder(which)


def test_a_folder_without_the_network_is_told(tmp_path: Path) -> None:
    with pytest.raises(GiftError, match="can't open clip weights"):
        load_embedder(f"clip:{tmp_path}")
    with pytest.raises(GiftError, match="no folder"):
        load_embedder(f"clip:{tmp_path / 'none'}")
