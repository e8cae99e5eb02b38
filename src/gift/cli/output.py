"""A verb's output folder: held for the run, and nothing in it lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from gift.errors import GiftError, OtherSettings
from gift.files import write_text
from gift.launch import launched


def write_config(folder: Path, verb: str, config: dict[str, Any]) -> None:
    """Keeps the resolved configuration beside the result, with the command that repeats it."""
    head = f"# gift {verb} --config config.yaml\n"
    write_text(folder / "config.yaml", head + yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


RECORDS = {"immunize": "immunize.json", "attack": "attack.json", "demo": "result.json"}
"""What each verb writes once it is done, beside a folder of weights."""


@contextmanager
def output_folder(
    folder: Path, verb: str | None = None, made: str | None = None, inputs: Sequence[Path | str | None] = ()
) -> Iterator[Path]:
    """The output folder, held for this run. An interrupted run of other settings in it keeps its configuration.

    Args:
        folder: as the user gave it.
        verb: whose configuration will be written there; None for none.
        made: the folder of weights in it that will be written, replacing an earlier one.
        inputs: what the command reads, which must not be replaced.

    Raises:
        GiftError: something in it is not of gift's making, or of another verb's run that is not finished, and would be lost.
    """
    from gift.files import need_utf8, owned

    need_utf8(folder)
    with owned(folder) as held:
        config = held / "config.yaml"
        before = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else None
        if verb:
            _spare(held, verb, made, before, inputs)
        try:
            yield held
        except OtherSettings:
            if before is not None:
                write_text(config, before)
            raise


def _spare(folder: Path, verb: str, made: str | None, config: str | None, inputs: Sequence[Path | str | None]) -> None:
    """Verifies that a verb's output replaces nothing but that of a verb; as `output_folder`, and `config` is the old configuration.

    Raises:
        GiftError: it would.
    """
    writer = re.match(r"# gift (\w+) ", config or "")
    if config is not None and not writer:
        raise GiftError(f"{folder / 'config.yaml'} is not gift's, and would be replaced; choose another --output")
    other = writer[1] if writer else None
    if other not in {None, verb} and any(path.is_dir() for path in (folder / "work").rglob("step-*")):
        raise GiftError(f"{folder} holds a 'gift {other}' that was interrupted; let it finish there, or choose another --output")
    if made is None:
        return
    target = folder / made
    read = [Path(given).resolve() for given in inputs if given is not None and str(given) != "tiny"]
    if any(target.resolve() in (path, *path.parents) for path in read):
        raise GiftError(f"{target} is read by this command, and would be replaced; choose another --output")
    if target.is_dir() and any(target.iterdir()) and other != verb and not (folder / RECORDS[verb]).exists():
        raise GiftError(f"{target} is not of a 'gift {verb}', and would be replaced; choose another --output")


def begin_afresh(wanted: bool, work: Path, say: Callable[[str], None], pieces: Path | None = None) -> None:
    """Removes the checkpoints of an interrupted run if that is wanted, and its finished `pieces`, and says so.

    Raises:
        GiftError: several processes were launched, of which some might look for checkpoints earlier than one removes them.
    """
    if not wanted:
        return
    if launched() > 1:
        raise GiftError(f"--restart is for one process; remove {work} instead")
    from gift.training.checkpoint import clear_below

    say(f"beginning afresh: {clear_below(work)} checkpoints in {work} were removed")
    if pieces and pieces.is_dir():
        from gift.files import remove_folder

        remove_folder(pieces)
        say(f"and the finished parts in {pieces}")
