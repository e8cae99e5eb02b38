"""Records read back from the disk and checked; what can't be used is told in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gift.errors import GiftError

T = TypeVar("T")
Name = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    """A piece of a record. Only what a page shows is declared; other keys are ignored, so that a newer record still opens."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


def parse(text: str) -> Any:
    """JSON that can be written to a page.

    Raises:
        ValueError: it is not JSON, holds NaN or an infinity, or half a surrogate pair.
    """
    value = json.loads(text, parse_constant=_refuse)
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def read_checked(path: Path, read: Callable[[str], T], *, writer: str, remedy: str) -> T:
    """What `read` makes of a file's text.

    Args:
        path: the file.
        read: may raise what `parse` and pydantic raise.
        writer: the command that writes such files.
        remedy: what to do about a bad one.

    Raises:
        GiftError: the file is missing, can't be read, is not JSON, or lacks a field.
    """
    try:
        return read(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GiftError(f"{path} is missing; give the folder that '{writer}' wrote, or {remedy}") from error
    except OSError as error:
        raise GiftError(f"can't read {path}: {error.strerror or error}; {remedy}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise GiftError(f"{path} is malformed at {place}: {' '.join(first['msg'].split())}; {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise GiftError(f"{path} is not valid JSON ({str(error).splitlines()[0]}); {remedy}") from error
