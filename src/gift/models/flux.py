"""FLUX.1: CLIP's summary and T5's states, an MM-DiT over patches of 2 x 2, flow matching, guidance as an input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from gift.models.base import Cond
from gift.models.latent import LatentDiffusion
from gift.models.parameters import JOINT, JOINT_LORA_TARGETS, Groups
from gift.models.patches import packed, unpacked

T5_TOKENS = 512
"""The pipeline's default, and that of diffusers' trainers."""
TRAINING_GUIDANCE = 1.0
"""As every command in diffusers' `examples/dreambooth/README_flux.md` trains (its trainers' own default is 3.5)."""


class Flux(LatentDiffusion):
    """The family of `FluxPipeline`.

    FLUX.1 dev was distilled from guided predictions and is told the scale as a number (3.5 is usual): drawing asks once a step,
    with no second prediction for the empty prompt. FLUX.1 schnell has no such input and ignores the scale. There is no Custom
    Diffusion, as the transformer reads no attention processors.
    """

    pipeline_name: ClassVar[str] = "FluxPipeline"
    denoiser_part: ClassVar[str] = "transformer"
    denoiser_class: ClassVar[str] = "FluxTransformer2DModel"
    single_file: ClassVar[str] = "vector_in.in_layer."
    groups: ClassVar[Groups] = JOINT
    more_lora_targets: ClassVar[tuple[str, ...]] = (  # train_dreambooth_lora_flux.py
        *JOINT_LORA_TARGETS,
        "ff.net.0.proj",
        "ff.net.2",
        "ff_context.net.0.proj",
        "ff_context.net.2",
    )

    def embed(self, prompts: Sequence[str]) -> Cond:
        """{'states': (N, tokens, T5's width), 'pooled': (N, CLIP's width)}."""
        pipe = self.pipeline
        return {
            "states": pipe.text_encoder_2(self.tokens(prompts, "text_encoder_2").input_ids)[0],
            "pooled": pipe.text_encoder(self.tokens(prompts).input_ids).pooler_output,
        }

    def prompt_tokens(self, part: str) -> int:
        """The pipeline's default for T5, CLIP's own for CLIP."""
        return T5_TOKENS if part == "text_encoder_2" else super().prompt_tokens(part)

    def output(self, latents: torch.Tensor, timesteps: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The transformer's output, at the training guidance where it has that input."""
        n, _, h, w = latents.shape
        rows, columns = torch.meshgrid(torch.arange(h // 2), torch.arange(w // 2), indexing="ij")
        places = torch.stack([torch.zeros_like(rows), rows, columns], -1).view(-1, 3).to(latents)
        output = self.denoiser(
            packed(latents),
            encoder_hidden_states=cond["states"],
            pooled_projections=cond["pooled"],
            timestep=timesteps / 1000,
            img_ids=places,
            txt_ids=places.new_zeros(cond["states"].shape[1], 3),
            guidance=latents.new_full((n,), TRAINING_GUIDANCE) if self.denoiser_config("guidance_embeds") else None,
        )
        return unpacked(output.sample)

    def guided(self, cond: Cond, blank: Cond, guidance: float) -> dict[str, Any]:
        """The scale as a number."""
        return {"prompt_embeds": cond["states"], "pooled_prompt_embeds": cond["pooled"], "guidance_scale": guidance}
