"""Whether all of a pipeline's weights came from its files: libraries draw at random, or leave out, what a file lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from gift.errors import GiftError


def check_whole(pipeline: Any, name: str, variant: str | None) -> None:
    """Verifies that no weight of the networks is missing from its file or named otherwise there.

    Args:
        pipeline: as diffusers opened it.
        name: the folder or repository that it was opened from.
        variant: the weights' variant.

    Raises:
        GiftError: a weight is missing, by its part and name.
    """
    for part, network in pipeline.components.items():
        if not isinstance(network, nn.Module):
            continue
        missing = [key for key, parameter in network.named_parameters() if parameter.is_meta]
        if isinstance(network, PreTrainedModel):
            missing += _missing(network, variant)
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise GiftError(f"{name}: the weights of {part} lack {missing[0]}{more}; save it again, or get it anew")


def _missing(network: PreTrainedModel, variant: str | None) -> list[str]:
    """Of a network of transformers the names that its file lacks; found without reading the weights again."""
    folder = Path(network.name_or_path)  # of a repository, where its files lie here
    if not network.name_or_path or not any(folder.glob("*.safetensors")):  # it was made here, or of another file
        return []
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        for given in dict.fromkeys((variant, None)):  # diffusers takes the plain weights of a part without that variant
            try:
                _, found = type(network).from_pretrained(
                    folder, variant=given, use_safetensors=True, device_map="meta", output_loading_info=True
                )
                return sorted(found["missing_keys"])
            except OSError:
                if given is None:
                    raise
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
    return []
