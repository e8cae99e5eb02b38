"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, an AutoencoderKL, a UNet; noise-, velocity- or sample-prediction."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import DDPMScheduler
from torch import nn

from gift.errors import GiftError
from gift.files import whole_folder
from gift.models.base import GUIDANCE, Cond, DenoisingModel, Noised
from gift.pixels import as_bytes, as_float

PREDICTIONS = ("epsilon", "v_prediction", "sample")


class StableDiffusion(DenoisingModel):
    """The family of `StableDiffusionPipeline`."""

    def __init__(self, pipeline: Any, source: str) -> None:
        super().__init__(pipeline, source)
        pipeline.set_progress_bar_config(disable=True)
        for part in (pipeline.vae, pipeline.text_encoder):
            part.requires_grad_(False).eval()
        self.training_scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        if self.prediction_type not in PREDICTIONS:
            raise GiftError(
                f"{source}: prediction type '{self.prediction_type}' is not supported; supported: {', '.join(PREDICTIONS)}"
            )

    @property
    def denoiser(self) -> nn.Module:
        """The UNet."""
        return self.pipeline.unet

    @property
    def prediction_type(self) -> str:
        """As the scheduler's configuration says."""
        return str(self.pipeline.scheduler.config.prediction_type)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        config = self.pipeline.unet.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def image_size(self) -> int:
        """Side in pixels."""
        return int(self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor)

    def embed(self, prompts: Sequence[str]) -> Cond:
        """{'states': (N, tokens, width)}."""
        tokenizer, texts = self.pipeline.tokenizer, list(prompts)
        if any(name.endswith("_1") for name in tokenizer.added_tokens_encoder):  # a placeholder of several vectors is several words
            texts = self.pipeline.maybe_convert_prompt(texts, tokenizer)
        ids = tokenizer(
            texts,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return {"states": self.pipeline.text_encoder(ids.to(self.device))[0]}

    @torch.no_grad()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Scaled latents: the mean of the VAE's posterior."""
        vae = self.pipeline.vae
        values = as_float(images) if images.dtype == torch.uint8 else images
        rows = [vae.encode(x.to(self.device, vae.dtype)).latent_dist.mean for x in values.split(32)]
        return torch.cat(rows).float() * vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures, uint8."""
        vae = self.pipeline.vae
        rows = [vae.decode(x.to(vae.dtype)).sample.float() for x in (latents / vae.config.scaling_factor).split(32)]
        return as_bytes(torch.cat(rows).clamp(-1, 1)).cpu()

    def noised(self, latents: torch.Tensor, generator: torch.Generator) -> Noised:
        """Uniform timesteps, Gaussian noise; the target follows the prediction type."""
        scheduler = self.training_scheduler
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        steps = torch.randint(scheduler.config.num_train_timesteps, (len(latents),), generator=generator).to(latents.device)
        noisy = scheduler.add_noise(latents, noise, steps)
        target = {"epsilon": noise, "sample": latents}.get(self.prediction_type)
        if target is None:
            target = scheduler.get_velocity(latents, noise, steps)
        return Noised(noisy, steps, target)

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The UNet's output."""
        return self.denoiser(latents, timesteps, encoder_hidden_states=cond["states"]).sample

    @torch.no_grad()
    def sample_latents(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int = 15,
        guidance: float = GUIDANCE,
        stop_after: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The pipeline's own sampler; a partial run is the same loop, left early."""
        pipe, was_training = self.pipeline, self.denoiser.training
        reached: dict[str, torch.Tensor] = {}

        def leave(pipeline: Any, step: int, timestep: Any, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            if step + 1 == stop_after:
                pipeline._interrupt = True
                if step + 1 < len(pipeline.scheduler.timesteps):
                    reached["at"] = pipeline.scheduler.timesteps[step + 1]
            return values

        self.denoiser.eval()
        states = self.encode_prompts(["", *prompts])["states"]
        latents = pipe(
            prompt_embeds=states[1:],
            negative_prompt_embeds=states[:1].expand(len(prompts), -1, -1),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="latent",
            callback_on_step_end=leave if stop_after else None,
        ).images
        self.denoiser.train(was_training)
        return latents, reached.get("at", torch.tensor(0)).to(latents.device)

    def copy(self, *, text: bool = False) -> Self:
        """A second UNet, and a second tokenizer and text encoder if `text`; the VAE is shared."""
        parts = dict(self.pipeline.components)
        for name in ("unet", "text_encoder", "tokenizer") if text else ("unet",):
            parts[name] = copy.deepcopy(parts[name])
        parts["scheduler"] = type(parts["scheduler"]).from_config(parts["scheduler"].config)
        return type(self)(type(self.pipeline)(**parts, requires_safety_checker=False), self.source)

    def save(self, path: Path | str) -> Path:
        """A folder that `StableDiffusionPipeline.from_pretrained` opens."""
        target = Path(path)
        with whole_folder(target) as part:
            self.pipeline.save_pretrained(part, safe_serialization=True)
        return target
