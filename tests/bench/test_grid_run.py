"""A grid end to end on random weights: computed once, shared, resumed, and the same whoever computes it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from gift.bench import compute
from gift.bench.bench import Outcome, run_grid
from gift.bench.grid import Grid
from gift.bench.plan import make_plan
from gift.bench.processes import Processes
from gift.bench.ray_runner import RayWorkers
from gift.bench.rows import without_times
from gift.bench.runner import Workers
from gift.bench.trained import defend
from gift.bench.work import Work
from gift.cli.main import app
from gift.errors import GiftError, Interrupted
from gift.immunizers.esd import EsdRun
from gift.models import load
from gift.training.progress import Silent
from tests.bench.small_grid import small_grid
from tests.conftest import Clock, StopAt, art_pipeline

Make = Callable[..., Grid]
EVERYTHING = {"set", "defence", "score", "price", "real", "redrawn", "neighbours", "attack", "likeness", "shift"}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes small grids of one model; no part of the library is patched, since other processes would not know."""
    folder = tmp_path_factory.mktemp("grid-model")
    art_pipeline().save_pretrained(folder)
    return lambda **changes: Grid(**small_grid(str(folder), **changes))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    """As the worker processes have: sums of other numbers of threads may round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def measured(outcome: Outcome) -> list[dict[str, Any]]:
    return without_times(outcome.rows)


def pieces(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (folder / "pieces").iterdir()}


class StopAfter(Silent):
    """Ends the run at the n-th training step of the whole grid, without a word to anyone."""

    def __init__(self, n: int, error: BaseException) -> None:
        self.left, self.error = n, error

    def step(self, done: int, logs: Mapping[str, float]) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error


def test_a_second_run_computes_nothing_and_the_records_are_the_same(
    make: Make, tmp_path: Path, finished: Path, first: Outcome
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    kept = pieces(tmp_path)
    files = {p.name: p.read_bytes() for p in (*(tmp_path / "cells").iterdir(), tmp_path / "records.jsonl")}
    second = run_grid(make(), tmp_path)
    assert (first.tally.computed, first.tally.found) == (len(kept), 0)
    assert (second.tally.computed, second.tally.found) == (0, len(kept))
    assert pieces(tmp_path) == kept
    assert {p.name: p.read_bytes() for p in (*(tmp_path / "cells").iterdir(), tmp_path / "records.jsonl")} == files
    assert [json.loads(line) for line in files["records.jsonl"].decode().splitlines()] == first.rows
    assert [(row["method"], row["attack"], row["status"]) for row in first.rows] == [
        (method, "lora", "ok") for method in ("none", "esd", "esd+gift", "esd+imma")
    ]
    assert not (tmp_path / "work").exists()


def test_chains_share_their_beginning_and_cells_their_control(make: Make) -> None:
    plan = make_plan(make())
    counts: dict[str, int] = {}
    for piece in plan.pieces.values():
        counts[piece.kind] = counts.get(piece.kind, 0) + 1
    assert counts == {
        "set": 2,
        "defence": 3,
        "redrawn": 1,
        **dict.fromkeys(("score", "price", "real", "neighbours", "attack", "likeness", "shift"), 4),
    }
    defences = {piece.settings["method"]: piece for piece in plan.pieces.values() if piece.kind == "defence"}
    assert defences["gift"].needs["start"].key == defences["imma"].needs["start"].key == defences["esd"].key
    assert len({cell.pieces["control"].key for cell in plan.cells}) == 1
    order = list(plan.pieces)
    assert all(order.index(need.key) < order.index(key) for key, piece in plan.pieces.items() for need in piece.before)


def test_a_defence_costs_what_all_of_its_legs_do(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(make(methods=["esd"]))
    piece = plan.cells[0].pieces["defence"]
    for earlier in plan.pieces.values():
        if earlier.kind == "set" or earlier is piece.gate:
            compute.remember(Work(tmp_path, earlier))
    clock = Clock()
    monkeypatch.setattr("gift.training.measure.time.perf_counter", clock)
    monkeypatch.setattr(EsdRun, "step", clock.lasting(EsdRun.step, 10))
    with pytest.raises(Interrupted):
        defend(Work(tmp_path, piece, StopAt(1)))
    assert defend(Work(tmp_path, piece))["seconds"] == 20


def test_an_attack_that_never_sees_the_concept_is_flagged(make: Make, tmp_path: Path) -> None:
    attacks = [
        {"attack": "lora", "name": name, "options": {"harmless_steps": first}}
        for name, first in (("none left", 11), ("too few", 8), ("some", 5))
    ]
    rows = run_grid(make(methods=["esd"], attacks=attacks), tmp_path).rows
    flags = {row["attack"]: row["flags"][0] for row in rows}
    assert flags["none left"] == "the attack never saw the concept: its 11 steps are all on harmless pictures"
    assert flags["too few"].startswith("too few steps (3) to tell")
    assert not flags["some"].startswith("too few")


def test_no_concept_of_a_group_counts_as_safe(make: Make, tmp_path: Path) -> None:
    """Where safe accuracy is measured after an attack, in a search, and after harmless lessons, as where it is for the price."""
    group = ["category:animal", "category:food", "style:noto"]
    grid = make(
        methods=["esd", {"chain": "esd+gift", "name": "3", "together": group}],
        safe_after=True,
        harmless={"steps": 1, "pictures": 4, "places": ["near inside"]},
        search={"trials": 1, "kinds": ["lora"], "least_safe": 0.1},
    )
    plan = make_plan(grid)
    cell = next(cell for cell in plan.cells if cell.method == "3" and "search" in cell.pieces)
    attack = cell.pieces["attack"]
    for piece in (attack, attack.needs["safe"], cell.pieces["search"], cell.pieces["harmless near inside"]):
        beside = Work(tmp_path, piece).beside
        assert list(map(str, beside.concepts)) == group
        named = [ask for ask in beside.safe_evaluation(60) if ask.style == "noto" or beside.art.object(ask.name).category == "food"]  # type: ignore[union-attr, arg-type]
        assert not named
        assert list(map(str, Work(tmp_path, piece).context.bench.concepts)) == group[:1], "what is attacked is one"
    control = cell.pieces["control"]
    assert list(map(str, Work(tmp_path, control).beside.concepts)) == group[:1]
    single = next(cell for cell in plan.cells if cell.method == "esd").pieces["attack"]
    assert "besides" not in single.settings, "one alone is kept as it was"


def test_a_method_against_several_concepts_at_once(make: Make, tmp_path: Path) -> None:
    group = ["style:emojione", "category:animal", "ant"]
    together = {"chain": "esd", "name": "esd, 3", "together": group}
    grid = make(
        concepts=["category:animal", "style:emojione", "bee"],
        methods=["esd", together],
        attacks=[{"attack": "lora", "options": {"steps": 2}}],
    )
    plan = make_plan(grid)
    cells = {(cell.concept, cell.method): cell for cell in plan.cells}
    assert [cells[concept, "esd, 3"].group for concept in grid.concepts] == [tuple(group)] * 2 + [("bee", *group)]
    shared = [cells[concept, "esd, 3"].pieces for concept in grid.concepts[:2]]
    for role in ("defence", "price"):
        assert shared[0][role].key == shared[1][role].key
        assert cells["bee", "esd, 3"].pieces[role].key not in {shared[0][role].key, cells["bee", "esd"].pieces[role].key}
    for role in ("score", "attack", "control", "neighbours"):
        assert shared[0][role].key != shared[1][role].key
    for concept in grid.concepts:
        assert cells[concept, "esd"].pieces["control"].key == cells[concept, "esd, 3"].pieces["control"].key
    order = list(plan.pieces)
    assert all(order.index(need.key) < order.index(key) for key, piece in plan.pieces.items() for need in piece.before)
    attack = {"attack": "lora", "options": {"steps": 2}, "pictures": 3}
    rows = run_grid(make(methods=["esd", together], attacks=[attack]), tmp_path).rows
    assert {row["settings"]["sizes"]["attack_pictures"] for row in rows} == {3}
    assert [(row["method"], row["concept"], row["settings"]["group"]) for row in rows] == [
        ("esd", "category:animal", []),
        ("esd, 3", "category:animal", group),
    ]
    cell = cells["category:animal", "esd, 3"]
    drawn = Work(tmp_path, cell.pieces["defence"].needs["concept"])
    joined = Work(tmp_path, cell.pieces["defence"]).latent_set("concept")
    assert any("ant" in prompt for prompt in joined.prompts)
    assert torch.equal(joined.weights, drawn.context.bench.concept_set(4).weights)  # type: ignore[arg-type]
    assert joined.mentions == drawn.context.bench.concept_set(4).mentions
    assert [row["error"] for row in rows] == [None, None]
    assert rows[0]["price"] != rows[1]["price"]


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"seeds": [1]}, EVERYTHING),
        ({"concepts": ["style:emojione"]}, EVERYTHING),
        ({"sampler_steps": 5}, EVERYTHING),
        ({"guidance": 3.0}, EVERYTHING),
        ({"guidance": 2.0}, set()),  # as it is without
        ({"horizon": 12}, {"attack", "likeness"}),
        ({"attack_options": {"lora": {"batch_size": 3}}}, {"attack", "likeness"}),
        ({"attacks": [{"attack": "lora", "name": "other name", "options": {"batch_size": 2}}]}, set()),
        ({"attacks": [{"attack": "lora", "options": {"optimiser": "adamw"}}]}, set()),
        ({"methods": ["esd"]}, set()),
        ({"sizes": {"safe_evaluation_pictures": 7}}, {"price", "real", "redrawn", "shift"}),
        ({"sizes": {"attack_pictures": 5}}, {"attack", "likeness"}),
        ({"attacks": [{"attack": "lora", "options": {"batch_size": 2}, "pictures": 5}]}, {"attack", "likeness"}),
        ({"sizes": {"evaluation_pictures": 7}}, {"score", "attack", "likeness"}),
        ({"method_options": {"gift": {"steps": 3}}}, EVERYTHING - {"set", "redrawn"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_what_changes_is_computed_again_and_nothing_else(make: Make, changes: dict[str, Any], kinds: set[str]) -> None:
    before = make()
    plain = before.model_dump(mode="json")
    merged = {
        key: {**plain[key], **{k: ({**plain[key].get(k, {}), **v} if isinstance(v, dict) else v) for k, v in value.items()}}
        if isinstance(value, dict)
        else value
        for key, value in changes.items()
    }
    old, new = make_plan(before), make_plan(Grid(**{**plain, **merged}))
    assert {piece.kind for key, piece in new.pieces.items() if key not in old.pieces} == kinds


def test_other_weights_at_the_same_place_are_another_model(art_model: str) -> None:
    grid = Grid(**small_grid(art_model))
    old = make_plan(grid)
    network = old.cells[0].model
    model = load(network)
    with torch.no_grad():
        next(model.denoiser.parameters()).add_(1e-3)
    model.save(art_model)
    assert not set(make_plan(grid).pieces) & set(old.pieces)


@pytest.mark.parametrize(
    ("after", "error"),  # of 2 + 3 + 22 training steps
    [*((after, KeyboardInterrupt()) for after in (1, 25)), (15, Interrupted("stop"))],
    ids=lambda value: str(value) or "Ctrl-C",
)
def test_a_grid_that_is_stopped_anywhere_goes_on_to_the_same_records(
    make: Make, tmp_path: Path, after: int, error: BaseException, whole: list[dict[str, Any]]
) -> None:
    grid = make(methods=["esd", "esd+gift"])
    with pytest.raises(type(error)):
        run_grid(grid, tmp_path, reporter=StopAfter(after, error))
    kept = pieces(tmp_path)
    assert not (tmp_path / "records.jsonl").exists()
    resumed = run_grid(grid, tmp_path)
    assert {name: at for name, at in pieces(tmp_path).items() if name in kept} == kept
    assert resumed.tally.found == len(kept)
    assert measured(resumed) == [row for row in whole if row["method"] in ("esd", "esd+gift")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small grid's folder after one unbroken run, `first`; a test copies it."""
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def first(make: Make, finished: Path) -> Outcome:
    """The small grid's one unbroken run."""
    return run_grid(make(), finished)


@pytest.fixture(scope="module")
def whole(finished: Path, first: Outcome) -> list[dict[str, Any]]:
    """The small grid's records from one unbroken run."""
    return without_times([json.loads(line) for line in (finished / "records.jsonl").read_text().splitlines()])


WILD = {"chain": "esd+ascent", "name": "wild", "options": {"ascent": {"rate": 1e30, "steps": 3, "batch_size": 2}}}
"""Its weights end as NaN."""


def expect_one_broken(outcome: Outcome, others: list[str]) -> None:
    states = {row["method"]: row["status"] for row in outcome.rows}
    assert states == {**dict.fromkeys(others, "ok"), "wild": "failed"}
    (broken,) = outcome.failed
    assert "NaN or infinite" in broken["error"] or "is nan" in broken["error"] or "is inf" in broken["error"]
    assert broken["error"].startswith("'defence esd+ascent (category:animal, seed 0)' failed: ")
    assert broken["settings"]["methods"]["ascent"]["rate"] == 1e30
    assert outcome.summary["cells"] == {"ok": len(others), "failed": 1}
    ranking = {entry["method"]: entry["place"] for entry in next(iter(outcome.summary["ranking"].values()))}
    assert ranking["wild"] is None


def test_two_processes_give_what_one_gives_though_a_cell_breaks_down(
    make: Make, tmp_path: Path, whole: list[dict[str, Any]]
) -> None:
    outcome = run_grid(
        make(methods=["none", "esd", WILD, "esd+gift", "esd+imma"]), tmp_path, lambda: Processes(tmp_path, 2, threads=1)
    )
    assert outcome.tally.computed == len(make_plan(make()).pieces)
    expect_one_broken(outcome, others=["none", "esd", "esd+gift", "esd+imma"])
    assert [row for row in measured(outcome) if row["method"] != "wild"] == whole


@pytest.mark.slow
def test_a_ray_cluster_of_two_workers_gives_what_one_process_gives(make: Make, tmp_path: Path, whole: list[dict[str, Any]]) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'gift-diffusion[ray]'")

    handler = signal.getsignal(signal.SIGTERM)

    def cluster() -> Workers:
        workers = RayWorkers(tmp_path, "local", jobs=2)
        assert signal.getsignal(signal.SIGTERM) is handler, "what stops a grid is not Ray's to change"
        return workers

    outcome = run_grid(make(), tmp_path, cluster)
    assert outcome.tally.computed == len(make_plan(make()).pieces)
    assert measured(outcome) == whole


def test_a_cell_that_breaks_down_is_recorded_and_the_rest_goes_on(make: Make, tmp_path: Path) -> None:
    expect_one_broken(run_grid(make(methods=["esd", WILD, "esd+imma"]), tmp_path), others=["esd", "esd+imma"])


def test_a_fault_of_ours_is_recorded_with_its_traceback(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*args: Any) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setitem(compute.KINDS, "price", fault)
    outcome = run_grid(make(methods=["esd"]), tmp_path)
    assert outcome.rows[0]["error"].endswith("ZeroDivisionError: oh")
    (trace,) = (tmp_path / "work").glob("*.traceback.txt")
    assert "in fault" in trace.read_text()


def test_a_concept_that_the_original_never_draws_costs_no_defence(make: Make, tmp_path: Path) -> None:
    outcome = run_grid(make(concepts=["mushroom", "category:animal"], methods=["esd"]), tmp_path)
    assert [row["status"] for row in outcome.rows] == ["failed", "ok"]
    assert "never draws 'mushroom'" in outcome.rows[0]["error"]
    wanted = {key for key, piece in make_plan(make(concepts=["category:animal"], methods=["esd"])).pieces.items()}
    assert outcome.tally.computed == 1 + len(wanted), "one score, and all of the other concept"


def test_damaged_and_lost_pieces_are_computed_again(
    make: Make, tmp_path: Path, finished: Path, whole: list[dict[str, Any]]
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    lost, cut, *_ = sorted((tmp_path / "pieces").iterdir())
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    again = run_grid(make(), tmp_path)
    assert again.tally.computed == 2
    assert measured(again) == whole


def test_cells_of_another_grid_leave_the_folder(make: Make, tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    fewer = run_grid(make(methods=["esd", "esd+imma"]), tmp_path)
    assert fewer.tally.computed == 0
    assert len(list((tmp_path / "cells").iterdir())) == len(fewer.rows) == 2


@pytest.fixture(scope="module")
def longer(make: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Grid, list[dict[str, Any]]]:
    """A grid whose attacks are long enough to have checkpoints, and its records from one unbroken run."""
    grid = make(horizon=60, methods=["esd"])
    return grid, measured(run_grid(grid, tmp_path_factory.mktemp("longer")))


@pytest.mark.slow
def test_a_killed_process_leaves_a_grid_that_goes_on_to_the_same_records(
    longer: tuple[Grid, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """SIGKILL while there are both finished pieces and a checkpoint to go on from: nobody can tidy up."""
    grid, unbroken = longer
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid.model_dump(mode="json")))
    out = tmp_path / "cut"
    files = [str(tmp_path / "grid.yaml"), "--output", str(out)]
    command = [sys.executable, "-m", "gift.cli.main", "bench", *files, "--threads", "1", "--jobs", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 240
    while not (list(out.glob("pieces/defence-*")) and list(out.glob("work/*/step-*50"))):  # of the attack: ESD has two steps
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "nothing to kill it at within four minutes"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    kept = pieces(out)
    assert not (out / "records.jsonl").exists()
    resumed = CliRunner().invoke(app, ["bench", *files, "--threads", "1", "--jobs", "1"])
    assert resumed.exit_code == 0, resumed.output
    assert all(pieces(out)[name] == at for name, at in kept.items())
    rows = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert without_times(rows) == unbroken
    assert f"{len(kept)} found" in resumed.stdout
    assert "going on from step" in resumed.stderr


def test_a_missing_need_is_told(make: Make, tmp_path: Path) -> None:
    piece = next(piece for piece in make_plan(make()).pieces.values() if piece.kind == "defence")
    with pytest.raises(GiftError, match="missing or damaged"):
        compute.remember(Work(tmp_path, piece))
