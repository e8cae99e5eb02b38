"""Trains the autoencoder's decoder on, its encoder frozen: sharper pictures from the same latents, so the denoiser stays valid."""

from __future__ import annotations

import torch
from torch import nn

from gift.data.art import load_art
from gift.data.augment import move, recolour
from gift.pixels import as_float

from . import autoencoder, perceptual
from .config import WORK
from .loop import Run

BATCH = 16
BLUR = 0.15  # most noise on the latents, in units of their deviation: a denoiser's latents are never exact (choice)
LOOKS = 1.0  # weight of the perceptual distance beside the pixel distance (choice)
CHECKPOINT = WORK / "decoder.pt"


def decoding_parts(vae: nn.Module) -> nn.ModuleDict:
    """The modules on the way from latents to pictures."""
    return nn.ModuleDict({name: getattr(vae, name) for name in ("post_quant_conv", "decoder")})


def train(steps: int) -> None:
    """Trains to `steps`, resuming if it can; it begins from the autoencoder's averaged weights."""
    art = load_art()
    images = torch.cat([art.atlas(style) for style in art.styles])
    vae = autoencoder.load(refined=False).to(memory_format=torch.channels_last)
    with torch.no_grad():
        latents = torch.cat([vae.encode(as_float(x)).latent_dist.mean for x in images.split(64)])
    deviation = latents.std()
    judge = perceptual.load()
    parts = decoding_parts(vae).requires_grad_(True)
    run = Run(CHECKPOINT, parts, peak=1e-3, steps=steps)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        half = BATCH // 2  # half as drawn, half changed, as the autoencoder's own batches
        pick = torch.randint(len(images), (BATCH,), generator=generator)
        x = as_float(images[pick])
        x[half:] = recolour(move(x[half:], generator, scale=(0.7, 1.1)), generator)
        with torch.no_grad():
            changed = vae.encode(x[half:].contiguous(memory_format=torch.channels_last)).latent_dist.mean
        latent = torch.cat([latents[pick[:half]], changed])
        share = BLUR * torch.rand((BATCH, 1, 1, 1), generator=generator)
        out = vae.decode(latent + share * deviation * torch.randn(latent.shape, generator=generator)).sample
        return autoencoder.distance(out, x) + LOOKS * judge.distance(out, x)

    run.go(loss)
