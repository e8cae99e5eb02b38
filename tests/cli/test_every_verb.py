"""Every parameter of every verb, and every key of its configuration, with values that can't be used: one line, nothing written.

The parameters are read off the commands themselves, so a new verb, flag or key joins by itself.
"""

from __future__ import annotations

import inspect
import json
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from pydantic import BaseModel
from typer.main import get_command
from typer.testing import CliRunner

from gift.bench.config import DemoConfig
from gift.bench.grid import Grid
from gift.cli.configs import AttackConfig, EvaluateConfig, ImmunizeConfig
from gift.cli.main import VERBS, app
from gift.models import DenoisingModel
from gift.models import load as load_model
from tests.conftest import art_pipeline, random_recogniser

GROUP: Any = get_command(app)
COMMANDS: dict[str, Any] = GROUP.commands
BASE: dict[str, dict[str, str]] = {  # with these a verb begins its work
    "demo": {"config": "demo.yaml"},
    "immunize": {"model": "model", "concept": "ant"},
    "attack": {"model": "model", "concept": "ant"},
    "bench": {"grid": "grid.yaml"},
    "evaluate": {"model": "model", "concept": "ant", "original": "model"},
    "generate": {"model": "model", "prompt": "an ant"},
    "report": {"folder": "empty"},
    "card": {"model": "model", "output": "out/card.md"},
    "push": {"folder": "model", "name": "owner/name"},
    "list": {},
}
CONFIGS: dict[str, type[BaseModel]] = {
    "demo": DemoConfig,
    "immunize": ImmunizeConfig,
    "attack": AttackConfig,
    "evaluate": EvaluateConfig,
    "bench": Grid,
}
GRID = {"models": ["model"], "concepts": ["ant"], "seeds": [0], "methods": ["esd"], "attacks": ["lora"]}
HUGE = "1" + "0" * 30
NUMBERS = ["", "many", "nan", "inf", "-inf", "-1", "0", "1.5", "1e400", HUGE]
PATHS = ["", "gone", "gone/x.png", "empty", "note.txt", "list.yaml", "n" * 300, "~nobody-here/x"]
WORDS = ["", "no such thing", "empty", "note.txt", "n" * 300, "../.."]
WRONG: list[Any] = [None, -1, 10**30, float("nan"), "", "no such thing", [1], {"a": {"b": 1}}]
REMEDIES = ("; ", "did you mean", "known: ", "write one with", "(given ")
"""A line names the remedy, or the value that has to be another."""


class Started(Exception):  # noqa: N818 - no error
    """The arguments were taken, and the work began."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random-weight model with the bundled drawings' words, beside what is no model."""
    out = tmp_path_factory.mktemp("all")
    art_pipeline().save_pretrained(out / "model")
    (out / "empty").mkdir()
    (out / "note.txt").write_text("nothing of use\n")
    (out / "list.yaml").write_text("- a\n")
    (out / "demo.yaml").write_text("model: model\nconcept: ant\n")
    (out / "grid.yaml").write_text(yaml.safe_dump(GRID))
    return out


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Its folder, where training and drawing only say that they would begin."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("typer.testing._get_command", lambda _: GROUP, raising=False)  # else built anew for each command line
    recogniser = cache(random_recogniser)
    for place in ("gift.bench.workbench", "gift.metrics.embedders"):
        monkeypatch.setattr(f"{place}.load_recogniser", recogniser)
    opened = cache(lambda: load_model("model"))

    def load(model: str | Path, **options: Any) -> DenoisingModel:
        plain = str(model) == "model" and set(options.values()) <= {None, "fp32"}
        return opened() if plain else load_model(model, **options)

    for place in ("gift.models", "gift.bench.evaluation", "gift.bench.demo"):
        monkeypatch.setattr(f"{place}.load", load)

    def begin(*_: Any, **__: Any) -> Any:
        raise Started

    for work in (
        "gift.api.immunize",
        "gift.api.attack",
        "gift.cli.searching.search_attack",
        "gift.bench.beside.run_demo",
        "gift.bench.bench.run_grid",
        "gift.models.base.DenoisingModel.generate",
    ):
        monkeypatch.setattr(work, begin)
    before = listed(folder)
    yield folder
    assert listed(folder) == before


def listed(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def command_line(verb: str, given: dict[str, str]) -> list[str]:
    """The words that give a verb these parameters."""
    line = [verb]
    for param in COMMANDS[verb].params:
        if param.name in given:
            line += [given[param.name]] if param.param_type_name == "argument" else [param.opts[0], given[param.name]]
    return line


def outcome(here: Path, line: list[str]) -> tuple[str, list[str]]:
    """How a command ended ('refused', 'usage', 'began' or 'done'), and what is wrong with that."""
    before = listed(here)
    done = CliRunner().invoke(app, line)
    new = listed(here) - before
    said = [text for text in done.stderr.splitlines() if text.strip() and not text.startswith("warning: ")]
    wrong = []
    if isinstance(done.exception, Started):
        how = "began"
    elif done.exit_code == 0:
        how = "done"
    elif done.exception is not None and not isinstance(done.exception, SystemExit):
        how, last = "fell", traceback.extract_tb(done.exception.__traceback__)[-1]
        wrong.append(f"{type(done.exception).__name__}: {done.exception} ({last.filename}:{last.lineno})")
    elif said and said[0].startswith("Usage:"):
        how = "usage"
    else:
        how = "refused"
        if [text[:6] for text in said] != ["gift: "] or not any(mark in said[0] for mark in REMEDIES):
            wrong.append(f"says {done.stderr!r}")
    if how in {"usage", "refused"} and done.exit_code not in {2, 3}:
        wrong.append(f"exit code {done.exit_code}")
    if how in {"usage", "refused", "fell"} and new:
        wrong.append(f"leaves {sorted(map(str, new))}")
    for path in sorted(new, reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return how, wrong


def values_for(verb: str, name: str) -> list[str]:
    """What to try for a parameter of the command line, by its type."""
    hint = get_type_hints(inspect.unwrap(VERBS[verb]))[name]
    kinds = {part for one in (hint, *get_args(hint)) for part in (one, *get_args(one))}
    if bool in kinds:
        return []
    return NUMBERS if kinds & {int, float} else PATHS if Path in kinds else WORDS


FINE: dict[str, set[str]] = {
    "output": {"gone", "gone/x.png", "empty", "~nobody-here/x"},
    "seed": {"0"},
    "search": {"0"},
    "steps": {"0"},
    "guidance": {"0", "1.5"},
    "prompt": set(WORDS),
    "message": set(WORDS),
    "base_model": set(WORDS) - {""},
    "license_id": {"empty", "note.txt", "n" * 300},
    "prompts": {"note.txt", "list.yaml"},
}
"""The values of `NUMBERS`, `PATHS` and `WORDS` that a verb may take."""


@pytest.mark.parametrize("verb", VERBS)
def test_every_parameter(here: Path, verb: str) -> None:
    base, wrong, fine = BASE.get(verb, {}), [], set()
    for param in COMMANDS[verb].params:
        for value in values_for(verb, param.name) if param.name != "help" else ():
            line = command_line(verb, {**base, param.name: value})
            how, faults = outcome(here, line)
            wrong += [f"{' '.join(line)[:200]}: {fault}" for fault in faults]
            if how in {"began", "done"}:
                fine.add((param.name, value))
    assert not wrong, "\n".join(wrong)
    assert {(name, value) for name, value in fine if value not in FINE.get(name, set())} == set()


@pytest.mark.parametrize("verb", CONFIGS)
def test_every_key_of_a_configuration(here: Path, verb: str) -> None:
    wrong, refused = [], set()
    file = here / ("grid.yaml" if verb == "bench" else "demo.yaml")
    kept, base = file.read_text(), GRID if verb == "bench" else {"model": "model", "concept": "ant"}
    given = {"bench": {"grid": "grid.yaml"}}.get(verb, {"config": "demo.yaml"})
    try:
        for key in CONFIGS[verb].model_fields:
            for value in WRONG:
                file.write_text(yaml.safe_dump({**base, key: value}))
                how, faults = outcome(here, command_line(verb, given))
                wrong += [f"{verb}: {key}: {json.dumps(value)[:60]}: {fault}" for fault in faults]
                if how == "refused":
                    refused.add(key)
    finally:
        file.write_text(kept)
    assert not wrong, "\n".join(wrong)
    assert refused == set(CONFIGS[verb].model_fields)
