"""The front door, as the README shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline

import gift
from gift.models import TINY

pytestmark = pytest.mark.skipif(not (TINY / "model_index.json").exists(), reason="the bundled model has not been exported yet")


@pytest.mark.slow
def test_load_immunize_save_attack(tmp_path: Path) -> None:
    model = gift.load("tiny")
    immune = gift.immunize(
        model,
        concept="mushroom",
        method="gift",
        steps=2,
        settle_steps=1,
        batch_size=2,
        attacker={"steps": 2, "batch_size": 2},
        concept_pictures=8,
        safe_pictures=8,
    )
    folder = immune.save(tmp_path / "out")
    StableDiffusionPipeline.from_pretrained(folder)
    curve = gift.attack(immune, concept="mushroom", attack="lora", steps=3, batch_size=2, evaluation_pictures=4, pictures=8)
    assert [step for step, _ in curve] == [0, 3]
    assert all(0 <= score <= 1 for _, score in curve)
    assert (curve.save(tmp_path / "lora") / "pytorch_lora_weights.safetensors").exists()


def test_several_concepts_share_the_batch() -> None:
    from gift.bench.workbench import Workbench

    bench = Workbench.of(gift.load("tiny"), ["mushroom", "style:openmoji"])
    both = bench.concept_set(8)
    assert both.weights is not None
    assert len(both) == 16
    assert any("mushroom" in p for p in both.prompts)
    assert any("openmoji" in p for p in both.prompts)
    assert not [p for p in bench.safe_set(20).prompts if "mushroom" in p or "openmoji" in p]


def test_losses_before_and_after_are_told_for_each_concept() -> None:
    losses: dict[str, dict[str, float]] = {}
    gift.immunize(
        "tiny",
        ["mushroom", "style:openmoji"],
        "ascent",
        steps=2,
        rate=1e-3,
        concept_pictures=4,
        safe_pictures=4,
        balance=[1, 3],
        told=losses.update,
    )
    assert list(losses) == ["mushroom", "style:openmoji", "safe"]
    assert all(found["pictures"] == 4 and found["before"] > 0 for found in losses.values())
    assert all(losses[name]["after"] > losses[name]["before"] for name in ("mushroom", "style:openmoji"))
    assert [losses[name].get("share") for name in losses] == [0.25, 0.75, None]


def test_an_attack_is_about_one_concept() -> None:
    with pytest.raises(gift.GiftError, match="run it once for each"):
        gift.attack("tiny", ["mushroom", "owl"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("unused", "says"), [({"base": "tiny"}, "leans on no base model"), ({"harmless_images": "mine"}, "uses no harmless pictures")]
)
def test_what_an_attack_would_not_use_is_told(unused: dict[str, Any], says: str) -> None:
    with pytest.raises(gift.GiftError, match=says):
        gift.attack("tiny", "mushroom", **unused)


@pytest.mark.parametrize("name", ["load", "immunize", "attack", "ATTACKS", "IMMUNIZERS", "Curve", "GiftError"])
def test_public_names(name: str) -> None:
    assert getattr(gift, name) is not None


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gift.nothing


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda m: gift.load("tiny", held_in="fp16"),  # type: ignore[arg-type]
            "precision to hold the weights in 'fp16'; did you mean bf16 or fp32",
        ),
        (lambda m: gift.load("tiny", size=0), "size 0: give a side in pixels"),
        (lambda m: gift.load(""), "the model is empty"),
        (lambda m: gift.immunize(m, "mushroom", concept_pictures=0), "concept_pictures=0: give at least 1"),
        (lambda m: gift.immunize(m, "mushroom", safe_pictures=0), "safe_pictures=0: give at least 1"),
        (
            lambda m: gift.immunize(
                m,
                "mushroom",
                method=["esd", "gift"],  # type: ignore[arg-type]
            ),
            "give one name, or several joined by",
        ),
        (
            lambda m: gift.immunize(
                m,
                None,  # type: ignore[arg-type]
            ),
            "the concept is None; give a name",
        ),
        (lambda m: gift.attack(m, "mushroom", evaluation_pictures=0), "evaluation_pictures=0: give at least 1"),
        (lambda m: gift.attack(m, "mushroom", pictures=0), "pictures=0: give at least 1"),
        (lambda m: gift.attack(m, "mushroom", pictures=-1), "pictures=-1: give at least 1"),
        (lambda m: gift.attack(m, "mushroom", rate=True), "attack 'lora': rate: give a number .given true."),
        (lambda m: gift.immunize(m, "mushroom", attacker={"steps": False}), "attacker.steps: give a number .given false."),
    ],
)
def test_what_a_caller_gets_wrong_is_told(call: Callable[[Any], object], says: str) -> None:
    model = gift.load("tiny")
    with pytest.raises(gift.GiftError, match=says) as caught:
        call(model)
    assert "\n" not in str(caught.value)


def test_folders_may_be_text(tmp_path: Path) -> None:
    cache, work = str(tmp_path / "cache"), str(tmp_path / "work")
    gift.attack(
        "tiny", "mushroom", steps=1, batch_size=1, pictures=2, evaluation_pictures=2, cache=cache, work=work, keep_work=True
    )
    assert list((tmp_path / "work").glob("step-*"))
    gift.immunize("tiny", "mushroom", "ascent", steps=1, batch_size=1, concept_pictures=2, safe_pictures=2, cache=cache, work=work)
    assert list((tmp_path / "cache").glob("*.safetensors"))
