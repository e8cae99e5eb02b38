"""The documentation holds: its examples keep the contracts, its commands and grids can be given, its links lead somewhere."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
import yaml

from gift.attacks import ATTACKS, Attack
from gift.bench.grid import Grid
from gift.bench.rows import FACTOR
from gift.bench.summary import AVERAGED, ENDED, LEAST_SAFE
from gift.cli.main import app
from gift.errors import GiftError
from gift.immunizers import IMMUNIZERS, Immunizer
from gift.metrics.flags import LEAST_SEEDS
from gift.models.sd import StableDiffusion
from gift.settings import make_attack, make_immunizers, parse_options
from tests.attacks import test_contract as attacks
from tests.attacks.test_contract import base, concept_set, fine_tune  # noqa: F401 - fixtures
from tests.immunizers import test_contract as immunizers
from tests.immunizers.test_contract import sets  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FIXTURES = {"random_model", "base", "sets", "fine_tune", "concept_set", "safe_set", "tmp_path", "monkeypatch"}

Promise = Callable[..., None]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language in a page."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"))


def promises(contract: ModuleType, *rows: pytest.MarkDecorator) -> list[Any]:
    """The tests of a contract that every row of its table is held to, and that take nothing else but fixtures."""
    tests = [test for name, test in vars(contract).items() if name.startswith("test_")]
    held = [test for test in tests if any(row.mark in getattr(test, "pytestmark", ()) for row in rows)]
    return [pytest.param(test, id=test.__name__) for test in held if set(inspect.signature(test).parameters) <= FIXTURES | {"how"}]


ATTACK_PROMISES = promises(attacks, attacks.every)
IMMUNIZER_PROMISES = promises(immunizers, immunizers.every, immunizers.changing, immunizers.moving)


@pytest.fixture
def example(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports an example of the page as a file of its own; what it registers is taken back afterwards."""
    before = set(ATTACKS), set(IMMUNIZERS)

    def load(word: str) -> ModuleType:
        (text,) = [block for block in blocks(ROOT / "docs" / "extending.md", "python") if word in block]
        file = tmp_path_factory.mktemp("example") / f"{word.lower()}_example.py"
        file.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, file.stem, module)  # pydantic and pickle look there
        spec.loader.exec_module(module)
        return module

    yield load
    for name in set(ATTACKS) - before[0]:
        del ATTACKS[name]
    for name in set(IMMUNIZERS) - before[1]:
        del IMMUNIZERS[name]


@pytest.fixture
def shaken(example: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Attack:
    """The page's attack, small, with a rate at which forty steps teach the random model something."""
    example("Shaken")
    how = make_attack("shaken", {"steps": 5, "batch_size": 2})
    monkeypatch.setitem(attacks.RATES, how, 1e-2)
    return how


@pytest.fixture
def redirect(example: Callable[[str], ModuleType]) -> Immunizer:
    """The page's immunizer, small."""
    example("Redirect")
    (how,) = make_immunizers("redirect", {"steps": 4, "batch_size": 2})
    return how


def keep(promise: Promise, how: Attack | Immunizer, request: pytest.FixtureRequest) -> None:
    names = inspect.signature(promise).parameters
    promise(**{name: how if name == "how" else request.getfixturevalue(name) for name in names})


@pytest.mark.parametrize("promise", ATTACK_PROMISES)
def test_the_attack_keeps_every_promise(promise: Promise, shaken: Attack, request: pytest.FixtureRequest) -> None:
    keep(promise, shaken, request)


@pytest.mark.parametrize("promise", IMMUNIZER_PROMISES)
def test_the_immunizer_keeps_every_promise(promise: Promise, redirect: Immunizer, request: pytest.FixtureRequest) -> None:
    keep(promise, redirect, request)


def test_the_contracts_are_not_empty() -> None:
    assert len(ATTACK_PROMISES) >= 7
    assert len(IMMUNIZER_PROMISES) >= 7


def test_the_examples_are_registered_and_taken_back(example: Callable[[str], ModuleType]) -> None:
    assert "shaken" not in ATTACKS
    assert "redirect" not in IMMUNIZERS
    assert ATTACKS[example("Shaken").Shaken.name] is not None
    example("Redirect")
    grid = Grid(concepts=("ant",), seeds=(0,), methods=({"chain": "redirect+gift"},), attacks=({"attack": "shaken"},))  # type: ignore[arg-type]
    grid.check()


def test_a_name_that_nobody_registered_is_unknown() -> None:
    with pytest.raises(GiftError, match="no attack 'shaken'"):
        make_attack("shaken")


def test_shaking_moves_weights_that_training_at_rate_zero_would_not(shaken: Attack, random_model: StableDiffusion) -> None:
    still = shaken.model_copy(update={"noise": 0.0})
    models = [random_model.copy() for _ in range(3)]
    for how, model, seed in zip((shaken, shaken, still), models, (1, 1, 1), strict=True):
        how.prepare(model, None, seed)
    states = [attacks.whole_state(model) for model in (*models, random_model)]
    assert attacks.same_state(states[0], states[1])
    assert attacks.same_state(states[2], states[3])
    assert attacks.moved(states[0], states[3])
    assert all(".attn" in name for name in attacks.moved(states[0], states[3]))


def commands(page: Path) -> list[str]:
    """Lines that begin with `gift`, in blocks that are fenced or indented."""
    fenced = [line for block in blocks(page, "sh") for line in block.splitlines() if line.startswith("gift ")]
    return fenced + re.findall(r"(?m)^    (gift .*)$", page.read_text(encoding="utf-8"))


@pytest.fixture
def examples(example: Callable[[str], ModuleType]) -> None:
    """Both examples, registered."""
    example("Shaken")
    example("Redirect")


@pytest.mark.parametrize("line", [line for page in PAGES for line in commands(page)])
@pytest.mark.usefixtures("examples")
def test_every_command_can_be_given(line: str) -> None:
    _, verb, *rest = shlex.split(line, comments=True)
    context = typer.main.get_command(app).commands[verb].make_context(verb, rest)  # type: ignore[attr-defined]
    assert not context.args
    given = context.params
    options = parse_options(given.get("settings") or [])
    if verb == "attack":
        make_attack(given["attack"] or "lora", options)
    if verb == "immunize":
        make_immunizers(given["method"] or "gift", options)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.usefixtures("examples")
def test_every_grid_can_be_read(page: Path) -> None:
    for block in blocks(page, "yaml"):
        Grid(**yaml.safe_load(block)).check()


def test_there_are_commands_and_grids_to_check() -> None:
    assert len([line for page in PAGES for line in commands(page)]) >= 15
    assert len([block for page in PAGES for block in blocks(page, "yaml")]) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        if anchor:
            heads = re.findall(r"(?m)^#+ (.*)$", there.read_text(encoding="utf-8"))
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    for name in re.findall(r"`((?:src|tests|docs)/[\w/.]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name


def test_every_name_of_an_attack_is_known() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    used = {name for row in re.findall(r"(?m)^\| .* \| ([^|]*) \|$", text) for name in re.findall(r"`([a-z-]+)`", row)}
    assert used - {"prior"} <= set(ATTACKS)
    assert len(used) > 4


def test_the_protocol_names_what_records_hold() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    for name in (*AVERAGED, *ENDED):
        assert re.search(rf"`(\w+\.)?{name.split()[0]}`", text), name
    words = {3: "three", 5: "five"}
    assert f"at least {words[FACTOR]} times" in text
    assert f"At least {words[LEAST_SEEDS]} seeds" in text
    assert f"less than {100 * LEAST_SAFE:.0f} % (a choice of this project)" in " ".join(text.split())


def test_every_failure_of_the_field_has_a_test_that_is_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+(?:, \d+)*) ", text, re.MULTILINE)
    assert {int(number) for row in rows for number in row.split(", ")} == set(range(1, 39))
    for line in (line for line in text.splitlines() if "::test_" in line):
        path = ""
        for file, name in re.findall(r"`((?:tests/[\w/]+\.py)?)::(test_\w+)`", line):
            path = file or path
            assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"
