"""Image embeddings and similarities: the user's own CLIP, DINOv2 or LPIPS weights, and offline stand-ins that say what they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from torch import nn

from gift.data.latents import fingerprint
from gift.errors import GiftError, NonFiniteError, one_of
from gift.metrics.collapse import check_pictures
from gift.metrics.perceptual import bundled_lpips, lpips
from gift.metrics.recogniser import load_recogniser, pixels_for

BATCH = 64
"""Pictures that go through a network at once."""
COLUMNS = 4096
"""Columns of two sets of embeddings whose squared differences are summed at once."""
STAND_IN = "bundled"


@dataclass(frozen=True)
class Embedder:
    """Turns pictures into embeddings, and those into similarities.

    Attributes:
        key: what the user wrote, without the path: 'clip' for 'clip:FOLDER'.
        name: what a report calls the similarity; a stand-in says that it is one.
        identity: 16 hex digits, a hash of the weights and of what else decides the embedding; the same wherever the files lie.
        cosine: embeddings have unit length and their dot product is the similarity; else it is 1 - ‖a - b‖², as LPIPS has it.
        embed: one batch of pictures, uint8 (n, 3, H, W) to float (n, d) of any length.
    """

    key: str
    name: str
    identity: str
    cosine: bool
    embed: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Embeds pictures uint8 (N, 3, H, W), N of at least 2, as float (N, d) on the CPU."""
        check_pictures(images, "pictures")
        return torch.cat([self._rows(batch) for batch in images.split(BATCH)])

    def compare(self, features: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Similarities of all pairs, without an intermediate of N x M x d.

        Args:
            features: embeddings (N, d) that this embedder gave.
            reference: embeddings (M, d).

        Returns:
            (N, M), at most 1 but for rounding: from -1 if `cosine`; else 1 - LPIPS, which may fall below 0.

        Raises:
            GiftError: not two matrices of one width.
            NonFiniteError: an embedding is NaN or infinite.
        """
        if features.ndim != 2 or reference.ndim != 2 or features.shape[1] != reference.shape[1]:
            raise GiftError(
                f"the embeddings are {tuple(features.shape)} and {tuple(reference.shape)}; give (N, d) and (M, d) of one embedder"
            )
        if self.cosine:
            similarities = features @ reference.T
        else:  # by columns, in double precision: a float32 sum over a large picture's features is off in the fourth digit
            columns = zip(features.split(COLUMNS, 1), reference.split(COLUMNS, 1), strict=True)
            parts = (torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").double().square() for a, b in columns)
            similarities = (1 - sum(parts, torch.zeros((), dtype=torch.float64))).float()
        if not similarities.isfinite().all():
            raise NonFiniteError("an embedding is NaN or infinite; check the pictures and the embedder's weights")
        return similarities

    def similarity(self, pictures: torch.Tensor, reference: torch.Tensor) -> list[float]:
        """Each picture's mean similarity to the reference pictures. For many sets and one reference, embed it once and `compare`.

        Args:
            pictures: uint8 (N, 3, H, W), at least 2.
            reference: uint8 (M, 3, H, W), at least 2: the pictures that an attacker teaches.

        Returns:
            N values.
        """
        self._check(pictures, reference)
        features = self(reference)
        return [value for batch in pictures.split(BATCH) for value in self.compare(self._rows(batch), features).mean(1).tolist()]

    def paired(self, pictures: torch.Tensor, reference: torch.Tensor) -> list[float]:
        """The similarity of picture i to reference picture i: how far a change moved the pictures of the same prompts and seeds.

        Args:
            pictures: uint8 (N, 3, H, W), at least 2.
            reference: uint8 (N, 3, H, W).

        Returns:
            N values.

        Raises:
            GiftError: the numbers of pictures differ.
        """
        self._check(pictures, reference)
        if len(pictures) != len(reference):
            raise GiftError(
                f"{len(pictures)} pictures can't be paired with {len(reference)}; give those of the same prompts and seeds"
            )
        pairs = zip(pictures.split(BATCH), reference.split(BATCH), strict=True)
        return [value for a, b in pairs for value in self.compare(self._rows(a), self._rows(b)).diagonal().tolist()]

    @torch.no_grad()
    def _rows(self, batch: torch.Tensor) -> torch.Tensor:
        rows = self.embed(batch).float().cpu()
        return F.normalize(rows, dim=-1) if self.cosine else rows

    def _check(self, pictures: torch.Tensor, reference: torch.Tensor) -> None:
        check_pictures(pictures, "pictures")
        check_pictures(reference, "reference pictures")
        if not self.cosine and pictures.shape[2:] != reference.shape[2:]:
            sizes = " and ".join(f"{images.shape[3]}x{images.shape[2]}" for images in (pictures, reference))
            raise GiftError(f"{self.name} compares positions, but the pictures are {sizes}; give pictures of one size")


class _Made(NamedTuple):
    """A network, how it embeds a batch, and the settings that decide the embedding beside its weights."""

    network: nn.Module
    embed: Callable[[torch.Tensor], torch.Tensor]
    settings: dict[str, Any]


class _Kind(NamedTuple):
    name: str
    cosine: bool
    place: str
    make: Callable[[str], _Made]


def load_embedder(which: str = STAND_IN) -> Embedder:
    """An embedder by name.

    Args:
        which: 'bundled' or 'bundled-lpips', the recogniser as a labelled stand-in for CLIP or LPIPS; 'clip:FOLDER' or
            'dino:FOLDER', a transformers CLIP or DINOv2 checkpoint (safetensors) on the disk; or 'lpips:FILE', the weights of
            torchvision's alexnet (.pth or .safetensors, or the folder of one such file). Nothing is downloaded.

    Raises:
        GiftError: an unknown name, or a path that holds no such network.
    """
    key, _, path = which.partition(":")
    if key not in _KINDS or (path and not _KINDS[key].place):
        raise one_of("embedder", which, [f"{key}:{kind.place}" if kind.place else key for key, kind in _KINDS.items()])
    kind = _KINDS[key]
    if kind.place and not path:
        raise GiftError(f"the embedder '{key}' needs its weights' local path, as in {key}:{kind.place}")
    try:
        made = kind.make(path)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise GiftError(f"can't open {key} weights in {path}: {' '.join(str(error).split())[:200]}") from error
    text = json.dumps([key, fingerprint(made.network), made.settings], sort_keys=True, default=str)
    return Embedder(key, kind.name, hashlib.sha256(text.encode()).hexdigest()[:16], kind.cosine, made.embed)


def _bundled(_: str) -> _Made:
    recogniser = load_recogniser()
    return _Made(recogniser, lambda images: recogniser(pixels_for(images)).embedding, {})


def _clip(folder: str) -> _Made:
    from transformers import CLIPVisionModelWithProjection

    return _transformer(folder, CLIPVisionModelWithProjection, ("clip", "clip_vision_model"), lambda out: out.image_embeds)


def _dino(folder: str) -> _Made:
    from transformers import Dinov2Model

    return _transformer(folder, Dinov2Model, ("dinov2",), lambda out: out.last_hidden_state[:, 0])


def _transformer(folder: str, kind: Any, types: tuple[str, ...], take: Callable[[Any], torch.Tensor]) -> _Made:
    from transformers import AutoConfig, AutoImageProcessor
    from transformers.utils import logging

    if not Path(folder).is_dir():
        raise GiftError(f"'{folder}' is no folder; give the network's local folder")
    found = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).model_type
    if found not in types:  # it would be loaded with random weights in place of those that it lacks
        raise GiftError(f"{folder} holds a network of type {found}; give one of type {' or '.join(types)}")
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # no report of what the checkpoint holds beside this network, such as CLIP's text encoder
    try:
        network, told = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
        )
    finally:
        logging.set_verbosity(verbosity)
    wrong = sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]]))
    if wrong:
        raise GiftError(f"{len(wrong)} weights in {folder} are missing or of another shape, as {wrong[0]}; give a whole checkpoint")
    network.eval().requires_grad_(False)
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    def embed(images: torch.Tensor) -> torch.Tensor:
        pictures = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in images.cpu()]
        return take(network(pixel_values=processor(images=pictures, return_tensors="pt").pixel_values))

    about = {"transformers_version", "_name_or_path", "architectures", "dtype"}
    config = {name: value for name, value in network.config.to_diff_dict().items() if name not in about}
    return _Made(network, embed, {"config": config, "processor": [type(processor).__name__, processor.to_dict()]})


_KINDS = {
    STAND_IN: _Kind("recogniser similarity (stand-in for CLIP)", True, "", _bundled),
    "bundled-lpips": _Kind(
        "recogniser perceptual similarity (stand-in for LPIPS)", False, "", lambda _: _Made(*bundled_lpips(), settings={})
    ),
    "clip": _Kind("CLIP similarity", True, "FOLDER", _clip),
    "dino": _Kind("DINO similarity", True, "FOLDER", _dino),
    "lpips": _Kind("LPIPS similarity (1 - LPIPS, AlexNet)", False, "FILE", lambda path: _Made(*lpips(path), settings={})),
}
