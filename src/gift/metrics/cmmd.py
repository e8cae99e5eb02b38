"""CMMD: a distance between two sets of pictures that asks for no normality and is steady at small numbers."""

from __future__ import annotations

import torch

from gift.errors import GiftError, NonFiniteError

SIGMA = 10.0
"""Bandwidth of the Gaussian kernel in the paper's code; embeddings have unit length."""
SCALE = 1000.0
"""The paper's factor, for readable numbers."""
ROWS = 1024
"""Rows of a kernel matrix in memory at once."""


def cmmd(first: torch.Tensor, second: torch.Tensor, *, sigma: float = SIGMA, scale: float = SCALE) -> float:
    """Squared MMD with the kernel exp(-|x - y|^2 / 2 sigma^2), times `scale` (Jayasumana et al. 2024, arXiv:2401.09603).

    The biased estimate, with each picture's pair with itself, as the authors' code; in float64. With CLIP embeddings it is the
    published CMMD; with others, values are comparable with each other only.

    Args:
        first: embeddings (N, d) of unit length, see `gift.metrics.embedders`.
        second: embeddings (M, d).
        sigma: bandwidth.
        scale: factor.

    Returns:
        At least 0; 0 for equal sets.

    Raises:
        GiftError: not two non-empty matrices of one width.
        NonFiniteError: an embedding is NaN or infinite.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or 0 in (len(first), len(second)):
        raise GiftError(f"CMMD compares embeddings (N, d) and (M, d), got {tuple(first.shape)} and {tuple(second.shape)}")
    x, y = first.double().cpu(), second.double().cpu()
    if not (x.isfinite().all() and y.isfinite().all()):
        raise NonFiniteError("an embedding is NaN or infinite; check the pictures and the embedder's weights")

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        sums = [torch.exp(-torch.cdist(rows, b).square() / (2 * sigma**2)).sum().item() for rows in a.split(ROWS)]
        return sum(sums) / (len(a) * len(b))

    return max(0.0, scale * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)))
