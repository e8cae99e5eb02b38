"""A twin's training data hold nothing of what it must never see."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gift.attacks import Full, Lora
from gift.bench import never
from gift.bench.identity import model_identity
from gift.data.art import load_art
from gift.files import write_json
from gift.models import load
from recipes.tiny import twin
from recipes.tiny.denoiser import precision, without


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
    monkeypatch.setattr(twin, "SAFE_PICTURES", 6)
    monkeypatch.setattr(never, "FILE", tmp_path / "never.json")
    cases = twin.cases_of(tmp_path, ["lora:batch_size=1,rank=2"], [0], 1)
    twin.measure_limit(tmp_path, cases)
    kept = (tmp_path / "never.json").read_bytes()
    found = json.loads(kept)
    assert [(entry["concept"], entry["twin_steps"]) for entry in found["curves"]] == [("mushroom", 7), ("ant", 7)]
    assert 0 <= found["twins"][0]["safe_accuracy"] <= 1
    described = {"name": "lora", **Lora(steps=1, batch_size=1, rank=2).model_dump(mode="json")}
    never.measured.cache_clear()
    assert never.never_learned("ant", described, 1) == [tuple(point) for point in found["curves"][1]["curve"]]
    never.measured.cache_clear()
    with monkeypatch.context() as broken:
        broken.setattr(twin, "attack_and_score", None)  # what is there is not measured again
        twin.measure_limit(tmp_path, cases)
    assert (tmp_path / "never.json").read_bytes() == kept
    write_json(tmp_path / "twin.json", {"never": ["ant"], "steps": 7})  # another twin, trained as long
    twin.measure_limit(tmp_path, twin.cases_of(tmp_path, ["lora:batch_size=1,rank=2"], [0], 1))
    again = json.loads((tmp_path / "never.json").read_text())
    assert [told["never"] for told in again["twins"]] == [["mushroom", "ant"], ["ant"]]
    assert [entry["never"] for entry in again["curves"] if entry["concept"] == "ant"] == [["mushroom", "ant"], ["ant"]]
    assert [entry for entry in again["curves"] if entry["never"] != ["ant"]] == found["curves"]


def test_the_attacks_of_a_grid_s_records_are_measured_on_a_twin(
    art_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(art_model, tmp_path / "model")
    write_json(tmp_path / "twin.json", {"never": ["mushroom"], "steps": 7})
    monkeypatch.setattr(twin, "FILE", tmp_path / "never.json")
    monkeypatch.setattr(twin, "SAFE_PICTURES", 6)
    monkeypatch.setattr(never, "FILE", tmp_path / "never.json")
    listed = {"name": "lora", **Lora(steps=2, batch_size=1, rank=2).model_dump(mode="json")}
    found = {"name": "full", **Full(steps=2, batch_size=1, harmless_steps=1, rate=1e-3).model_dump(mode="json")}
    rows: list[dict[str, Any]] = [
        {"concept": "mushroom", "seed": 1, "status": "ok", "settings": {"attack": listed}},
        {"concept": "mushroom", "seed": 1, "status": "ok", "settings": {"attack": listed}},  # of another method: the same attack
        {"concept": "mushroom", "seed": 2, "status": "ok", "settings": {"attack": listed}, "attack_found": found},
        {"concept": "mushroom", "seed": 1, "status": "ok", "settings": {"attack": listed, "sizes": {"attack_pictures": 2}}},
        {"concept": "mushroom", "seed": 3, "status": "inconclusive", "settings": {"attack": listed}},
        {"concept": "ant", "seed": 1, "status": "ok", "settings": {"attack": listed}},  # the twin knows it
    ]
    (tmp_path / "records.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    seen, run = [], twin.attack_and_score

    def counted(model: Any, attack: Any, data: Any, *rest: Any, **more: Any) -> Any:
        seen.append(len(data))
        return run(model, attack, data, *rest, **more)

    monkeypatch.setattr(twin, "attack_and_score", counted)
    twin.measure_limit(tmp_path, twin.cases_in(tmp_path, [tmp_path]))
    kept = json.loads((tmp_path / "never.json").read_text())["curves"]
    assert [(entry["concept"], entry["attack"]["name"], entry["seed"], entry["pictures"]) for entry in kept] == [
        ("mushroom", "lora", 1, 48),
        ("mushroom", "full", 2, 48),
        ("mushroom", "lora", 1, 2),
    ]
    assert seen == [48, 48, 2]
    never.measured.cache_clear()
    of = json.loads((tmp_path / "never.json").read_text())["of"]
    assert of == model_identity(load("tiny"))
    least = never.limit_of({**rows[2], "model_identity": of, "curve": [[0, 0.0], [2, 0.5]], "control_curve": [[0, 0.5], [2, 1.0]]})
    assert least is not None
    assert least["score_after"] == kept[1]["curve"][-1][1], "the limit of what the search found, not of the attack that was listed"
    never.measured.cache_clear()


def test_forwards_are_in_bfloat16_where_asked_alone() -> None:
    a = torch.randn(4, 4)
    with precision(mixed=True):
        assert (a @ a).dtype is torch.bfloat16
    with precision(mixed=False):
        assert (a @ a).dtype is torch.float32
    assert (a @ a).dtype is torch.float32
