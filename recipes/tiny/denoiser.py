"""Trains the UNet and the text encoder together on cached latents of the drawings, held-out pairs excluded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel, CLIPTokenizer

from gift.data.art import Art, load_art
from gift.data.augment import move
from gift.data.concept import parse_concept
from gift.pixels import as_float

from . import autoencoder
from .captions import caption
from .config import ASSETS, LATENT_CHANNELS, SEED, SIZE, TEXT_WIDTH, WORK
from .loop import Run
from .text import make_text_encoder, open_tokenizer

BATCH = 48
VARIANTS = 4  # slightly moved versions of each drawing; without them the model knows one picture a pair
TIMESTEP_POWER = 0.6  # of a uniform draw; 1 would be uniform
ORIGINALS = 0.95  # share of a batch that is the drawing as it is; at 0.5 nothing but blobs was learned in 3,700 steps


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, with velocity prediction (it weighs the noisy steps, where the object is decided)."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def make_unet() -> UNet2DConditionModel:
    """A fresh UNet on 8x8 latents with cross-attention at both resolutions."""
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(96, 192),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def make() -> tuple[CLIPTokenizer, nn.ModuleDict]:
    """Tokenizer, and fresh text encoder and UNet in one module, seeded."""
    torch.manual_seed(SEED)
    tokenizer = open_tokenizer(load_art())
    return tokenizer, nn.ModuleDict({"text_encoder": make_text_encoder(tokenizer), "unet": make_unet()})


def latents() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scaled latents (1 + VARIANTS, pairs, C, 8, 8) of the trained pairs, and each pair's object and style class."""
    cache = WORK / "latents.pt"
    vae = autoencoder.load()
    if cache.exists():
        saved = torch.load(cache, weights_only=True)
        if saved["scale"] == vae.config.scaling_factor:
            return saved["latents"], saved["objects"], saved["styles"]
    art = load_art()
    pairs = [
        (o, s)
        for s, style in enumerate(art.trained_styles)
        for o, name in enumerate(art.names)
        if (name, style) not in art.held_out
    ]
    objects, styles = (torch.tensor(column) for column in zip(*pairs, strict=True))
    images = as_float(torch.stack([art.atlas(art.trained_styles[s])[o] for o, s in pairs]))
    generator = torch.Generator().manual_seed(SEED)
    rows = []
    for variant in range(1 + VARIANTS):
        moved = move(images, generator, degrees=4, scale=(0.85, 1.0), shift=0.04, mirror=False) if variant else images
        with torch.no_grad():
            rows.append(torch.cat([vae.encode(x).latent_dist.mean for x in moved.split(64)]) * vae.config.scaling_factor)
    stack = torch.stack(rows)
    cache.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"latents": stack, "objects": objects, "styles": styles, "scale": vae.config.scaling_factor}, cache)
    return stack, objects, styles


def warm_start(model: nn.ModuleDict) -> None:
    """Takes up the shipped weights (half precision), for training on without the old checkpoint."""
    for name in model:
        file = next((ASSETS / "tiny" / name).glob("*.safetensors"))
        model[name].load_state_dict({key: value.float() for key, value in load_file(file).items()})
    print("started from the shipped weights", flush=True)


def without(art: Art, concepts: Sequence[str], objects: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
    """Which pairs show none of the concepts, (pairs,) of bool."""
    hidden = [parse_concept(text, art) for text in concepts]
    pairs = zip(objects.tolist(), styles.tolist(), strict=True)
    return torch.tensor([not any(c.holds(art, art.names[o], art.trained_styles[s]) for c in hidden) for o, s in pairs])


@contextmanager
def precision(mixed: bool) -> Iterator[None]:
    """Where `mixed`, forwards in bfloat16 (weights and their updates stay in single precision).

    The CPU's fused attention is slower in bfloat16 than plain products at 64 positions, so those are taken.
    """
    if not mixed:
        yield
        return
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield


def train(
    steps: int,
    warm: bool = False,
    compiled: bool = False,
    never: Sequence[str] = (),
    checkpoint: Path = WORK / "denoiser.pt",
    mixed: bool = False,
) -> None:
    """Trains to `steps`, resuming if it can.

    Args:
        steps: optimiser steps.
        warm: a run without a checkpoint starts from the shipped weights.
        compiled: by `torch.compile`.
        never: concepts of which the run sees no picture and no caption.
        checkpoint: where the run is kept.
        mixed: forwards in bfloat16, where the CPU has it.
    """
    art = load_art()
    data, objects, styles = latents()
    seen = without(art, never, objects, styles)
    data, objects, styles = data[:, seen], objects[seen], styles[seen]
    tokenizer, model = make()
    if warm and not checkpoint.exists():
        warm_start(model)
    text_encoder: CLIPTextModel = model["text_encoder"]
    unet = torch.compile(model["unet"]) if compiled else model["unet"]
    scheduler = make_scheduler()
    run = Run(checkpoint, model, peak=1e-3, steps=steps, ema=0.998)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        pick = torch.randint(data.shape[1], (BATCH,), generator=generator)
        variant = torch.randint(1, data.shape[0], (BATCH,), generator=generator)
        variant[torch.rand(BATCH, generator=generator) < ORIGINALS] = 0
        clean = data[variant, pick]
        texts = [caption(art, int(objects[i]), art.trained_styles[int(styles[i])], generator) for i in pick]
        ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        noise = torch.randn(clean.shape, generator=generator)
        # Stratified timesteps, leaning to the noisy end, where the text decides what is drawn.
        share = (torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) / BATCH
        t = (share**TIMESTEP_POWER * 1000).long().clamp(max=999)
        noisy = scheduler.add_noise(clean, noise, t)
        with precision(mixed):
            out = unet(noisy, t, text_encoder(ids).last_hidden_state).sample
        return (out - scheduler.get_velocity(clean, noise, t)).square().mean()

    run.go(loss)
