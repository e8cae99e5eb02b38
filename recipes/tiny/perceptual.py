"""A small classifier whose features compare pictures as people see them (the idea of LPIPS, Zhang et al. 2018, arXiv:1801.03924).

It is trained on drawings alone, has another architecture and seed than the recogniser, and never judges the bundled model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from gift.data.art import load_art
from gift.data.augment import move, recolour
from gift.pixels import as_float

from .config import WORK
from .loop import Run
from .recogniser import UNKNOWN_STYLE, everything

BATCH = 64
WIDTHS = (24, 48, 96, 128)  # the first at full size, where line and shading tell the styles apart
CHECKPOINT = WORK / "perceptual.pt"


class Perceptual(nn.Module):
    """Plain convolutions with group norm; two heads, object and style, only for its training."""

    def __init__(self, objects: int, styles: int) -> None:
        super().__init__()
        stages, inputs = [], 3
        for i, width in enumerate(WIDTHS):
            stages.append(nn.Sequential(nn.Conv2d(inputs, width, 3, 2 if i else 1, 1), nn.GroupNorm(8, width), nn.SiLU()))
            inputs = width
        self.stages = nn.ModuleList(stages)
        self.object_head, self.style_head = nn.Linear(inputs, objects), nn.Linear(inputs, styles)

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Every stage's output for pictures (N, 3, H, W) in [-1, 1]."""
        out = []
        for stage in self.stages:
            images = stage(images)
            out.append(images)
        return out

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Object and style logits."""
        pooled = self.features(images)[-1].mean((2, 3))
        return self.object_head(pooled), self.style_head(pooled)

    def distance(self, out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean squared difference of the stages' unit-length feature vectors, summed over the stages."""
        with torch.no_grad():
            wanted = self.features(target)
        pairs = zip(self.features(out), wanted, strict=True)
        return torch.stack([(F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean() for a, b in pairs]).sum()


def train(steps: int) -> None:
    """Trains to `steps`, resuming if it can."""
    art = load_art()
    images, objects, styles, _ = everything(art)
    torch.manual_seed(1)
    model = Perceptual(len(art.objects), len(art.trained_styles))
    run = Run(CHECKPOINT, model, peak=2e-3, steps=steps, ema=0.99)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        pick = torch.randint(len(images), (BATCH,), generator=generator)
        found, drawn = model(recolour(move(as_float(images[pick]), generator, degrees=4, scale=(0.85, 1.05)), generator))
        return F.cross_entropy(found, objects[pick]) + 2 * F.cross_entropy(drawn, styles[pick], ignore_index=UNKNOWN_STYLE)

    run.go(loss)


def load() -> Perceptual:
    """The trained network, frozen.

    Raises:
        OSError: it was not trained yet.
    """
    art = load_art()
    model = Perceptual(len(art.objects), len(art.trained_styles))
    model.load_state_dict(torch.load(CHECKPOINT, weights_only=True)["average"])
    return model.eval().requires_grad_(False)
