"""The bundled drawings: 341 everyday objects in eight styles, 64x64, with their categories, splits and licences."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ART_FOLDER = Path(__file__).resolve().parents[1] / "assets" / "art"


@dataclass(frozen=True)
class Drawn:
    """One object of the art: its caption name, category and article ('a', 'an' or '')."""

    name: str
    category: str
    article: str

    @property
    def noun(self) -> str:
        """The name with its article, as captions use it."""
        return f"{self.article} {self.name}".strip()


@dataclass(frozen=True)
class Art:
    """The index of the drawings. Pictures are read on demand, one atlas at a time."""

    folder: Path
    size: int
    columns: int
    objects: tuple[Drawn, ...]
    styles: tuple[str, ...]
    trained_styles: tuple[str, ...]
    held_out: frozenset[tuple[str, str]]
    recogniser_held_out: frozenset[tuple[str, str]]
    _atlases: dict[str, torch.Tensor] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def names(self) -> list[str]:
        """Object names, in class order of the recogniser."""
        return [item.name for item in self.objects]

    @property
    def categories(self) -> list[str]:
        """Category names, in order of first appearance."""
        return list(dict.fromkeys(item.category for item in self.objects))

    @cached_property
    def _by_name(self) -> dict[str, Drawn]:
        return {item.name: item for item in self.objects}

    def object(self, name: str) -> Drawn:
        """The object of that name.

        Raises:
            KeyError: there is no such object.
        """
        return self._by_name[name]

    def atlas(self, style: str) -> torch.Tensor:
        """All pictures of a style, uint8 (objects, 3, size, size), in object order."""
        if style not in self._atlases:
            with Image.open(self.folder / f"{style}.png") as image:
                sheet = torch.from_numpy(np.array(image.convert("RGB")))
            rows = sheet.shape[0] // self.size
            tiles = sheet.view(rows, self.size, self.columns, self.size, 3).permute(0, 2, 4, 1, 3)
            flat = tiles.reshape(rows * self.columns, 3, self.size, self.size)
            self._atlases[style] = flat[: len(self.objects)].contiguous()
        return self._atlases[style]

    def without(self, styles: Collection[str]) -> Art:
        """The same drawings but those in some styles."""
        return replace(
            self,
            styles=tuple(s for s in self.styles if s not in styles),
            trained_styles=tuple(s for s in self.trained_styles if s not in styles),
        )

    def picture(self, name: str, style: str) -> torch.Tensor:
        """One drawing, uint8 (3, size, size).

        Raises:
            KeyError: there is no such object or style.
        """
        if style not in self.styles:
            raise KeyError(style)
        return self.atlas(style)[self.names.index(self.object(name).name)]


@cache
def load_art(folder: Path = ART_FOLDER) -> Art:
    """Reads the index of the bundled drawings.

    Raises:
        FileNotFoundError: the package's data is missing.
    """
    raw = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return Art(
        folder=folder,
        size=raw["size"],
        columns=raw["columns"],
        objects=tuple(Drawn(o["name"], o["category"], o["article"]) for o in raw["objects"]),
        styles=tuple(raw["styles"]),
        trained_styles=tuple(s for s, info in raw["styles"].items() if info["trained"]),
        held_out=frozenset((n, s) for n, s in raw["held_out"]),
        recogniser_held_out=frozenset((n, s) for n, s in raw["recogniser_held_out"]),
    )
