"""A file of concepts is read whole or refused with the line that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gift.data.art import load_art
from gift.data.concept import Concept
from gift.data.concept_list import known_concepts, read_concepts
from gift.errors import GiftError

NAMES = st.text(st.characters(exclude_characters="=#", exclude_categories=("Z", "C")), min_size=1)


def test_names_with_and_without_shares_and_folders(tmp_path: Path) -> None:
    file = tmp_path / "concepts.txt"
    file.write_text("\ufeff# held back\nmushroom\n\n  style:openmoji = 2.5\ncategory:food=1e-1\n a  red   car = 1, my cars/a, b \n")
    lines = read_concepts(file)
    assert [line.name for line in lines] == ["mushroom", "style:openmoji", "category:food", "a red car"]
    assert [line.share for line in lines] == [1.0, 2.5, 0.1, 1.0]
    assert [line.folder for line in lines] == [None, None, None, Path("my cars/a, b")]
    assert [line.where for line in lines] == [f"{file}, line {number}" for number in (2, 4, 5, 6)]
    assert known_concepts(lines[:2], load_art()) == [Concept("object", "mushroom"), Concept("style", "openmoji")]
    assert known_concepts(lines[3:], None) == [Concept("text", "a red car")]


def test_the_line_of_an_unknown_concept_is_told(tmp_path: Path) -> None:
    file = tmp_path / "c.txt"
    file.write_text("owl\n\nmushrom = 2\n")
    with pytest.raises(GiftError, match=r"c\.txt, line 3: no concept 'mushrom'.*mushroom"):
        known_concepts(read_concepts(file), load_art())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no concept; write one a line"),
        ("# nothing\n\n", "names no concept"),
        ("owl\n = 2", r"line 2: no concept before '='"),
        ("owl\nant\nowl = 2", r"line 3: 'owl' is named twice"),
        ("style:openmoji\nstyle : openmoji", r"line 2: 'style : openmoji' is named twice"),
        ("owl = 0", "line 1: '0' is no share"),
        ("owl = -1", "line 1: '-1' is no share"),
        ("owl = nan", "line 1: 'nan' is no share"),
        ("owl = inf", "line 1: 'inf' is no share"),
        ("owl = much", "line 1: 'much' is no share of a batch; give a positive number"),
        ("owl =", "line 1: '' is no share"),
        ("owl = , folder", "line 1: '' is no share"),
        ("ant\nowl = 1,", "line 2: no folder after the comma"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.txt"
    file.write_text(text)
    with pytest.raises(GiftError, match=message):
        read_concepts(file)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    for file in (tmp_path / "none", tmp_path, tmp_path / "latin"):
        with pytest.raises(GiftError, match="can't read concepts from"):
            read_concepts(file)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(NAMES, st.floats(1e-6, 1e6)), min_size=1, unique_by=lambda row: row[0]))
def test_what_is_written_is_read(tmp_path: Path, rows: list[tuple[str, float]]) -> None:
    file = tmp_path / "c.txt"
    file.write_text("\n".join(f"{name} = {share!r}" for name, share in rows), encoding="utf-8")
    assert [(line.name, line.share) for line in read_concepts(file)] == rows
