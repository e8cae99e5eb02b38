"""Where memory gives out, less is tried, and the rest is one line (field failure 18)."""

from __future__ import annotations

import pytest
import torch

from gift.errors import NotEnoughMemory
from gift.room import explained, gave_out, in_parts

NO_ROOM = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."
    ),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
]
OTHER = [RuntimeError("shapes do not match"), RuntimeError(), RuntimeError(3), ValueError("not enough memory"), KeyError("x")]
none = pytest.mark.parametrize("error", NO_ROOM, ids=lambda error: f"{type(error).__name__} {error}"[:60])


@none
def test_every_way_in_which_memory_gives_out_is_known(error: Exception) -> None:
    assert gave_out(error)
    with (
        pytest.raises(NotEnoughMemory, match=r"not enough memory to think .*; train with --accumulate") as caught,
        explained("to think"),
    ):
        raise error
    assert "\n" not in str(caught.value)


def test_a_real_failure_to_allocate_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert gave_out(caught.value)


@pytest.mark.parametrize("error", OTHER, ids=repr)
def test_other_errors_pass(error: Exception) -> None:
    assert not gave_out(error)
    with pytest.raises(type(error)), explained("to think"):
        raise error
    with pytest.raises(type(error)):
        in_parts(3, 2, lambda part: (_ for _ in ()).throw(error), "to think")


@none
@pytest.mark.parametrize("room", [1, 2, 4, 9])
def test_parts_are_as_large_as_there_is_room(error: Exception, room: int) -> None:
    tried: list[int] = []

    def compute(part: slice) -> list[int]:
        tried.append(part.stop - part.start)
        if part.stop - part.start > room:
            raise error
        return list(range(9))[part]

    found = in_parts(9, 4, compute, "to think")
    assert [row for part in found for row in part] == list(range(9))
    assert tried == ([4, 4, 1] if room >= 4 else [4] + 9 * [1])


@none
def test_no_room_for_one_is_told(error: Exception) -> None:
    def compute(part: slice) -> None:
        raise error

    with pytest.raises(NotEnoughMemory, match="not enough memory to think, even one at a time"):
        in_parts(9, 4, compute, "to think")
    assert in_parts(0, 4, compute, "to think") == []
