"""Puts the trained parts together as a `StableDiffusionPipeline` folder in the package's data; same weights, same files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from gift.data.art import load_art

from . import autoencoder
from .config import ASSETS, WORK
from .denoiser import make, make_scheduler

CARD = """---
license: other
license_name: see-notice
library_name: diffusers
pipeline_tag: text-to-image
---

# tiny: a text-to-image model of everyday objects

A Stable Diffusion (CLIP text encoder, AutoencoderKL with 8 latent channels at f=8, UNet2DConditionModel, velocity
prediction) for 64x64 drawings of {objects} objects in {styles} styles ({names}).
It is meant for testing how fine-tuning attacks and defences work, where a full-size model would take days. Prompts look
like "a mushroom in noto style"; objects, styles and the pairs that were held out of training are in `split.json`.

    from diffusers import StableDiffusionPipeline
    pipe = StableDiffusionPipeline.from_pretrained("path/to/this/folder")
    pipe("an owl in openmoji style", num_inference_steps=15, guidance_scale=2.0).images[0].resize((256, 256)).show()

Trained for {steps} steps of 48 pictures by `python -m recipes.tiny`. It knows nothing but these
drawings: no people, no photographs.

## The drawings it was trained on

{credits}

Each set keeps its own licence; openmoji's is CC BY-SA 4.0. The drawings were rasterised at 64x64 on white and slightly
moved and scaled.
"""


def export(before: int = 0) -> None:
    """Writes `assets/tiny` from the averaged weights of the last checkpoints; `before`: denoiser steps before a warm start."""
    art = load_art()
    tokenizer, parts = make()
    state = torch.load(WORK / "denoiser.pt", weights_only=True)
    parts.load_state_dict(state["average"])
    pipeline = StableDiffusionPipeline(
        vae=autoencoder.load().half(),
        text_encoder=parts[
            "text_encoder"
        ].eval(),  # fp32: transformers opens it in the stored precision, diffusers its parts in fp32
        tokenizer=tokenizer,
        unet=parts["unet"].half().eval(),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    target = ASSETS / "tiny"
    shutil.rmtree(target, ignore_errors=True)
    pipeline.save_pretrained(target, safe_serialization=True)
    for file in target.rglob("*.json"):
        forget_place(file)
    for file in target.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors writes 0600, which an installed package must not have
    for name in ("vocab.json", "merges.txt"):  # CLIP's own two files, for readers that do not take tokenizer.json
        shutil.copy(WORK / "tokenizer" / name, target / "tokenizer" / name)
    raw = json.loads((ASSETS / "art" / "index.json").read_text())
    split = {"objects": art.names, "styles": list(art.trained_styles), "held_out": raw["held_out"]}
    (target / "split.json").write_text(json.dumps(split, indent=1) + "\n")
    credits = "\n".join(
        f"- {style}: {info['title']} by {info['author']}, {info['license']} ({info['source']})"
        for style, info in raw["styles"].items()
        if info["trained"]
    )
    styles = ", ".join(art.trained_styles)
    text = CARD.format(
        objects=len(art.objects), styles=len(art.trained_styles), names=styles, steps=before + state["step"], credits=credits
    )
    (target / "README.md").write_text(text)
    print(f"exported step {state['step']}: {size(target):.1f} MB, recogniser {size(ASSETS / 'recogniser'):.1f} MB")


def forget_place(file: Path) -> None:
    """Takes out where a part was loaded from: a path of this machine."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    if "_name_or_path" in kept:
        del kept["_name_or_path"]
        file.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def size(folder: Path) -> float:
    """Size of a folder in MB."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
