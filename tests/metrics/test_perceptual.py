"""LPIPS as distances between embeddings, against torchmetrics' network on pairs, and files that hold no AlexNet."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import torchmetrics.functional.image.lpips as shipped
from safetensors.torch import save_file
from torch import nn

from gift.data.art import load_art
from gift.errors import GiftError
from gift.metrics.embedders import load_embedder
from gift.metrics.perceptual import bundled_lpips
from gift.metrics.recogniser import load_recogniser
from gift.pixels import as_float


class AlexNet(nn.Module):
    """The network of torchvision's alexnet state dict, its classifier cut short."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(8, 4))


@pytest.fixture(scope="module")
def alexnet() -> AlexNet:
    torch.manual_seed(0)
    return AlexNet()


@pytest.fixture(scope="module")
def weights(alexnet: AlexNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("alexnet") / "alexnet.safetensors"
    save_file(alexnet.state_dict(), file)
    return file


@pytest.fixture
def network(alexnet: AlexNet, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """torchmetrics' LPIPS with that AlexNet in place of the one that it would take from torchvision."""
    monkeypatch.setattr(shipped, "_get_tv_model_features", lambda net, pretrained=False: alexnet.features)
    module: nn.Module = shipped._LPIPS(net="alex", pnet_rand=True)
    return module


@pytest.mark.parametrize("size", [(64, 64), (31, 90)])
def test_it_is_one_minus_the_lpips_of_torchmetrics(weights: Path, network: nn.Module, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    smooth = torch.rand(5, 3, 6, 6, generator=generator)
    images = (nn.functional.interpolate(smooth, size, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)
    embedder = load_embedder(f"lpips:{weights}")
    similarities = embedder.compare(embedder(images), embedder(images))
    with torch.no_grad():
        pairs = [[network(as_float(a[None]), as_float(b[None])).item() for b in images] for a in images]
    distances = torch.tensor(pairs)
    assert distances.max() > 1e-2
    assert torch.allclose(similarities, 1 - distances, atol=1e-5)
    assert torch.equal(similarities.diagonal(), torch.ones(5))


def test_every_kind_of_file_gives_the_same_embedder_and_other_weights_another(
    alexnet: AlexNet, weights: Path, tmp_path: Path
) -> None:
    known = load_embedder(f"lpips:{weights}")
    assert (known.key, known.cosine) == ("lpips", False)
    state = alexnet.state_dict()
    torch.save(state, tmp_path / "any.pth")
    images = load_art().atlas("noto")[:2]
    for where in (tmp_path / "any.pth", tmp_path, weights.parent):
        embedder = load_embedder(f"lpips:{where}")
        assert embedder.identity == known.identity
        assert torch.equal(embedder(images), known(images))
    torch.save(state | {"features.0.bias": state["features.0.bias"] + 1}, tmp_path / "any.pth")
    assert load_embedder(f"lpips:{tmp_path}").identity != known.identity
    torch.save(state | {"classifier.1.bias": torch.ones(4)}, tmp_path / "any.pth")
    assert load_embedder(f"lpips:{tmp_path}").identity == known.identity  # the classifier isn't read


def test_files_that_hold_no_alexnet_are_told_in_a_line(alexnet: AlexNet, weights: Path, tmp_path: Path) -> None:
    def told(where: Path) -> str:
        with pytest.raises(GiftError) as error:
            load_embedder(f"lpips:{where}")
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "is no file of .pth or .safetensors" in told(tmp_path / "none.pth")
    assert "holds 0 files" in told(tmp_path)
    for name in ("a.pth", "b.safetensors"):
        (tmp_path / name).write_bytes(b"torn")
        assert f"can't open {tmp_path / name}" in told(tmp_path / name)
    assert "holds 2 files" in told(tmp_path)
    (tmp_path / "a.txt").write_text("weights")
    assert "is no file of .pth" in told(tmp_path / "a.txt")
    torch.save(alexnet, tmp_path / "a.pth")  # a whole module would run code when opened
    assert "can't open" in told(tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"features.0.weight": 1}, protocol=2))
    assert "can't open" in told(tmp_path / "a.pth")
    for other in ([torch.ones(1)], {"state_dict": alexnet.state_dict()}):
        torch.save(other, tmp_path / "a.pth")
        assert "holds no state dict" in told(tmp_path / "a.pth")
    state = alexnet.state_dict()
    for lacking in (load_recogniser().state_dict(), state | {"features.0.weight": torch.ones(64, 3, 7, 7)}):
        torch.save(lacking, tmp_path / "a.pth")
        assert "doesn't hold torchvision's alexnet" in told(tmp_path / "a.pth")
    with pytest.raises(GiftError, match="can't read pictures of 64x30; give at least 31x31"):
        load_embedder(f"lpips:{weights}")(torch.zeros(2, 3, 30, 64, dtype=torch.uint8))


def test_the_stand_in_is_the_mean_cosine_of_the_recognisers_features() -> None:
    images = load_art().atlas("noto")[:2]
    recogniser = load_recogniser()
    with torch.no_grad():
        x, cosines = recogniser.stem(as_float(images)), []
        for block in recogniser.blocks:
            x = block(x)
            cosines.append(nn.functional.cosine_similarity(x[0], x[1], dim=0).mean())
    embedder = load_embedder("bundled-lpips")
    wanted = torch.stack(cosines).mean().item()
    assert 0 < wanted < 1
    assert embedder.paired(images, images.flip(0)) == pytest.approx([wanted] * 2, abs=1e-3)
    network, _ = bundled_lpips()
    assert not network.training
