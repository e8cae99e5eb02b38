"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, an AutoencoderKL, a UNet; noise-, velocity- or sample-prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from gift.models.base import Cond
from gift.models.latent import LatentDiffusion


class StableDiffusion(LatentDiffusion):
    """The family of `StableDiffusionPipeline`."""

    pipeline_name: ClassVar[str] = "StableDiffusionPipeline"
    denoiser_part: ClassVar[str] = "unet"
    denoiser_class: ClassVar[str] = "UNet2DConditionModel"
    open_options: ClassVar[dict[str, Any]] = {"safety_checker": None, "requires_safety_checker": False}
    single_file: ClassVar[str] = "cond_stage_model."

    def embed(self, prompts: Sequence[str]) -> Cond:
        """{'states': (N, tokens, width)}."""
        return {"states": self.pipeline.text_encoder(self.tokens(prompts).input_ids)[0]}

    def output(self, latents: torch.Tensor, timesteps: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The UNet's output."""
        return self.denoiser(latents, timesteps, encoder_hidden_states=cond["states"]).sample

    def guided(self, cond: Cond, blank: Cond, guidance: float) -> dict[str, Any]:
        """Classifier-free guidance against the empty prompt."""
        return {"prompt_embeds": cond["states"], "negative_prompt_embeds": blank["states"], "guidance_scale": guidance}
