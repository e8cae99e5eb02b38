"""What a defence costs elsewhere: its safe pictures beside the original's and beside real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gift.bench.workbench import Workbench
from gift.data.prompts import Ask
from gift.metrics.cmmd import cmmd
from gift.metrics.collapse import collapsed
from gift.metrics.concept import mean, prompted
from gift.metrics.embedders import Embedder
from gift.metrics.fidelity import Features, embed, frechet_distance, kernel_distance


def price_of(
    bench: Workbench, asks: Sequence[Ask], images: torch.Tensor, reference: torch.Tensor, real: torch.Tensor | None = None
) -> dict[str, Any]:
    """Measures pictures of safe prompts.

    Args:
        bench: the concept's workbench.
        asks: the N prompts.
        images: uint8 (N, 3, H, W), the defended model's.
        reference: uint8 (N, 3, H, W), the original model's of the same prompts and seeds.
        real: uint8 (M, 3, H, W), drawings or photographs, if there are any.

    Returns:
        scores (whether each prompted object is found; none for a model whose words the recogniser does not know), fid, kid, real
        (`real_of`; None without real pictures), diversity (beside the reference's; None where that has none), and collapse (one
        line, or None).
    """
    whole = collapsed(images, reference)
    own, original = _features(bench, images), _features(bench, reference)
    return {
        "scores": prompted(bench.recogniser, bench.art, images, asks)[0] if bench.art else [],
        **_apart(original, own),
        "real": None if real is None else _beside(_features(bench, real, "real pictures"), own, original),
        "diversity": whole.relative_diversity,
        "collapse": whole.flag,
    }


def real_of(bench: Workbench, real: torch.Tensor, images: torch.Tensor, reference: torch.Tensor) -> dict[str, Any]:
    """How near pictures of safe prompts are to real ones, and how near the original model's are: a defence may move pictures
    without making them worse.

    Args:
        bench: the concept's workbench.
        real: uint8 (M, 3, H, W), drawings or photographs.
        images: uint8 (N, 3, H, W), the defended model's.
        reference: uint8 (N, 3, H, W), the original model's.

    Returns:
        fid and kid from the real pictures, original_fid and original_kid. All of them rise as M and N fall: look at how far the
        one is above the other.
    """
    return _beside(_features(bench, real, "real pictures"), _features(bench, images), _features(bench, reference))


def redrawn_of(bench: Workbench, images: torch.Tensor, again: torch.Tensor) -> dict[str, float]:
    """How far apart two sets of pictures are that one model draws of the same prompts: what noise alone does.

    A defence changes the weights, and with them what comes of each seed's noise. So a distance between its pictures and the
    original's means something only as far as it is above this one, of as many pictures.

    Args:
        bench: the concept's workbench.
        images: uint8 (N, 3, H, W), the original model's.
        again: uint8 (N, 3, H, W), the original model's of the same prompts from other seeds.

    Returns:
        fid and kid between them.
    """
    return _apart(_features(bench, images), _features(bench, again))


def _features(bench: Workbench, pictures: torch.Tensor, name: str = "pictures of other prompts") -> torch.Tensor:
    """The recogniser's features."""
    return embed(pictures, Features(bench.recogniser), name)


def _apart(first: torch.Tensor, second: torch.Tensor) -> dict[str, float]:
    """FID and KID between two sets' features."""
    return {"fid": round(frechet_distance(first, second), 4), "kid": round(kernel_distance(first, second)[0], 6)}


def _beside(real: torch.Tensor, own: torch.Tensor, original: torch.Tensor) -> dict[str, float]:
    """`real_of` of features."""
    return _apart(real, own) | {f"original_{name}": value for name, value in _apart(real, original).items()}


def shift_of(by: Embedder, images: torch.Tensor, reference: torch.Tensor, real: torch.Tensor | None = None) -> dict[str, Any]:
    """How far pictures of safe prompts moved.

    Args:
        by: what compares them.
        images: uint8 (N, 3, H, W), the defended model's.
        reference: uint8 (N, 3, H, W), the original model's of the same prompts and seeds.
        real: uint8 (M, 3, H, W), drawings or photographs, if there are any.

    Returns:
        name of the embedder, cmmd (None where embeddings have no unit length), paired (mean likeness of the same prompt and seed);
        real_cmmd and original_real_cmmd, from the real pictures (None without any).
    """
    out: dict[str, Any] = {"name": by.name, "cmmd": None, "paired": mean(by.paired(images, reference))}
    out |= {"real_cmmd": None, "original_real_cmmd": None}
    if by.cosine:
        embedded, original = by(images), by(reference)
        out["cmmd"] = round(cmmd(embedded, original), 6)
        if real is not None:
            beside = by(real)
            out |= {"real_cmmd": round(cmmd(embedded, beside), 6), "original_real_cmmd": round(cmmd(original, beside), 6)}
    return out
