"""The demo on random weights: the protocol's books, without the bundled model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gift.bench.config import DemoConfig
from gift.bench.demo import Demo
from gift.bench.neighbours import neighbour_scores, neighbours
from gift.bench.result import Writer
from gift.cli.output import begin_afresh
from gift.errors import GiftError, Interrupted
from gift.immunizers.esd import EsdRun
from gift.metrics.concept import mean
from gift.models import load
from gift.report.evidence import read_evidence
from gift.report.page import write_page
from gift.training.progress import Silent
from tests.bench.conftest import SMALL
from tests.conftest import Clock, Heard, StopAt, art_pipeline, random_recogniser

Small = Callable[..., dict[str, Any]]
TIMES = {"defence_seconds", "attack_seconds", "peak_mb"}


class StopAfter(Silent):
    """Stops at the n-th training step of the whole demo, wherever that is."""

    def __init__(self, n: int, error: type[BaseException]) -> None:
        self.left, self.error = n, error

    def step(self, done: int, logs: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error


def brightness(images: torch.Tensor) -> list[float]:
    """Stands in for the recogniser: differs wherever a picture does."""
    return [float(image.float().mean() / 255) for image in images]


def make(options: dict[str, Any], folder: Path, reporter: Silent | None = None) -> Demo:
    demo = Demo(DemoConfig(**options), folder, reporter)
    demo.scorer = brightness  # type: ignore[assignment]
    return demo


def finish(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    demo = make(options, folder)
    return Writer(demo, demo.run()).write()


def measured(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in record["rows"]]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and the record of the demo from one unbroken run."""
    folder = tmp_path_factory.mktemp("unbroken")
    art_pipeline().save_pretrained(folder / "art-model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gift.bench.workbench.load_recogniser", random_recogniser)
        return folder / "whole", finish({**SMALL, "model": str(folder / "art-model")}, folder / "whole")


def test_the_controls_are_always_there_and_the_page_opens(unbroken: tuple[Path, dict[str, Any]]) -> None:
    folder, whole = unbroken
    assert [(r["method"], r["attack"]) for r in whole["rows"]] == [
        (method, attack) for method in ("original", "esd", "ascent", "gift") for attack in ("lora", "full", "full after 10")
    ]
    assert {name for m in whole["methods"] for name in m["arguments"]} == {"none", "esd", "ascent", "gift"}
    assert all(0 <= s["score"] <= 1 for s in whole["samples"])
    unseen = [row["attack"] for row in whole["rows"] if any("never saw the concept" in flag for flag in row["flags"])]
    assert unseen == ["full after 10"] * 4, "three steps, all of them harmless"
    assert all((folder / grid["file"]).is_file() for grid in whole["grids"])
    assert write_page(folder).is_file()


@pytest.mark.parametrize(("after", "error"), [(2, KeyboardInterrupt), (11, Interrupted), (20, KeyboardInterrupt)])
def test_a_demo_that_is_stopped_anywhere_goes_on_to_the_same_rows(
    small: Small, unbroken: tuple[Path, dict[str, Any]], tmp_path: Path, after: int, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        make(small(), tmp_path / "cut", StopAfter(after, error)).run()
    assert not (tmp_path / "cut" / "result.json").exists()
    assert measured(finish(small(), tmp_path / "cut")) == measured(unbroken[1])


def test_what_a_defence_does_to_the_concepts_neighbours_is_in_the_record_and_on_the_page(small: Small, tmp_path: Path) -> None:
    few: dict[str, Any] = {"methods": ("original",), "attacks": ("lora",), "neighbour_pictures": 4}
    few["method_options"] = {"esd": {"steps": 3, "sampler_steps": 3, "batch_size": 2}}
    record = finish(small(**few), tmp_path)
    told = {method["method"]: method["neighbours"] for method in record["methods"]}
    demo = make(small(**few), tmp_path / "again")
    names = [str(concept) for concept in neighbours(demo.bench)]
    assert list(told) == ["original", "esd"]
    assert all(found["names"] == names for found in told.values())
    scores = {
        "original": neighbour_scores(demo.bench, demo.bench.model, 4)["scores"],
        "esd": neighbour_scores(demo.bench, demo.defend("esd").model, 4)["scores"],
    }
    expected = {name: mean([score for part in found.values() for score in part]) for name, found in scores.items()}
    for name, found in told.items():
        assert (found["score"], found["original_score"]) == (expected[name], expected["original"])
    page = write_page(tmp_path).read_text(encoding="utf-8")
    assert all(name in page for name in names)


def test_an_attack_may_have_a_name_and_begin_with_harmless_pictures(small: Small, tmp_path: Path) -> None:
    later = {"attack": "full", "name": "full/later", "options": {"harmless_steps": 1}}
    few: dict[str, Any] = {
        "methods": ("original",),
        "attacks": ("full", later),
        "method_options": {"esd": {"steps": 1, "sampler_steps": 3, "batch_size": 2}},
    }
    record = finish(small(**few), tmp_path)
    plain, changed = ([row for row in record["rows"] if row["attack"] == name] for name in ("full", "full/later"))
    assert len(plain) == len(changed) == 2
    assert [row["curve"] for row in plain] != [row["curve"] for row in changed]
    assert [attack["title"] for attack in record["attacks"]] == ["Full fine-tuning", "Full fine-tuning after 1 harmless step"]
    assert "full-later" in " ".join(grid["file"] for grid in record["grids"])
    assert all((tmp_path / grid["file"]).is_file() for grid in record["grids"])
    assert "after 1 harmless step" in write_page(tmp_path).read_text(encoding="utf-8")


def test_an_attack_may_have_steps_of_its_own(small: Small, tmp_path: Path) -> None:
    """Each has a contact sheet of its last step, its own name and its own horizon on the page."""
    lengths = {"full": SMALL["steps"], "short": 1, "long": SMALL["steps"] + 1}
    few: dict[str, Any] = {
        "methods": ("original",),
        "attacks": ("full", *({"attack": "full", "name": name, "options": {"steps": lengths[name]}} for name in ("short", "long"))),
        "method_options": {"esd": {"steps": 1, "sampler_steps": 3, "batch_size": 2}},
    }
    record = finish(small(**few), tmp_path)
    after = {(grid["attack"], grid["step"]) for grid in record["grids"] if grid["attack"] and grid["group"] == "concept"}
    assert after == set(lengths.items())
    titles = {attack["attack"]: attack["title"] for attack in record["attacks"]}
    assert titles == {name: f"Full fine-tuning ({name})" for name in lengths}
    assert record["horizon"] == max(lengths.values())
    for row in record["rows"]:
        row["steps_to_recover"] = None
    (tmp_path / "result.json").write_text(json.dumps(record))
    page = write_page(tmp_path).read_text(encoding="utf-8")
    assert f"after at most {max(lengths.values())} steps" in page
    for name, steps in lengths.items():
        assert f"not within {steps} steps" in page
        assert f"{steps} steps of full fine-tuning ({name})" in page


def test_an_attack_may_have_pictures_of_its_own_number(small: Small, tmp_path: Path) -> None:
    options: dict[str, Any] = {"harmless_steps": 1}
    few: dict[str, Any] = {
        "methods": ("original",),
        "attacks": ({"attack": "full", "options": options}, {"attack": "full", "name": "few", "options": options, "pictures": 2}),
        "method_options": {"esd": {"steps": 1, "sampler_steps": 3, "batch_size": 2}},
    }
    demo = make(small(**few), tmp_path)
    for attack, pictures in (("full", SMALL["attack_pictures"]), ("few", 2)):
        assert len(demo.attack_set(attack)) == len(demo.harmless(attack) or ()) == pictures
    record = Writer(demo, demo.run()).write()
    for method in ("original", "esd"):
        plain, changed = (row["curve"] for row in record["rows"] if row["method"] == method)
        assert plain[0] == changed[0]
        assert plain != changed
    cells = read_evidence(tmp_path).cells
    assert {cell.attack: cell.pictures for cell in cells} == {"full": SMALL["attack_pictures"], "few": 2}


def test_a_concept_that_the_original_never_draws_shows_nothing(small: Small, tmp_path: Path) -> None:
    demo = make(small(), tmp_path)
    demo.scorer = lambda images: [0.0] * len(images)  # type: ignore[assignment]
    with pytest.raises(GiftError, match="never draws 'category:food'"):
        demo.run()


@pytest.mark.parametrize("part", ["esd", "gift"])
def test_options_of_any_part_of_a_chain_count_in_what_is_kept_and_told(small: Small, tmp_path: Path, part: str) -> None:
    changed = {**small()["method_options"], part: {"steps": 2}}
    one, other = Demo(DemoConfig(**small()), tmp_path), Demo(DemoConfig(**small(method_options=changed)), tmp_path)
    assert one.settings("esd+gift") != other.settings("esd+gift")
    assert {m.name: m.steps for m in other.methods("esd+gift")}[part] == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"methods": ("magic",)}, "no method 'magic'"),
        ({"attacks": ("magic",)}, "no attack 'magic'"),
        ({"attacks": ("lora", {"attack": "lora", "options": {"rank": 4}})}, "one name twice"),
        ({"attacks": ("lora", {"attack": "full", "name": "lora"})}, "one name twice"),
        ({"attacks": ({"attack": "full", "options": {"speed": 1}},)}, "option of attack 'full' 'speed'"),
        ({"method_options": {"magic": {}}}, "method_options 'magic'"),
        ({"method_options": {"gift": {"speed": 1}}}, "option of method 'gift' 'speed'"),
        ({"attack_options": {"lara": {}}}, "did you mean lora"),
        ({"attack_options": {"lora": {"rate": "fast"}}}, "rate"),
        ({"concept": "mushrom"}, "did you mean mushroom"),
    ],
)
def test_what_cannot_run_is_told_before_anything_is_computed(
    small: Small, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(GiftError, match=says):
        Demo(DemoConfig(**small(**changes)), tmp_path)
    assert not list(tmp_path.glob("work/*"))


def test_other_weights_under_the_same_path_are_another_demo(small: Small, art_model: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(art_model, folder)
    options = {**small(), "model": str(folder)}
    demo = make(options, tmp_path / "out")
    first = demo.score("original", demo.bench.model).scores
    halved = load(folder)
    for weight in halved.denoiser.parameters():
        weight.data *= 0.5
    halved.save(folder)
    again, fresh = (make(options, tmp_path / out) for out in ("out", "fresh"))
    scores = [each.score("original", each.bench.model).scores for each in (again, fresh)]
    assert scores[0] == scores[1] != first


def test_a_demo_that_begins_afresh_keeps_nothing(small: Small, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(small(), tmp_path, StopAfter(8, KeyboardInterrupt)).run()
    work = tmp_path / "work"
    pieces, heard = list((work / "pieces").iterdir()), Heard()
    assert pieces
    begin_afresh(False, work / "checkpoints", heard.say, work / "pieces")
    assert list((work / "pieces").iterdir()) == pieces
    begin_afresh(True, work / "checkpoints", heard.say, work / "pieces")
    assert not [path for path in work.rglob("*") if path.is_file()]
    assert any("finished parts" in line for line in heard.lines)


def test_a_defence_costs_what_all_of_its_legs_do(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("gift.training.measure.time.perf_counter", clock)
    monkeypatch.setattr(EsdRun, "step", clock.lasting(EsdRun.step, 10))
    with pytest.raises(Interrupted):
        make(small(), tmp_path, StopAt(2)).defend("esd")
    assert make(small(), tmp_path).defend("esd").seconds == 30
