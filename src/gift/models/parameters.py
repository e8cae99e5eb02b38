"""Which weights of a denoiser move, and which layers are watched: groups by name, whose meaning the denoiser's class decides."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from gift.errors import GiftError


@dataclass(frozen=True)
class Groups:
    """What the names of groups mean in one kind of denoiser.

    Attributes:
        weights: patterns over weights' names.
        layers: patterns over modules' names; what is watched is their output, of several the first.
    """

    weights: dict[str, str]
    layers: dict[str, str]


SEPARATE = Groups(
    weights={
        "all": "",
        "attention": r"\battn[12]\.",
        "cross-attention": r"\battn2\.",
        "non-cross-attention": r"^(?!.*\battn2\.)",
        "attention-projections": r"\battn[12]\.to_(q|k|v|out)\b",
        "text-inputs": r"\battn2\.to_[kv]\.weight$",
    },
    layers={
        "attention": r"\.attn[12]$",
        "cross-attention": r"\.attn2$",
        "self-attention": r"\.attn1$",
        "mid": r"^mid_block$",
        "resnets": r"\.resnets\.\d+$",
    },
)
"""Denoisers whose pictures attend to themselves in `attn1` and to the text in `attn2`: UNets, PixArt."""

_TEXT = r"\battn\.(?:add_[qkv]_proj|to_add_out|norm_added_[qkv])\b|^single_transformer_blocks\.\d+\.attn\."
JOINT = Groups(
    weights={
        "all": "",
        "attention": r"\battn2?\.",
        "cross-attention": _TEXT,
        "non-cross-attention": rf"^(?!.*(?:{_TEXT}))",
        "attention-projections": r"\battn2?\.(?:to_(?:q|k|v|out|add_out)|add_[qkv]_proj)\b",
        "text-inputs": r"^(?:context_embedder|txt_in|time_text_embed\.text_embedder\.linear_1)\.weight$",
    },
    layers={"attention": r"\.attn2?$", "cross-attention": r"\.attn$", "self-attention": r"\.attn2$"},
)
"""Denoisers whose text and picture attend to both in one `attn` (MM-DiT: SD3, FLUX, Qwen-Image), and in SD3.5 medium to the picture
alone in `attn2`. Their 'cross-attention' is what text passes through: the text's own projections there, and all of the attention in
FLUX's single-stream blocks, where text and picture share them; as a layer, the joint attention's output for the picture. Their
'text-inputs' take the encoder's states in, and its summary, where there is one."""

JOINT_LORA_TARGETS = ("add_k_proj", "add_q_proj", "add_v_proj", "to_add_out")
"""The text's projections in the joint attention, which diffusers' LoRA trainers for SD3 and FLUX adapt, too."""

GROUPS: dict[str, Groups] = {}
"""By the denoiser's class; every family enters its own. Other classes have `SEPARATE`."""
CHOICES = SEPARATE.weights


def groups_of(module: nn.Module) -> Groups:
    """The groups of a denoiser."""
    return GROUPS.get(type(module).__name__, SEPARATE)


def named_by(module: nn.Module, choice: str) -> dict[str, nn.Parameter]:
    """The weights that a choice names.

    Args:
        module: the denoiser, with or without adapters (adapters' weights are never chosen).
        choice: the name of a group of weights (`Groups`), or a regular expression searched in the weights' names.

    Raises:
        GiftError: the pattern is not valid, or matches nothing.
    """
    named = groups_of(module).weights
    try:
        pattern = re.compile(named.get(choice, choice))
    except re.error as error:
        raise GiftError(f"'{choice}' is neither one of {', '.join(named)} nor a valid pattern ({error})") from error
    chosen = {
        name: p
        for name, p in module.named_parameters()
        if ".lora_" not in name and pattern.search(name.replace(".base_layer.", "."))  # the name without adapters
    }
    if not chosen:
        raise GiftError(
            f"'{choice}' matches no weight of {type(module).__name__}; use one of {', '.join(named)}, or another pattern"
        )
    return chosen


def not_finite(weights: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The first name whose weight holds NaN or infinite values; None where all are finite."""
    return next((name for name, weight in weights if not torch.isfinite(weight).all()), None)


def select_parameters(module: nn.Module, choice: str) -> dict[str, nn.Parameter]:
    """`named_by`; exactly these weights require gradients afterwards."""
    chosen = named_by(module, choice)
    kept = set(map(id, chosen.values()))
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in kept)
    return chosen
