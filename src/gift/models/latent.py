"""What latent diffusion pipelines share: an autoencoder, text encoders, the pipeline's own sampler. A family says the rest."""

from __future__ import annotations

import copy
import inspect
import math
import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import diffusers
import torch
from diffusers.loaders import TextualInversionLoaderMixin

from gift.errors import GiftError, NonFiniteError
from gift.files import whole_folder, write_json
from gift.launch import is_main
from gift.models.base import Cond, DenoisingModel, Noised
from gift.models.objectives import objective_of
from gift.models.parameters import GROUPS, SEPARATE, Groups, not_finite
from gift.models.patches import unpacked
from gift.models.sampling import NAME as SAMPLING
from gift.pixels import as_bytes, as_float

PLAIN_SIDE = 256
"""Side in pixels up to which pictures go through the networks in full batches; of larger ones fewer, by their area (choice)."""


def pooled_guidance(cond: Cond, blank: Cond, guidance: float) -> dict[str, Any]:
    """`LatentDiffusion.guided` for pipelines with classifier-free guidance whose prompts are 'states' and 'pooled'."""
    return {
        "prompt_embeds": cond["states"],
        "pooled_prompt_embeds": cond["pooled"],
        "negative_prompt_embeds": blank["states"],
        "negative_pooled_prompt_embeds": blank["pooled"],
        "guidance_scale": guidance,
    }


class _Left(Exception):  # noqa: N818 - no error
    """Carries the latents out of a pipeline that can't be told to stop."""

    def __init__(self, latents: torch.Tensor) -> None:
        self.latents = latents


LONGEST_PROMPT = 10**6
"""More tokens than any text encoder reads: what a tokenizer says that was saved without its `model_max_length`."""


def _checked(prompts: Sequence[str]) -> list[str]:
    """Prompts that a tokenizer can read.

    Raises:
        GiftError: one holds undecodable bytes.
    """
    texts = list(prompts)
    broken = next((text for text in texts if re.search("[\ud800-\udfff]", text)), None)
    if broken is not None:
        raise GiftError(f"the prompt {broken!r} holds bytes that are not text; write it in UTF-8")
    return texts


class LatentDiffusion(DenoisingModel):
    """A pipeline of diffusers with an autoencoder, text encoders and a denoiser.

    Attributes:
        pipeline_name: the pipeline's class in diffusers, as `model_index.json` says it.
        denoiser_class: the denoiser's class in diffusers.
        open_options: further arguments of `from_pretrained`.
        single_file: what the name of some tensor in the family's original one-file checkpoints contains, and in no other family's;
            '' if there are none.
        groups: what 'cross-attention' and the like mean in this denoiser.
    """

    pipeline_name: ClassVar[str]
    denoiser_class: ClassVar[str]
    open_options: ClassVar[dict[str, Any]] = {}
    single_file: ClassVar[str] = ""
    groups: ClassVar[Groups] = SEPARATE

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "denoiser_class"):
            GROUPS[cls.denoiser_class] = cls.groups

    def __init__(self, pipeline: Any, source: str, size: int | None = None) -> None:
        """Wraps a pipeline; its autoencoder is set to fp32 (some overflow in fp16), its text encoders and it are frozen.

        Args:
            pipeline: of the family's class.
            source: where it was loaded from.
            size: side of a picture in pixels; by default what the denoiser's configuration says, or the pipeline.

        Raises:
            GiftError: it has no text encoder, its scheduler is not supported, or the size does not fit its patches.
        """
        super().__init__(pipeline, source)
        if not self.text_encoders:
            raise GiftError(f"{source} has no text encoder; save the whole pipeline again")
        self.size = size
        self.objective = objective_of(pipeline.scheduler, source)
        step = math.lcm(
            pipeline.image_processor.config.vae_scale_factor,
            pipeline.vae_scale_factor * int(self.denoiser_config("patch_size") or 1),
        )
        if self.image_size <= 0 or self.image_size % step:
            raise GiftError(f"{source}: pictures of {self.image_size} px are not possible; give a multiple of {step}")
        pipeline.set_progress_bar_config(disable=True)
        if pipeline.vae.dtype != torch.float32:
            pipeline.vae.to(torch.float32)
        for part in (pipeline.vae, *self.text_encoders.values()):
            part.requires_grad_(False).eval()

    @classmethod
    def pipeline_class(cls) -> Any:
        """The pipeline's class.

        Raises:
            GiftError: the installed diffusers has none of that name.
        """
        kind = getattr(diffusers, cls.pipeline_name, None)
        if kind is None:
            raise GiftError(f"diffusers {diffusers.__version__} has no {cls.pipeline_name}; update it: pip install -U diffusers")
        return kind

    def denoiser_config(self, name: str) -> Any:
        """An entry of the denoiser's configuration; None where it has none."""
        return getattr(self.pipeline, self.denoiser_part).config.get(name)

    @property
    def prediction_type(self) -> str:
        """As the scheduler's configuration says; 'flow' for flow matching."""
        return self.objective.prediction_type

    @property
    def image_size(self) -> int:
        """Side in pixels: as asked for, or the denoiser's sample_size, or the pipeline's default."""
        side = self.denoiser_config("sample_size") or getattr(self.pipeline, "default_sample_size", 0)
        side = side if isinstance(side, int) else max(side)
        return self.size or int(side * self.pipeline.vae_scale_factor)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        config, side = self.pipeline.vae.config, self.image_size // self.pipeline.vae_scale_factor
        return config.get("latent_channels") or config.get("z_dim"), side, side

    @property
    def latent_scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """From the autoencoder's scaling_factor with its shift_factor, or its mean and deviation of each channel."""
        config = self.pipeline.vae.config
        factor = config.get("scaling_factor") or 1.0
        mean, deviation = config.get("latents_mean"), config.get("latents_std")
        if mean is not None and deviation is not None:
            return tuple(mean), tuple(factor / d for d in deviation)
        return (config.get("shift_factor") or 0.0,), (factor,)

    def _shift_and_factor(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shift, factor = (torch.tensor(values).view(-1, 1, 1).to(like) for values in self.latent_scale)
        return shift, factor

    @property
    def least_steps(self) -> int:
        """How many steps the sampler needs: one that stretches its sigmas to a given end divides by zero in a run of one."""
        return 2 if self.pipeline.scheduler.config.get("shift_terminal") else 1

    def at_once(self, most: int) -> int:
        """How many pictures go through a network at once, of at most so many."""
        return max(1, most * PLAIN_SIDE**2 // max(PLAIN_SIDE, self.image_size) ** 2)

    @torch.no_grad()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Scaled latents: the mean of the autoencoder's posterior, finite."""
        values = as_float(images) if images.dtype == torch.uint8 else images
        rows = [self.vae_mean(x.to(self.device, self.pipeline.vae.dtype)).float() for x in values.split(self.at_once(32))]
        shift, factor = self._shift_and_factor(rows[0])
        latents = (torch.cat(rows) - shift) * factor
        if not torch.isfinite(latents).all():
            raise NonFiniteError("the autoencoder gives NaN or infinite latents; use it in fp32 and look at the pictures")
        return latents

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures, uint8.

        Raises:
            NonFiniteError: the autoencoder gives NaN or infinite values.
        """
        shift, factor = self._shift_and_factor(latents)
        rows = [
            self.vae_pictures(x.to(self.pipeline.vae.dtype)).float() for x in (latents / factor + shift).split(self.at_once(32))
        ]
        pictures = torch.cat(rows)
        if not torch.isfinite(pictures).all():
            raise NonFiniteError("the autoencoder draws NaN or infinite pictures; use it in fp32 and look at its weights")
        return as_bytes(pictures.clamp(-1, 1)).cpu()

    def vae_mean(self, pictures: torch.Tensor) -> torch.Tensor:
        """What the autoencoder makes of pictures (N, 3, H, W) in [-1, 1], unscaled: (N, C, h, w)."""
        return self.pipeline.vae.encode(pictures).latent_dist.mean

    def vae_pictures(self, latents: torch.Tensor) -> torch.Tensor:
        """What it makes of unscaled latents (N, C, h, w): (N, 3, H, W) in [-1, 1]."""
        return self.pipeline.vae.decode(latents).sample

    def noised(self, latents: torch.Tensor, generator: torch.Generator) -> Noised:
        """Noise and timesteps as the model's objective draws them."""
        return self.objective.noised(latents, generator)

    def asked(self, prompts: Sequence[str]) -> list[str]:
        """N prompts as the pipeline gives them to its tokenizers."""
        return list(prompts)

    def prompt_tokens(self, part: str) -> int:
        """How many tokens of a prompt a text encoder's part is given: its tokenizer's `model_max_length`.

        Raises:
            GiftError: the tokenizer knows none.
        """
        most = int(self.tokenizers[part].model_max_length)
        if most > LONGEST_PROMPT:
            where = part.replace("text_encoder", "tokenizer")
            raise GiftError(f"{self.source}: {where} has no model_max_length; write it into its tokenizer_config.json")
        return most

    def tokens(self, prompts: Sequence[str], part: str = "text_encoder") -> Any:
        """What a text encoder reads: `input_ids` and `attention_mask`, each (N, length), on the model's device.

        Every prompt is cut or padded to `prompt_tokens`, so that encodings of different calls can be joined.

        Args:
            prompts: N prompts; a placeholder of several vectors in them becomes several words.
            part: the name of the text encoder's part.

        Raises:
            GiftError: a prompt holds undecodable bytes, or its length is unknown.
        """
        tokenizer, texts = self.tokenizers[part], self.asked(_checked(prompts))
        if any(name.endswith("_1") for name in tokenizer.added_tokens_encoder):
            texts = TextualInversionLoaderMixin().maybe_convert_prompt(texts, tokenizer)
        length = self.prompt_tokens(part)
        return tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").to(self.device)

    def too_long(self, prompts: Sequence[str]) -> list[str]:
        """Those of N prompts of which every text encoder reads the beginning alone.

        Raises:
            GiftError: a prompt holds undecodable bytes.
        """
        found = list(dict.fromkeys(_checked(prompts)))
        for part, tokenizer in self.tokenizers.items():
            counts = [len(ids) for ids in tokenizer(self.asked(found), truncation=False)["input_ids"]] if found else []
            found = [prompt for prompt, count in zip(found, counts, strict=True) if count > self.prompt_tokens(part)]
        return found

    @abstractmethod
    def guided(self, cond: Cond, blank: Cond, guidance: float) -> dict[str, Any]:
        """The arguments by which the pipeline is asked for N pictures.

        Args:
            cond: N prompts' encoding.
            blank: `unconditional`, N times.
            guidance: scale.
        """

    def grid(self, latents: torch.Tensor) -> torch.Tensor:
        """What the pipeline calls latents as (N, C, h, w): of patches (N, patches, 4 C) their picture, all others as they are."""
        return unpacked(latents) if latents.ndim == 3 else latents

    @torch.no_grad()
    def sample_latents(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        stop_after: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The pipeline's own sampler; a partial run is the same loop, left early.

        Raises:
            GiftError: the sampler needs more steps.
        """
        wanted = self.sampling.steps if steps is None else steps
        if wanted < self.least_steps:
            raise GiftError(f"{self.source} can't be drawn from in {wanted} sampler steps; use at least {self.least_steps}")
        how = self.sampling.but(steps, guidance)
        steps, guidance = how.steps, how.guidance
        if len(prompts) > (most := self.at_once(48)):
            parts = [slice(start, start + most) for start in range(0, len(prompts), most)]
            runs = [
                self.sample_latents(prompts[part], seeds[part], steps=steps, guidance=guidance, stop_after=stop_after)
                for part in parts
            ]
            return torch.cat([latents for latents, _ in runs]), runs[0][1]
        pipe, was_training = self.pipeline, self.denoiser.training
        rows = self.encode_prompts(["", *prompts])
        blank = self.unconditional({name: tensor[:1] for name, tensor in rows.items()})
        asked = self.guided(
            {name: tensor[1:] for name, tensor in rows.items()},
            {name: tensor.expand(len(prompts), *tensor.shape[1:]) for name, tensor in blank.items()},
            guidance,
        )
        self.denoiser.eval()
        try:
            latents = pipe(
                **asked,
                height=self.image_size,
                width=self.image_size,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                num_inference_steps=steps,
                output_type="latent",
                **(self._leaving(stop_after) if stop_after else {}),
            ).images
        except _Left as left:
            latents = left.latents
        finally:
            self.denoiser.train(was_training)
        times = pipe.scheduler.timesteps
        if stop_after is None or stop_after >= len(times):
            return self.grid(latents).float(), torch.tensor(0, device=latents.device)
        at = times[stop_after]
        if hasattr(
            pipe.scheduler, "scale_model_input"
        ):  # Euler's and kindred samplers keep x_t in another scale than it is trained
            latents = pipe.scheduler.scale_model_input(latents, at)
        return self.grid(latents).float(), at.to(latents.device)

    def _leaving(self, stop_after: int) -> dict[str, Any]:
        def interrupt(pipeline: Any, step: int, timestep: Any, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            if step + 1 == stop_after:
                pipeline._interrupt = True
            return values

        def leave(step: int, timestep: Any, latents: torch.Tensor) -> None:
            if step + 1 == stop_after:
                raise _Left(latents)

        modern = "callback_on_step_end" in inspect.signature(type(self.pipeline).__call__).parameters
        return {"callback_on_step_end": interrupt} if modern else {"callback": leave}

    def copy(self, *, text: bool = False) -> Self:
        """A second denoiser, and second tokenizers and text encoders if `text`; the autoencoder is shared."""
        parts = dict(self.pipeline.components)
        own = {self.denoiser_part, *(self.text_encoders if text else ()), *(n for n in parts if text and n.startswith("tokenizer"))}
        for name in own:
            parts[name] = copy.deepcopy(parts[name])
        parts["scheduler"] = type(parts["scheduler"]).from_config(parts["scheduler"].config)
        kind = type(self.pipeline)
        options = {n: self.pipeline.config[n] for n in inspect.signature(kind).parameters if n in self.pipeline.config}
        made = type(self)(kind(**options | parts), self.source, self.size)
        made.sampling = self.sampling
        return made

    @property
    def broken_weight(self) -> str | None:
        """The name of a weight that holds NaN or infinite values, as 'unet.conv_in.bias'; None where all are finite."""
        return not_finite((f"{part}.{name}", p) for part, net in self.networks.items() for name, p in net.named_parameters())

    def save(self, path: Path | str) -> Path:
        """A folder that `DiffusionPipeline.from_pretrained` opens.

        Raises:
            NonFiniteError: a weight is NaN or infinite; nothing was written.
        """
        target = Path(path)
        if not is_main():
            return target
        if broken := self.broken_weight:
            raise NonFiniteError(f"{broken} holds NaN or infinite values, so nothing was written to {target}: train it anew")
        with whole_folder(target, self.nbytes) as part:
            self.pipeline.save_pretrained(part, safe_serialization=True)
            for value in self.sampling.settings().values():
                write_json(part / SAMPLING, value)
        return target
