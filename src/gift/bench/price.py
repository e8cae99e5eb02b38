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
from gift.metrics.fidelity import Features, fid, kid


def price_of(bench: Workbench, asks: Sequence[Ask], images: torch.Tensor, reference: torch.Tensor) -> dict[str, Any]:
    """Measures pictures of safe prompts.

    Args:
        bench: the concept's workbench.
        asks: the N prompts.
        images: uint8 (N, 3, H, W), the defended model's.
        reference: uint8 (N, 3, H, W), the original model's of the same prompts and seeds.

    Returns:
        scores (whether each prompted object is found; none for a model whose words the recogniser does not know), fid, kid,
        diversity (beside the reference's; None where that has none), and collapse (one line, or None).
    """
    features, whole = Features(bench.recogniser), collapsed(images, reference)
    return {
        "scores": prompted(bench.recogniser, bench.art, images, asks)[0] if bench.art else [],
        "fid": round(fid(reference, images, features), 4),
        "kid": round(kid(reference, images, features)[0], 6),
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
    features = Features(bench.recogniser)
    out: dict[str, Any] = {}
    for whose, drawn in (("", images), ("original_", reference)):
        out |= {f"{whose}fid": round(fid(real, drawn, features), 4), f"{whose}kid": round(kid(real, drawn, features)[0], 6)}
    return out


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
