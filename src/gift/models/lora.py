"""LoRA and kindred adapters, through peft: attached, re-drawn, switched, saved as diffusers or peft files, taken off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, inject_adapter_in_model
from peft.utils import SAFETENSORS_WEIGHTS_NAME, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from gift.errors import GiftError
from gift.files import whole_folder
from gift.models.base import DenoisingModel
from gift.models.loading import check_safetensors

LORA_FILE = "pytorch_lora_weights.safetensors"
TARGETS = ("to_k", "to_q", "to_v", "to_out.0")  # as diffusers' own LoRA trainers
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")  # as diffusers' train_dreambooth_lora.py

AdapterKind = Literal["lora", "dora", "loha", "lokr"]

# Every kind starts as no change at all, with the scale alpha / rank.
CONFIGS: dict[AdapterKind, Callable[[int, float], PeftConfig]] = {
    "lora": lambda rank, alpha: LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian"),
    "dora": lambda rank, alpha: LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian", use_dora=True),
    "loha": lambda rank, alpha: LoHaConfig(r=rank, alpha=alpha),
    "lokr": lambda rank, alpha: LoKrConfig(r=rank, alpha=alpha),
}


def _attach(module: Any, targets: tuple[str, ...], config: PeftConfig, name: str) -> dict[str, nn.Parameter]:
    config.target_modules = list(targets)
    module.requires_grad_(False)
    try:
        if hasattr(module, "load_lora_adapter"):  # a module of diffusers, which keeps books of its adapters
            module.add_adapter(config, adapter_name=name)
        else:
            inject_adapter_in_model(config, module, name)
    except ValueError as error:
        raise GiftError(f"LoRA matches no module of {type(module).__name__}: {' '.join(str(error).split())[:120]}") from error
    weights = {key: p for key, p in module.named_parameters() if f".{name}." in f"{key}."}
    if not weights:
        raise GiftError(f"LoRA matches no module of {type(module).__name__} (looked for {', '.join(targets)})")
    return weights


def attach_lora(
    model: DenoisingModel,
    rank: int,
    name: str = "default",
    alpha: float | None = None,
    *,
    kind: AdapterKind = "lora",
    text: bool = False,
) -> dict[str, nn.Parameter]:
    """Adds an adapter to the attention projections and returns its weights, by name; only they require gradients afterwards.

    Args:
        model: its denoiser is changed in place (the base weights are not).
        rank: of the two factors.
        name: of the adapter.
        alpha: the scale's numerator; the rank itself by default (scale 1).
        kind: what the factors make of the weights.
        text: the model's text encoders get one, too, in place.

    Raises:
        GiftError: no module of the denoiser, or of a text encoder, matches.
    """
    alpha = alpha or rank
    weights = _attach(model.denoiser, TARGETS, CONFIGS[kind](rank, alpha), name)
    for part, encoder in model.text_encoders.items() if text else ():
        found = _attach(encoder, TEXT_TARGETS, CONFIGS[kind](rank, alpha), name)
        weights |= {f"{part}.{key}": p for key, p in found.items()}
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
    """Writes the adapter 'default' as what any user of diffusers or peft opens.

    LoRA, and DoRA on the denoiser alone: `pytorch_lora_weights.safetensors`, for `pipeline.load_lora_weights(folder)`. LoHa, LoKr
    and a DoRA on text encoders, which that does not read (of the last it drops the magnitudes without a word): one peft folder
    for each part, for `PeftModel.from_pretrained(pipeline.unet, folder / "unet")` and likewise for the text encoder.
    """
    encoders = {name: encoder for name, encoder in model.text_encoders.items() if getattr(encoder, "peft_config", None)}
    parts: dict[str, Any] = {"unet": model.denoiser, **encoders}
    with whole_folder(folder) as target:
        config = parts["unet"].peft_config["default"]
        if isinstance(config, LoraConfig) and not (config.use_dora and encoders):
            layers = {f"{name}_lora_layers": _layers(module) for name, module in parts.items()}
            for name, encoder in encoders.items():  # the prefix of older transformers, which newer readers take off
                prefix = "" if hasattr(encoder, "text_model") else "text_model."
                layers[f"{name}_lora_layers"] = {f"{prefix}{key}": x for key, x in layers[f"{name}_lora_layers"].items()}
            type(model.pipeline).save_lora_weights(target, safe_serialization=True, **layers)
        else:
            for name, module in parts.items():
                module.peft_config["default"].save_pretrained(target / name)
                tensors = {f"base_model.model.{key}": value for key, value in _layers(module).items()}
                save_file(tensors, target / name / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    return folder


def _layers(module: Any) -> dict[str, torch.Tensor]:
    config = module.peft_config["default"]
    scale = config.lora_alpha / config.r if isinstance(config, LoraConfig) else 1.0  # diffusers' readers take a scale of 1
    return {
        key: (value * scale if "lora_B" in key else value).detach().cpu().contiguous()
        for key, value in get_peft_model_state_dict(module, adapter_name="default").items()
    }


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
