"""Where memory gives out: told apart from other errors, and smaller batches tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from gift.errors import NotEnoughMemory

T = TypeVar("T")
LESS = "train with --accumulate, --gradient-checkpointing or a smaller batch_size, ask for fewer pictures, or use more memory"


def gave_out(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of its GPU gave out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError) or not all(isinstance(part, str) for part in error.args):
        return False
    return should_reduce_batch_size(error) or "not enough memory" in str(error)


def too_little(doing: str, error: BaseException) -> NotEnoughMemory:
    """The error for a user whose memory gave out."""
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return NotEnoughMemory(f"not enough memory {doing} ({reason}); {LESS}")


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turns memory that gives out inside the block into one line.

    Raises:
        NotEnoughMemory: it did.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not gave_out(error):
            raise
        raise too_little(doing, error) from error


def in_parts(rows: int, most: int, compute: Callable[[slice], T], doing: str) -> list[T]:
    """Computes rows in parts; where memory gives out it is freed, and the rest is computed one row at a time.

    Args:
        rows: how many there are.
        most: of a part.
        compute: one part.
        doing: what is done, for the error: 'to draw pictures'.

    Raises:
        NotEnoughMemory: there is no room for a single row.
    """
    found: list[T] = []
    start = 0
    while start < rows:
        part = slice(start, min(start + most, rows))
        try:
            found.append(compute(part))
            start = part.stop
            continue
        except (MemoryError, RuntimeError) as error:
            if not gave_out(error):
                raise
            if most == 1:
                raise too_little(f"{doing}, even one at a time", error) from error
        clear_device_cache(garbage_collection=True)  # here, where no traceback holds the part's tensors any more
        most = 1
    return found
