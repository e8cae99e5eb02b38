"""A small fake demonstration: numbers of the right shape and contact sheets of flat tiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.report.made_grid import every_cell, write

HORIZON = 150
STEPS = [0, 10, 30, 75, 150]
SINGLE = "single seed: no interval over seeds"
VOID = "inconclusive: the control did not recover the concept"
TITLES = {
    "original": ("Original", "The model as published, without any defence."),
    "esd": ("ESD", "Erases the concept from the model's predictions and leaves it open to fine-tuning."),
    "ascent": ("Loss ascent after ESD", "Raises the concept's training loss: the simplest conceivable defence."),
    "imma": ("IMMA after ESD", "Alternates a simulated adaptation with ascent at the adapted weights."),
    "gift": ("GIFT after ESD", "Noises the concept's representations while safe data keep the rest in place."),
}
ENDS = {"original": (0.98, 0.96), "esd": (0.9, 0.21), "ascent": (0.79, 0.13), "imma": (0.5, 0.2), "gift": (0.13, 0.04)}
STARTS = {"original": 0.94, "esd": 0.04, "ascent": 0.0, "imma": 0.0, "gift": 0.0}
SAFE = {"original": 0.91, "esd": 0.9, "ascent": 0.62, "imma": 0.83, "gift": 0.86}
NEAR = {"original": 0.88, "esd": 0.83, "ascent": 0.41, "imma": 0.66, "gift": 0.75}
FAR = {"original": 21.6, "esd": 23.1, "ascent": 40.2, "imma": 30.5, "gift": 22.4}
ATTACKS = {"lora": ("LoRA, rank 4", True, 0.9), "full": ("Full fine-tuning", False, 0.21)}


def row(method: str, attack: str) -> dict[str, Any]:
    """One result row; the curve rises evenly from the start to the end."""
    start, end = STARTS[method], ENDS[method][list(ATTACKS).index(attack)]
    curve = [[step, round(start + (end - start) * (step / HORIZON) ** 0.6, 3)] for step in STEPS]
    recovered = [step for step, score in curve if score >= 0.47]
    return {
        "method": method,
        "attack": attack,
        "concept": "mushroom",
        "seed": 0,
        "score_before": start,
        "score_after": end,
        "curve": curve,
        "relearning_reduction": None if method == "original" else round(1 - (end + 0.01) / (ENDS["esd"][0] + 0.01), 3),
        "steps_to_recover": recovered[0] if recovered else None,
        "safe_accuracy": SAFE[method],
        "fid": 0.0 if method == "original" else 1.3,
        "defence_seconds": 0.0 if method == "original" else 61.4,
        "attack_seconds": 31.7,
        "peak_mb": 912.4,
        "flags": [SINGLE] if ATTACKS[attack][1] else [SINGLE, VOID],
    }


def grid(method: str, attack: str | None, group: str, columns: int = 3, size: int = 8) -> dict[str, Any]:
    """One contact sheet's entry."""
    style = ["noto", "twemoji", "fluent"] * 2
    thing = "mushroom" if group == "concept" else "teapot"
    return {
        "method": method,
        "attack": attack,
        "step": 0 if attack is None else HORIZON,
        "group": group,
        "file": f"pictures/{method}-{attack or 'before'}-{group}.png",
        "prompts": [f"a {thing} in {name} style" for name in style],
        "seeds": list(range(1000, 1006)),
        "scores": [0.0, 1.0, 0.0, 0.5, 0.0, 0.0],
        "columns": columns,
        "size": size,
    }


def result() -> dict[str, Any]:
    """A whole record: five methods under two attacks, the second of which fails its positive control."""
    grids = [
        grid(m, a, g) for m in TITLES for a, g in ((None, "concept"), ("lora", "concept"), ("full", "concept"), (None, "safe"))
    ]
    tiles = ("prompts", "seeds", "scores")
    return {
        "version": "0.1.0",
        "commit": "0123456789abcdef",
        "created": "2025-11-25T04:20:00+00:00",
        "model": "tiny",
        "concept": "mushroom",
        "seed": 0,
        "horizon": HORIZON,
        "original_score": 0.94,
        "settings": {"gift": {"steps": 200, "noise": 1.0}, "sampling": {"steps": 15}},
        "machine": {"cpus": 2, "torch": "2.13.0", "python": "3.11.7"},
        "seconds": 543.2,
        "methods": [
            {
                "method": method,
                "title": title,
                "about": about,
                "arguments": {"steps": 200, "rate": 1e-4},
                "defence_seconds": 61.4,
                "peak_mb": 912.4,
                "score_before": STARTS[method],
                "safe_accuracy": SAFE[method],
                "fid": 1.3,
                "kid": 0.001,
                "real": {"fid": FAR[method], "kid": 0.02, "original_fid": FAR["original"], "original_kid": 0.01},
                "neighbours": {"names": ["toadstool", "acorn"], "score": NEAR[method], "original_score": NEAR["original"]},
                "flags": [],
            }
            for method, (title, about) in TITLES.items()
        ],
        "attacks": [
            {
                "attack": name,
                "title": title,
                "arguments": {"rate": 1e-3, "steps": HORIZON},
                "control_recovers": works,
                "control_score": score,
            }
            for name, (title, works, score) in ATTACKS.items()
        ],
        "rows": [row(method, attack) for method in TITLES for attack in ATTACKS],
        "samples": [
            {
                "method": g["method"],
                "attack": g["attack"],
                "step": g["step"],
                "group": g["group"],
                "prompt": p,
                "seed": s,
                "score": v,
            }
            for g in grids
            for p, s, v in zip(*(g[key] for key in tiles), strict=True)
        ],
        "grids": grids,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as `gift demo` leaves it, without the page."""
    record = result()
    (tmp_path / "pictures").mkdir()
    for place, entry in enumerate(record["grids"]):
        rows = -(-len(entry["prompts"]) // entry["columns"])
        Image.new("RGB", (entry["columns"] * entry["size"], rows * entry["size"]), (10 * place, 90, 160)).save(
            tmp_path / entry["file"]
        )
    (tmp_path / "result.json").write_text(json.dumps(record), encoding="utf-8")
    return tmp_path


@pytest.fixture
def grid_folder(tmp_path: Path) -> Path:
    """A folder as `gift bench` leaves it, without pieces and page."""
    write(tmp_path, every_cell())
    return tmp_path
