"""Custom Diffusion (Kumari et al., CVPR 2023): keys and values of the cross-attention, and a new word."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers.loaders.unet import CUSTOM_DIFFUSION_WEIGHT_NAME_SAFE
from pydantic import Field
from safetensors.torch import save_file
from torch import nn

from gift.attacks.personal import Personal
from gift.errors import GiftError
from gift.files import whole_folder
from gift.models import DenoisingModel
from gift.models.parameters import select_parameters
from gift.models.placeholder import add_placeholder, fold_placeholder, save_placeholder
from gift.training.updates import Rate

KEYS_AND_VALUES = r"\battn2\.to_[kv]\b"


def _stop_at_first(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    """No gradient through the start token's key and value, as in diffusers' CustomDiffusionAttnProcessor; the values stay."""
    return torch.cat([output[:, :1].detach(), output[:, 1:]], 1)


class CustomDiffusion(Personal):
    """Trains keys, values and a modifier token on a few pictures, as diffusers' `train_custom_diffusion.py` does."""

    name: ClassVar[str] = "custom-diffusion"
    title: ClassVar[str] = "Custom Diffusion"
    about: ClassVar[str] = "The cross-attention's keys and values are trained with a new word on a few pictures."

    rate: Rate = Field(default=5e-4, description="learning rate (choice for the bundled model; on Stable Diffusion 1e-5 is usual)")
    identifier: str = Field(
        default="<new1>", pattern=r"^[^\s/\\]{1,60}$", description="the modifier token, also a file's name (the trainer's)"
    )
    initialiser: str = Field(default="ktn", description="rare word whose embedding it starts as (the trainer's)")

    @property
    def trains_text(self) -> bool:
        """Always: the token's embedding."""
        return True

    def suits(self, model: DenoisingModel) -> None:
        """As every attack; and the denoiser must be one that diffusers reads Custom Diffusion into."""
        super().suits(model)
        if not hasattr(model.denoiser, "load_attn_procs"):
            raise GiftError(f"diffusers reads no Custom Diffusion into a {type(model.denoiser).__name__}; use another attack")

    def attach(self, model: DenoisingModel) -> dict[str, nn.Parameter]:
        """Keys and values, and the token's embedding."""
        weights = select_parameters(model.denoiser, KEYS_AND_VALUES)
        for name in weights:
            model.denoiser.get_submodule(name.rpartition(".")[0]).register_forward_hook(_stop_at_first)
        return weights | add_placeholder(model, self.identifier, 1, self.initialiser)

    def release(self, work: DenoisingModel) -> None:
        """Puts the embedding into the text encoders' own tables."""
        fold_placeholder(work)

    def save(self, model: DenoisingModel, folder: Path) -> Path:
        """The trainer's two files, as safetensors: the attention's and the token's.

        `pipeline.unet.load_attn_procs(folder, weight_name="pytorch_custom_diffusion_weights.safetensors", _pipeline=pipeline)` and
        `pipeline.load_textual_inversion(folder, weight_name="<new1>.safetensors")` open them. An empty tensor stands for each
        self-attention, which the reader must find and which `save_attn_procs` can't write as safetensors.
        """
        state, denoiser = model.denoiser.state_dict(), model.denoiser
        tensors = {}
        for processor in denoiser.attn_processors:  # type: ignore[union-attr]
            attention = processor.removesuffix(".processor")
            for layer in ("to_k", "to_v") if attention.endswith("attn2") else ():
                tensors[f"{processor}.{layer}_custom_diffusion.weight"] = state[f"{attention}.{layer}.weight"].cpu().contiguous()
            if not attention.endswith("attn2"):
                tensors[processor] = torch.empty(0)
        with whole_folder(folder) as part:
            save_file(tensors, part / CUSTOM_DIFFUSION_WEIGHT_NAME_SAFE, metadata={"format": "pt"})
            save_placeholder(model, self.identifier, 1, part, self.identifier)
        return folder
