"""Qwen-Image: a Qwen2.5-VL that reads a template, an MM-DiT over patches of 2 x 2, a video autoencoder, flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from gift.models.base import Cond, unpadded
from gift.models.latent import LatentDiffusion
from gift.models.parameters import JOINT, Groups
from gift.models.patches import packed, unpacked

PROMPT_TOKENS = 512
"""The pipeline's default, and that of diffusers' `train_dreambooth_lora_qwen_image.py`."""


class QwenImage(LatentDiffusion):
    """The family of `QwenImagePipeline`.

    Guidance is classifier-free (`true_cfg_scale`; 4 is usual) against the empty prompt, and the pipeline keeps the norm of the
    prediction. Diffusers reads LoRA into the transformer alone; there is no Textual Inversion, as the pipeline has no
    `load_textual_inversion`, and no Custom Diffusion, as the transformer reads no attention processors.
    """

    pipeline_name: ClassVar[str] = "QwenImagePipeline"
    denoiser_part: ClassVar[str] = "transformer"
    denoiser_class: ClassVar[str] = "QwenImageTransformer2DModel"
    groups: ClassVar[Groups] = JOINT

    def embed(self, prompts: Sequence[str]) -> Cond:
        """{'states': (N, tokens, width), 'mask': (N, tokens)}: the last states behind the template's head, padded with zeros."""
        pipe, head = self.pipeline, self.pipeline.prompt_template_encode_start_idx
        tokens = self.tokens(prompts)
        mask = tokens.attention_mask
        states = pipe.text_encoder.model(input_ids=tokens.input_ids, attention_mask=mask, use_cache=False).last_hidden_state
        order = mask.argsort(dim=1, descending=True, stable=True)[:, head:]  # padding last, wherever the tokenizer puts it
        mask = mask.gather(1, order)
        states = states.gather(1, order[..., None].expand(-1, -1, states.shape[-1]))
        return {"states": states * mask[..., None], "mask": mask}

    def asked(self, prompts: Sequence[str]) -> list[str]:
        """In the pipeline's template."""
        return [self.pipeline.prompt_template_encode.format(prompt) for prompt in prompts]

    def prompt_tokens(self, part: str) -> int:
        """The pipeline's default, behind the template's head."""
        return PROMPT_TOKENS + int(self.pipeline.prompt_template_encode_start_idx)

    def vae_mean(self, pictures: torch.Tensor) -> torch.Tensor:
        """The first frame's."""
        return super().vae_mean(pictures[:, :, None])[:, :, 0]

    def vae_pictures(self, latents: torch.Tensor) -> torch.Tensor:
        """The first frame."""
        return super().vae_pictures(latents[:, :, None])[:, :, 0]

    def output(self, latents: torch.Tensor, timesteps: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The transformer's output."""
        states, mask = unpadded(cond)
        n, _, h, w = latents.shape
        output = self.denoiser(
            packed(latents),
            encoder_hidden_states=states,
            encoder_hidden_states_mask=mask,
            timestep=timesteps / 1000,
            img_shapes=[[(1, h // 2, w // 2)]] * n,
        )
        return unpacked(output.sample)

    def guided(self, cond: Cond, blank: Cond, guidance: float) -> dict[str, Any]:
        """Classifier-free guidance, above 1 alone: at 1 the pipeline warns of a negative prompt."""
        asked: dict[str, Any] = {"true_cfg_scale": guidance}
        for prefix, what in {"": cond, "negative_": blank}.items() if guidance > 1 else [("", cond)]:
            asked[f"{prefix}prompt_embeds"], asked[f"{prefix}prompt_embeds_mask"] = unpadded(what)
        return asked
