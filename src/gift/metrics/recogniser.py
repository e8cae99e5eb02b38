"""The bundled recogniser: which object, which drawing style, and an image-text embedding. Never trained on generated pictures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from gift.pixels import as_float

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "recogniser"
SIDE = 64
"""The recogniser was trained on pictures of this side."""
DRAWINGS = "drawings.safetensors"
"""Embeddings of the bundled drawings, which take seconds to read anew."""


class Reading(NamedTuple):
    """What the recogniser sees in N pictures."""

    objects: torch.Tensor  # (N, objects) logits
    styles: torch.Tensor  # (N, styles) logits
    features: torch.Tensor  # (N, width) pooled features, for FID and KID
    embedding: torch.Tensor  # (N, embedding) of unit length, comparable with `embed_text`


@dataclass(frozen=True)
class RecogniserConfig:
    """Names in class order, and the sizes of the network."""

    objects: tuple[str, ...]
    styles: tuple[str, ...]
    words: tuple[str, ...]
    widths: tuple[int, ...] = (32, 64, 128, 256)
    embedding: int = 128


class Block(nn.Module):
    """A residual block of two 3x3 convolutions with batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, H/stride, W/stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.skip(x))


class Recogniser(nn.Module):
    """A small residual network with an object head, a style head and an image-text embedding."""

    def __init__(self, config: RecogniserConfig) -> None:
        super().__init__()
        self.config = config
        first, *rest = config.widths
        self.stem = nn.Sequential(nn.Conv2d(3, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU())
        blocks: list[nn.Module] = [Block(first, first, 1)]
        for inputs, outputs in zip(config.widths, rest, strict=False):
            blocks.append(Block(inputs, outputs, 2))
        self.blocks = nn.Sequential(*blocks)
        width = config.widths[-1]
        self.object_head = nn.Linear(width, len(config.objects))
        self.style_head = nn.Linear(width, len(config.styles))
        self.image_head = nn.Linear(width, config.embedding)
        self.word_embedding = nn.Embedding(len(config.words), config.embedding)
        self.text_head = nn.Linear(config.embedding, config.embedding)
        self.log_scale = nn.Parameter(torch.tensor(2.5))
        self.drawings: torch.Tensor | None = None  # (styles, objects, embedding) of the bundled drawings, where they were kept
        self._word_ids = {word: i for i, word in enumerate(config.words)}

    def forward(self, images: torch.Tensor) -> Reading:
        """Reads float pictures (N, 3, 64, 64) in [-1, 1]."""
        features = self.blocks(self.stem(images)).mean((2, 3))
        embedding = F.normalize(self.image_head(features), dim=-1)
        return Reading(self.object_head(features), self.style_head(features), features, embedding)

    def embed_text(self, texts: list[str]) -> torch.Tensor:
        """Unit-length embeddings (len(texts), embedding); words it does not know are passed over."""
        rows = []
        for text in texts:
            ids = [self._word_ids[w] for w in text.lower().replace(",", " ").split() if w in self._word_ids]
            known = self.word_embedding(torch.tensor(ids, dtype=torch.long))
            rows.append(known.mean(0) if ids else torch.zeros(self.config.embedding))
        return F.normalize(self.text_head(torch.stack(rows)), dim=-1)

    def save(self, folder: Path) -> None:
        """Writes `config.json` and half-precision `model.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.half() if v.is_floating_point() else v for k, v in self.state_dict().items()}
        save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(asdict(self.config), indent=1) + "\n")


def pixels_for(images: torch.Tensor, size: int = SIDE) -> torch.Tensor:
    """uint8 pictures (N, 3, H, W) as the recogniser reads them: float in [-1, 1], resized to `size` where they differ from it."""
    pixels = as_float(images)
    if pixels.shape[-2:] == (size, size):
        return pixels
    return F.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)


@cache
def load_recogniser(folder: Path = FOLDER) -> Recogniser:
    """Loads the recogniser in evaluation mode, fp32; once in a process, so it must not be changed.

    Raises:
        FileNotFoundError: the folder holds no recogniser.
    """
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    lists = {key: tuple(raw[key]) for key in ("objects", "styles", "words", "widths")}
    config = RecogniserConfig(**lists, embedding=raw["embedding"])
    model = Recogniser(config)
    state = load_file(folder / "model.safetensors")
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    if (folder / DRAWINGS).is_file():
        model.drawings = load_file(folder / DRAWINGS)["embedding"]
    return model.eval().requires_grad_(False)
