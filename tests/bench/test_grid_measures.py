"""What a cell's record says besides its curve, checked against the pieces' own pictures; and a grid with a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gift.bench import measured, safe_after, trained
from gift.bench.bench import Outcome, run_grid
from gift.bench.context import Context
from gift.bench.corner import Cell
from gift.bench.grid import Grid
from gift.bench.never import pictures_of
from gift.bench.plan import make_plan
from gift.bench.rows import _ladder
from gift.bench.safe_after import PICTURES
from gift.bench.search import search
from gift.bench.space import Space
from gift.bench.store import Store
from gift.bench.workbench import Workbench
from gift.data.art import load_art
from gift.data.latents import LatentSet
from gift.errors import GiftError
from gift.metrics.cmmd import cmmd
from gift.metrics.collapse import collapsed
from gift.metrics.concept import read
from gift.metrics.embedders import load_embedder
from gift.metrics.fidelity import Features, fid, kid
from gift.metrics.memory import memory
from gift.models import DenoisingModel, load
from tests.bench.small_grid import small_grid

Make = Callable[..., Grid]
METHODS = ["esd", "esd+imma"]
HARMLESS = {"steps": 2, "pictures": 4, "drawn": 4, "places": ["near inside"]}


@pytest.fixture
def make(art_model: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes small grids of two methods that are scored by the bundled recogniser, with one thread."""
    monkeypatch.undo()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lambda **changes: Grid(**small_grid(art_model, **{"methods": METHODS, **changes}))
    torch.set_num_threads(before)


def piece(folder: Path, cell: Cell, role: str) -> dict[str, Any]:
    """A piece of a finished grid."""
    found = Store(folder / "pieces").find(cell.pieces[role].kind, cell.pieces[role].content)
    assert found is not None
    return found


def cell_of(grid: Grid, method: str) -> Cell:
    return next(cell for cell in make_plan(grid).cells if cell.method == method)


def row_of(outcome: Outcome, method: str) -> dict[str, Any]:
    assert not outcome.failed, outcome.failed[0]["error"]
    return next(row for row in outcome.rows if row["method"] == method)


def test_every_number_is_that_of_the_kept_pictures(make: Make, tmp_path: Path) -> None:
    grid = make(similarity=["bundled", "bundled-lpips"], harmless=HARMLESS)
    outcome = run_grid(grid, tmp_path)
    row, cell = row_of(outcome, "esd+imma"), cell_of(grid, "esd+imma")
    taught = Workbench.of(load(cell.model), cell.concept, cell.seed).attack_images(4)
    attack, control = piece(tmp_path, cell, "attack"), piece(tmp_path, cell, "control")
    original = piece(tmp_path, cell, "original")["images"]
    last = attack["looks"][-1]["images"]
    assert len(last) == 6, "every scored picture is kept"
    copies = memory(last, taught)
    assert row["memory"]["nearest"] == pytest.approx(copies.minimum, abs=1e-3)
    assert row["memory"]["copied"] == pytest.approx(copies.copied)
    assert row["diversity_after"] == pytest.approx(collapsed(last, original).relative_diversity, abs=1e-5)
    safe = [piece(tmp_path, cell, "price")["images"]]
    reference = next(p for p in make_plan(grid).pieces.values() if p.kind == "price" and "defence" not in p.needs)
    safe.append((Store(tmp_path / "pieces").find("price", reference.content) or {})["images"])
    bench, art = Workbench.of(load(cell.model), cell.concept, cell.seed), load_art()
    asked = bench.safe_evaluation(len(safe[0]))
    drawn = bench._fitted(torch.stack([art.atlas(ask.style or "")[art.names.index(ask.name or "")] for ask in asked]))
    features = Features(bench.recogniser)
    for prefix, images in zip(("", "original_"), safe, strict=True):
        assert row["price"]["real"][f"{prefix}fid"] == pytest.approx(fid(drawn, images, features), rel=1e-4)
        assert row["price"]["real"][f"{prefix}kid"] == pytest.approx(kid(drawn, images, features)[0], rel=1e-4)
    assert row["price"]["real"]["fid"] != row["price"]["real"]["original_fid"] > 0
    again = bench.safe_evaluation(len(asked), again=True)
    assert [ask.prompt for ask in again] == [ask.prompt for ask in asked]
    assert not {ask.seed for ask in again} & {ask.seed for ask in asked}
    redrawn = bench.model.generate([ask.prompt for ask in again], [ask.seed for ask in again], steps=grid.sampler_steps)
    assert row["price"]["redrawn"]["fid"] == pytest.approx(fid(safe[1], redrawn, features), rel=1e-4)
    assert row["price"]["redrawn"]["kid"] == pytest.approx(kid(safe[1], redrawn, features)[0], rel=1e-4)
    assert row_of(outcome, "esd")["price"]["redrawn"] == row["price"]["redrawn"], "of the original alone"
    for key in ("bundled", "bundled-lpips"):
        by, found = load_embedder(key), row["similarity"][key]

        def curve(trial: dict[str, Any], by: Any = by) -> list[float]:
            return [sum(by.similarity(look["images"], taught)) / 6 for look in trial["looks"]]

        mine, theirs = curve(attack), curve(control)
        assert [score for _, score in found["curve"]] == pytest.approx(mine, abs=1e-4)
        rates = [(b - a) / b for a, b in zip(mine[1:], theirs[1:], strict=True)]
        assert found["gap"]["mean"] == pytest.approx(sum(rates) / len(rates), abs=1e-3)
        assert found["gap"]["last"] == pytest.approx(rates[-1], abs=1e-3)
        assert found["gap"]["highest"] == pytest.approx(max(rates), abs=1e-3)
        assert found["paired"] == pytest.approx(sum(by.paired(*safe)) / len(safe[0]), abs=1e-4)
        assert (found["cmmd"] is None) is (key == "bundled-lpips")
        assert found["relative_gap"] is not None
        for name, images in zip(("real_cmmd", "original_real_cmmd"), safe, strict=True):
            far = cmmd(by(images), by(drawn)) if key == "bundled" else None
            assert found[name] == (pytest.approx(far, abs=1e-5) if far else None)
    assert row["price"]["neighbours"]["names"] == list(piece(tmp_path, cell, "neighbours")["scores"])


def test_the_control_has_no_gap_to_itself_and_the_original_has_not_moved(make: Make, tmp_path: Path) -> None:
    outcome = run_grid(make(methods=["none", "esd"]), tmp_path)
    assert row_of(outcome, "esd")["similarity"]["bundled"]["gap"] == {"mean": 0.0, "last": 0.0, "highest": 0.0}
    untouched = row_of(outcome, "none")
    assert untouched["similarity"]["bundled"]["paired"] == pytest.approx(1)
    assert untouched["similarity"]["bundled"]["cmmd"] == pytest.approx(0, abs=1e-6)
    assert untouched["price"]["real"]["fid"] == untouched["price"]["real"]["original_fid"]
    assert untouched["price"]["diversity"] in {1.0, None}
    near = untouched["price"]["neighbours"]
    assert near["score"] == near["original_score"]


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"similarity": ["bundled", "bundled-lpips"]}, {"likeness", "shift"}),
        ({"similarity": []}, set()),
        ({"sizes": {"neighbour_pictures": 8}}, {"neighbours"}),
        ({"sizes": {"neighbour_pictures": 0}}, set()),
        ({"harmless": {**HARMLESS, "drawn": 5}}, {"harmless", "likeness"}),
    ],
    ids=["embedder", "no embedder", "neighbours", "no neighbours", "harmless"],
)
def test_a_measure_is_computed_without_attacking_again(make: Make, changes: dict[str, Any], kinds: set[str]) -> None:
    plain = make(harmless=HARMLESS).model_dump(mode="json")
    changes = {key: {**plain[key], **value} if isinstance(value, dict) else value for key, value in changes.items()}
    old, new = make_plan(Grid(**plain)), make_plan(Grid(**{**plain, **changes}))
    assert {found.kind for key, found in new.pieces.items() if key not in old.pieces} == kinds


def test_an_embedder_is_known_by_its_weights_and_not_by_its_place(make: Make, tmp_path: Path) -> None:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 16}
    folders = [tmp_path / name for name in ("one", "moved", "other")]
    for seed, folder in zip((0, 0, 1), folders, strict=True):
        torch.manual_seed(seed)
        CLIPVisionModelWithProjection(CLIPVisionConfig(**size, patch_size=8, projection_dim=4)).save_pretrained(folder)
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    one, moved, other = (set(make_plan(make(similarity=[f"clip:{folder}"])).pieces) for folder in folders)
    assert one == moved != other


def test_an_embedder_that_is_not_there_is_told_before_anything_is_computed(make: Make, tmp_path: Path) -> None:
    with pytest.raises(GiftError, match="no folder"):
        run_grid(make(similarity=[f"clip:{tmp_path / 'nowhere'}"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="similarity lists 'clip' twice"):
        make(similarity=["clip:a", "clip:b"])


def test_the_worst_attack_of_a_search_is_run_again_with_its_pictures(make: Make, tmp_path: Path) -> None:
    grid = make(search={"trials": 2, "kinds": ["lora", "full"]})
    outcome = run_grid(grid, tmp_path)
    assert not outcome.failed, outcome.failed[0]["error"]
    assert {row.get("pictures_found") for row in outcome.rows} == {None, grid.sizes.attack_pictures}
    (row,) = (row for row in outcome.rows if row["attack"] == "worst")
    assert row["method"] == "esd+imma"
    assert row["status"] in {"ok", "inconclusive"}
    trials = {trial["number"]: trial for trial in row["search"]["trials"]}
    worst = trials[row["search"]["worst"]]
    assert row["curve"] == worst["curve"], "the attack that was found does again what it did in the search"
    assert row["attack_found"] == {"name": worst["attack"], **worst["arguments"]}
    assert row["area"] == max(trial["area"] for trial in trials.values() if trial["area"] is not None)
    assert row["costs"]["search"]["steps"] == sum(trial["steps"] for trial in trials.values())
    assert row["similarity"]["bundled"]["curve"]
    assert any(file.stem.endswith(cell_of_worst(grid)) for file in (tmp_path / "pictures").iterdir())
    assert run_grid(grid, tmp_path).tally.computed == 0


def test_the_worst_attack_has_as_many_pictures_as_the_search_gave_it(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ask = [], Context.attack_set
    compared, compare = [], Workbench.attack_images

    def seen(context: Context, pictures: int) -> LatentSet:
        asked.append(pictures)
        return ask(context, pictures)

    def shown(bench: Workbench, pictures: int, *rest: Any) -> torch.Tensor:
        compared.append(pictures)
        return compare(bench, pictures, *rest)

    def few(space: Space, trial: Any) -> dict[str, Any]:
        return {**space.defaults("lora"), "pictures": 3}

    monkeypatch.setattr(Context, "attack_set", seen)
    monkeypatch.setattr(Workbench, "attack_images", shown)
    monkeypatch.setattr(Space, "suggest", few)
    monkeypatch.setattr(  # the default attack's number is another than the worst one's
        trained, "search", lambda *a, **k: (found := search(*a, **k)) | {"default": found["default"] | {"pictures": 4}}
    )
    outcome = run_grid(make(search={"trials": 1, "kinds": ["lora"], "pictures_tried": [3]}), tmp_path)
    assert not outcome.failed, outcome.failed[0]["error"]
    (row,) = (row for row in outcome.rows if row["attack"] == "worst")
    assert row["pictures_found"] == pictures_of(row) == 3
    assert row["curve"] == row["search"]["trials"][0]["curve"]
    assert asked.count(3) == 3, "in the trial, when it runs again, and on the control"
    assert compared.count(3) == 4, "for copies and for likeness, of either"


def test_only_attacks_that_leave_a_model_count_where_that_is_asked_for(
    make: Make, tmp_path: Path, art_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A made-up accuracy: full fine-tuning moves the last convolution, and with it leaves a third; LoRA and the defences don't."""
    original = load(art_model).denoiser.state_dict()["conv_out.weight"]

    def made_up(bench: Workbench, model: DenoisingModel) -> float:
        return 0.9 if torch.equal(model.denoiser.state_dict()["conv_out.weight"], original) else 0.3

    monkeypatch.setattr(measured, "safe_accuracy", made_up)
    monkeypatch.setattr(safe_after, "safe_accuracy", made_up)
    plain = make_plan(make())
    grid = make(attacks=["lora", "full"], safe_after=True, search={"trials": 2, "kinds": ["lora", "full"], "least_safe": 0.5})
    new = [piece for key, piece in make_plan(grid).pieces.items() if key not in plain.pieces]
    assert {piece.kind for piece in new} == {"safe", "attack", "search", "likeness"}, "nothing else is computed anew"
    weights = [piece.needs["defence"].key for piece in new if piece.kind == "safe"]
    assert len(weights) == len(set(weights)) == len(grid.everything()), "once for each weights, however many attacks"
    outcome = run_grid(grid, tmp_path)
    assert not outcome.failed, outcome.failed[0]["error"]
    for row in outcome.rows:
        after = 0.3 if row["attack"] == "full" else 0.9
        assert row["safe_after"] == {"pictures": PICTURES, "before": 0.9, "after": after}
    (worst,) = (row for row in outcome.rows if row["attack"] == "worst")
    assert [(trial["attack"], trial["counts"]) for trial in worst["search"]["trials"]] == [("lora", True), ("full", False)]
    assert worst["search"]["trials"][1]["safe_left"] == pytest.approx(1 / 3)
    assert worst["attack_found"]["name"] == "lora"
    assert not any("stronger attack" in flag for flag in worst["flags"])
    group = next(g for g in outcome.summary["groups"] if (g["method"], g["attack"]) == ("esd+imma", "full"))
    assert group["conclusive"] is (group["means"]["safe_after"] is not None)
    assert not group["conclusive"] or group["means"]["safe_after"]["mean"] == 0.3


@pytest.mark.parametrize("counts", [None, True, False])
def test_a_default_attack_that_leaves_too_little_to_count_is_no_measure_of_the_worst(counts: bool | None) -> None:
    """A search of an earlier version, or without a bound, does not say whether a trial counts."""
    search = {"default": {"area": 0.6, **({} if counts is None else {"counts": counts})}, "worst": {"area": 0.2}}
    assert _ladder(search) == ([] if counts is False else [("default", 0.6), ("worst of the search", 0.2)])


def test_safe_accuracy_is_that_of_the_first_prompts_of_the_price(art_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_after, "PICTURES", 7)
    model = load(art_model)
    bench = Workbench.of(model, "category:animal", 0)
    asks = bench.safe_evaluation(7)
    assert [ask.prompt for ask in asks] == [ask.prompt for ask in bench.safe_evaluation(20)][:7]
    images = model.generate([ask.prompt for ask in asks], [ask.seed for ask in asks])
    assert bench.art is not None
    first = [bench.art.names[int(row.argmax())] for row in read(bench.recogniser, images).objects]
    assert safe_after.safe_accuracy(bench, model) == sum(name == ask.name for name, ask in zip(first, asks, strict=True)) / 7


def test_safe_accuracy_of_words_that_the_recogniser_does_not_know_is_refused(random_model: DenoisingModel) -> None:
    with pytest.raises(GiftError, match="the recogniser does not know this model's words; leave least_safe or safe_after out"):
        safe_after.safe_accuracy(Workbench.of(random_model, "a fox", 0), random_model)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_share_that_is_left(before: int, after: int) -> None:
    left = safe_after.share_left({"before": before / 60, "after": after / 60})
    assert (left is None) is (before == 0)
    assert left is None or left * before == pytest.approx(after)
    assert safe_after.share_left(None) is None


def cell_of_worst(grid: Grid) -> str:
    return next(cell.name for cell in make_plan(grid).cells if cell.attack == "worst")
