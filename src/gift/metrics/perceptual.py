"""Perceptual distance, LPIPS, as a squared Euclidean distance between embeddings, so that N x M pairs need N + M forwards.

LPIPS(x, y) = sum_l mean_hw sum_c w_lc (u_lchw(x) - u_lchw(y))² (Zhang et al. 2018, arXiv:1801.03924, equation 1), with u_l a
layer's features of unit length over the channels, is ‖phi(x) - phi(y)‖² where phi joins sqrt(w_lc / (H_l W_l)) u_l of all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from gift.errors import GiftError
from gift.metrics.recogniser import load_recogniser, pixels_for
from gift.pixels import as_float

EPS = 1e-8
"""Under the root of a feature's length, as torchmetrics has it: features that are all zero stay zero."""
SMALLEST = 31
"""AlexNet's last layer has no position left for smaller pictures."""
SUFFIXES = (".pth", ".safetensors")


class Perceptual(nn.Module):
    """phi: pixels (N, 3, H, W) to rows (N, d), d the sum of C_l H_l W_l over the layers.

    Args:
        stages: each stage reads the last one's output and gives one layer's features (N, C_l, H_l, W_l).
        weights: each layer's channel weights (C_l,), at least 0.
    """

    def __init__(self, stages: Sequence[nn.Module], weights: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.weights = nn.ParameterList(nn.Parameter(weight, requires_grad=False) for weight in weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Reads pixels as the first stage wants them."""
        rows = []
        for stage, weight in zip(self.stages, self.weights, strict=True):
            x = stage(x)
            unit = x / (EPS + x.square().sum(1, keepdim=True)).sqrt()
            rows.append((unit * (weight[:, None, None] / x[0, 0].numel()).sqrt()).flatten(1))
        return torch.cat(rows, dim=1)


def lpips(where: str) -> tuple[Perceptual, Callable[[torch.Tensor], torch.Tensor]]:
    """LPIPS with the user's AlexNet and the linear weights that torchmetrics ships.

    Args:
        where: a .pth or .safetensors file with torchvision's alexnet state dict, or the folder that holds one such file. Only its
            'features.*' are read.

    Returns:
        The network, and the embedding of uint8 (N, 3, H, W) as (N, d); H and W are at least `SMALLEST`.

    Raises:
        GiftError: no such file, or one without these weights.
    """
    import torchmetrics.functional.image.lpips as shipped

    state = _state(_file(Path(where)))
    features = alexnet_features()
    try:
        features.load_state_dict(
            {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
        )
    except RuntimeError as error:
        raise GiftError(f"{where} doesn't hold torchvision's alexnet (features.0.weight to features.10.bias)") from error
    heads = torch.load(Path(shipped.__file__).parent / "lpips_models" / "alex.pth", map_location="cpu", weights_only=True)
    cuts = [0, 2, 5, 8, 10, 12]  # each layer is read after its ReLU
    stages = [features[start:end] for start, end in pairwise(cuts)]
    weights = [heads[f"lin{i}.model.1.weight"].flatten() for i in range(len(stages))]
    network = Perceptual(stages, weights).eval().requires_grad_(False)
    scale = shipped.ScalingLayer()

    def embed(images: torch.Tensor) -> torch.Tensor:
        if min(images.shape[2:]) < SMALLEST:
            raise GiftError(
                f"LPIPS can't read pictures of {images.shape[3]}x{images.shape[2]}; give at least {SMALLEST}x{SMALLEST}"
            )
        rows: torch.Tensor = network(scale(as_float(images)))
        return rows

    return network, embed


def bundled_lpips() -> tuple[Perceptual, Callable[[torch.Tensor], torch.Tensor]]:
    """A stand-in with the bundled recogniser's four blocks, all positions and layers of equal weight.

    The weights are 1 / (2 layers): the similarity 1 - ‖phi(x) - phi(y)‖² is then 0 to 1, the features' mean cosine similarity (but
    where they are all zero).

    Returns:
        The network, and the embedding of uint8 (N, 3, H, W) as (N, d).
    """
    recogniser = load_recogniser()
    first, *rest = recogniser.blocks
    stages = [nn.Sequential(recogniser.stem, first), *rest]
    weights = [torch.full((width,), 0.5 / len(stages)) for width in recogniser.config.widths]
    network = Perceptual(stages, weights).eval().requires_grad_(False)
    return network, lambda images: network(pixels_for(images))


def alexnet_features() -> nn.Sequential:
    """The convolutions of torchvision's alexnet up to the last ReLU, by its names, so that torchvision itself isn't needed."""
    layers: list[nn.Module] = []
    shapes = [(3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1)]
    for i, (inputs, outputs, kernel, stride, padding) in enumerate(shapes):
        if i in (1, 2):
            layers.append(nn.MaxPool2d(3, 2))
        layers += [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU()]
    return nn.Sequential(*layers)


def _file(where: Path) -> Path:
    if where.is_file() and where.suffix in SUFFIXES:
        return where
    found = sorted(file for file in where.iterdir() if file.suffix in SUFFIXES) if where.is_dir() else []
    if len(found) != 1:
        has = f"holds {len(found)} files" if where.is_dir() else "is no file"
        raise GiftError(f"'{where}' {has} of {' or '.join(SUFFIXES)}; give torchvision's alexnet weights, as in lpips:alexnet.pth")
    return found[0]


def _state(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a state dict by their names."""
    try:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn pickle fails in many ways
        raise GiftError(f"can't open {file} as a state dict; save torchvision's alexnet().state_dict() there") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise GiftError(f"{file} holds no state dict; save torchvision's alexnet().state_dict() there")
    return state
