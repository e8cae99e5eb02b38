"""LoRA files in the layout of kohya's trainers, which ComfyUI and other programs read as well."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from diffusers.utils import convert_state_dict_to_kohya
from safetensors.torch import load_file, save

from gift.errors import GiftError
from gift.files import write_bytes

KOHYA_FILE = "pytorch_lora_weights.kohya.safetensors"
PREFIXES = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
PARTS = ("unet.", "text_encoder.", "text_encoder_2.")


def is_kohya(names: Iterable[str]) -> bool:
    """Whether tensors of these names are in that layout."""
    return any(name.startswith(PREFIXES) for name in names)


def write_kohya(file: Path) -> Path:
    """Writes a diffusers LoRA file in kohya's layout beside it: the same factors, with alpha = rank, that is a scale of 1.

    Args:
        file: `pytorch_lora_weights.safetensors` of a UNet, and maybe of CLIP text encoders.

    Returns:
        The new file's path.

    Raises:
        GiftError: the file is not there, or is of a model or an adapter for which the layout has no names.
    """
    if not file.is_file():
        raise GiftError(f"no {file.name} in {file.parent}; only LoRA that diffusers reads can be written in kohya's layout")
    layers = load_file(file)
    strange = next((name for name in layers if not name.startswith(PARTS) or "lora_magnitude" in name), None)
    if strange:
        raise GiftError(f"kohya's layout is written for LoRA on a UNet and CLIP text encoders alone; {file} holds {strange}")
    named = convert_state_dict_to_kohya(layers)
    if not any(name.startswith("lora_te2_") for name in named):  # programs know the only text encoder by a shorter name
        named = {name.replace("lora_te1_", "lora_te_", 1): tensor for name, tensor in named.items()}
    target = file.with_name(KOHYA_FILE)
    write_bytes(target, save({name: tensor.contiguous() for name, tensor in named.items()}, metadata={"format": "pt"}))
    return target
