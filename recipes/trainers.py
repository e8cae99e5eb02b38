"""diffusers' own example trainers, unchanged, on a folder that gift saved; and gift's evaluation of what they leave.

    python -m recipes.trainers path/to/diffusers out/model --concept mushroom --output trained/

The trainers are not in diffusers' package: give a checkout of its repository. They need `pip install torchvision datasets`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image

from gift.attacks import ATTACKS, TextualInversion
from gift.bench.evaluation import evaluate_model
from gift.bench.workbench import Workbench
from gift.cli.common import reporting
from gift.data.art import Art
from gift.data.attack_pictures import attack_pictures
from gift.errors import GiftError, one_of
from gift.files import remove_folder, write_bytes, write_json, write_text
from gift.models import load
from gift.models.lora import LORA_FILE
from gift.pixels import png_bytes

EMBEDS = "learned_embeds.safetensors"
WORD = "<new>"
BATCH = 8


@dataclass(frozen=True)
class Trainer:
    """One script of `examples/`.

    Attributes:
        script: its place there.
        attack: the attack of gift that does the same, whose learning rate is used.
        arguments: what it is told besides model, output, size, batch, steps and rate, given the concept's noun and the pictures.
        left: how `evaluate_model` takes what it leaves: arguments, given its output folder.
    """

    script: str
    attack: str
    arguments: Callable[[str, Path], list[str]]
    left: Callable[[Path], dict[str, Any]]


TRAINERS = {
    "text_to_image_lora": Trainer(
        "text_to_image/train_text_to_image_lora.py",
        "lora",
        lambda noun, data: [f"--train_data_dir={data / 'captioned'}", "--caption_column=text", "--rank=16"],
        lambda out: {"lora": out / LORA_FILE},
    ),
    "dreambooth": Trainer(
        "dreambooth/train_dreambooth.py",
        "dreambooth",
        lambda noun, data: [f"--instance_data_dir={data / 'plain'}", f"--instance_prompt={noun}"],
        lambda out: {"model": str(out)},
    ),
    "dreambooth_lora": Trainer(
        "dreambooth/train_dreambooth_lora.py",
        "dreambooth-lora",
        lambda noun, data: [f"--instance_data_dir={data / 'plain'}", f"--instance_prompt={noun}", "--rank=16"],
        lambda out: {"lora": out / LORA_FILE},
    ),
    "textual_inversion": Trainer(
        "textual_inversion/textual_inversion.py",
        "textual-inversion",
        lambda noun, data: [
            f"--train_data_dir={data / 'plain'}",
            "--learnable_property=object",
            f"--placeholder_token={WORD}",
            f"--initializer_token={noun.split()[-1]}",
            f"--num_vectors={TextualInversion().vectors}",
        ],
        lambda out: {"embeds": out / EMBEDS},
    ),
}


def art_of_an_object(bench: Workbench) -> Art:
    """The bundled drawings, of which a workbench's concept is an object.

    Raises:
        GiftError: it is none.
    """
    if bench.art is None or bench.concept.kind != "object":
        raise GiftError("give a model with the bundled words, and an object")
    return bench.art


def write_pictures(folder: Path, images: torch.Tensor, captions: list[str]) -> None:
    """Pictures alone in `plain/`, and in `captioned/` with their captions as an image folder of `datasets`."""
    if folder.is_dir():  # an earlier run's may be more
        remove_folder(folder)
    lines = []
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        data = png_bytes(Image.fromarray(image.permute(1, 2, 0).numpy()))
        for part in ("plain", "captioned"):
            write_bytes(folder / part / f"{i}.png", data)
        lines.append(json.dumps({"file_name": f"{i}.png", "text": caption}) + "\n")
    write_text(folder / "captioned" / "metadata.jsonl", "".join(lines))


def train(script: Path, arguments: list[str], log: Path) -> None:
    """Runs a trainer in a process of its own.

    Raises:
        GiftError: it fails; its last line is told.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, env=environment, check=False)
    write_text(log, done.stdout + done.stderr)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no word"]
        raise GiftError(f"{script.name} failed: {lines[-1].strip()[:200]}; all of it is in {log}")


def main(
    checkout: Annotated[Path, typer.Argument(help="A checkout of the diffusers repository.")],
    model: Annotated[str, typer.Argument(help="A folder that gift saved, with the bundled model's words.")],
    concept: Annotated[str, typer.Option(help="An object of the bundled drawings.")] = "mushroom",
    original: Annotated[str, typer.Option(help="The model before the defence.")] = "tiny",
    steps: Annotated[int, typer.Option(help="Optimiser steps of each trainer.")] = 100,
    pictures: Annotated[int, typer.Option(help="Of the attacker.")] = 48,
    only: Annotated[list[str] | None, typer.Option(help=f"Some of {', '.join(TRAINERS)}; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the pictures and the training.")] = 0,
    output: Annotated[Path, typer.Option(help="Where pictures, weights, logs and trainers.json go.")] = Path("trained"),
) -> None:
    """Trains with diffusers' scripts and prints how much of the concept came back."""
    bench = Workbench.of(load(model), concept, seed)
    art = art_of_an_object(bench)
    unknown = next((name for name in only or () if name not in TRAINERS), None)
    if unknown:
        raise one_of("trainer", unknown, list(TRAINERS))
    scripts = {name: checkout.resolve() / "examples" / TRAINERS[name].script for name in only or TRAINERS}
    for script in scripts.values():
        if not script.is_file():
            raise GiftError(f"no {script}; give the folder of a diffusers checkout")
    noun = art.object(bench.concept.name).noun
    _, captions = attack_pictures(bench.concept, art, pictures, seed)
    write_pictures(output / "pictures", bench.attack_images(pictures), captions)
    where = str(Path(model).resolve())
    evaluated: dict[str, dict[str, Any]] = {"before": {"model": where}}
    for name, script in scripts.items():
        trainer, out = TRAINERS[name], (output / name).resolve()
        arguments = [f"--pretrained_model_name_or_path={where}", f"--output_dir={out}", f"--resolution={bench.model.image_size}"]
        arguments += [f"--train_batch_size={BATCH}", f"--max_train_steps={steps}", f"--seed={seed}", "--checkpointing_steps=100000"]
        arguments += [f"--learning_rate={ATTACKS[trainer.attack]().rate}", "--lr_scheduler=constant", "--lr_warmup_steps=0"]
        train(script, arguments + trainer.arguments(noun, (output / "pictures").resolve()), output / f"{name}.log")
        evaluated[name] = {"model": where, **trainer.left(out)}
    beside: dict[str, Any] = {"concept": concept, "original": original, "seed": seed, "neighbour_pictures": 0}
    rows = {name: evaluate_model(**weights, **beside) for name, weights in evaluated.items()}
    write_json(output / "trainers.json", {"model": where, "concept": concept, "steps": steps, "seed": seed, "rows": rows})
    for name, row in rows.items():
        print(
            f"{name:<20} concept score {row['concept_score']:.3f}  safe accuracy {row['safe_accuracy']:.3f}  FID {row['fid']:.2f}"
        )


if __name__ == "__main__":
    typer.run(reporting(main))
