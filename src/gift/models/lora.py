"""LoRA adapters on a denoiser, through peft: attached, re-drawn, switched, saved as diffusers files, taken off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from torch import nn

from gift.errors import GiftError
from gift.files import whole_folder
from gift.models.base import DenoisingModel
from gift.models.loading import check_safetensors

LORA_FILE = "pytorch_lora_weights.safetensors"
TARGETS = ("to_k", "to_q", "to_v", "to_out.0")  # as diffusers' own LoRA trainers


def attach_lora(model: DenoisingModel, rank: int, name: str = "default", alpha: float | None = None) -> dict[str, nn.Parameter]:
    """Adds an adapter to the attention projections and returns its weights, by name; only they require gradients afterwards.

    Args:
        model: its denoiser is changed in place (the base weights are not).
        rank: of the two factors.
        name: of the adapter.
        alpha: the scale's numerator; the rank itself by default (scale 1).

    Raises:
        GiftError: no module of the denoiser matches.
    """
    denoiser: Any = model.denoiser
    denoiser.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha or rank, init_lora_weights="gaussian", target_modules=list(TARGETS))
    try:
        denoiser.add_adapter(config, adapter_name=name)
    except ValueError as error:
        raise GiftError(f"LoRA matches no module of {type(denoiser).__name__}: {' '.join(str(error).split())[:120]}") from error
    weights = {key: p for key, p in denoiser.named_parameters() if f".{name}." in key and "lora_" in key}
    if not weights:
        raise GiftError(f"LoRA matches no module of {type(denoiser).__name__} (looked for {', '.join(TARGETS)})")
    return weights


@torch.no_grad()
def redraw_lora(weights: dict[str, nn.Parameter], generator: torch.Generator) -> None:
    """Fresh factors: A Gaussian with deviation 1/rank, B zero (peft's 'gaussian' start), so the adapter changes nothing yet."""
    for key, weight in weights.items():
        if "lora_A" in key:
            weight.copy_(torch.randn(weight.shape, generator=generator) / weight.shape[0])
        else:
            weight.zero_()


def switch_lora(model: DenoisingModel, on: bool) -> None:
    """Whether forwards pass through the adapters."""
    denoiser: Any = model.denoiser
    if on:
        denoiser.enable_adapters()
    else:
        denoiser.disable_adapters()


def detach_lora(model: DenoisingModel) -> None:
    """Takes every adapter off; the base weights are as they were."""
    denoiser: Any = model.denoiser
    denoiser.unload_lora()


def save_lora(model: DenoisingModel, folder: Path) -> Path:
    """Writes `pytorch_lora_weights.safetensors`, which `pipeline.load_lora_weights(folder)` opens."""
    denoiser: Any = model.denoiser
    scale = denoiser.peft_config["default"].lora_alpha / denoiser.peft_config["default"].r
    layers = {
        key: (value * scale if "lora_B" in key else value).detach().cpu().contiguous()  # readers take a scale of 1
        for key, value in get_peft_model_state_dict(denoiser).items()
    }
    with whole_folder(folder) as part:
        type(model.pipeline).save_lora_weights(part, unet_lora_layers=layers, safe_serialization=True)
    return folder


def open_lora(model: DenoisingModel, folder: Path) -> None:
    """Loads LoRA files on the pipeline, as any user of diffusers would.

    Raises:
        GiftError: there are none, or they match nothing of this model.
    """
    file = folder / LORA_FILE if folder.is_dir() else folder
    if not file.is_file():
        raise GiftError(f"no {LORA_FILE} in {folder}; give the folder that an attack wrote")
    check_safetensors(file)
    known = {name for name, _ in model.denoiser.named_modules()}
    with safe_open(file, framework="pt") as kept:
        targets = {key.removeprefix("unet.").split(".lora")[0] for key in kept.keys()}  # noqa: SIM118 - not a dict
    if not targets & known:
        raise GiftError(
            f"{file} matches no module of this model (its first is '{min(targets, default='none')}'); it is for another model"
        )
    try:
        model.pipeline.load_lora_weights(file.parent, weight_name=file.name)
    except (ValueError, RuntimeError, KeyError) as error:
        model.pipeline.unload_lora_weights()  # diffusers leaves the adapter on with random factors
        raise GiftError(f"{file} does not fit this model: {' '.join(str(error).split())[:160]}") from error
