"""YAML of unknown origin is plain values or one line; it runs nothing and takes no memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from gift.bench.grid import read_grid
from gift.cli.common import read_config
from gift.config_file import read_yaml
from gift.errors import GiftError

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(20)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: !!python/object/apply:os.mkdir [made]", "is not YAML: could not determine a constructor"),
        ("a: !!python/name:os.system", "is not YAML"),
        ("a: !!python/module:os", "is not YAML"),
        ("a: !!bool perhaps", "is not YAML"),
        ("a: !!timestamp now", "is not YAML"),
        ("a: !!int x", "is not YAML"),
        ("a: 2020-13-45", "is not YAML"),
        ("? [a, b]\n: !!set {x, y}\n? {a: 1}\n: 2", "is not YAML"),
        ("a: " + "[" * 5_000, "is not YAML"),
        (BOMB, "stand for more than 100000 values"),
        ("a: &a [*a]", "or for themselves"),
        ("a: &a {b: [*a]}", "or for themselves"),
    ],
    ids=["call", "name", "module", "bool", "time", "int", "date", "mapping as a key", "deep", "bomb", "itself", "itself inside"],
)
def test_what_is_more_than_plain_values_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "a.yaml"
    file.write_text(text)
    for read in (read_config, read_grid):
        with pytest.raises(GiftError) as caught:
            read(file)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


def test_plain_values_and_aliases_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("\ufeffa: &a [1, two]\nb: *a\nc: {<<: {d: 1}, e: ü}\n", encoding="utf-8")
    assert read_yaml(file, "it", "mend it") == {"a": [1, "two"], "b": [1, "two"], "c": {"d": 1, "e": "ü"}}
