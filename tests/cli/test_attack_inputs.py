"""What `gift attack` takes beside a model and a concept: a public base, other pictures, and a search that is of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import gift
from gift.attacks import ATTACKS
from gift.bench import safe_after, worst
from gift.bench.space import SearchConfig, Space
from gift.bench.workbench import Workbench
from gift.cli.attack import checked
from gift.cli.main import app
from gift.errors import GiftError
from tests.conftest import art_pipeline, noise_pictures

FEW = {"pictures": 2, "evaluation_pictures": 2}
STEPS = ["--steps", "1", "--set", "batch_size=2", "--config", "few.yaml"]


@pytest.fixture
def here(art_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two models, a base of another architecture, and a folder of pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(art_model, target_is_directory=True)
    art_pipeline(seed=1).save_pretrained(tmp_path / "base")
    other = art_pipeline(seed=1)
    other.unet = type(other.unet)(**{**other.unet.config, "norm_num_groups": 2, "layers_per_block": 2})
    other.save_pretrained(tmp_path / "other")
    noise_pictures(tmp_path / "pictures", 3)
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(FEW))
    return tmp_path


def attack(*arguments: str, output: str = "out", concept: str = "ant", model: str = "model") -> tuple[int, str]:
    done = CliRunner().invoke(app, ["attack", model, "--concept", concept, *STEPS, "--output", output, *arguments])
    return done.exit_code, done.stderr


@pytest.mark.parametrize("name", [name for name, kind in ATTACKS.items() if kind.needs_base])
def test_attacks_that_lean_on_a_base_take_one(here: Path, name: str) -> None:
    assert attack("--attack", name, "--base", "base")[0] == 0
    losses = json.loads((here / "out" / "attack.json").read_text())["losses"]
    assert attack("--attack", name, "--base", "model", output="itself")[0] == 0
    assert losses != json.loads((here / "itself" / "attack.json").read_text())["losses"], "the base makes no difference"
    config = yaml.safe_load((here / "out" / "config.yaml").read_text())
    assert config["base"] == "base", "the written configuration repeats the run"
    code, said = attack("--attack", name)
    assert code == 2
    assert "give it with --base" in said
    code, said = attack("--attack", name, "--base", "other", output="fails")
    assert code == 2
    assert "is of another architecture" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--least-safe", "0.5"], "least_safe is for the attacks of a search"),
        (["--least-share", "0.5"], "least_share is for the attacks of a search"),
        (["--least-share", "1", "--search", "2"], "least_share"),
        (["--least-safe", "0", "--search", "2"], "least_safe"),
        (["--pictures-tried", "7"], "pictures_tried is for the attacks of a search"),
        (["--pictures-tried", "1", "--search", "2"], "pictures_tried"),
        (["--pictures-tried", "7", "--search", "2", "--concept-images", "pictures"], "pictures_tried is of bundled drawings"),
        (["--base", "base"], "attack 'lora' leans on no base model; leave it out"),
        (["--harmless-images", "pictures"], "attack 'lora' uses no harmless pictures; leave them out"),
        (["--attack", "sequence", "--harmless-images", "nowhere"], "nowhere"),
        (["--attack", "toward-base", "--base", "nowhere"], "no model 'nowhere'"),
        (["--pictures", "0"], "--pictures"),
    ],
)
def test_what_would_not_be_used_or_is_not_there_is_told(here: Path, arguments: list[str], says: str) -> None:
    code, said = attack(*arguments)
    assert code == 2
    assert says in said
    assert not (here / "out" / "attack.json").exists()


def test_so_many_drawings_as_are_asked_for(here: Path) -> None:
    losses = {}
    for given in (None, "1", "5"):
        assert attack(*(["--pictures", given] if given else []), output=f"of-{given}")[0] == 0
        losses[given] = json.loads((here / f"of-{given}" / "attack.json").read_text())["losses"]
        written = yaml.safe_load((here / f"of-{given}" / "config.yaml").read_text())
        assert written["pictures"] == int(given or FEW["pictures"])
    assert len({str(loss) for loss in losses.values()}) == 3


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_on_a_few_pictures_has_a_few_that_are_not_varied(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By default, from the command line, in a search and from the library alike."""
    few = {"dreambooth", "dreambooth-lora", "textual-inversion", "custom-diffusion"}
    for asked, drawings in ((None, 7 if name in few else 64), (12, 12)):
        chosen, how = checked({"model": "tiny", "concept": "ant", "attack": name, "pictures": asked, "base": "tiny", "search": 1})
        assert (chosen.pictures, how.name) == (drawings, name)
        assert chosen.pictures_tried == (7,), "a search tries a few, too"
        seen = []

        def judge(bench: Workbench, similarity: object, pictures: int, folder: object = None) -> None:
            seen.append(pictures)  # noqa: B023
            raise GiftError("seen")

        monkeypatch.setattr(Workbench, "judge", judge)
        with pytest.raises(GiftError, match="seen"):
            gift.attack("tiny", "ant", name, pictures=asked, base="tiny" if how.needs_base else None)
        with pytest.raises(GiftError, match="seen"):
            worst.find_worst(gift.load("tiny"), "ant", how, SearchConfig(), tmp_path, pictures=asked)
        assert seen == [drawings, drawings]


def test_numbers_of_drawings_are_tried_only_where_there_are_drawings_and_a_search() -> None:
    given = {"model": "tiny", "concept": "ant", "search": 1}
    for more, tried in (({"pictures_tried": [9, 3]}, (9, 3)), ({"concept_images": "mine"}, None), ({"search": 0}, None)):
        assert checked({**given, **more})[0].pictures_tried == tried


def test_harmless_pictures_of_the_users_own(here: Path) -> None:
    how = ["--attack", "sequence", "--set", "harmless_steps=1"]
    found = {}
    for name, more in (("drawn", []), ("mine", ["--harmless-images", "pictures"])):
        assert attack(*how, *more, output=name)[0] == 0
        found[name] = json.loads((here / name / "attack.json").read_text())["losses"]
    assert found["drawn"] != found["mine"]


def test_an_attack_that_never_sees_the_concept_says_so(here: Path) -> None:
    assert attack("--set", "harmless_steps=9", "--harmless-images", "pictures")[0] == 0
    assert "the attack never saw the concept" in json.loads((here / "out" / "attack.json").read_text())["flags"][0]


def test_a_search_with_a_base_tries_the_attacks_that_lean_on_one(here: Path) -> None:
    assert attack("--search", str(len(ATTACKS)), "--base", "base", "--harmless-images", "pictures")[0] == 0
    found = json.loads((here / "out" / "search.json").read_text())
    assert {trial["attack"] for trial in found["trials"]} == set(ATTACKS)
    again = yaml.safe_load((here / "out" / "worst.yaml").read_text())
    assert (again["base"] is not None) is ATTACKS[again["attack"]].needs_base
    done = CliRunner().invoke(app, ["attack", "--config", "out/worst.yaml", "--output", "again"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("changed", [{"model": "base"}, {"concept": "bee"}])
def test_a_search_of_another_model_or_concept_does_not_go_on(here: Path, changed: dict[str, str]) -> None:
    assert attack("--search", "1")[0] == 0
    files = {path: path.read_bytes() for path in (here / "out").rglob("*") if path.is_file()}
    code, said = attack("--search", "1", **changed)
    assert code == 2
    assert "is of a search with other settings, or of other weights or pictures" in said
    assert {path: path.read_bytes() for path in files} == files
    assert attack("--search", "1", "--restart", **changed)[0] == 0
    found = json.loads((here / "out" / "search.json").read_text())
    assert {key: found["config"][key] for key in changed} == changed


def test_a_search_is_bounded_as_it_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(model: object, concept: str, first: object, config: object, *rest: object, **more: object) -> None:
        seen.append(config)
        raise GiftError("seen")

    monkeypatch.setattr(worst, "find_worst", look)
    bounds = ["--least-safe", "0.75", "--least-share", "0.25", "--pictures-tried", "7", "--pictures-tried", "9"]
    code, said = attack("--search", "3", *bounds)
    assert code == 2, said
    assert seen == [SearchConfig(trials=3, least_safe=0.75, least_share=0.25, pictures_tried=(7, 9))]


def test_the_worst_attack_of_a_search_is_repeated_with_its_number_of_pictures(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    had, run = [], worst.attack_and_score

    def counted(model: Any, how: Any, data: Any, *rest: Any, **more: Any) -> Any:
        had.append(len(data))
        return run(model, how, data, *rest, **more)

    monkeypatch.setattr(worst, "attack_and_score", counted)
    monkeypatch.setattr(Space, "suggest", lambda space, trial: {**space.defaults("lora"), "pictures": 5})
    assert attack("--search", "1", "--pictures-tried", "5")[0] == 0
    assert had == [5]
    found = json.loads((here / "out" / "search.json").read_text())["worst"]
    again = yaml.safe_load((here / "out" / "worst.yaml").read_text())
    assert (found["pictures"], again["pictures"], again["pictures_tried"]) == (5, 5, None)
    done = CliRunner().invoke(app, ["attack", "--config", "out/worst.yaml", "--output", "again"])
    assert done.exit_code == 0, done.output
    curve = json.loads((here / "again" / "attack.json").read_text())["curve"]
    assert curve == found["curve"]


def test_a_search_among_attacks_that_leave_a_model(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([0.8, 0.3, 0.7])
    for where in (worst, safe_after):
        monkeypatch.setattr(where, "safe_accuracy", lambda bench, model: next(left))
    code, said = attack("--search", "2", "--least-safe", "0.75", "--least-share", "0.25")
    assert code == 0, said
    found = json.loads((here / "out" / "search.json").read_text())
    assert [(row["safe_left"], row["counts"]) for row in found["trials"]] == [
        (pytest.approx(0.375), False),
        (pytest.approx(0.875), True),
    ]
    assert found["worst"]["number"] == 1
    again = yaml.safe_load((here / "out" / "worst.yaml").read_text())
    assert (again["search"], again["least_safe"], again["least_share"]) == (0, None, None)
    assert attack("--config", "out/worst.yaml", output="again")[0] == 0
