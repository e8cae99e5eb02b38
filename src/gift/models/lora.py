"""LoRA and kindred adapters, through peft: attached, re-drawn, switched, saved as diffusers or peft files, taken off."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.utils import recurse_remove_peft_layers
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from gift.errors import GiftError
from gift.files import whole_folder
from gift.models.base import DenoisingModel
from gift.models.kohya import is_kohya
from gift.models.loading import check_safetensors

LORA_FILE = "pytorch_lora_weights.safetensors"
TARGETS = ("to_k", "to_q", "to_v", "to_out.0")  # as diffusers' own LoRA trainers
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")  # CLIP's, as diffusers' train_dreambooth_lora.py

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
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # two adapters are meant
            if hasattr(module, "load_lora_adapter"):  # a module of diffusers, which keeps books of its adapters
                module.add_adapter(config, adapter_name=name)
            else:
                inject_adapter_in_model(config, module, name)
    except ValueError as error:
        raise GiftError(f"LoRA matches no module of {type(module).__name__}: {' '.join(str(error).split())[:120]}") from error
    weights = {key: p for key, p in module.named_parameters() if f".{name}." in f"{key}."}
    if not weights:
        raise GiftError(f"LoRA matches no module of {type(module).__name__} (looked for {', '.join(targets)})")
    for weight in weights.values():
        weight.data = weight.data.float()  # on weights held in half precision, too
    return weights


def _readable(model: DenoisingModel) -> list[str]:
    """The parts whose layers `pipeline.load_lora_weights` reads; none where a pipeline can't."""
    return list(getattr(model.pipeline, "_lora_loadable_modules", []))


def text_encoders_for(model: DenoisingModel) -> dict[str, Any]:
    """The text encoders of whose LoRA diffusers reads, by part.

    Raises:
        GiftError: it reads none.
    """
    encoders = {part: encoder for part, encoder in model.text_encoders.items() if part in _readable(model)}
    if not encoders:
        raise GiftError(f"diffusers reads no LoRA for the text encoder of a {type(model.pipeline).__name__}; train without it")
    return encoders


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
        text: the model's text encoders get one, too, in place: those of whose LoRA diffusers reads, its CLIP encoders.

    Raises:
        GiftError: no module of the denoiser, or of a text encoder, matches; or diffusers reads none for a text encoder.
    """
    alpha = alpha or rank
    encoders = text_encoders_for(model) if text else {}
    weights = _attach(model.denoiser, (*TARGETS, *model.more_lora_targets), CONFIGS[kind](rank, alpha), name)
    for part, encoder in encoders.items():
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


def _layers_of(model: DenoisingModel) -> list[BaseTunerLayer]:
    return [module for module in model.denoiser.modules() if isinstance(module, BaseTunerLayer)]


def has_lora(model: DenoisingModel) -> bool:
    """Whether the denoiser has an adapter."""
    return bool(_layers_of(model))


def refuse_lora(model: DenoisingModel) -> None:
    """Verifies that a model is one of weights alone: adapters are taken off after a run, and what they do would go with them.

    Raises:
        GiftError: its denoiser has an adapter.
    """
    if has_lora(model):
        raise GiftError(
            f"{model.source} has an adapter on, which would be lost; keep it with gift.models.lora.merge_lora and detach_lora, "
            "or take the model before the attack"
        )


def switch_lora(model: DenoisingModel, name: str, *, on: bool) -> None:
    """Whether the denoiser's forwards pass through an adapter; what its other adapters do stays.

    Gradients of all adapters' weights are then as peft sets them: required by those that are on.
    """
    for module in _layers_of(model):
        others = [] if module.disable_adapters else [other for other in module.active_adapters if other != name]
        active = [*others, name] if on else others
        module.enable_adapters(bool(active))
        if active:
            module.set_adapter(active)


@torch.no_grad()
def merge_lora(model: DenoisingModel, name: str) -> None:
    """Adds an adapter's change to the denoiser's weights; `detach_lora` then leaves it there.

    Where the weights are half precision the sum is rounded to it.
    """
    for module in _layers_of(model):
        module.merge(adapter_names=[name])


def detach_lora(model: DenoisingModel) -> None:
    """Takes every adapter off; the base weights are as they were, or as `merge_lora` left them."""
    denoiser: Any = model.denoiser
    if hasattr(denoiser, "unload_lora"):
        denoiser.unload_lora()
    else:
        recurse_remove_peft_layers(denoiser)
        del denoiser.peft_config


def save_lora(model: DenoisingModel, folder: Path) -> Path:
    """Writes the adapter 'default' as what any user of diffusers or peft opens.

    LoRA, and DoRA on the denoiser alone: `pytorch_lora_weights.safetensors`, for `pipeline.load_lora_weights(folder)`. LoHa, LoKr
    and a DoRA on text encoders, which that does not read (of the last it drops the magnitudes without a word), and all of
    pipelines that have no `load_lora_weights` (PixArt's): one peft folder for each part, named as the part is, for
    `PeftModel.from_pretrained(pipeline.unet, folder / "unet")` and likewise for a transformer and the text encoders.
    """
    encoders = {name: encoder for name, encoder in model.text_encoders.items() if getattr(encoder, "peft_config", None)}
    parts: dict[str, Any] = {model.denoiser_part: model.denoiser, **encoders}
    with whole_folder(folder) as target:
        config = parts[model.denoiser_part].peft_config["default"]
        if _readable(model) and isinstance(config, LoraConfig) and not (config.use_dora and encoders):
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
    """Loads LoRA files on the pipeline, as any user of diffusers would: in diffusers' own layout or in kohya's.

    Raises:
        GiftError: there are none, or some of them match nothing of this model.
    """
    file = folder / LORA_FILE if folder.is_dir() else folder
    if not file.is_file():
        raise GiftError(f"no {LORA_FILE} in {folder}; give the folder that an attack wrote")
    check_safetensors(file)
    if not _readable(model):
        raise GiftError(f"a {type(model.pipeline).__name__} reads no {LORA_FILE}; give a model that the LoRA was merged into")
    with safe_open(file, framework="pt") as kept:
        names = [name for name in list(kept.keys()) if not name.endswith("alpha")]
    known = {name for name, _ in model.denoiser.named_modules()}
    targets = {name.removeprefix(f"{model.denoiser_part}.").split(".lora")[0] for name in names}
    of_text = any(name.startswith("text_encoder") for name in names)
    if not names or not (is_kohya(names) or of_text or targets & known):
        raise GiftError(
            f"{file} matches no module of this model (its first is '{min(targets, default='none')}'); it is for another model"
        )
    try:
        model.pipeline.load_lora_weights(file.parent, weight_name=file.name)
    except (ValueError, RuntimeError, KeyError) as error:
        model.pipeline.unload_lora_weights()  # diffusers leaves the adapter on with random factors
        raise GiftError(f"{file} does not fit this model: {' '.join(str(error).split())[:160]}") from error
    loaded = sum(
        len(get_peft_model_state_dict(part, adapter_name=next(iter(part.peft_config))))
        for part in (model.denoiser, *model.text_encoders.values())
        if getattr(part, "peft_config", None)
    )
    if loaded < len(names):
        model.pipeline.unload_lora_weights()
        raise GiftError(
            f"{len(names) - loaded} of the {len(names)} tensors in {file} match no module of this model "
            f"(its first is '{min(names)}'); it is for another model"
        )
