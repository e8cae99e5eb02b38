"""Kills writers and training runs over and over, in the middle of steps and of saves, and looks at what they leave.

    python -m tests.kills --kills 100 --replacements 300 --seed 0

A killed run is started again until it ends; its weights must then be those of a run that was left alone, bit for bit, every start
must go on from the last whole checkpoint, and nothing half written may stay behind. Exits with 1 if anything was otherwise.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from gift import files
from gift.attacks import Attack, Attacked, Lora
from gift.cli.common import quiet_libraries
from gift.files import LEFT, sweep, whole_folder, write_bytes
from gift.immunizers import Gift, Immunizer
from gift.models import DenoisingModel
from gift.models.sd import StableDiffusion
from gift.training.checkpoint import Checkpoints
from tests.conftest import picture_set, random_pipeline

RUNS: tuple[Attack | Immunizer, ...] = (Lora(steps=8, batch_size=2), Gift.plain(steps=6, batch_size=2))
WRITING = {"save", "write"}
"""Lines of a run's that say that a checkpoint, or the result, is going to be written; the next line says that it is."""


@dataclass
class Counts:
    """What was seen.

    Attributes:
        kills: by SIGKILL.
        writing: of these, while a checkpoint or the result was being written.
        resumed: starts that went on from a step after 0.
        half: half-written folders or files that a kill left.
        damaged: checkpoints with the right name that are not whole.
        missing: kills that left neither the old folder nor the new one under its name.
        ends: runs that came to their end.
    """

    kills: int = 0
    writing: int = 0
    resumed: int = 0
    half: int = 0
    damaged: int = 0
    missing: int = 0
    ends: int = 0
    failures: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> None:
        """Notes a failure."""
        if not holds:
            self.failures.append(what)


@dataclass(frozen=True)
class Told(Checkpoints):
    """Checkpoints that tell a pipe when they are read and written."""

    pipe: int = -1

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        found = super().latest()
        os.write(self.pipe, f"from {found[0] if found else 0}\n".encode())
        return found

    def save(self, step: int, state: dict[str, Any]) -> None:
        os.write(self.pipe, f"save {step}\n".encode())
        super().save(step, state)
        os.write(self.pipe, f"saved {step}\n".encode())


@dataclass
class Child:
    """A forked process and what it has said."""

    process: int
    pipe: int
    said: bytes = b""

    @classmethod
    def of(cls, work: Callable[[int], object]) -> Child:
        """Runs `work` with a pipe to write to."""
        ear, mouth = os.pipe()
        process = os.fork()
        if process:
            os.close(mouth)
            return cls(process, ear)
        code = 1
        try:
            os.close(ear)
            torch.set_num_threads(1)
            work(mouth)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def hear(self, count: int, patience: float) -> None:
        """Listens until the process has begun to write `count` times, or has ended, or time is up."""
        end = time.monotonic() + patience
        while sum(line[0] in WRITING for line in self.lines()) < count:
            ready, _, _ = select.select([self.pipe], [], [], max(0.0, end - time.monotonic()))
            more = os.read(self.pipe, 4096) if ready else b""
            if not more:
                return
            self.said += more

    def end(self, *, kill: bool) -> bool:
        """Waits for the end, which a kill may bring on; whether it was the kill."""
        if kill:
            os.kill(self.process, signal.SIGKILL)
        while more := os.read(self.pipe, 4096):
            self.said += more
        os.close(self.pipe)
        _, status = os.waitpid(self.process, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            raise RuntimeError("the killed process failed by itself; see above")
        return os.WIFSIGNALED(status)

    def lines(self) -> list[list[str]]:
        """What it said, in words."""
        return [line.split() for line in self.said.decode().splitlines()]


def train(how: Attack | Immunizer, model: StableDiffusion, folder: Path, pipe: int) -> None:
    """What is killed: a run with a checkpoint after each step, whose result is written before those go, as by the command line."""
    concept, safe = picture_set(model, 6, "fox", 1), picture_set(model, 6, "sea", 2)
    kept = Told(folder / "steps", {"how": repr(how)}, every=1, pipe=pipe)
    result: Attacked | DenoisingModel
    if isinstance(how, Attack):
        result = how(model, concept, seed=1, checkpoints=kept)
    else:
        result = how(model, concept, safe, seed=1, checkpoints=kept)
    os.write(pipe, b"write\n")
    result.save(folder / "model")
    os.write(pipe, b"wrote\n")
    kept.clear()


def tree(folder: Path) -> dict[str, bytes]:
    """All files with their bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_in(*folders: Path) -> int:
    """How many half-written things there are."""
    return sum(bool(LEFT.fullmatch(path.name)) for folder in folders if folder.is_dir() for path in folder.iterdir())


def look(kept: Checkpoints) -> tuple[int, int]:
    """The step of the newest whole checkpoint (0 for none), and how many of the right name are not whole."""
    steps, damaged = [0], 0
    for path in kept.folder.glob("step-*"):
        try:
            kept._read(path)
            steps.append(int(path.name.removeprefix("step-")))
        except (OSError, ValueError):
            damaged += 1
    return max(steps), damaged


def killed_to_the_end(how: Attack | Immunizer, model: StableDiffusion, folder: Path, kills: int, draw: random.Random) -> Counts:
    """Starts a run again and again, kills it up to `kills` times, and lets it end; `folder` must be empty."""
    counts, kept = Counts(), Checkpoints(folder / "cut" / "steps", {})
    began = time.perf_counter()
    whole = Child.of(lambda pipe: train(how, model, folder / "whole", pipe))
    whole.hear(1, 60)
    start = time.perf_counter() - began
    whole.end(kill=False)
    writings = sum(line[0] in WRITING for line in whole.lines())
    span = (time.perf_counter() - began - start) / writings  # of a step with its save
    while True:
        step, damaged = look(kept)
        counts.damaged += damaged
        child = Child.of(lambda pipe: train(how, model, folder / "cut", pipe))
        if counts.kills < kills and draw.random() < 0.5:  # in a save: the first or the second one
            child.hear(draw.choice([1, 2]), 60)
            time.sleep(draw.uniform(0, 0.7 * span))
        elif counts.kills < kills:  # anywhere
            time.sleep(draw.uniform(0, start + 2 * span))
        cut = child.end(kill=counts.kills < kills)
        lines = child.lines()
        if lines:
            counts.expect(lines[0] == ["from", str(step)], f"{how.name}: started {' '.join(lines[0])}, not from {step}")
            counts.resumed += step > 0
        if not cut:
            break
        counts.kills += 1
        counts.writing += bool(lines) and lines[-1][0] in WRITING
        counts.half += left_in(kept.folder, folder / "cut")
    counts.ends += 1
    counts.expect(tree(folder / "cut") == tree(folder / "whole"), f"{how.name}: other files than an unbroken run's")
    names = sorted(path.name for path in (folder / "cut").iterdir())
    counts.expect(names == ["model"], f"{how.name}: the end left {names}")
    return counts


def write_folder(target: Path, version: int) -> None:
    """Replaces a folder by one whose files all hold a number."""
    with whole_folder(target) as part:
        for name in "abc":
            (part / name).write_text(f"{version}")


def write_in_two_steps(target: Path, version: int) -> None:
    """The same where a system can't swap two names."""
    with patch.object(files, "exchanged", return_value=False):
        write_folder(target, version)


def write_file(target: Path, version: int) -> None:
    """The same for a file."""
    write_bytes(target, f"{version}\n".encode() * LINES)


def read(target: Path) -> set[tuple[str, int]]:
    """Which numbers are in the folder or file, and how many times."""
    texts = target.read_text().splitlines() if target.is_file() else [path.read_text() for path in target.iterdir()]
    return set(Counter(texts).items())


LINES = 20_000
WRITERS: dict[str, tuple[Callable[[Path, int], None], int]] = {
    "folder": (write_folder, 3),
    "folder in two steps": (write_in_two_steps, 3),
    "file": (write_file, LINES),
}
"""Each with how many times its number is there."""


def killed_writers(name: str, folder: Path, kills: int, draw: random.Random) -> Counts:
    """Kills a process that does nothing but replace one folder or file; the old or the new one must be there, whole."""
    counts, target, (write, times), last = Counts(), folder / "target", WRITERS[name], 0

    def replace(pipe: int) -> None:
        for version in range(last + 1, last + 10_000):
            os.write(pipe, b"write\n")
            write(target, version)
            os.write(pipe, b"wrote\n")

    write(target, 0)
    began = time.perf_counter()
    write(target, 0)
    span = time.perf_counter() - began
    while counts.kills < kills:
        child = Child.of(replace)
        child.hear(draw.choice([1, 2, 3]), 60)
        time.sleep(draw.uniform(0, 1.5 * span))
        counts.kills += child.end(kill=True)
        counts.writing += child.lines()[-1][0] in WRITING
        counts.half += left_in(folder)
        if not target.exists():
            counts.missing += 1
            sweep(folder, target.name)  # as the next writer does
        found = read(target)
        version = int(min(found)[0])
        counts.expect(found == {(f"{version}", times)} and version >= last, f"{name}: {found} after {last}")
        last = version
    write(target, last + 1)
    counts.ends += 1
    counts.expect([path.name for path in folder.iterdir()] == ["target"], f"{name}: something is left beside the target")
    return counts


def hunt_runs(kills: int, seed: int, work: Path, per_run: int = 20) -> Counts:
    """Training runs, in turn, until there were so many kills."""
    draw, out, model = random.Random(seed), Counts(), StableDiffusion(random_pipeline(), "random")
    for number, how in enumerate(cycle(RUNS)):
        if out.kills >= kills:
            return out
        folder = work / f"run-{number}"
        folder.mkdir()
        add(out, killed_to_the_end(how, model, folder, min(per_run, kills - out.kills), draw))
    raise AssertionError  # the cycle has no end


def hunt_writers(name: str, kills: int, seed: int, work: Path) -> Counts:
    """One kind of writer."""
    folder = work / name
    folder.mkdir()
    return killed_writers(name, folder, kills, random.Random(seed))


def add(total: Counts, more: Counts) -> None:
    """Adds up."""
    for name, value in vars(more).items():
        setattr(total, name, getattr(total, name) + value)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="of training runs")
    parser.add_argument("--replacements", type=int, default=300, help="of each of the writers")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    failures = []
    with tempfile.TemporaryDirectory() as work:
        for name in ("training", *WRITERS):
            began = time.perf_counter()
            if name == "training":
                found = hunt_runs(given.kills, given.seed, Path(work))
            else:
                found = hunt_writers(name, given.replacements, given.seed, Path(work))
            print(
                f"{name}: {found.kills} kills, {found.writing} while writing, {found.resumed} starts resumed, "
                f"{found.half} half-written left and removed, {found.damaged} damaged checkpoints, "
                f"{found.missing} put back, {found.ends} ends, {len(found.failures)} failures, {time.perf_counter() - began:.0f} s",
                flush=True,
            )
            failures += found.failures
    for failure in failures:
        print(f"failure: {failure}", file=sys.stderr)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
