"""Image embeddings and similarities: the user's own CLIP, DINOv2 or LPIPS weights, and offline stand-ins that say what they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from gift.errors import GiftError, one_of
from gift.metrics.collapse import check_pictures
from gift.metrics.concept import read
from gift.metrics.recogniser import load_recogniser

BATCH = 64
"""Pictures that go through a network at once."""
STAND_IN = "bundled"


@dataclass(frozen=True)
class Embedder:
    """Turns pictures into embeddings whose dot product is their similarity.

    Attributes:
        name: what a report calls the similarity; a stand-in says that it is one.
        embed: uint8 (N, 3, H, W) to float (N, d) of unit length.
    """

    name: str
    embed: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Embeds pictures uint8 (N, 3, H, W), N of at least 2, as float (N, d) of unit length on the CPU."""
        check_pictures(images, "pictures")
        return F.normalize(self.embed(images).float().cpu(), dim=-1)


def load_embedder(which: str = STAND_IN) -> Embedder:
    """An embedder by name.

    Args:
        which: 'bundled', the recogniser's embedding as a labelled stand-in; or 'clip:FOLDER' or 'dino:FOLDER', a transformers
            CLIP or DINOv2 checkpoint (safetensors) on the disk. Nothing is downloaded.

    Raises:
        GiftError: an unknown name, or a folder that holds no such network.
    """
    kind, _, folder = which.partition(":")
    if kind == STAND_IN and not folder:
        recogniser = load_recogniser()
        return Embedder("recogniser similarity (stand-in for CLIP)", lambda images: read(recogniser, images).embedding)
    makers = {"clip": _clip, "dino": _dino}
    if kind not in makers:
        raise one_of("embedder", which, [STAND_IN, "clip:FOLDER", "dino:FOLDER"])
    if not Path(folder).is_dir():
        raise GiftError(f"'{folder}' is no folder; give the network's local folder, as in {kind}:path/to/folder")
    try:
        return Embedder({"clip": "CLIP similarity", "dino": "DINO similarity"}[kind], makers[kind](folder))
    except (OSError, ValueError, KeyError) as error:
        raise GiftError(f"can't open {kind} weights in {folder}: {' '.join(str(error).split())[:200]}") from error


def similarity(pictures: torch.Tensor, reference: torch.Tensor, embedder: Embedder) -> list[float]:
    """Each picture's mean cosine similarity to the reference pictures.

    Args:
        pictures: uint8 (N, 3, H, W), at least 2.
        reference: uint8 (M, 3, H, W), at least 2: the pictures that an attacker teaches.
        embedder: of both.

    Returns:
        N values, -1 to 1.
    """
    return [float(value) for value in (embedder(pictures) @ embedder(reference).T).mean(1)]


def _clip(folder: str) -> Callable[[torch.Tensor], torch.Tensor]:
    from transformers import CLIPVisionModelWithProjection

    return _network(folder, CLIPVisionModelWithProjection, lambda out: out.image_embeds)


def _dino(folder: str) -> Callable[[torch.Tensor], torch.Tensor]:
    from transformers import Dinov2Model

    return _network(folder, Dinov2Model, lambda out: out.last_hidden_state[:, 0])


def _network(folder: str, kind: Any, take: Callable[[Any], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    from transformers import AutoImageProcessor

    network = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval().requires_grad_(False)
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)

    @torch.no_grad()
    def embed(images: torch.Tensor) -> torch.Tensor:
        rows = []
        for batch in images.cpu().split(BATCH):
            pictures = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in batch]
            pixels = processor(images=pictures, return_tensors="pt").pixel_values
            rows.append(take(network(pixel_values=pixels.to(network.device))))
        return torch.cat(rows)

    return embed
