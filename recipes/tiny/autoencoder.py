"""Trains the AutoencoderKL: 64x64 pictures to 8x8 latents of 8 channels. Pixel losses only, no recogniser in the loop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from gift.data.art import load_art
from gift.data.augment import move, recolour
from gift.pixels import as_float

from .config import ASSETS, LATENT_CHANNELS, SIZE, WORK
from .loop import Run

BATCH = 16
WIDTHS = (24, 48, 96, 128)  # f=8; the widest that trained in half an hour on two cores
KL_WEIGHT = 2e-4  # of the mean over latents: enough to keep them near unit scale


def build() -> AutoencoderKL:
    """A fresh autoencoder. No attention in the middle: at 8x8 it bought nothing for its time."""
    return AutoencoderKL(
        sample_size=SIZE,
        block_out_channels=WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * len(WIDTHS),
        up_block_types=("UpDecoderBlock2D",) * len(WIDTHS),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def edges(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Horizontal and vertical differences."""
    return images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]


def hues(images: torch.Tensor) -> torch.Tensor:
    """Opponent colours, green against magenta and red against blue, at half size: (N, 2, H/2, W/2)."""
    red, green, blue = F.avg_pool2d(images, 2).unbind(1)
    return torch.stack([green - (red + blue) / 2, red - blue], 1)


def distance(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 on pixels, on edges, on smaller pictures and on hues: sharp lines and true colours without a perceptual network.

    The hues matter: with pixels, edges and smaller pictures alone, 3,800 steps left green and magenta unlearned (snakes were
    brown), because that axis carries the least of the drawings' variance.
    """
    value = F.l1_loss(out, target) + 2 * F.mse_loss(out, target) + 3 * F.l1_loss(hues(out), hues(target))
    for a, b in zip(edges(out), edges(target), strict=True):
        value = value + F.l1_loss(a, b)
    for side, weight in ((2, 1.0), (8, 2.0)):
        value = value + weight * F.l1_loss(F.avg_pool2d(out, side), F.avg_pool2d(target, side))
    return value


def train(steps: int) -> None:
    """Trains to `steps`, resuming if it can."""
    art = load_art()
    images = torch.cat([art.atlas(style) for style in art.styles])
    torch.manual_seed(0)
    model = build().to(memory_format=torch.channels_last)
    run = Run(WORK / "autoencoder.pt", model, peak=1.5e-3, steps=steps)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        x = as_float(images[torch.randint(len(images), (BATCH,), generator=generator)])
        half = BATCH // 2  # half as drawn, half changed, so that an attacker's pictures encode as well
        changed = recolour(move(x[half:], generator, scale=(0.7, 1.1)), generator)
        x = torch.cat([x[:half], changed]).contiguous(memory_format=torch.channels_last)
        latent = model.encode(x).latent_dist
        noise = torch.randn(latent.mean.shape, generator=generator)
        out = model.decode(latent.mean + latent.std * noise).sample
        return distance(out, x) + KL_WEIGHT * latent.kl().mean() / latent.mean[0].numel()

    run.go(loss)


def load(refined: bool = True) -> AutoencoderKL:
    """The trained autoencoder (averaged weights), frozen, with its latent scale set; without a checkpoint, from the shipped one.

    Args:
        refined: with the decoder that was trained on, if there is one.

    Raises:
        OSError: it was neither trained nor shipped.
    """
    checkpoint = WORK / "autoencoder.pt"
    trained = checkpoint.exists()
    if trained:
        model = build()
        model.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
    else:
        model = AutoencoderKL.from_pretrained(ASSETS / "tiny" / "vae", torch_dtype=torch.float32)
    if refined and (WORK / "decoder.pt").exists():
        model.load_state_dict(torch.load(WORK / "decoder.pt", weights_only=True)["average"], strict=False)
    model.eval().requires_grad_(False)
    if not trained:
        return model
    art = load_art()
    images = torch.cat([art.atlas(style) for style in art.trained_styles])
    with torch.no_grad():
        means = torch.cat([model.encode(as_float(x)).latent_dist.mean for x in images[::4].split(64)])
    model.register_to_config(scaling_factor=round(1 / means.std().item(), 4))
    return model


def measure() -> float:
    """Mean absolute error (of 255) of reconstructed drawings."""
    model = load()
    art = load_art()
    images = torch.cat([art.atlas(style) for style in art.trained_styles])[::7]
    with torch.no_grad():
        out = torch.cat([model.decode(model.encode(as_float(x)).latent_dist.mean).sample for x in images.split(64)])
    error = (out.clamp(-1, 1) - as_float(images)).abs().mean().item() * 127.5
    print(f"autoencoder: mean absolute error {error:.2f} of 255, latent scale {model.config.scaling_factor}")
    return error
