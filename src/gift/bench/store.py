"""Finished pieces of a longer run, kept so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from gift.files import write_bytes
from gift.training.checkpoint import flatten, unflatten


@dataclass(frozen=True)
class Store:
    """One file a piece, named by what it is and by a hash of all that it depends on."""

    folder: Path

    def remember(self, name: str, settings: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The piece, computed only if it is not there yet.

        Args:
            name: for the reader of the folder.
            settings: all that the outcome depends on, as JSON.
            compute: gives nested dicts and lists of tensors, numbers and text.
        """
        found = self.find(name, settings)
        if found is not None:
            return found
        value = compute()
        tensors: dict[str, torch.Tensor] = {}
        layout = flatten(value, tensors)
        write_bytes(self.file(name, settings), save(tensors, metadata={"layout": json.dumps(layout)}))
        return value

    @staticmethod
    def key(name: str, settings: dict[str, Any]) -> str:
        """16 hexadecimal digits that stand for the name and all of the settings."""
        return hashlib.sha256(json.dumps([name, settings], sort_keys=True).encode()).hexdigest()[:16]

    def file(self, name: str, settings: dict[str, Any]) -> Path:
        """Where the piece is kept."""
        return self.folder / f"{name.replace('/', '-')}-{self.key(name, settings)}.safetensors"

    def find(self, name: str, settings: dict[str, Any], *, tensors: bool = True) -> dict[str, Any] | None:
        """The piece, or None if it is not there or not whole. Without `tensors` they are not read and None stands for each."""
        try:
            with safe_open(self.file(name, settings), framework="pt") as kept:
                names = kept.keys()
                found = {name: kept.get_tensor(name) if tensors else None for name in names}
                value: dict[str, Any] = unflatten(json.loads(kept.metadata()["layout"]), found)
                return value
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def has(self, name: str, settings: dict[str, Any]) -> bool:
        """Whether the piece is there; its header and its length are looked at, its contents are not."""
        try:
            with safe_open(self.file(name, settings), framework="pt") as kept:
                return "layout" in (kept.metadata() or {})
        except (OSError, SafetensorError):
            return False
