"""Which weights of a denoiser move: all of them, some of the attention, or whatever a pattern matches."""

from __future__ import annotations

import re

from torch import nn

from gift.errors import GiftError

CHOICES = {
    "all": "",
    "attention": r"\battn[12]\.",
    "cross-attention": r"\battn2\.",
    "non-cross-attention": r"^(?!.*\battn2\.)",
    "attention-projections": r"\battn[12]\.to_(q|k|v|out)\b",
}


def named_by(module: nn.Module, choice: str) -> dict[str, nn.Parameter]:
    """The weights that a choice names.

    Args:
        module: the denoiser, with or without adapters (adapters' weights are never chosen).
        choice: a key of `CHOICES`, or a regular expression searched in the weights' names.

    Raises:
        GiftError: the pattern is not valid, or matches nothing.
    """
    try:
        pattern = re.compile(CHOICES.get(choice, choice))
    except re.error as error:
        raise GiftError(f"'{choice}' is neither one of {', '.join(CHOICES)} nor a valid pattern ({error})") from error
    chosen = {
        name: p
        for name, p in module.named_parameters()
        if ".lora_" not in name and pattern.search(name.replace(".base_layer.", "."))  # the name without adapters
    }
    if not chosen:
        raise GiftError(
            f"'{choice}' matches no weight of {type(module).__name__}; use one of {', '.join(CHOICES)}, or another pattern"
        )
    return chosen


def select_parameters(module: nn.Module, choice: str) -> dict[str, nn.Parameter]:
    """`named_by`; exactly these weights require gradients afterwards."""
    chosen = named_by(module, choice)
    kept = set(map(id, chosen.values()))
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in kept)
    return chosen
