"""What the verbs share: options, YAML under flags, the resolved configuration, one-line errors."""

from __future__ import annotations

import io
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from gift.bench.config import LARGEST_SEED, MOST
from gift.config_file import read_yaml
from gift.errors import GiftError, of_disk, shown
from gift.launch import is_main, launched

if TYPE_CHECKING:
    from gift.models import DenoisingModel


def a_number(value: float | None) -> float | None:
    """Refuses NaN, which no range does."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan is not a number")
    return value


ModelArgument = Annotated[
    str | None, typer.Argument(help="'tiny', a diffusers folder, a .safetensors file, or a hub id (owner/name@revision).")
]
VariantOption = Annotated[str | None, typer.Option("--variant", help="The weights' variant, as fp16.")]
StepsOption = Annotated[
    int | None,
    typer.Option("--sampler-steps", help="Of every picture it draws; else its sampling.json says, or 15.", min=1, max=MOST),
]
GuidanceOption = Annotated[
    float | None,
    typer.Option(
        "--guidance", help="Of every picture it draws; else its sampling.json says, or 2.", min=0, max=MOST, callback=a_number
    ),
]
HeldOption = Annotated[
    str | None, typer.Option("--held-in", help="Precision of the weights: fp32, or bf16 for half the memory (only adapters train).")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file with any of the options below; flags go over it.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of every draw.", min=0, max=LARGEST_SEED)]
ConceptOption = Annotated[str | None, typer.Option("--concept", help="NAME, style:NAME or category:NAME.")]
OneOption = Annotated[list[str] | None, typer.Option("--concept", help="NAME, style:NAME or category:NAME: one.")]
"""A list, so that a second concept is told rather than dropped."""
SeveralOption = Annotated[list[str] | None, typer.Option("--concept", help="NAME, style:NAME or category:NAME; may be repeated.")]
ConceptsOption = Annotated[
    Path | None,
    typer.Option("--concepts", help="A file of concepts, a line each: NAME, NAME = SHARE of a batch, or NAME = SHARE, FOLDER."),
]
FoldersOption = Annotated[
    list[Path] | None,
    typer.Option("--concept-images", help="Folder of the concept's pictures; for several concepts one each, in their order."),
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="A hyperparameter, key=value; may be repeated.")]
TOGETHER = ("immunize", "attack")
"""The verbs that several processes can run together."""
PrecisionOption = Annotated[
    str | None, typer.Option("--precision", help="fp32, or bf16 or fp16 for the denoiser's forwards in training.")
]
AccumulateOption = Annotated[
    int | None, typer.Option("--accumulate", help="Less memory: compute each batch in so many parts.", min=1)
]
EmaOption = Annotated[float | None, typer.Option("--ema", help="Release the weights' running mean with this decay, as 0.999.")]
CompileOption = Annotated[str | None, typer.Option("--compile", help="torch.compile the denoiser with this backend, as inductor.")]
CheckpointingOption = Annotated[
    bool | None, typer.Option("--gradient-checkpointing", help="Less memory: compute activations anew instead of keeping them.")
]
RestartOption = Annotated[
    bool, typer.Option("--restart", help="Begin afresh where an interrupted run is in --output; its checkpoints are removed.")
]
TrackerOption = Annotated[str | None, typer.Option("--tracker", help="Send losses to tensorboard, wandb or mlflow, too.")]
P = ParamSpec("P")


def quiet_libraries() -> None:
    """Keeps other libraries' advice and bars out of the output; errors still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {' '.join(str(message).split())}\n"
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    hub_logging.set_verbosity_error()  # what it warns of, each try again of a request, ends in an error of its own
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def reporting(verb: Callable[P, None]) -> Callable[P, None]:
    """Turns what a user can mend into one line on stderr and an exit code."""

    def told(error: GiftError) -> typer.Exit:
        print(f"gift: {shown(' '.join(str(error).split()))}", file=sys.stderr)
        return typer.Exit(error.exit_code)

    @wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        quiet_libraries()
        for stream in (sys.stdout, sys.stderr):  # what a terminal's encoding lacks is escaped
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        if not is_main():  # its siblings would say everything again
            sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends
        try:
            if launched() > 1 and verb.__name__ not in TOGETHER:
                raise GiftError(f"gift {verb.__name__} is for one process; several can run: gift {', gift '.join(TOGETHER)}")
            with terminable():
                verb(*args, **kwargs)
            if launched() > 1:
                from gift.parallel import leave

                leave()
        except GiftError as error:
            raise told(error) from None
        except OSError as error:
            if mendable := of_disk(error):
                raise told(mendable) from None
            raise
        except (MemoryError, RuntimeError) as error:
            from gift.room import gave_out, too_little

            if gave_out(error):
                raise told(too_little("for this", error)) from None
            raise
        except KeyboardInterrupt:
            print("gift: stopped; nothing was half written, and the same command goes on from what is finished", file=sys.stderr)
            raise typer.Exit(130) from None

    return run


def read_config(path: Path | None) -> dict[str, Any]:
    """A YAML mapping, safely loaded.

    Raises:
        GiftError: no such file, not YAML, or not a mapping.
    """
    if path is None:
        return {}
    hint = "give a file like the config.yaml that each run writes"
    value = read_yaml(path, "the configuration", hint)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise GiftError(f"{path} is not a list of 'option: value' lines; {hint}")
    return value


def resolve(config: Path | None, flags: dict[str, Any], options: list[str] | None = None) -> dict[str, Any]:
    """The file's options with the given flags over them, parts of one option over its others; `--set` pairs go into 'options'."""
    from gift.settings import parse_options

    resolved = _over(read_config(config), {key: value for key, value in flags.items() if value is not None})
    if options:
        kept = resolved.get("options") or {}
        if not isinstance(kept, dict):
            raise GiftError(f"{config}: options: {kept!r} is not a list of 'option: value' lines")
        resolved["options"] = _over(kept, parse_options(options))
    return resolved


def saving(**given: Any) -> dict[str, dict[str, Any]]:
    """The flags of `Saving` that were given, as a configuration file would say them."""
    some = {key: value for key, value in given.items() if value is not None}
    return {"saving": some} if some else {}


def several(concept: list[str] | None, concepts: Path | None, folders: list[Path] | None = None) -> dict[str, Any]:
    """The concepts that flags name, with their shares and folders, as a configuration file would say them.

    Raises:
        GiftError: they are named both ways, folders are given both ways, or the file can't be used.
    """
    given: dict[str, Any] = {}
    if folders:
        given["concept_images"] = folders[0] if len(folders) == 1 else folders
    if concepts is None:
        return given | {"concept": concept[0] if concept and len(concept) == 1 else concept or None}
    if concept:
        raise GiftError("--concept and --concepts were both given; name all concepts one way")
    from gift.data.concept_list import read_concepts

    lines = read_concepts(concepts)
    given |= {"concept": [line.name for line in lines], "balance": [line.share for line in lines]}
    if folders and any(line.folder for line in lines):
        raise GiftError(f"--concept-images and folders in {concepts} were both given; name all folders one way")
    if not folders:  # also where the file has none: those of a configuration file are of other concepts
        given["concept_images"] = [line.folder for line in lines]
    return given


def check_known(concepts: Path | None, model: DenoisingModel) -> None:
    """Verifies that a model knows the concepts of a file, if there is one.

    Raises:
        GiftError: it does not know one; the line is told.
    """
    if concepts is None:
        return
    from gift.bench.workbench import art_of
    from gift.data.concept_list import known_concepts, read_concepts

    known_concepts(read_concepts(concepts), art_of(model))


def _over(kept: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Options with others over them; where both have parts, the parts."""
    both = {key for key, value in given.items() if isinstance(value, dict) and isinstance(kept.get(key), dict)}
    return {**kept, **given, **{key: _over(kept[key], given[key]) for key in both}}


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that it gives up its folder; training asks for a checkpoint first by itself.

    Processes that were launched together are left to their launcher: one that waits for the others hears nothing.
    """
    alone = launched() == 1 and threading.current_thread() is threading.main_thread()
    if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def check_pictures(*folders: Path | None, skip_bad_images: bool = False, least: int = 1) -> None:
    """Verifies the user's picture folders before a model is opened.

    Raises:
        GiftError: a folder without pictures that can be used, or with fewer than `least`.
    """
    from gift.data.folder import scan_folder

    for folder in folders:
        if folder:
            found = len(scan_folder(folder, default_caption="", skip_bad_images=skip_bad_images).pictures)
            if found < least:
                raise GiftError(f"{folder} has {found} picture that can be used; comparing takes at least {least}, give more")
