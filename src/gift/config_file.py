"""YAML files of unknown origin: read as plain values, or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gift.errors import GiftError

MOST_VALUES = 100_000
"""Values that a file may stand for (choice): aliases of aliases make billions of a few lines."""


def read_yaml(path: Path, what: str, hint: str) -> Any:
    """What a YAML file says. No tag in it makes an object or runs anything.

    Args:
        path: the file.
        what: it should be, for the error.
        hint: the error's remedy.

    Raises:
        GiftError: no such file, not YAML, an alias of itself, or aliases that stand for more than `MOST_VALUES` values.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise GiftError(f"can't read {what} {path}: {error}; {hint}") from error
    except Exception as error:  # PyYAML also lets ValueError, KeyError, AttributeError and RecursionError through
        raise GiftError(f"{path} is not YAML: {' '.join(str(error).split())[:300]}; {hint}") from error
    if _values_in(value, {}) > MOST_VALUES:
        raise GiftError(f"{path}: its aliases stand for more than {MOST_VALUES} values, or for themselves; {hint}")
    return value


def _values_in(value: Any, known: dict[int, float]) -> float:
    """How many values there are once aliases are written out; infinitely many where one holds itself."""
    if not isinstance(value, dict | list | tuple):  # of a set's members none holds others
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")
        inside = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_values_in(each, known) for each in inside)
    return known[id(value)]
