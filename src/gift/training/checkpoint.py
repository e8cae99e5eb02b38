"""Checkpoints of a training run: whole or absent, verified, without pickles."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from gift.errors import GiftError
from gift.files import whole_folder
from gift.parallel import is_main

NAME = re.compile(r"^step-(\d{8})$")
MARKER = "complete.json"


def flatten(value: Any, tensors: dict[str, torch.Tensor], path: str = "t") -> Any:
    """Takes the tensors out of nested dicts, lists and tuples; what is left is JSON that says where they were."""
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().cpu().contiguous()
        return {"$tensor": path}
    if isinstance(value, dict):
        return {"$dict": [[key, flatten(item, tensors, f"{path}.{i}")] for i, (key, item) in enumerate(value.items())]}
    if isinstance(value, list | tuple):
        return {"$list": [flatten(item, tensors, f"{path}.{i}") for i, item in enumerate(value)]}
    return value


def unflatten(value: Any, tensors: Mapping[str, torch.Tensor | None]) -> Any:
    """The inverse of `flatten` (tuples come back as lists)."""
    if isinstance(value, dict):
        if "$tensor" in value:
            return tensors[value["$tensor"]]
        if "$dict" in value:
            return {key: unflatten(item, tensors) for key, item in value["$dict"]}
        return [unflatten(item, tensors) for item in value["$list"]]
    return value


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, none in another's memory, which safetensors refuses; an 8-bit optimiser's states share their code tables."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return apart


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run in one folder.

    Attributes:
        folder: where they are.
        settings: what the run computes; a run with other settings does not go on from these.
        every: steps between two checkpoints.
        keep: how many stay; older ones go only after the new one is whole.
    """

    folder: Path
    settings: dict[str, Any]
    every: int = 50
    keep: int = 2

    def _whole(self) -> list[tuple[int, Path]]:
        if not self.folder.is_dir():
            return []
        found = [(int(m[1]), p) for p in self.folder.iterdir() if (m := NAME.match(p.name)) and (p / MARKER).exists()]
        return sorted(found)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Writes the state after `step` steps; of several processes the first one does.

        Raises:
            GiftError: the folder can't be written; older checkpoints are kept.
        """
        if not is_main():
            return
        tensors: dict[str, torch.Tensor] = {}
        layout = json.dumps(flatten(state, tensors)).encode()
        data = save_tensors(_apart(tensors))
        with whole_folder(self.folder / f"step-{step:08d}") as part:
            (part / "state.safetensors").write_bytes(data)
            (part / "layout.json").write_bytes(layout)
            mark = {"step": step, "settings": self.settings, "sha256": _digest(data, layout)}
            (part / MARKER).write_text(json.dumps(mark))
        for _, old in self._whole()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """The newest checkpoint that is whole and unharmed, or None.

        Raises:
            GiftError: it belongs to a run with other settings.
        """
        for step, path in reversed(self._whole()):
            try:
                old, state = self._read(path)
            except (OSError, ValueError, LookupError, TypeError, SafetensorError):
                warnings.warn(f"checkpoint {path} is damaged; going back to the one before", stacklevel=2)
                continue
            new = json.loads(json.dumps(self.settings))
            if old != new:
                changed = ", ".join(sorted(k for k in {*old, *new} if old.get(k) != new.get(k)))
                raise GiftError(f"{path} is of a run with other settings ({changed} differ); use the same or another --output")
            return step, state
        return None

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        mark = json.loads((path / MARKER).read_text())
        data, layout = (path / "state.safetensors").read_bytes(), (path / "layout.json").read_bytes()
        if _digest(data, layout) != mark["sha256"]:
            raise ValueError("other bytes than were written")
        return dict(mark["settings"]), unflatten(json.loads(layout), load_tensors(data))

    def clear(self) -> None:
        """Removes this run's checkpoints: the result is written, so they are not needed."""
        for _, path in self._whole() if is_main() else ():
            shutil.rmtree(path, ignore_errors=True)
        if is_main() and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
