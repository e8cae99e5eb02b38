"""Random-weight models of the true classes, one row a family: some ten thousand weights, pictures of 16 px, latents of 8 x 8."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from gift.models.flux import Flux
from gift.models.latent import LatentDiffusion
from gift.models.pixart import PixArtAlpha, PixArtSigma
from gift.models.qwen import QwenImage
from gift.models.sd import StableDiffusion
from gift.models.sd3 import StableDiffusion3
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
        absent: parts that it is made without, which diffusers must be told to open its files.
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
    absent: tuple[str, ...] = ()

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


def through_text(name: str) -> bool:
    """Whether a weight of an MM-DiT is the text's own in the joint attention, or of an attention that text and picture share."""
    own = any(f".attn.{part}" in name for part in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_"))
    return own or (name.startswith("single_transformer_blocks.") and ".attn." in name)


def shifted_vae() -> Any:
    """An autoencoder whose latents are shifted, and scaled unlike Stable Diffusion's."""
    vae = random_pipeline().vae
    vae.register_to_config(scaling_factor=1.5, shift_factor=0.06)
    return vae


def sd3_pipeline(*, third: bool = True, dual: bool = False) -> Any:
    """A StableDiffusion3Pipeline with a T5 or without; with a second attention (as 3.5 medium) or without."""
    first, second = random_pipeline().tokenizer, random_pipeline().tokenizer
    torch.manual_seed(0)
    tokenizer, encoder = t5(48) if third else (None, None)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=48,
        caption_projection_dim=16,
        pooled_projection_dim=16 + 24,
        pos_embed_max_size=16,
        dual_attention_layers=(0,) if dual else (),
        qk_norm="rms_norm" if dual else None,
    )
    return StableDiffusion3Pipeline(
        vae=shifted_vae(),
        text_encoder=clip(first, 16, projection=True),
        text_encoder_2=clip(second, 24, projection=True),
        text_encoder_3=encoder,
        tokenizer=first,
        tokenizer_2=second,
        tokenizer_3=tokenizer,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def sd3_output(pipeline: Any, x: torch.Tensor, t: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """By the pipeline's own encoding."""
    states, _, pooled, _ = pipeline.encode_prompt(prompts, None, None, do_classifier_free_guidance=False)
    return pipeline.transformer(x, states, pooled, t).sample


def flux_pipeline(*, distilled: bool = True) -> Any:
    """A FluxPipeline, as dev (guidance is an input, and the sampler's shift depends on the picture's size) or schnell (neither)."""
    first = random_pipeline().tokenizer
    torch.manual_seed(0)
    second, encoder = t5(24)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=16,
        guidance_embeds=distilled,
        axes_dims_rope=(2, 2, 4),
    )
    return FluxPipeline(
        vae=shifted_vae(),
        text_encoder=clip(first, 16),
        text_encoder_2=encoder,
        tokenizer=first,
        tokenizer_2=second,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0 if distilled else 1.0, use_dynamic_shifting=distilled),
    )


def flux_output(pipeline: Any, x: torch.Tensor, t: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """By the pipeline's own encoding and patches, with a guidance of 1."""
    states, pooled, text = pipeline.encode_prompt(prompts)
    (n, c, h, w), guidance = x.shape, torch.ones(len(x)) if pipeline.transformer.config.guidance_embeds else None
    places = pipeline._prepare_latent_image_ids(n, h // 2, w // 2, "cpu", x.dtype)
    patches = pipeline._pack_latents(x, n, c, h, w)
    out = pipeline.transformer(patches, states, pooled, t / 1000, places, text, guidance).sample
    return pipeline._unpack_latents(out, 2 * h, 2 * w, pipeline.vae_scale_factor)


def pixart_pipeline(kind: Any, *, told: bool) -> Any:
    """A pipeline of PixArt's; `told`: its transformer is of 1024 px and told the picture's size, as alpha's."""
    torch.manual_seed(0)
    tokenizer, encoder = t5(16)
    transformer = PixArtTransformer2DModel(
        sample_size=128 if told else 8,
        num_layers=2,
        attention_head_dim=12,
        num_attention_heads=2,
        cross_attention_dim=24,
        caption_channels=16,
        use_additional_conditions=told,
    )
    sampler = EulerDiscreteScheduler if told else DPMSolverMultistepScheduler
    return kind(tokenizer, encoder, random_pipeline().vae, transformer, sampler(beta_start=0.0001, beta_end=0.02))


def pixart_output(pipeline: Any, x: torch.Tensor, t: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """By the pipeline's own encoding, and sizes of 16 px written out."""
    states, mask, *_ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False)
    sizes = {"resolution": torch.full((len(x), 2), 16.0), "aspect_ratio": torch.ones(len(x), 1)}
    return pipeline.transformer(x, states, t, sizes, encoder_attention_mask=mask).sample.chunk(2, dim=1)[0]


def qwen_tokenizer() -> Any:
    """Bytes, and the words of Qwen-Image's template, each one token: its head is of 34 tokens, as with the published vocabulary."""
    words = "the image by detailing color shape size texture quantity text spatial relationships of objects and background"
    merges: dict[tuple[str, str], None] = {}
    for word in [*("Ġ" + word for word in words.split()), "system", "user", "assistant", "Describe"]:
        merges.update({(word[:i], word[i]): None for i in range(1, len(word))})
    pieces = [*sorted(ByteLevel.alphabet()), *(a + b for a, b in merges), "<|endoftext|>"]
    tokenizer = Qwen2Tokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=list(merges))
    tokenizer.add_tokens([AddedToken(name, special=True) for name in ("<|im_start|>", "<|im_end|>")])
    return tokenizer


def qwen_pipeline() -> Any:
    """A QwenImagePipeline, the sampler's shift depending on the picture's size."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    text: dict[str, Any] = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "rope_parameters": {"mrope_section": [1, 1, 2]}}
    text |= {"bos_token_id": None, "eos_token_id": None}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    vae = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.0, 0.3],
        latents_std=[1.5, 0.5, 1.0, 2.0],
    )
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(2, 2, 4),
    )
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_shift=0.9, shift_terminal=0.02),
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def qwen_output(pipeline: Any, x: torch.Tensor, t: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """By the pipeline's own encoding and patches."""
    states, mask = pipeline.encode_prompt(prompts)
    n, c, h, w = x.shape
    patches = pipeline._pack_latents(x[:, None], n, c, h, w)
    out = pipeline.transformer(patches, states, mask, t / 1000, [[(1, h // 2, w // 2)]] * n).sample
    return pipeline._unpack_latents(out, 2 * h, 2 * w, pipeline.vae_scale_factor)[:, :, 0]


PIXART_CALL = {"guidance_scale": 2.0, "use_resolution_binning": False, "clean_caption": False}
# Pipelines without load_textual_inversion, whose transformers have no load_attn_procs: diffusers could open neither attack's files.
NO_FILES = frozenset({"textual-inversion", "custom-diffusion"})
ROWS = [
    Row("sd1", StableDiffusion, random_pipeline, "epsilon", sd_output),
    Row("sd2", StableDiffusion, lambda: random_pipeline("v_prediction"), "v_prediction", sd_output),
    Row("sdxl", StableDiffusionXL, sdxl_pipeline, "epsilon", sdxl_output),
    Row("sd3", StableDiffusion3, sd3_pipeline, "flow", sd3_output, through_text, refused=NO_FILES),
    Row(
        "sd3-no-t5",
        StableDiffusion3,
        lambda: sd3_pipeline(third=False, dual=True),
        "flow",
        sd3_output,
        through_text,
        refused=NO_FILES,
        absent=("text_encoder_3", "tokenizer_3"),
    ),
    Row("flux-dev", Flux, flux_pipeline, "flow", flux_output, through_text, size=16, refused=frozenset({"custom-diffusion"})),
    Row(
        "flux-schnell",
        Flux,
        lambda: flux_pipeline(distilled=False),
        "flow",
        flux_output,
        through_text,
        size=16,
        refused=frozenset({"custom-diffusion"}),
    ),
    Row(
        "pixart-sigma",
        PixArtSigma,
        lambda: pixart_pipeline(PixArtSigmaPipeline, told=False),
        "epsilon",
        pixart_output,
        guided=PIXART_CALL,
        refused=NO_FILES,
    ),
    Row(
        "pixart-alpha",
        PixArtAlpha,
        lambda: pixart_pipeline(PixArtAlphaPipeline, told=True),
        "epsilon",
        pixart_output,
        guided=PIXART_CALL,
        size=16,
        refused=NO_FILES,
    ),
    Row(
        "qwen",
        QwenImage,
        qwen_pipeline,
        "flow",
        qwen_output,
        through_text,
        guided={"true_cfg_scale": 2.0, "negative_prompt": ["", ""]},
        size=16,
        refused=NO_FILES,
    ),
]
