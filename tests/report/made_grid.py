"""A made-up grid's folder: five methods under two attacks and a search, on two concepts and two seeds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from gift.bench.summary import summarise
from gift.metrics.recovery import area

STEPS = [0, 10, 20, 50, 100, 150]
SIZE = 16
CONCEPTS = ("mushroom", "style:noto")
SEEDS = (0, 1)
CHAINS = {"none": [], "esd": ["esd"], "ascent": ["ascent"], "esd+imma": ["esd", "imma"], "esd+gift": ["esd", "gift"]}
STARTS = {"none": 0.95, "esd": 0.05, "ascent": 0.0, "esd+imma": 0.0, "esd+gift": 0.0}
ENDS = {"none": 0.97, "esd": 0.9, "ascent": 0.0, "esd+imma": 0.5, "esd+gift": 0.2}
SAFE = {"none": 0.92, "esd": 0.9, "ascent": 0.1, "esd+imma": 0.8, "esd+gift": 0.86}
FID = {"none": 0.0, "esd": 0.8, "ascent": 40.0, "esd+imma": 2.1, "esd+gift": 1.4}
DEFENCE = {"none": 0.0, "esd": 20.0, "ascent": 15.0, "esd+imma": 60.0, "esd+gift": 75.0}
EASE = {"none": 1.0, "esd": 0.97, "ascent": 0.2, "esd+imma": 0.6, "esd+gift": 0.84}
PACE = {"lora": 0.2, "full": 0.4, "worst": 0.3}
FAR = {"lora": 1.0, "full": 1.1, "worst": 1.3}
FEW = "2 seeds: the protocol asks for at least 3"
VOID = "inconclusive: the attack does not bring the concept back on undefended weights either"
COLLAPSED = "collapsed: 60 % of pictures are near copies of another"
FAILED = ("esd+imma", "lora", "style:noto", 1)
INCONCLUSIVE = ("full", "style:noto", 1)
NEXT_DOOR = {"diversity": 0.95, "neighbours": {"names": ["radish", "cactus"], "score": 0.7, "original_score": 0.96}}
PROMPTS = ["a mushroom in noto style", "a big mushroom", "two mushrooms", "an old mushroom"]
IDENTITY = "0123456789abcdef"
"""Of the model that they are of."""


def keys() -> Iterator[tuple[str, str, str, int]]:
    """(method, attack, concept, seed) of every cell, in a grid's order."""
    for concept in CONCEPTS:
        for seed in SEEDS:
            for method in CHAINS:
                attacks = ["lora", "full", *(["worst"] if "+" in method else [])]
                yield from ((method, attack, concept, seed) for attack in attacks)


def curve(method: str, attack: str, concept: str, seed: int) -> list[list[float]]:
    """Rises evenly from the start to the end; concepts and seeds move the end a little."""
    start = STARTS[method]
    end = min(1.0, ENDS[method] * FAR[attack] + 0.03 * seed - 0.05 * CONCEPTS.index(concept))
    return [[step, round(max(0.0, start + (end - start) * (step / STEPS[-1]) ** 0.6), 6)] for step in STEPS]


def height(points: list[list[float]]) -> float:
    """The area under a curve."""
    return round(area([(int(step), score) for step, score in points]), 6)


def likeness(key: str, points: list[list[float]], control: list[list[float]]) -> dict[str, Any]:
    """What one embedder says: as much likeness as there is of the concept, so that SGR is the scores' own."""
    rates = [(b[1] - a[1]) / b[1] for a, b in zip(points[1:], control[1:], strict=True)]
    gap = {"mean": sum(rates) / len(rates), "last": rates[-1], "highest": max(rates)}
    name = {"bundled": "recogniser similarity (stand-in for CLIP)", "bundled-lpips": "recogniser layers (stand-in for LPIPS)"}[key]
    cmmd = 1.25 if key == "bundled" else None
    return {"name": name, "curve": points, "control_curve": control, "gap": gap, "relative_gap": 0.31, "cmmd": cmmd, "paired": 0.87}


def cell(method: str, attack: str, concept: str, seed: int) -> dict[str, Any]:
    """One line of `records.jsonl`."""
    head = {
        "model": "tiny",
        "model_identity": IDENTITY,
        "concept": concept,
        "seed": seed,
        "method": method,
        "attack": attack,
        "settings": {
            "methods": {name: {"steps": 100} for name in CHAINS[method]},
            "attack": {"name": "lora" if attack == "worst" else attack, "steps": 150},
            "control": "esd",
            "horizon": 150,
            "sizes": {"evaluation_pictures": 36, "safe_evaluation_pictures": 120},
        },
        "libraries": {"gift": "0.1.0"},
        "pieces": {},
    }
    if (method, attack, concept, seed) == FAILED:
        error = "'price esd+imma' failed: a weight is NaN or infinite"
        return {**head, "status": "failed", "error": error, "flags": [f"failed: {error}"]}
    points, control = curve(method, attack, concept, seed), curve("esd", attack, concept, seed)
    status = "collapsed" if method == "ascent" else "inconclusive" if (attack, concept, seed) == INCONCLUSIVE else "ok"
    flags = [
        FEW,
        *([VOID] if status == "inconclusive" else []),
        *(["collapsed: 60 % of pictures"] if status == "collapsed" else []),
    ]
    back = next((int(step) for step, score in points if score >= 0.475), None)
    row = {
        **head,
        "status": status,
        "error": None,
        "original_score": 0.95,
        "score_before": points[0][1],
        "score_after": points[-1][1],
        "score_highest": max(score for _, score in points[1:]),
        "curve": points,
        "control_curve": control,
        "control_recovers": status != "inconclusive",
        "area": height(points),
        "relearning_reduction": round(1 - height(points) / height(control), 6),
        "reduction_at_end": round(1 - points[-1][1] / control[-1][1], 6),
        "steps_to_recover": back,
        "recovery_ratio": None,
        "price": {"safe_accuracy": SAFE[method], "fid": FID[method] + 0.1 * seed, "kid": 0.001, "collapse": None} | NEXT_DOOR,
        "costs": {
            "defence": {"steps": 100, "seconds": DEFENCE[method] + seed, "peak_mb": 900.0},
            "attack": {"steps": 150, "seconds": PACE[attack] * 150, "peak_mb": 950.0},
        },
        "best_of": {"4": round(1 - (1 - points[-1][1]) ** 4, 6), "16": round(1 - (1 - points[-1][1]) ** 16, 6)},
        "adaptability": {
            "near inside": {"object": "cactus", "share": EASE[method] + 0.02 * seed, "score": 0.75, "original_score": 0.9}
        },
        "memory": {"nearest": 12.5, "median": 30.0, "apart": 41.0, "copied": 0.25 if method == "ascent" else 0.0},
        "diversity_after": 0.9,
        "similarity": {key: likeness(key, points, control) for key in ("bundled", "bundled-lpips")},
        "flags": flags,
        "scores": {"before": [0.0] * 36, "safe": [1.0] * 120, "attack": []},
    }
    if attack == "worst":
        row["attack_found"] = {"name": "lora", "rate": 0.004, "steps": 150}
    return row


def sheet(row: dict[str, Any]) -> dict[str, Any]:
    """The entry of `pictures.json` for a cell."""
    name = "-".join(re.sub(r"[^a-z0-9+]+", "-", str(row[key])) for key in ("concept", "seed", "method", "attack"))
    return {
        **{key: row[key] for key in ("model", "concept", "seed", "method", "attack")},
        "file": f"pictures/{name}.png",
        "steps": STEPS,
        "prompts": PROMPTS,
        "seeds": [2000000 + n for n in range(len(PROMPTS))],
        "size": SIZE,
    }


def write(folder: Path, rows: list[dict[str, Any]], grid: dict[str, Any] | None = None, sheets: bool = True) -> None:
    """The folder as `gift bench` leaves it, without pieces and page."""
    (folder / "records.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    config = {"models": ["tiny"], "control": "esd", "search": {"trials": 24}} if grid is None else grid
    summary = {
        "grid": config,
        **summarise(rows),
        "pieces": {},
        "provenance": {"commit": "0123456789abcdef", "machine": {"cpus": 2, "torch": "2.13.0"}},
    }
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    listed = [sheet(row) for row in rows if row["seed"] == 0 and row["attack"] != "worst" and row["status"] != "failed"]
    (folder / "pictures.json").write_text(json.dumps(listed if sheets else []), encoding="utf-8")
    (folder / "pictures").mkdir(exist_ok=True)
    for place, entry in enumerate(listed if sheets else []):
        picture = Image.new("RGB", (SIZE * len(STEPS), SIZE * len(PROMPTS)), ((37 * place) % 256, 90, 160))
        picture.save(folder / entry["file"])


def every_cell() -> list[dict[str, Any]]:
    """All lines of the made-up grid."""
    return [cell(*key) for key in keys()]
