"""Benign adaptability: which object is taught, on what it is judged, and what the share means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gift.attacks import Full, Lora
from gift.bench.bench import run_grid
from gift.bench.config import PLACES
from gift.bench.grid import Grid
from gift.bench.harmless import adaptability, harmless_concept, held_out_loss, split, teach
from gift.bench.measured import _of_object, likeness
from gift.bench.plan import make_plan
from gift.bench.store import Store
from gift.bench.work import Work
from gift.bench.workbench import Workbench
from gift.data.art import load_art
from gift.data.attack_pictures import attack_pictures
from gift.data.latents import LatentSet
from gift.data.prompts import safe_asks
from gift.errors import GiftError
from gift.metrics.concept import read
from gift.metrics.recogniser import load_recogniser
from gift.models import DenoisingModel, load
from gift.models.sd import StableDiffusion
from gift.report.tables import taught
from tests.bench.small_grid import small_grid
from tests.conftest import same_state, state_of


@pytest.fixture
def bench(art_model: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes workbenches that judge likeness with the bundled recogniser."""
    monkeypatch.setattr("gift.bench.workbench.load_recogniser", load_recogniser)
    return lambda concept: Workbench.of(load(art_model), concept)


@pytest.mark.parametrize("concept", ["mushroom", "style:noto", "category:food"])
def test_places_are_what_they_say(bench: Any, concept: str) -> None:
    made, art = bench(concept), load_art()
    found = {where: harmless_concept(made, where, 60) for where in PLACES}
    taught = {ask.name for ask in safe_asks(made.concept, art, 60, 0)}
    for where, name in found.items():
        assert (name in taught) is where.endswith("inside")
        assert made.concept.kind == "style" or not made.concept.holds(art, name, "")
    assert len(set(found.values())) == 4


def test_near_is_nearer_than_far(bench: Any) -> None:
    made, art = bench("mushroom"), load_art()

    def drawn(name: str) -> torch.Tensor:
        return read(made.recogniser, torch.stack([art.picture(name, style) for style in art.styles])).embedding.mean(0)

    for side in ("inside", "outside"):
        near, far = (drawn(harmless_concept(made, f"{place} {side}", 60)) for place in ("near", "far"))  # type: ignore[arg-type]
        assert near @ drawn("mushroom") > far @ drawn("mushroom")


def test_a_set_that_leaves_nothing_out_is_told(bench: Any) -> None:
    with pytest.raises(GiftError, match="no harmless object is outside the safe set"):
        harmless_concept(bench("mushroom"), "near outside", 5000)


def test_the_held_out_loss_is_the_same_each_time_and_falls_with_training(
    random_model: StableDiffusion, concept_set: LatentSet
) -> None:
    before = state_of(random_model)
    train, held = split(concept_set)
    assert len(train) == len(held) == 3
    assert not torch.equal(train.latents, held.latents)
    assert held_out_loss(random_model, held) == held_out_loss(random_model, held)
    taught = teach(random_model, Full(steps=30, rate=1e-2, batch_size=3), concept_set, 0)
    assert taught["loss_before"] == held_out_loss(random_model, held)
    assert taught["loss_after"] < taught["loss_before"]
    assert same_state(state_of(random_model), before)


def test_nothing_is_gained_in_no_steps(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    taught = teach(random_model, Lora(steps=0), concept_set, 0)
    assert taught["loss_after"] == pytest.approx(taught["loss_before"])
    assert adaptability(taught, taught) is None or adaptability(taught, taught) == 1


@pytest.mark.parametrize(("after", "share"), [(0.2, 1.0), (0.6, 0.5), (1.0, 0.0), (1.4, -0.5), (0.0, 1.25)])
def test_the_share_by_hand(after: float, share: float) -> None:
    original = {"loss_before": 1.0, "loss_after": 0.2}
    assert adaptability(original, {"loss_before": 3.0, "loss_after": after}) == pytest.approx(share)
    assert adaptability({"loss_before": 0.2, "loss_after": 0.2}, original) is None


def test_a_grid_teaches_each_methods_weights_once(art_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    torch.set_num_threads(1)
    places = ("near inside", "far inside")
    harmless = {"steps": 2, "pictures": 4, "places": places}
    grid = Grid(**small_grid(art_model, methods=["none", "esd"], harmless=harmless, safe_after=True))
    outcome = run_grid(grid, tmp_path)
    kinds = [file.name.partition("-")[0] for file in (tmp_path / "pieces").iterdir()]
    assert kinds.count("harmless") == 4, "two places, two methods"
    untouched, erased = (row["adaptability"] for row in outcome.rows)
    assert set(untouched) == set(erased) == set(places)
    assert [untouched[where]["object"] for where in places] == [erased[where]["object"] for where in places]
    assert all(untouched[where]["share"] in {1.0, None} for where in places)
    assert run_grid(grid, tmp_path).tally.computed == 0
    (group, *_) = outcome.summary["groups"]
    assert "adaptability near inside" in group["means"]
    for where in places:
        assert 0 <= untouched[where]["safe"] == untouched[where]["original_safe"] == erased[where]["original_safe"] <= 1
        assert group["means"][f"left {where}, original"]["mean"] == untouched[where]["safe"]
    told = taught({**outcome.summary, "rows": outcome.rows})
    assert (
        told.splitlines()[0]
        == "| method | taught near inside | left after near inside | taught far inside | left after far inside |"
    )
    near = erased["near inside"]
    assert f"{near['safe']:.2f} ({near['original_safe']:.2f})" in told.splitlines()[3]


def test_what_is_left_is_the_taught_copys(random_model: StableDiffusion, safe_set: LatentSet) -> None:
    seen: list[DenoisingModel] = []

    def left(model: DenoisingModel) -> float:
        seen.append(model)
        return 0.25

    out = teach(random_model, Full(steps=1, batch_size=2), safe_set, 0, left=left)
    assert out["safe"] == 0.25
    assert not same_state(state_of(seen[0]), state_of(random_model))
    assert "safe" not in teach(random_model, Full(steps=1, batch_size=2), safe_set, 0)


def test_beside_a_style_nothing_harmless_is_drawn_in_it(art_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    harmless = {"steps": 1, "pictures": 4, "places": ("far inside",)}
    by_concept = {
        concept: make_plan(Grid(**small_grid(art_model, methods=["none"], concepts=[concept], harmless=harmless)))
        for concept in ("mushroom", "style:noto")
    }
    pieces = {c: [p for p in plan.pieces.values() if p.kind == "harmless"] for c, plan in by_concept.items()}
    assert all("without" not in piece.settings for piece in pieces["mushroom"])
    (piece, *_) = pieces["style:noto"]
    work = Work(tmp_path, piece)
    bench, name = _of_object(work, piece.settings["harmless"]), piece.settings["harmless"]
    assert not any("in noto style" in ask.prompt for ask in bench.asks(40))
    drawn = load_art().picture(name, "noto")
    styles = len(load_art().styles)
    taught, _ = attack_pictures(bench.concept, bench.art, styles - 1, 0)  # type: ignore[arg-type]
    assert not any(torch.equal(drawn, picture) for picture in taught), "each drawing but that one, as it is"
    plain, _ = attack_pictures(bench.concept, load_art(), styles, 0)
    assert any(torch.equal(drawn, picture) for picture in plain)
    likeness = [p for p in by_concept["style:noto"].pieces.values() if p.kind == "likeness" and p.settings["of"] == name]
    assert likeness
    assert all(p.settings["without"] == ["noto"] for p in likeness)


def test_an_attack_that_needs_more_than_pictures_is_refused(art_model: str) -> None:
    grid = Grid(**small_grid(art_model, harmless={"attack": "transplant"}))
    with pytest.raises(GiftError, match="can't teach harmless objects"):
        grid.check()


@pytest.mark.parametrize(
    ("name", "options"),
    [("textual-inversion", {}), ("dreambooth", {}), ("custom-diffusion", {}), ("lora", {"text_encoder": True})],
)
def test_an_attack_that_teaches_another_word_is_refused(art_model: str, name: str, options: dict[str, Any]) -> None:
    """What is held out, and what the taught weights draw, has the object's own words, as the untouched encoder reads them."""
    grid = Grid(**small_grid(art_model, harmless={"attack": name}, attack_options={name: options} if options else {}))
    with pytest.raises(GiftError, match="can't teach harmless objects: it changes words or text encoders"):
        grid.check()
    Grid(**small_grid(art_model, harmless={"attack": "full"})).check()


def test_likeness_is_to_the_pictures_that_were_taught(art_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than there are drawings, so that some are varied."""
    grid = Grid(**small_grid(art_model, methods=["none"], harmless={"steps": 1, "pictures": 9, "places": ["near inside"]}))
    piece = next(p for p in make_plan(grid).pieces.values() if p.kind == "likeness" and "harmless" in p.needs["drawn"].settings)
    drawn = piece.needs["drawn"]
    compared: list[torch.Tensor] = []

    class Seen:
        identity = piece.settings["embedder"]

        def similarity(self, images: torch.Tensor, taught: torch.Tensor) -> list[float]:
            compared.append(taught)
            return [0.0] * len(images)

    monkeypatch.setattr("gift.bench.measured.embedder", lambda place: Seen())
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    Store(tmp_path / "pieces").remember(drawn.kind, drawn.content, lambda: {"looks": [{"step": 1, "images": images}]})
    likeness(Work(tmp_path, piece))
    bench = _of_object(Work(tmp_path, drawn), drawn.settings["harmless"])
    assert len(compared[0]) == 9
    assert torch.equal(compared[0], bench.attack_images(18)[:9])
    assert not torch.equal(compared[0], bench.attack_images(9)), "whose varied ones are others"
