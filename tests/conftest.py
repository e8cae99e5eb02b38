"""Shared fixtures: a random-weight Stable Diffusion of the true classes, small enough to train in a second."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import string
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from gift.data.latents import LatentSet, encode_set
from gift.models.sd import StableDiffusion

BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def random_pipeline(prediction_type: str = "epsilon", seed: int = 0) -> Any:
    """A StableDiffusionPipeline of the true classes with random weights: 16 px pictures, 8x8 latents."""
    torch.manual_seed(seed)
    letters = [*string.ascii_lowercase, *(c + "</w>" for c in string.ascii_lowercase), BOS, EOS]
    tokenizer = CLIPTokenizer(
        vocab={t: i for i, t in enumerate(letters)},
        merges=[],
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        unk_token=EOS,
        model_max_length=16,
    )
    text = CLIPTextConfig(
        vocab_size=len(letters),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1, prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture
def random_model() -> StableDiffusion:
    """A random-weight noise-prediction model."""
    return StableDiffusion(random_pipeline(), "random")


@pytest.fixture
def make_model() -> Callable[..., StableDiffusion]:
    """Makes random-weight models by prediction type."""
    return lambda **options: StableDiffusion(random_pipeline(**options), "random")


def picture_set(model: StableDiffusion, n: int, word: str, seed: int = 0) -> LatentSet:
    """n random pictures with two captions."""
    images = torch.randint(256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return encode_set(model, images, [f"a {word}" if i % 2 else word for i in range(n)])


@pytest.fixture
def concept_set(random_model: StableDiffusion) -> LatentSet:
    """Six random 'concept' pictures."""
    return picture_set(random_model, 6, "fox", 1)


@pytest.fixture
def safe_set(random_model: StableDiffusion) -> LatentSet:
    """Six random 'safe' pictures."""
    return picture_set(random_model, 6, "sea", 2)
