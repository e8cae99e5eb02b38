"""Draws the curated icons at 64x64 on white, one atlas a style, and writes the index with splits and licences."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import resvg_py
import yaml
from PIL import Image

from .config import ASSETS, COLUMNS, HELD_OUT_PAIRS, MARGIN, OBJECTS, RECOGNISER_HELD_OUT_PAIRS, SEED, SIZE, SOURCES, WORK

PLURAL = {"cherries", "grapes", "jeans", "french fries", "glasses", "skis", "headphones", "pancakes", "peanuts"}
PLURAL |= {"scissors", "sunglasses", "popcorn", "bacon", "spaghetti", "sushi", "fire", "badminton", "tennis", "table tennis"}
PLURAL |= {"bowling", "ice hockey"}  # and mass nouns: neither takes an article


def article(name: str) -> str:
    """The article for a caption: 'a', 'an' or none."""
    if name in PLURAL:
        return ""
    return "an" if name[0] in "aeio" else "a"


def curated() -> list[dict[str, str]]:
    """The objects of `objects.yaml` in order, with caption, icon, category and article."""
    rows = []
    for category, entries in yaml.safe_load(OBJECTS.read_text()).items():
        for entry in entries:
            icon, name = (entry, entry) if isinstance(entry, str) else next(iter(entry.items()))
            rows.append({"name": name, "icon": icon, "category": category, "article": article(name)})
    return rows


def svg(pack: dict[str, Any], icon: str) -> str:
    """One icon of an iconify pack as a stand-alone SVG."""
    while icon not in pack["icons"]:
        icon = pack["aliases"][icon]["parent"]
    body = pack["icons"][icon]
    width, height = (body.get(key, pack.get(key, 16)) for key in ("width", "height"))
    box = f"{body.get('left', 0)} {body.get('top', 0)} {width} {height}"
    head = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {head} viewBox="{box}" color="#000">{body["body"]}</svg>'


def draw(markup: str) -> Image.Image:
    """Rasterises to SIZE x SIZE RGB on white."""
    inner = SIZE - 2 * MARGIN
    png = bytes(resvg_py.svg_to_bytes(svg_string=markup, width=inner, height=inner))
    icon = Image.open(io.BytesIO(png)).convert("RGBA")
    canvas = Image.new("RGBA", (SIZE, SIZE), "white")
    canvas.alpha_composite(icon, (MARGIN + (inner - icon.width) // 2, MARGIN + (inner - icon.height) // 2))
    return canvas.convert("RGB")


def splits(names: list[str], styles: list[str]) -> tuple[list[list[str]], list[list[str]]]:
    """Two disjoint lists of held-out pairs; an object loses at most one style to each."""
    rng = random.Random(SEED)
    total = len(names) * len(styles)
    order = rng.sample(names, len(names))
    denoiser = [[name, rng.choice(styles)] for name in order[: round(HELD_OUT_PAIRS * total)]]
    rest = order[::-1][: round(RECOGNISER_HELD_OUT_PAIRS * total)]
    taken = {tuple(pair) for pair in denoiser}
    recogniser = [[name, rng.choice([s for s in styles if (name, s) not in taken])] for name in rest]
    return sorted(denoiser), sorted(recogniser)


def rasterise() -> None:
    """Writes `assets/art/<style>.png` and `assets/art/index.json`; the same input gives the same bytes."""
    home = ASSETS / "art"
    home.mkdir(parents=True, exist_ok=True)
    objects = curated()
    rows = -(-len(objects) // COLUMNS)
    styles: dict[str, Any] = {}
    for style, source in SOURCES.items():
        pack = json.loads((WORK / "art" / style / "icons.json").read_text())
        info = json.loads((WORK / "art" / style / "info.json").read_text())
        atlas = Image.new("RGB", (COLUMNS * SIZE, rows * SIZE), "white")
        for i, entry in enumerate(objects):
            atlas.paste(draw(svg(pack, entry["icon"])), (i % COLUMNS * SIZE, i // COLUMNS * SIZE))
        atlas.save(home / f"{style}.png", optimize=True)
        styles[style] = {
            "source": f"npm:@iconify-json/{source.package}@{source.version}",
            "title": info["name"],
            "author": source.author,
            "license": info["license"]["spdx"],
            "trained": source.trained,
        }
    trained = [style for style, source in SOURCES.items() if source.trained]
    held_out, recogniser_held_out = splits([entry["name"] for entry in objects], trained)
    index = {
        "size": SIZE,
        "columns": COLUMNS,
        "styles": styles,
        "objects": objects,
        "held_out": held_out,
        "recogniser_held_out": recogniser_held_out,
    }
    (home / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    print(f"{len(objects)} objects x {len(styles)} styles; held out {len(held_out)} and {len(recogniser_held_out)} pairs")
