"""The main job end to end, on the bundled model with very small settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from gift.bench.beside import run_demo
from gift.bench.config import METHODS, AttackEntry, DemoConfig
from gift.bench.demo import Demo
from gift.bench.processes import cores
from gift.bench.result import Writer
from gift.errors import GiftError
from gift.models import TINY
from gift.report.page import write_page
from gift.training.progress import Silent

KEYS = {
    "method", "attack", "concept", "seed", "score_before", "score_after", "curve", "relearning_reduction", "steps_to_recover",
    "safe_accuracy", "fid", "defence_seconds", "attack_seconds", "peak_mb", "flags",
}  # fmt: skip
TIMES = {"defence_seconds", "attack_seconds", "peak_mb"}
SMALL = DemoConfig(
    steps=4,
    concept_pictures=6,
    safe_pictures=8,
    attack_pictures=6,
    evaluation_pictures=3,
    safe_evaluation_pictures=4,
    neighbour_pictures=0,
    sampler_steps=4,
    method_options={
        "esd": {"steps": 2, "sampler_steps": 3, "batch_size": 2},
        "ascent": {"steps": 2, "batch_size": 2},
        "imma": {"steps": 2, "batch_size": 2},
        "gift": {"steps": 2, "settle_steps": 1, "batch_size": 2, "attacker": {"steps": 2, "batch_size": 2}},
    },
)
FEW = SMALL.model_copy(
    update={
        "methods": ("gift",),
        "attacks": (AttackEntry(attack="lora"),),
        "method_options": {name: SMALL.method_options[name] for name in ("esd", "gift")},
    }
)
"""GIFT beside the controls, one attack."""
needs_model = pytest.mark.skipif(not (TINY / "model_index.json").exists(), reason="the bundled model has not been exported yet")


class StopAtMethod(Silent):
    """Stops the run when a method begins."""

    def say(self, text: str) -> None:
        if text.startswith("imma:"):
            raise KeyboardInterrupt


def finish(folder: Path, settings: DemoConfig = SMALL) -> dict[str, Any]:
    demo = Demo(settings, folder)
    return Writer(demo, demo.run()).write()


def untimed(rows: list[dict[str, Any]], *methods: str) -> list[dict[str, Any]]:
    """LoRA's rows, of these methods or of all, without their times."""
    chosen = (row for row in rows if row["attack"] == "lora" and (not methods or row["method"] in methods))
    return [{k: v for k, v in row.items() if k not in TIMES} for row in chosen]


@contextmanager
def half_the_threads() -> Iterator[None]:
    """As each of two processes has: sums of other numbers of threads may round differently."""
    kept = torch.get_num_threads()
    torch.set_num_threads(max(1, cores() // 2))
    try:
        yield
    finally:
        torch.set_num_threads(kept)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one unbroken run."""
    folder = tmp_path_factory.mktemp("demo") / "whole"
    with half_the_threads():
        finish(folder)
    return folder


@needs_model
@pytest.mark.slow
def test_rows_page_and_model_and_an_interrupted_run_goes_on(unbroken: Path, tmp_path: Path) -> None:
    whole = json.loads((unbroken / "result.json").read_text())
    assert all(set(row) == KEYS for row in whole["rows"])
    assert [(r["method"], r["attack"]) for r in whole["rows"]] == [
        (m, a) for m in METHODS for a in ("lora", "full", "full after 10")
    ]
    assert write_page(unbroken).is_file()
    far = {method["method"]: method["real"] for method in whole["methods"]}
    assert far["original"]["fid"] == far["original"]["original_fid"] == far["gift"]["original_fid"] != far["gift"]["fid"]
    StableDiffusionPipeline.from_pretrained(unbroken / "model")

    options = {name: SMALL.method_options[name] for name in ("esd", "imma")}
    part = SMALL.model_copy(update={"methods": ("imma",), "attacks": (AttackEntry(attack="lora"),), "method_options": options})
    with half_the_threads():
        with pytest.raises(KeyboardInterrupt):
            Demo(part, tmp_path, StopAtMethod()).run()
        kept = sorted((tmp_path / "work" / "pieces").iterdir())
        times = [piece.stat().st_mtime_ns for piece in kept]
        resumed = finish(tmp_path, part)
    assert [piece.stat().st_mtime_ns for piece in kept] == times, "finished pieces were computed again"
    assert json.loads((tmp_path / "result.json").read_text()) == resumed
    assert untimed(resumed["rows"]) == untimed(whole["rows"], "original", "esd", "imma")


def test_an_unknown_method_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(GiftError, match="no method 'magic'"):
        Demo(DemoConfig(methods=("magic",)), tmp_path)


@needs_model
@pytest.mark.slow
def test_two_processes_give_what_one_gives(unbroken: Path, tmp_path: Path) -> None:
    alone, kept = json.loads((unbroken / "result.json").read_text()), torch.get_num_threads()
    demo = Demo(FEW, tmp_path)
    both = Writer(demo, run_demo(demo, 2)).write()
    assert torch.get_num_threads() == kept
    shared = ("original", "esd", "gift")
    assert both["samples"] == [s for s in alone["samples"] if s["method"] in shared and s["attack"] in (None, "lora")]
    assert untimed(both["rows"]) == untimed(alone["rows"], *shared)


@needs_model
@pytest.mark.slow
def test_what_the_second_process_does_not_bring_the_first_one_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gift.bench.beside._work", nothing)
    options = {name: SMALL.method_options[name] for name in ("esd", "ascent")}
    demo = Demo(FEW.model_copy(update={"methods": ("ascent",), "method_options": options}), tmp_path)
    rows = Writer(demo, run_demo(demo, 2)).write()["rows"]
    assert [row["method"] for row in rows] == ["original", "esd", "ascent"]


def nothing(*given: object) -> None:
    """A second process that dies at once."""
