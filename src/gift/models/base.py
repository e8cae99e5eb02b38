"""What every family of text-to-image diffusion models looks like from outside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from gift.errors import NonFiniteError
from gift.models.micro import summed_loss
from gift.models.sampling import Sampling
from gift.parallel import mean_over_all, share
from gift.room import in_parts

Cond = dict[str, torch.Tensor]
"""Encoded prompts: named tensors whose first dimension is the prompt."""

Embed = Callable[[Sequence[str]], Cond]
"""Encodes prompts."""


def take(cond: Cond, index: torch.Tensor) -> Cond:
    """The rows `index` of every tensor of a conditioning."""
    return {name: tensor[index] for name, tensor in cond.items()}


def swapped(cond: Cond, rows: torch.Tensor, other: Cond) -> Cond:
    """A conditioning with the given `rows`, (N,) of bool, from another, which has N or one."""

    def chosen(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return torch.where(rows.to(tensor.device).view(-1, *[1] * (tensor.ndim - 1)), other[name].to(tensor), tensor)

    return {name: chosen(name, tensor) for name, tensor in cond.items()}


def unpadded(cond: Cond) -> tuple[torch.Tensor, torch.Tensor]:
    """'states' and 'mask' of a conditioning, cut to its longest prompt; its padding, which the mask tells, is at the end."""
    longest = int(cond["mask"].sum(1).max())
    return cond["states"][:, :longest], cond["mask"][:, :longest]


@dataclass(frozen=True)
class Noised:
    """A batch on its way through the forward process."""

    latents: torch.Tensor  # x_t, (N, C, h, w)
    timesteps: torch.Tensor  # (N,), whole numbers or, for flow matching, sigma * num_train_timesteps
    target: torch.Tensor  # what the denoiser is trained to predict, (N, C, h, w)


class DenoisingModel(ABC):
    """A pipeline behind one face: nothing outside `models` knows UNet from transformer, or noise- from velocity-prediction.

    Attributes:
        pipeline: the diffusers pipeline that is wrapped.
        source: where it was loaded from, for records.
        denoiser_part: the name of the denoiser's part of the pipeline, and so of its LoRA files.
        more_lora_targets: modules of the denoiser that get a LoRA beside to_k, to_q, to_v and to_out.0, as in diffusers' trainers.
        compute: what the denoiser's training forwards compute in; weights, losses and optimisers stay fp32.
        micro_batches: how many parts of a batch go through the denoiser one after the other in training.
        scaler: of losses, where half precision would lose their small gradients; None where it can't.
        sampling: how it is drawn from where nothing else is said.
    """

    compute: torch.dtype = torch.float32
    micro_batches: int = 1
    scaler: Any = None
    sampling: Sampling = Sampling()
    denoiser_part: ClassVar[str]
    more_lora_targets: ClassVar[tuple[str, ...]] = ()

    def __init__(self, pipeline: Any, source: str) -> None:
        self.pipeline = pipeline
        self.source = source

    @property
    def denoiser(self) -> nn.Module:
        """The module that is trained."""
        return getattr(self.pipeline, self.denoiser_part)

    @property
    @abstractmethod
    def prediction_type(self) -> str:
        """What the denoiser predicts: 'epsilon', 'v_prediction', 'sample', or 'flow' (noise minus picture)."""

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one picture's latents."""

    @property
    @abstractmethod
    def latent_scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(shift, factor), each one number or one a channel: latents are (what the autoencoder gives - shift) * factor."""

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Side of a picture, in pixels."""

    @property
    def text_encoders(self) -> dict[str, Any]:
        """The pipeline's text encoders by the name of their part ('text_encoder', 'text_encoder_2', …)."""
        parts = self.pipeline.components
        return {name: part for name, part in parts.items() if name.startswith("text_encoder") and part is not None}

    @property
    def tokenizers(self) -> dict[str, Any]:
        """The tokenizer of each text encoder, by the encoder's name."""
        return {name: getattr(self.pipeline, name.replace("text_encoder", "tokenizer")) for name in self.text_encoders}

    @abstractmethod
    def embed(self, prompts: Sequence[str]) -> Cond:
        """Encodes N prompts, with gradients to the text encoders' weights that require them."""

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Cond:
        """Encodes N prompts, without gradients."""
        return self.embed(prompts)

    def unconditional(self, empty: Cond) -> Cond:
        """What stands for no prompt in guidance, given the empty prompt's encoding; that itself by default."""
        return empty

    @abstractmethod
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Scaled latents (N, C, h, w) of pictures (N, 3, H, W): uint8, or float in [-1, 1]. The posterior's mean: repeatable.

        Raises:
            NonFiniteError: the autoencoder gives NaN or infinite values.
        """

    @abstractmethod
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures uint8 (N, 3, H, W) of scaled latents."""

    @abstractmethod
    def noised(self, latents: torch.Tensor, generator: torch.Generator) -> Noised:
        """Draws timesteps and noise and gives x_t with the training target."""

    @abstractmethod
    def output(self, latents: torch.Tensor, timesteps: torch.Tensor, cond: Cond) -> torch.Tensor:
        """What the family's denoiser gives for x_t, t and c in the precision that its weights are held in, (N, C, h, w)."""

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The denoiser's output f(x_t, t, c), (N, C, h, w), in fp32 (in `compute` under autocast)."""
        held = self.held_in
        if held is torch.float32:
            return self.output(latents, timesteps, cond)
        lower = {name: tensor.to(held) if tensor.is_floating_point() else tensor for name, tensor in cond.items()}
        return self.output(latents.to(held), timesteps, lower).float()

    @abstractmethod
    def sample_latents(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        stop_after: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples scaled latents, one seed a prompt.

        Args:
            prompts: N prompts.
            seeds: N seeds.
            steps: sampler steps; those of `sampling` by default.
            guidance: classifier-free guidance scale; that of `sampling` by default.
            stop_after: leave after so many sampler steps (a partial run, for methods that train on their own samples).

        Returns:
            x_t as the denoiser is trained on it (N, C, h, w), and the timestep () at which it stands (0 at the end).
        """

    @abstractmethod
    def copy(self, *, text: bool = False) -> Self:
        """A model with a denoiser of its own, and with text encoders and tokenizers of its own if `text`; the rest is shared."""

    @abstractmethod
    def save(self, path: Path | str) -> Path:
        """Writes a plain diffusers folder, whole or not at all."""

    def per_sample_loss(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Squared error of each sample, (N,)."""
        return (prediction.float() - target.float()).square().flatten(1).mean(1)

    def loss(self, latents: torch.Tensor, cond: Cond, generator: torch.Generator) -> torch.Tensor:
        """The model's own training objective L(theta; batch) of each sample, (N,)."""
        noised = self.noised(latents, generator)
        return self.per_sample_loss(self.predict(noised.latents, noised.timesteps, cond), noised.target)

    def predict_in_training(self, latents: torch.Tensor, timesteps: torch.Tensor, cond: Cond) -> torch.Tensor:
        """`predict`, computed in `compute`."""
        with torch.autocast(latents.device.type, self.compute, enabled=self.compute is not torch.float32):
            return self.predict(latents, timesteps, cond)

    def too_long(self, prompts: Sequence[str]) -> list[str]:
        """Those of N prompts of which the model reads the beginning alone; none where nothing is known of that."""
        return []

    def noised_share(self, latents: torch.Tensor, cond: Cond, generator: torch.Generator) -> tuple[Noised, Cond]:
        """This process's rows of a batch on its way through the forward process, which is drawn for the whole batch, with theirs of
        its prompts."""
        noised, mine = self.noised(latents, generator), share(len(latents))
        own = Noised(noised.latents[mine], noised.timesteps[mine], noised.target[mine])
        return own, {name: tensor[mine] for name, tensor in cond.items()}

    @property
    def compiled(self) -> bool:
        """Whether the denoiser's forwards are compiled: they then can't be looked into."""
        denoiser: Any = self.denoiser
        return denoiser._compiled_call_impl is not None

    def mean_loss(
        self, latents: torch.Tensor, cond: Cond, generator: torch.Generator, target: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The mean of `loss` over a batch, (); of several processes each computes its share (see `gift.parallel`).

        With `micro_batches`, in as many parts: the same mean and gradients to rounding, the activations of one part in memory.

        Args:
            latents: scaled latents (N, C, h, w).
            cond: their encoded prompts.
            generator: of the noise and timesteps, drawn for the whole batch in every process.
            target: what the last rows of this process's share of the batch, as many as these, are compared with instead of the
                objective's target.
        """
        noised, cond = self.noised_share(latents, cond, generator)
        at, when, goal = noised.latents, noised.timesteps, noised.target
        if target is not None:
            goal = torch.cat([goal[: len(goal) - len(target)], target])
        return mean_over_all(self._summed(at, when, cond, goal), len(latents))

    def regression(self, latents: torch.Tensor, timesteps: torch.Tensor, cond: Cond, target: torch.Tensor) -> torch.Tensor:
        """The mean of `per_sample_loss` at given latents, (); each process computes all of it, in `micro_batches`.

        Args:
            latents: scaled noisy latents (N, C, h, w).
            timesteps: (N,).
            cond: their encoded prompts.
            target: what the predictions are compared with, (N, C, h, w).
        """
        if self.micro_batches == 1:
            return self.per_sample_loss(self.predict_in_training(latents, timesteps, cond), target).mean()
        return self._summed(latents, timesteps, cond, target) / len(latents)

    def _summed(self, at: torch.Tensor, when: torch.Tensor, cond: Cond, goal: torch.Tensor) -> torch.Tensor:
        """The sum of `per_sample_loss` over a batch, part by part."""
        if self.micro_batches == 1:
            return self.per_sample_loss(self.predict_in_training(at, when, cond), goal).sum()
        learned = [name for name, tensor in cond.items() if tensor.requires_grad]

        def part(rows: slice, leaves: Sequence[torch.Tensor]) -> torch.Tensor:
            given = cond | dict(zip(learned, leaves, strict=False))
            out = self.predict_in_training(at[rows], when[rows], {name: tensor[rows] for name, tensor in given.items()})
            return self.per_sample_loss(out, goal[rows]).sum()

        moving = [cond[name] for name in learned] + [p for p in self.denoiser.parameters() if p.requires_grad]
        scale = self.scaler.get_scale() if self.scaler else 1.0
        return summed_loss(part, len(at), self.micro_batches, moving, scale)

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        batch: int = 48,
    ) -> torch.Tensor:
        """Pictures uint8 (N, 3, H, W), one seed a prompt; the same seed gives the same starting noise in any batch.

        Args:
            prompts: N prompts.
            seeds: N seeds.
            steps: sampler steps; those of `sampling` by default.
            guidance: classifier-free guidance scale; that of `sampling` by default.
            batch: pictures a forward.

        Where memory gives out, they are drawn one at a time.

        Raises:
            NonFiniteError: the model's output is NaN or infinite.
            NotEnoughMemory: there is no room for a single picture.
        """

        def draw(part: slice) -> torch.Tensor:
            latents, _ = self.sample_latents(prompts[part], seeds[part], steps=steps, guidance=guidance)
            if not torch.isfinite(latents).all():
                raise NonFiniteError("the model drew NaN or infinite latents; its weights are broken: lower the learning rate")
            return self.decode(latents)

        return torch.cat(in_parts(len(prompts), batch, draw, "to draw pictures"))

    @property
    def held_in(self) -> torch.dtype:
        """The precision of the denoiser's own weights; adapters on it are fp32 whatever that is."""
        denoiser: Any = self.denoiser
        return denoiser.dtype

    @property
    def device(self) -> torch.device:
        """Where the denoiser's weights are."""
        return next(self.denoiser.parameters()).device

    @property
    def networks(self) -> dict[str, nn.Module]:
        """All that has weights, by the name of its part of the pipeline."""
        return {name: part for name, part in self.pipeline.components.items() if isinstance(part, nn.Module)}

    @property
    def nbytes(self) -> int:
        """The size of all networks' weights, as `save` writes them."""
        return sum(tensor.nbytes for network in self.networks.values() for tensor in network.state_dict().values())

    def describe(self) -> str:
        """One line: architecture, the weights' precision where it is not fp32, prediction type, size, and what is unusual in how it
        is drawn from."""
        count = sum(p.numel() for p in self.denoiser.parameters())
        kind, held = type(self.pipeline).__name__, str(self.held_in).removeprefix("torch.")
        weights = f"{count / 1e6:.1f} M weights" + ("" if held == "float32" else f" in {held}")
        how = self.sampling
        drawn = f", drawn in {how.steps} steps at guidance {how.guidance:g}" if how.settings() else ""
        return f"{kind}, {type(self.denoiser).__name__} with {weights}, {self.prediction_type}, {self.image_size} px{drawn}"
