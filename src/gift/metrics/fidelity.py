"""Distances between two sets of pictures, FID and KID, in the feature space of a local network (nothing is downloaded).

Values in the bundled recogniser's features are comparable with each other only, not with published Inception FID or KID.
"""

from __future__ import annotations

import warnings

import torch
from torch import nn

from gift.errors import GiftError, NonFiniteError
from gift.metrics.collapse import check_pictures
from gift.metrics.recogniser import SIDE, Recogniser, pixels_for

BATCH = 256
"""Pictures that go through the feature network at once."""
LARGEST_SUBSET = 1000
"""The subset size of the KID paper."""


class Features(nn.Module):
    """The recogniser as torchmetrics wants a feature network: uint8 pictures in, one row of features per picture out."""

    def __init__(self, recogniser: Recogniser, size: int = SIDE) -> None:
        super().__init__()
        self.recogniser = recogniser
        self.size = size
        self.num_features = recogniser.config.widths[-1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Reads uint8 (N, 3, H, W), resized to `size` where they differ from it, and returns (N, num_features)."""
        features: torch.Tensor = self.recogniser(pixels_for(images, self.size)).features
        return features


def fid(real: torch.Tensor, fake: torch.Tensor, features: nn.Module) -> float:
    """Fréchet distance between Gaussians fitted to two sets' features (Heusel et al. 2017, equation 6), in float64.

    ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½). It is biased upward for small sets, the more the fewer pictures: compare only
    values of equal N, and use `kid` for sets of fewer pictures than features.

    Args:
        real: uint8 (N, 3, H, W), the set to be near to.
        fake: uint8 (M, 3, H, W), the set judged.
        features: uint8 (n, 3, H, W) to float (n, d), e.g. `Features`. It is run in evaluation mode and without gradients.

    Returns:
        At least 0; in squared units of the features.

    Raises:
        GiftError: a set has fewer than two pictures or the wrong shape or type, or the features aren't (n, d).
        NonFiniteError: a feature is NaN or infinite.
    """
    return frechet_distance(embed(real, features, "real pictures"), embed(fake, features, "fake pictures"))


def frechet_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """`fid` of features that `embed` gives: float64 (N, d) and (M, d)."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Given(first.shape[1]))
    metric.update(first, real=True)
    metric.update(second, real=False)
    # The distance can't be negative; its rounding error can.
    return max(0.0, float(metric.compute()))


def kid(
    real: torch.Tensor,
    fake: torch.Tensor,
    features: nn.Module,
    *,
    subsets: int = 50,
    subset_size: int | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Kernel distance: unbiased squared MMD with the kernel (xᵀy / d + 1)³ (Bińkowski et al. 2018), in float64.

    Unbiased at any number of pictures; it may fall below 0 when the sets are alike.

    Args:
        real: uint8 (N, 3, H, W), the set to be near to.
        fake: uint8 (M, 3, H, W), the set judged.
        features: uint8 (n, 3, H, W) to float (n, d), as in `fid`.
        subsets: how many pairs of random subsets are measured.
        subset_size: pictures in each, at least 2 and at most the smaller set. None: half the smaller set, at most 1000. A
            whole set leaves nothing to chance, so the deviation is then 0 and says nothing.
        seed: of the subsets. The global generator is left as it was.

    Returns:
        Mean and standard deviation over the subsets. The deviation is no standard error: subsets overlap.

    Raises:
        GiftError: as `fid`, or `subsets` or `subset_size` out of range.
        NonFiniteError: a feature is NaN or infinite.
    """
    first, second = embed(real, features, "real pictures"), embed(fake, features, "fake pictures")
    return kernel_distance(first, second, subsets=subsets, subset_size=subset_size, seed=seed)


def kernel_distance(
    first: torch.Tensor, second: torch.Tensor, *, subsets: int = 50, subset_size: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """`kid` of features that `embed` gives: float64 (N, d) and (M, d).

    Raises:
        GiftError: `subsets` or `subset_size` out of range.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    smaller = min(len(first), len(second))
    size = min(LARGEST_SUBSET, max(2, smaller // 2)) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise GiftError(
            f"subset_size {size} is not between 2 and {smaller}, the pictures in the smaller set; lower it or draw more"
        )
    if subsets < 1:
        raise GiftError(f"subsets is {subsets}; measure at least 1")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message=".*will save all extracted features", category=UserWarning)
        metric = KernelInceptionDistance(feature=_Given(first.shape[1]), subsets=subsets, subset_size=size)
        metric.update(first, real=True)
        metric.update(second, real=False)
        torch.manual_seed(seed)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


class _Given(nn.Module):
    """Hands torchmetrics features that are computed already, so that batches, precision and checks are ours."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The same (N, num_features)."""
        return features


@torch.no_grad()
def embed(images: torch.Tensor, network: nn.Module, name: str) -> torch.Tensor:
    """Features of pictures, float64 (N, d) on the CPU; the network's modes are restored afterwards.

    Args:
        images: uint8 (N, 3, H, W), at least two.
        network: as `features` of `fid`.
        name: what errors call the pictures.

    Raises:
        GiftError: too few pictures, the wrong shape or type, or features that aren't (n, d).
        NonFiniteError: a feature is NaN or infinite.
    """
    check_pictures(images, name)
    device = next((p.device for p in network.parameters()), images.device)
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        rows = [network(batch.to(device)).double().cpu() for batch in images.split(BATCH)]
    finally:
        for module, training in modes:
            module.training = training
    if rows[0].ndim != 2 or len(rows[0]) != min(BATCH, len(images)):
        raise GiftError(f"the feature network returns shape {tuple(rows[0].shape)}; it must return (n, d), a row per picture")
    found = torch.cat(rows)
    if not found.isfinite().all():
        raise NonFiniteError(f"features of the {name} are NaN or infinite; check the feature network's weights")
    return found
