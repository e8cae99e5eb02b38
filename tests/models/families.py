"""Random-weight models of the true classes, one row a family: some ten thousand weights, pictures of 16 px, latents of 8 x 8."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5TokenizerFast

from gift.models.latent import LatentDiffusion
from gift.models.sd import StableDiffusion
from gift.models.sdxl import StableDiffusionXL
from tests.conftest import random_pipeline

Output = Callable[[Any, torch.Tensor, torch.Tensor, list[str]], torch.Tensor]


@dataclass(frozen=True)
class Row:
    """A family as the contract looks at it.

    Attributes:
        name: of the row.
        family: its class.
        make: a random-weight pipeline of the true class.
        prediction: its prediction type.
        output: the denoiser's output for (pipeline, x_t, timesteps, prompts), by the pipeline's own parts alone.
        cross: whether a weight of that name belongs to 'cross-attention'.
        guided: the arguments of a plain call of the pipeline that ask for a guidance scale of 2.
        size: of the pictures, where the pipeline's own default is too large for a test.
        refused: the attacks that the family's files have no place for.
    """

    name: str
    family: type[LatentDiffusion]
    make: Callable[[], Any]
    prediction: str
    output: Output
    cross: Callable[[str], bool] = lambda name: ".attn2." in name
    guided: dict[str, Any] = field(default_factory=lambda: {"guidance_scale": 2.0})
    size: int | None = None
    refused: frozenset[str] = frozenset()

    def model(self) -> LatentDiffusion:
        """The family's model of it."""
        return self.family(self.make(), "random", self.size)


def clip(tokenizer: Any, width: int, *, projection: bool = False) -> Any:
    """A CLIP text encoder of two layers, with a projection or without."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def t5(width: int) -> tuple[Any, Any]:
    """A tokenizer of letters and a T5 encoder of one layer."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *string.ascii_lowercase, *("▁" + letter for letter in string.ascii_lowercase)]
    tokenizer = T5TokenizerFast(vocab=[(piece, -float(i > 2)) for i, piece in enumerate(pieces)], extra_ids=0, model_max_length=16)
    config = T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=width, num_layers=1, num_heads=2)
    return tokenizer, T5EncoderModel(config)


def sd_output(pipeline: Any, x: torch.Tensor, t: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """By the pipeline's own encoding."""
    states, _ = pipeline.encode_prompt(prompts, "cpu", 1, False)
    return pipeline.unet(x, t, states).sample


def sdxl_pipeline(force_zeros: bool = True) -> Any:
    """A StableDiffusionXLPipeline with Euler's sampler, as the published one has."""
    base = random_pipeline()
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        cross_attention_dim=16 + 24,
        attention_head_dim=(1, 2),
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
    )
    return StableDiffusionXLPipeline(
        vae=base.vae,
        text_encoder=clip(base.tokenizer, 16),
        text_encoder_2=clip(base.tokenizer, 24, projection=True),
        tokenizer=base.tokenizer,
        tokenizer_2=random_pipeline().tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1),
        force_zeros_for_empty_prompt=force_zeros,
        add_watermarker=False,
    )


def sdxl_output(pipeline: Any, x: torch.Tensor, t: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """By the pipeline's own encoding, and sizes of 16 px written out."""
    states, _, pooled, _ = pipeline.encode_prompt(prompts, device="cpu", do_classifier_free_guidance=False)
    sizes = torch.tensor([[16.0, 16.0, 0.0, 0.0, 16.0, 16.0]] * len(x))
    return pipeline.unet(x, t, states, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}).sample


ROWS = [
    Row("sd1", StableDiffusion, random_pipeline, "epsilon", sd_output),
    Row("sd2", StableDiffusion, lambda: random_pipeline("v_prediction"), "v_prediction", sd_output),
    Row("sdxl", StableDiffusionXL, sdxl_pipeline, "epsilon", sdxl_output),
]
