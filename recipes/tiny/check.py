"""Measures the bundled model: does it draw the prompted object and style, on pairs it was trained on and on pairs it never saw."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from gift.data.art import load_art
from gift.data.prompts import Ask
from gift.files import write_bytes
from gift.metrics.concept import mean, prompted
from gift.metrics.recogniser import load_recogniser
from gift.models import load
from gift.pixels import contact_sheet, png_bytes

from . import autoencoder, recogniser
from .config import WORK


def sheet(images: torch.Tensor, columns: int, path: Path) -> None:
    """Saves pictures as one PNG."""
    write_bytes(path, png_bytes(contact_sheet(images, columns)))


def check(n: int, seed: int, full: bool, guidance: float) -> dict[str, dict[str, float]]:
    """Prints and returns the shares of pictures in which the recogniser finds what was asked for."""
    art = load_art()
    model, judge = load("tiny"), load_recogniser()
    pairs = [(o.name, s) for o in art.objects for s in art.trained_styles]
    groups = {
        "trained pairs": [p for p in pairs if p not in art.held_out],
        "held-out pairs": [p for p in pairs if p in art.held_out],
    }
    result = {}
    for group, members in groups.items():
        chosen = random.Random(seed).sample(members, min(n, len(members)))
        asks = [Ask(f"{art.object(o).noun} in {s} style", seed * 1_000_000 + i, o, s) for i, (o, s) in enumerate(chosen)]
        images = model.generate([a.prompt for a in asks], [a.seed for a in asks], guidance=guidance)
        objects, styles = prompted(judge, art, images, asks)
        categories: dict[str, list[float]] = {}
        for ask, found in zip(asks, objects, strict=True):
            categories.setdefault(art.object(ask.name or "").category, []).append(found)
        result[group] = {"pictures": len(asks), "object": mean(objects), "style": mean(styles)}
        print(f"{group}, seed {seed}: {len(asks)} pictures, object found in {mean(objects):.1%}, style in {mean(styles):.1%}")
        print("  " + ", ".join(f"{c} {mean(v):.0%}" for c, v in sorted(categories.items())))
        sheet(images[:96], 12, WORK / "sheets" / f"{group.replace(' ', '-')}.png")
    if full:
        autoencoder.measure()
        recogniser.measure()
    return result


def samples(path: Path, seed: int) -> None:
    """A sheet for the README: one row a style, one column an object, one fixed seed a column."""
    art = load_art()
    names = [
        "mushroom",
        "owl",
        "pizza",
        "sailboat",
        "castle",
        "guitar",
        "cactus",
        "umbrella",
        "snail",
        "ice cream",
        "rocket",
        "trophy",
    ]
    asks = [(f"{art.object(o).noun} in {s} style", seed + i) for s in art.trained_styles for i, o in enumerate(names)]
    sheet(load("tiny").generate([p for p, _ in asks], [s for _, s in asks]), len(names), path)
