"""The report page: complete, self-contained, honest about what proves nothing, and safe with what the record says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gift.errors import GiftError
from gift.report.page import write_page
from tests.report.parsed import Seen, parsed


def seen(folder: Path) -> Seen:
    return parsed(write_page(folder))


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Edits the record in place and gives it back."""
    path = folder / "result.json"
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    edit(record)
    path.write_text(json.dumps(record), encoding="utf-8")
    return record


def test_every_method_attack_and_row_is_there_once(folder: Path) -> None:
    record = change(folder, lambda r: None)
    page = seen(folder)
    assert sorted(page.rows) == sorted(f"{row['method']}/{row['attack']}" for row in record["rows"])
    for part in (*record["methods"], *record["attacks"]):
        assert part["title"] in page.text
    gift = page.rows["gift/lora"].split()
    assert {"0.00", "0.13", "0.86", "1.30", "61", "32", "912"} <= set(gift)


def test_neighbours_are_shown_for_every_method_where_they_were_measured(folder: Path) -> None:
    record = change(folder, lambda r: None)
    text = seen(folder).text
    assert "The concepts most like “mushroom”, which no defence was to touch: toadstool, acorn." in text
    shown = text.partition("Neighbours' score")[2]
    for method in record["methods"]:
        assert f"{method['title']}{method['neighbours']['score']:.2f}" in shown
    change(folder, lambda r: [method.pop("neighbours") for method in r["methods"]])
    assert "which no defence was to touch" not in seen(folder).text


def test_the_distance_to_drawings_is_shown_where_it_was_measured(folder: Path) -> None:
    page = seen(folder)
    assert {"22.4", "1.30"} <= set(page.rows["gift/lora"].split())
    assert "21.6" in page.rows["original/lora"].split()
    assert "FID to drawings" in page.text
    change(folder, lambda r: [method.pop("real") for method in r["methods"][1:]])
    assert "\N{EN DASH}" in seen(folder).rows["gift/lora"]
    change(folder, lambda r: r["methods"][0].pop("real"))
    assert "FID to drawings" not in seen(folder).text


def test_writes_where_the_caller_is_told(folder: Path) -> None:
    assert write_page(folder) == folder / "report" / "index.html"
    assert [file.name for file in (folder / "report").iterdir()] == ["index.html"]


def test_loads_nothing_from_elsewhere(folder: Path) -> None:
    page = seen(folder)
    assert page.links
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not {"iframe", "object", "embed", "base"} & set(page.tags)
    assert "url(" not in page.styles
    assert "@import" not in page.styles


def test_inner_links_have_targets_and_ids_are_unique(folder: Path) -> None:
    page = seen(folder)
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_every_sheet_is_embedded_with_a_description(folder: Path) -> None:
    record = change(folder, lambda r: None)
    page = seen(folder)
    assert len(page.images) == len(record["grids"])
    assert len({image["src"] for image in page.images}) == len(record["grids"])
    for image in page.images:
        assert (image["src"] or "").startswith("data:image/png;base64,")
        assert "Mean score" in (image["alt"] or "")
        assert (image["width"], image["height"]) == ("24", "16")


def test_headings_go_down_one_level_at_a_time(folder: Path) -> None:
    levels = seen(folder).headings
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_table_has_a_caption_and_every_header_a_scope(folder: Path) -> None:
    tags = seen(folder).tags
    assert tags.count("table") == tags.count("caption")
    html = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<th\b(?![^>]*\bscope=)[^>]*>", html.split('<script type="application/json"')[0]) == []


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</script><b>", "{{ 7*7 }}"])
def test_text_from_the_record_stays_text(folder: Path, evil: str) -> None:
    def edit(record: dict[str, Any]) -> None:
        for entry in record["grids"]:
            entry["prompts"][0] = evil
        record["concept"] = record["commit"] = record["created"] = record["model"] = evil
        record["methods"][0]["title"] = record["methods"][0]["about"] = record["attacks"][0]["title"] = evil
        record["rows"][0]["flags"] = [evil]
        record["settings"] = record["machine"] = {evil: evil}

    before = seen(folder)
    change(folder, edit)
    page = seen(folder)
    assert page.tags.count("script") == before.tags.count("script")
    assert page.tags.count("img") == before.tags.count("img")
    assert page.text.count(evil) >= 8
    names = [trace["name"] for figure in page.figures.values() for trace in figure["data"]]
    assert names
    assert not [name for name in names if "<" in name]


def test_no_recovery_is_said_with_its_horizon(folder: Path) -> None:
    page = seen(folder)
    assert "not within 150 steps" in page.rows["gift/lora"]
    assert "not within" not in page.rows["esd/lora"]
    assert re.search(r"\b75\b", page.rows["esd/lora"])


def test_failed_control_is_inconclusive_and_never_protection(folder: Path) -> None:
    page = seen(folder)
    for method in ("original", "esd", "ascent", "imma", "gift"):
        shown = page.rows[f"{method}/full"]
        assert "inconclusive" in shown
        assert "not within" not in shown
        assert "%" not in shown
        assert "inconclusive" not in page.rows[f"{method}/lora"]
    summary = page.text[: page.text.index("What was done", page.text.index("Positive control"))]
    assert "every cell of that attack is inconclusive" in summary
    assert "0.13 with LoRA (rank 4)" in summary
    assert "0.04 with full fine-tuning" not in summary
    faint = {figure: {trace["opacity"] for trace in drawn["data"]} for figure, drawn in page.figures.items()}
    assert faint == {"curve-0": {1.0}, "price-0": {1.0}, "curve-1": {0.35}, "price-1": {0.35}}


def test_an_inconclusive_flag_alone_is_enough(folder: Path) -> None:
    change(folder, lambda r: [row["flags"].append("inconclusive: too few samples") for row in r["rows"] if row["attack"] == "lora"])
    page = seen(folder)
    assert "not within" not in page.rows["gift/lora"]
    assert "nothing can be said about GIFT after ESD" in page.text


def test_a_collapsed_model_is_not_protected(folder: Path) -> None:
    change(folder, lambda r: [row["flags"].append("collapsed: low diversity") for row in r["rows"] if row["method"] == "ascent"])
    page = seen(folder)
    assert "collapsed" in page.rows["ascent/lora"]
    assert "%" not in page.rows["ascent/lora"]


def test_the_summary_names_a_method_that_did_better(folder: Path) -> None:
    assert "Lower than that ended" not in seen(folder).text
    change(
        folder, lambda r: [row.update(score_after=0.02) for row in r["rows"] if (row["method"], row["attack"]) == ("imma", "lora")]
    )
    assert "Lower than that ended: IMMA after ESD (0.02 with LoRA (rank 4))" in seen(folder).text


def test_words(folder: Path) -> None:
    text = seen(folder).text
    assert text.index("Positive control") < text.index("Under these attacks")
    assert "prevent" not in text.lower()
    assert "cannot be recalled" in text
    assert "gift demo --concept mushroom --seed 0" in text


def test_the_command_is_quoted_for_the_shell(folder: Path) -> None:
    change(folder, lambda r: r.update(concept="ice cream; rm x"))
    assert "gift demo --concept 'ice cream; rm x' --seed 0" in seen(folder).text


def test_curves_and_half_line_are_those_of_the_record(folder: Path) -> None:
    record = change(folder, lambda r: None)
    figure = seen(folder).figures["curve-0"]
    drawn = {trace["name"]: list(map(list, zip(trace["x"], trace["y"], strict=True))) for trace in figure["data"]}
    titles = {method["method"]: method["title"] for method in record["methods"]}
    assert drawn == {titles[row["method"]]: row["curve"] for row in record["rows"] if row["attack"] == "lora"}
    assert [shape["y0"] for shape in figure["layout"]["shapes"]] == [0.47]
    dashes = {trace["name"]: trace["line"]["dash"] for trace in figure["data"]}
    assert [name for name, dash in dashes.items() if dash != "solid"] == ["Original", "ESD"]


def test_measurements_may_be_missing_and_methods_unknown(folder: Path) -> None:
    def edit(record: dict[str, Any]) -> None:
        record["commit"] = None
        record["samples"] = record["grids"] = []
        for row in record["rows"]:
            row["safe_accuracy"] = row["fid"] = row["peak_mb"] = None
            row["method"] = row["method"].replace("gift", "newcomer")
        for method in record["methods"]:
            method["safe_accuracy"] = method["fid"] = method["kid"] = None
            method["method"] = method["method"].replace("gift", "newcomer")

    change(folder, edit)
    page = seen(folder)
    assert "newcomer/lora" in page.rows
    assert "None" not in page.text
    assert "No pictures were kept" in page.text


def test_same_input_same_bytes(folder: Path) -> None:
    first = write_page(folder).read_bytes()
    assert write_page(folder).read_bytes() == first
    change(folder, lambda r: r["rows"][0].update(score_after=0.5))
    assert write_page(folder).read_bytes() != first


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda r: r.pop("rows"), "rows"),
        (lambda r: r.update(rows=[]), "rows"),
        (lambda r: r.update(horizon="long"), "horizon"),
        (lambda r: r["rows"][3].pop("curve"), "rows.3.curve"),
        (lambda r: r["rows"][0].update(score_after=float("nan")), "NaN"),
        (lambda r: r["rows"][0].update(method="stranger"), "stranger"),
        (lambda r: r["grids"][0].update(attack="stranger"), "stranger"),
        (lambda r: r["grids"][0]["scores"].pop(), "differ in number"),
        (lambda r: r["rows"].append(r["rows"][0]), "twice"),
        (lambda r: r["grids"][0].update(file="pictures/none.png"), "pictures/none.png"),
        (lambda r: r["grids"][0].update(file="../../../../../../etc/passwd"), "outside"),
        (lambda r: r["grids"][0].update(file="result.json"), "not a PNG"),
        (lambda r: r.update(concept="half a pair \ud800"), "surrogates"),
    ],
)
def test_a_malformed_record_is_one_line_with_a_remedy(folder: Path, edit: Callable[[dict[str, Any]], object], named: str) -> None:
    change(folder, edit)
    with pytest.raises(GiftError) as caught:
        write_page(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder / "result.json") in message
    assert named in message
    assert "gift demo" in message
    assert not (folder / "report").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"rows": 1}', "[" * 100_000])
def test_a_file_that_is_no_record_is_named(folder: Path, text: str) -> None:
    (folder / "result.json").write_text(text, encoding="utf-8")
    with pytest.raises(GiftError, match=r"result\.json .*; run 'gift demo'"):
        write_page(folder)


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(GiftError, match=r"result\.json is missing; .*gift demo"):
        write_page(tmp_path)


def test_a_bad_record_leaves_the_old_page(folder: Path) -> None:
    before = write_page(folder).read_bytes()
    (folder / "result.json").write_text("{", encoding="utf-8")
    with pytest.raises(GiftError):
        write_page(folder)
    assert (folder / "report" / "index.html").read_bytes() == before
