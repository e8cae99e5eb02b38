"""Stable Diffusion XL: two CLIP text encoders, a UNet that is also told the second one's summary and the picture's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from gift.models.base import Cond
from gift.models.latent import LatentDiffusion, pooled_guidance


class StableDiffusionXL(LatentDiffusion):
    """The family of `StableDiffusionXLPipeline`. Its published autoencoder overflows in fp16, and is therefore kept in fp32."""

    pipeline_name: ClassVar[str] = "StableDiffusionXLPipeline"
    denoiser_part: ClassVar[str] = "unet"
    denoiser_class: ClassVar[str] = "UNet2DConditionModel"
    single_file: ClassVar[str] = "conditioner.embedders."

    def embed(self, prompts: Sequence[str]) -> Cond:
        """{'states': (N, tokens, the encoders' widths together), 'pooled': (N, width)}."""
        outputs = [
            encoder(self.tokens(prompts, part).input_ids, output_hidden_states=True) for part, encoder in self.text_encoders.items()
        ]
        states = torch.cat([output.hidden_states[-2] for output in outputs], -1)  # the last layer but one
        return {"states": states, "pooled": outputs[-1].text_embeds}

    def unconditional(self, empty: Cond) -> Cond:
        """Zeros, where the pipeline's configuration forces them for an absent negative prompt (the published models' does)."""
        if self.pipeline.config.get("force_zeros_for_empty_prompt"):
            return {name: torch.zeros_like(tensor) for name, tensor in empty.items()}
        return empty

    def output(self, latents: torch.Tensor, timesteps: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The UNet's output for whole, uncropped pictures: original size, crop and target size are the picture's own."""
        side = self.image_size
        sizes = torch.tensor([[side, side, 0, 0, side, side]]).to(cond["pooled"]).expand(len(latents), -1)
        added = {"text_embeds": cond["pooled"], "time_ids": sizes}
        return self.denoiser(latents, timesteps, encoder_hidden_states=cond["states"], added_cond_kwargs=added).sample

    def guided(self, cond: Cond, blank: Cond, guidance: float) -> dict[str, Any]:
        """Classifier-free guidance; the sizes are the pipeline's defaults."""
        return pooled_guidance(cond, blank, guidance)
