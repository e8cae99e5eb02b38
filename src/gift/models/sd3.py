"""Stable Diffusion 3 and 3.5: two CLIP text encoders and a T5 that may be absent, an MM-DiT, flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch.nn.functional import pad

from gift.models.base import Cond
from gift.models.latent import LatentDiffusion, pooled_guidance
from gift.models.parameters import JOINT, JOINT_LORA_TARGETS, Groups

T5_TOKENS = 256
"""The pipeline's default, so that training sees what drawing does (diffusers' trainers for SD3 cut at 77)."""


class StableDiffusion3(LatentDiffusion):
    """The family of `StableDiffusion3Pipeline`.

    Its LoRA goes to the projections that diffusers' `train_dreambooth_lora_sd3.py` names, and in SD3.5 medium to the second
    attention's, too, which that leaves alone. There is no Textual Inversion, as the pipeline has no `load_textual_inversion`, and
    no Custom Diffusion, as the transformer reads no attention processors. Files of a model without its T5 are opened elsewhere by
    `from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)`.
    """

    pipeline_name: ClassVar[str] = "StableDiffusion3Pipeline"
    denoiser_part: ClassVar[str] = "transformer"
    denoiser_class: ClassVar[str] = "SD3Transformer2DModel"
    single_file: ClassVar[str] = "joint_blocks."
    groups: ClassVar[Groups] = JOINT
    more_lora_targets: ClassVar[tuple[str, ...]] = JOINT_LORA_TARGETS

    def embed(self, prompts: Sequence[str]) -> Cond:
        """{'states': (N, CLIP's tokens and then T5's, width), 'pooled': (N, the CLIP encoders' widths together)}.

        CLIP's states, side by side, are narrower than T5's and end in zeros; without a T5, its states are zeros.
        """
        pipe, width = self.pipeline, self.denoiser_config("joint_attention_dim")
        outputs = [
            getattr(pipe, part)(self.tokens(prompts, part).input_ids, output_hidden_states=True)
            for part in ("text_encoder", "text_encoder_2")
        ]
        clip = torch.cat([output.hidden_states[-2] for output in outputs], -1)  # the last layer but one
        if pipe.text_encoder_3 is None:
            t5 = clip.new_zeros(len(clip), T5_TOKENS, width)
        else:
            t5 = pipe.text_encoder_3(self.tokens(prompts, "text_encoder_3").input_ids)[0]
        return {
            "states": torch.cat([pad(clip, (0, width - clip.shape[-1])), t5], 1),
            "pooled": torch.cat([output.text_embeds for output in outputs], -1),
        }

    def prompt_tokens(self, part: str) -> int:
        """The pipeline's default for T5, and its CLIP tokenizers' length."""
        return T5_TOKENS if part == "text_encoder_3" else int(self.pipeline.tokenizer_max_length)

    def output(self, latents: torch.Tensor, timesteps: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The transformer's output."""
        return self.denoiser(
            latents, timestep=timesteps, encoder_hidden_states=cond["states"], pooled_projections=cond["pooled"]
        ).sample

    def guided(self, cond: Cond, blank: Cond, guidance: float) -> dict[str, Any]:
        """Classifier-free guidance against the empty prompt."""
        return pooled_guidance(cond, blank, guidance)
