"""PixArt-Sigma and PixArt-alpha: a T5 with its mask, a transformer with cross-attention that also learns the variance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from gift.models.base import Cond, unpadded
from gift.models.latent import LatentDiffusion


class PixArtSigma(LatentDiffusion):
    """The family of `PixArtSigmaPipeline`.

    Diffusers reads no LoRA files, no learned words and no attention processors into it: LoRA is saved as a peft folder for the
    transformer, and there is no Textual Inversion and no Custom Diffusion. Pictures are drawn at their own size, without the
    pipeline's rounding to the sizes that it was trained on (`use_resolution_binning`); for square ones of the model's own size that
    is the same.

    Attributes:
        default_tokens: the pipeline's default length of a prompt.
    """

    pipeline_name: ClassVar[str] = "PixArtSigmaPipeline"
    denoiser_part: ClassVar[str] = "transformer"
    denoiser_class: ClassVar[str] = "PixArtTransformer2DModel"
    default_tokens: ClassVar[int] = 300

    def embed(self, prompts: Sequence[str]) -> Cond:
        """{'states': (N, tokens, width), 'mask': (N, tokens)}."""
        tokens = self.tokens(prompts)
        states = self.pipeline.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        return {"states": states, "mask": tokens.attention_mask}

    def asked(self, prompts: Sequence[str]) -> list[str]:
        """In small letters, as the pipeline without `clean_caption`."""
        return [prompt.lower().strip() for prompt in prompts]

    def prompt_tokens(self, part: str) -> int:
        """The pipeline's default."""
        return self.default_tokens

    def output(self, latents: torch.Tensor, timesteps: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The transformer's output without the learned variance, which follows it in the channels."""
        states, mask = unpadded(cond)
        output = self.denoiser(
            latents,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            timestep=timesteps,
            added_cond_kwargs=self._sizes(latents),
        ).sample
        return output[:, : latents.shape[1]]

    def _sizes(self, latents: torch.Tensor) -> dict[str, torch.Tensor | None]:
        """Height and width in pixels, (N, 2), and their ratio, (N, 1), for transformers that are told them (alpha's at 1024 px)."""
        if not self.denoiser.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        ones = latents.new_ones(len(latents), 2)
        return {"resolution": ones * self.image_size, "aspect_ratio": ones[:, :1]}

    def guided(self, cond: Cond, blank: Cond, guidance: float) -> dict[str, Any]:
        """Classifier-free guidance against the empty prompt."""
        return {
            "prompt_embeds": cond["states"],
            "prompt_attention_mask": cond["mask"],
            "negative_prompt": None,
            "negative_prompt_embeds": blank["states"],
            "negative_prompt_attention_mask": blank["mask"],
            "guidance_scale": guidance,
            "use_resolution_binning": False,
        }


class PixArtAlpha(PixArtSigma):
    """The family of `PixArtAlphaPipeline`: shorter prompts, and at 1024 px a transformer that is told the picture's size."""

    pipeline_name: ClassVar[str] = "PixArtAlphaPipeline"
    default_tokens: ClassVar[int] = 120

    @property
    def least_steps(self) -> int:
        """Two: the pipeline takes a run of one from the sampler's guess of the end, which the published sampler doesn't give."""
        return 2
