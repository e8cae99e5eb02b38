"""`python -m tests.fuzz --seconds 60 --seed 0`: damaged pictures, captions and lists against everything that reads a user's files.

Whatever the bytes, a reader gives a result or a `GiftError` of one printable line that names the file, in bounded time and memory.
Each input is made from the seed and its number alone. A child process reads them; one that hangs, crashes or takes too much memory
is told by the parent, which goes on with the next input. Failing inputs are kept.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from gift.config_file import read_yaml
from gift.data.concept_list import read_concepts
from gift.data.folder import scan_folder
from gift.data.images import read_picture
from gift.data.prompts import read_prompts
from gift.errors import GiftError, shown
from tests.mutations import PICTURES, TEXTS, mutated, picture_seeds

SECONDS = 20
"""Longest time for one input: many times what the largest accepted picture takes (choice)."""
LISTS = ("concepts", "prompts", "yaml")
"""Of these the command line escapes what it repeats of a line."""
MEMORY = 2048
"""MB that one input may take: what 64 million pixels need on the way to RGB, in double precision for deep grey."""


def read(kind: str, data: bytes, folder: Path) -> None:
    """Gives one input to its reader.

    Raises:
        GiftError: it is refused.
    """
    if kind in PICTURES:
        file = folder / "input.png"
        file.write_bytes(data)
        size = 16 if len(data) % 2 else None
        picture = read_picture(file, size)
        if picture.dtype != torch.uint8 or picture.ndim != 3 or (size and picture.shape != (3, size, size)):
            raise AssertionError(f"a picture of {picture.dtype} {tuple(picture.shape)}")
    elif kind in {"caption", "metadata"}:
        file = folder / "set" / ("input.txt" if kind == "caption" else "metadata.jsonl")
        file.write_bytes(data)
        try:
            scan_folder(file.parent, default_caption="a thing")
        finally:
            file.unlink()
    else:
        file = folder / f"input.{kind}"
        file.write_bytes(data)
        readers: dict[str, Callable[[Path], object]] = {"concepts": read_concepts, "prompts": read_prompts}
        readers["yaml"] = lambda path: read_yaml(path, "the input", "write it again")
        readers[kind](file)


def outcome(kind: str, data: bytes, folder: Path) -> str:
    """'loaded', 'refused', or what went wrong."""
    try:
        read(kind, data, folder)
    except GiftError as error:
        message = str(error)
        if isinstance(error.__cause__, MemoryError):
            return f"failed out of memory: {message}"
        if "input." not in message and "metadata.jsonl" not in message:
            return f"failed the file is not named: {message}"
        if kind not in LISTS and not message.isprintable():
            return f"failed not one printable line: {message!r}"
        return "refused"
    except Exception as error:
        return f"failed {type(error).__name__}: {error}"
    return "loaded"


@dataclass
class Count:
    """What became of one kind's inputs."""

    tried: int = 0
    loaded: int = 0
    refused: int = 0
    failed: int = 0
    slowest: float = 0.0
    grown: float = 0.0


def peak() -> float:
    """The process's highest memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "linux" else 1024) / 1024


def prepared(folder: Path) -> Path:
    """A folder with a data set to which inputs are added."""
    for name in ("input.png", "sub/b.png"):
        file = folder / "set" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture_seeds()["png"][0])
    return folder


def work(seed: int, start: int, stop: int, out: int, kinds: list[str], folder: Path) -> None:
    """The child: reads inputs `start` to `stop` and writes a line about each."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process also where no Python code runs
    with suppress(ValueError, OSError), Path("/proc/self/statm").open() as pages:
        now = int(pages.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY * 2**20, resource.RLIM_INFINITY))
    printed = os.open(folder / "printed", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(printed, stream)
    for index in range(start, stop):
        kind, data = mutated(seed, index, kinds)
        before, began = peak(), time.monotonic()
        signal.alarm(SECONDS)
        said = outcome(kind, data, folder)
        signal.alarm(0)
        if os.fstat(printed).st_size:
            said = f"failed printed {os.pread(printed, 200, 0)!r}"
            os.ftruncate(printed, 0)
            os.lseek(printed, 0, os.SEEK_SET)
        line = f"{time.monotonic() - began:.3f}\t{peak() - before:.1f}\t{shown(' '.join(said.split())[:300])}\n"
        os.write(out, line.encode())


def child(seed: int, start: int, stop: int, kinds: list[str], folder: Path) -> tuple[int, int]:
    """Starts a child at input `start`; its process id, and where its lines come out."""
    out, into = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(out)
        try:
            work(seed, start, stop, into, kinds, folder)
        finally:
            os._exit(0)
    os.close(into)
    return process, out


def lines_of(seed: int, stop: int, kinds: list[str], deadline: float, folder: Path) -> Iterator[tuple[int, str]]:
    """(input, line) of all inputs; a child that dies is told as the failure of the input that it was reading."""
    at = 0
    while at < stop and time.monotonic() < deadline:
        process, out = child(seed, at, stop, kinds, prepared(folder))
        with os.fdopen(out, encoding="utf-8") as lines:
            for line in lines:
                yield at, line
                at += 1
                if time.monotonic() >= deadline:
                    os.kill(process, signal.SIGKILL)
                    break
        _, status = os.waitpid(process, 0)
        if at < stop and time.monotonic() < deadline:
            number = os.WTERMSIG(status)
            why = f"no answer in {SECONDS} s" if number == signal.SIGALRM else f"the process ended, signal {number}"
            yield at, f"{SECONDS if number == signal.SIGALRM else 0}\t0\tfailed {why}"
            at += 1


def run(seed: int, seconds: float, inputs: int, keep: Path, kinds: list[str]) -> dict[str, Count]:
    """Reads mutated inputs until the time or their number is over; failing ones go to `keep`."""
    counts = {kind: Count() for kind in kinds}
    with tempfile.TemporaryDirectory() as name:
        for index, line in lines_of(seed, inputs, kinds, time.monotonic() + seconds, Path(name)):
            took, grown, said = line.rstrip("\n").split("\t", 2)
            kind, data = mutated(seed, index, kinds)
            count = counts[kind]
            count.tried += 1
            count.slowest, count.grown = max(count.slowest, float(took)), max(count.grown, float(grown))
            if said in {"loaded", "refused"}:
                setattr(count, said, getattr(count, said) + 1)
                continue
            count.failed += 1
            kept = keep / f"{kind}-{seed}-{index}"
            keep.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(data)
            print(f"FAILED {kind}, seed {seed}, input {index}: {said.removeprefix('failed ')}; kept in {kept}")
    return counts


def main(arguments: list[str] | None = None) -> int:
    """Prints a line of counts a kind. 0, or 1 where an input failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Damaged files against the readers of users' files.")
    parser.add_argument("--seconds", type=float, default=60, help="how long")
    parser.add_argument("--inputs", type=int, default=10**9, help="how many inputs at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=[*PICTURES, *TEXTS], default=[*PICTURES, *TEXTS])
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="where failing inputs go")
    given = parser.parse_args(arguments)
    counts = run(given.seed, given.seconds, given.inputs, given.keep, given.kinds)
    for kind, n in counts.items():
        print(
            f"{kind:<9} {n.tried:>7} tried {n.loaded:>7} loaded {n.refused:>7} refused {n.failed:>3} failed"
            f"   slowest {n.slowest:.2f} s, peak +{n.grown:.0f} MB"
        )
    tried, failed = sum(n.tried for n in counts.values()), sum(n.failed for n in counts.values())
    print(f"{tried} inputs, seed {given.seed}: {failed} failed")
    return 1 if failed or not tried else 0


if __name__ == "__main__":
    sys.exit(main())
