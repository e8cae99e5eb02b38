"""Checkpoints of a training run: whole or absent, verified, without pickles."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from gift.errors import OtherSettings
from gift.files import remove_folder, sweep, whole_folder
from gift.launch import is_main
from gift.training.measure import Meter

NAME = re.compile(r"^step-(\d{8})$")
MARKER = "complete.json"
SHOWN = 4
"""Differences between settings that are told; of more, the rest is counted."""


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


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """What differs between two JSON values, each as 'name: old -> new'; what one of them lacks is None there."""
    if isinstance(old, dict | None) and isinstance(new, dict | None) and old != new:
        old, new = old or {}, new or {}
        keys = list(dict.fromkeys([*old, *new]))
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, pair in enumerate(zip(old, new, strict=True)) for line in differences(*pair, f"{path}.{i + 1}")]
    return [] if old == new else [f"{path}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


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
        meter: of the run's cost, which goes on from a checkpoint as the run does; None where nobody asks.
    """

    folder: Path
    settings: dict[str, Any]
    every: int = 50
    keep: int = 2
    meter: Meter | None = None

    def _whole(self) -> list[tuple[int, Path]]:
        if not self.folder.is_dir():
            return []
        found = [(int(m[1]), p) for p in self.folder.iterdir() if (m := NAME.match(p.name)) and (p / MARKER).exists()]
        return sorted(found)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Writes the state after `step` steps; of several processes the first one does.

        Raises:
            GiftError: the folder can't be written or the disk has no room for one more; older checkpoints are kept.
        """
        if not is_main():
            return
        tensors: dict[str, torch.Tensor] = {}
        layout = json.dumps(flatten(state, tensors)).encode()
        data = save_tensors(_apart(tensors))
        cost = {"cost": self.meter.so_far()} if self.meter else {}
        mark = json.dumps({"step": step, "settings": self.settings, "sha256": _digest(data, layout), **cost}).encode()
        with whole_folder(self.folder / f"step-{step:08d}", len(data) + len(layout) + len(mark)) as part:
            (part / "state.safetensors").write_bytes(data)
            (part / "layout.json").write_bytes(layout)
            (part / MARKER).write_bytes(mark)
        for _, old in self._whole()[: -self.keep]:
            remove_folder(old)

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """The newest checkpoint that is whole and unharmed, or None. What a killed run left half written is tidied up.

        Raises:
            OtherSettings: it belongs to a run with other settings; they are told beside the new ones.
        """
        self._sweep()
        for step, path in reversed(self._whole()):
            try:
                old, state, cost = self._read(path)
            except (OSError, ValueError, LookupError, TypeError, SafetensorError):
                warnings.warn(f"checkpoint {path} is damaged; going back to the one before", stacklevel=2)
                continue
            changed = differences(old, json.loads(json.dumps(self.settings)))
            if changed:
                more = f", and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
                raise OtherSettings(
                    f"{path} is of a run with other settings ({', '.join(changed[:SHOWN])}{more}); give those or another --output, "
                    f"or begin afresh with --restart, which removes it"
                )
            if self.meter and cost:
                self.meter.take_up(*cost)
            return step, state
        return None

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, Any], list[float]]:
        """The settings, the state, and what the run cost until then (empty where it was not measured)."""
        mark = json.loads((path / MARKER).read_text())
        data, layout = (path / "state.safetensors").read_bytes(), (path / "layout.json").read_bytes()
        if _digest(data, layout) != mark["sha256"]:
            raise ValueError("other bytes than were written")
        return dict(mark["settings"]), unflatten(json.loads(layout), load_tensors(data)), [*map(float, mark.get("cost", ()))]

    def clear(self) -> None:
        """Removes this run's checkpoints: the result is written, so they are not needed."""
        self._sweep()
        for _, path in self._whole() if is_main() else ():
            remove_folder(path)
        if is_main() and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _sweep(self) -> None:
        if is_main():
            sweep(self.folder, r"step-\d{8}")


def clear_below(folder: Path) -> int:
    """Removes the checkpoints of all runs in a folder and below it; other files stay. Returns how many there were."""
    homes = sorted({path.parent for path in folder.rglob("*step-*") if path.is_dir()}) if is_main() else []
    kept = [Checkpoints(home, {}) for home in homes]
    count = sum(len(run._whole()) for run in kept)
    for run in kept:
        run.clear()
    return count
