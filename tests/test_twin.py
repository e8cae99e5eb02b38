"""A twin's training data hold nothing of what it must never see."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from gift.attacks import Lora
from gift.bench import never
from gift.data.art import load_art
from gift.files import write_json
from recipes.tiny import twin
from recipes.tiny.denoiser import without


def test_a_twin_sees_everything_but_its_concepts() -> None:
    art = load_art()
    objects, styles = (grid.flatten() for grid in torch.meshgrid(torch.arange(len(art.names)), torch.arange(6), indexing="ij"))
    seen = without(art, ["mushroom", "category:food", "style:openmoji"], objects, styles)
    kept = {(art.names[o], art.trained_styles[s]) for o, s in zip(objects[seen].tolist(), styles[seen].tolist(), strict=True)}
    food = [o.name for o in art.objects if o.category == "food"]
    assert food
    assert not any(name in {"mushroom", *food} or style == "openmoji" for name, style in kept)
    assert len(kept) == (len(art.names) - len(food) - 1) * 5
    assert bool(without(art, [], objects, styles).all())


def test_the_limit_is_measured_once_for_every_concept_never_seen(
    art_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(art_model, tmp_path / "model")
    write_json(tmp_path / "twin.json", {"never": ["mushroom", "ant"], "steps": 7})
    monkeypatch.setattr(twin, "FILE", tmp_path / "never.json")
    monkeypatch.setattr(never, "FILE", tmp_path / "never.json")
    twin.measure_limit(tmp_path, ["lora:batch_size=1,rank=2"], [0], 1)
    kept = (tmp_path / "never.json").read_bytes()
    found = json.loads(kept)
    assert [(entry["concept"], entry["twin_steps"]) for entry in found["curves"]] == [("mushroom", 7), ("ant", 7)]
    assert 0 <= found["twins"][0]["safe_accuracy"] <= 1
    described = {"name": "lora", **Lora(steps=1, batch_size=1, rank=2).model_dump(mode="json")}
    never.measured.cache_clear()
    assert never.never_learned("ant", described, 1) == [tuple(point) for point in found["curves"][1]["curve"]]
    never.measured.cache_clear()
    monkeypatch.setattr(twin, "attack_and_score", None)  # what is there is not measured again
    twin.measure_limit(tmp_path, ["lora:batch_size=1,rank=2"], [0], 1)
    assert (tmp_path / "never.json").read_bytes() == kept
