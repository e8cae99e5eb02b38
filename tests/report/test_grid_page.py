"""A grid's page: complete, self-contained, honest about what proves nothing, and safe with what the records say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gift.errors import GiftError
from gift.metrics.intervals import bootstrap
from gift.report import grid_pictures
from gift.report.choose import write_report
from gift.report.grid_page import write_grid_page
from tests.report import made_grid
from tests.report.made_grid import CHAINS, CONCEPTS, SEEDS, STEPS, VOID, curve, every_cell, write
from tests.report.parsed import Seen, parsed

Rows = list[dict[str, Any]]


def seen(folder: Path) -> Seen:
    return parsed(write_grid_page(folder))


def source(folder: Path) -> str:
    """The page's own elements, without scripts and data."""
    return write_grid_page(folder).read_text(encoding="utf-8").split('<script type="application/json"')[0]


def ranked(html: str, scope: str = "") -> list[str]:
    """The methods of a ranking table, from the first."""
    return re.findall(rf'<tr data-rank="tiny/([^"]+)/{scope}"', html)


def change(folder: Path, edit: Callable[[Rows], object], **options: Any) -> None:
    """Writes the made-up grid again with changes."""
    rows = every_cell()
    edit(rows)
    write(folder, rows, **options)


def traces(page: Seen, figure: str, **about: str) -> list[dict[str, Any]]:
    """The traces of a figure about something."""
    return [t for t in page.figures[figure]["data"] if about.items() <= t["meta"].items()]


def test_every_group_is_there_once_over_all_concepts_and_by_concept(grid_folder: Path) -> None:
    page = seen(grid_folder)
    groups = {(row["method"], row["attack"]) for row in every_cell()}
    assert set(page.rows) == {f"tiny/{m}/{a}/{scope}" for m, a in groups for scope in ("", *CONCEPTS)}
    shown = page.rows["tiny/esd+gift/lora/"].split()
    assert {"all", "4", "0.00", "0.19", "0.86", "76", "30"} <= set(shown)
    assert "1 model, 5 methods, 3 attacks, 2 concepts and 2 seeds: 48 cells" in page.text
    assert "35 of them count; 4 inconclusive, 8 collapsed and 1 failed: these never count as protection" in page.text


def test_loads_nothing_from_elsewhere(grid_folder: Path) -> None:
    page = seen(grid_folder)
    assert page.links
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not {"iframe", "object", "embed", "base"} & set(page.tags)
    assert "url(" not in page.styles
    assert "@import" not in page.styles
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)


def test_headings_captions_and_scopes(grid_folder: Path) -> None:
    page = seen(grid_folder)
    assert page.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(page.headings))
    assert page.tags.count("table") == page.tags.count("caption") == 15
    assert re.findall(r"<th\b(?![^>]*\bscope=)[^>]*>", source(grid_folder)) == []


def test_a_row_s_numbers_are_its_counted_cells_means(grid_folder: Path) -> None:
    ends = [curve("esd+imma", "full", c, s)[-1][1] for c in CONCEPTS for s in SEEDS if (c, s) != ("style:noto", 1)]
    low, high = bootstrap(ends, clusters=["mushroom", "mushroom", "style:noto"])
    shown = seen(grid_folder).rows["tiny/esd+imma/full/"]
    assert f"{sum(ends) / 3:.2f} [{low:.2f}, {high:.2f}]" in " ".join(shown.split())
    assert "3 ok, 1 inconclusive" in shown


@pytest.mark.parametrize("scope", ["", "mushroom"])
def test_curves_are_means_over_cells_with_bootstrap_bands(grid_folder: Path, scope: str) -> None:
    page = seen(grid_folder)
    curves = [curve("esd", "lora", c, s) for c in CONCEPTS for s in SEEDS if scope in {"", c}]
    band, line = traces(page, "curve-0", method="esd", scope=scope)
    values = [[points[i][1] for points in curves] for i in range(len(STEPS))]
    assert line["x"] == STEPS
    assert line["y"] == pytest.approx([sum(v) / len(v) for v in values], abs=1e-6)
    assert line["line"]["dash"] == "dot"
    assert line["opacity"] == 1.0
    ends = [bootstrap(v, clusters=[c for c in CONCEPTS for _ in SEEDS if scope in {"", c}]) for v in values]
    assert band["x"] == [*STEPS, *reversed(STEPS)]
    assert band["y"] == pytest.approx([high for _, high in ends] + [low for low, _ in reversed(ends)])
    (half,) = [t for t in traces(page, "curve-0", scope=scope) if "method" not in t["meta"]]
    assert half["y"] == [0.475, 0.475]


def test_a_single_cell_has_no_band_and_no_interval(grid_folder: Path) -> None:
    change(
        grid_folder, lambda rows: rows.__setitem__(slice(None), [r for r in rows if (r["concept"], r["seed"]) == ("mushroom", 0)])
    )
    page = seen(grid_folder)
    assert len(traces(page, "curve-0", method="esd", scope="")) == 1
    assert "[" not in page.rows["tiny/esd/lora/"]
    assert set(page.rows) == {f"tiny/{m}/{a}/" for m, a in {(r["method"], r["attack"]) for r in every_cell()}}
    assert "bring “mushroom” back" in page.text
    assert "One seed, 0" in page.text
    assert "bootstraps" not in page.text


def test_the_numbers_of_a_chart_are_in_its_table(grid_folder: Path) -> None:
    page = seen(grid_folder)
    for trace in traces(page, "curve-1", scope=""):
        if "text" in trace:
            assert all(text in page.text for text in trace["text"])


def test_a_searched_attack_is_drawn_with_its_own_control(grid_folder: Path) -> None:
    page = seen(grid_folder)
    thin = [t for t in traces(page, "curve-2", scope="", method="esd+gift") if t["line"].get("dash") == "dot"]
    assert len(thin) == 1
    assert thin[0]["y"][-1] == pytest.approx(sum(curve("esd", "worst", c, s)[-1][1] for c in CONCEPTS for s in SEEDS) / 4)
    assert "'worst' is the attack that a search found" in page.text
    assert "searched for with 24 trials against esd+imma and esd+gift, but not against none, esd and ascent" in page.text


def test_what_attacks_leave_is_told_where_it_was_measured(grid_folder: Path, tmp_path: Path) -> None:
    assert "Safe accuracy after" not in source(grid_folder)
    rows = every_cell()
    for row in rows:
        if row["status"] != "failed":
            row["safe_after"] = {"pictures": 60, "before": 0.9, "after": 0.135 if row["attack"] == "worst" else 0.735}
        if "attack_found" in row:
            row["pictures_found"] = 11
    search = {"trials": 3, "least_safe": 0.1, "least_share": 0.25, "pictures_tried": [7, 11]}
    folder = tmp_path / "measured"
    folder.mkdir()
    write(folder, rows, grid={"control": "esd", "search": search})
    page = seen(folder)
    assert "Safe accuracy after" in page.text
    for key, shown in page.rows.items():
        if key.startswith("tiny/esd+gift/"):
            assert ("0.14" in shown.split()) is ("/worst/" in key)
            assert ("0.73" in shown.split()) is ("/worst/" not in key)
    assert "Only attacks that leave 10% of the safe accuracy counted" in page.text
    assert "Harmless pictures could make up all but 25% of a batch" in page.text
    assert "The attacker could have 7 or 11 pictures instead of as many as the default attack's" in page.text
    assert re.search(r"pictures:? ?11\b", page.text), "and which it was"


def test_no_search_is_said(grid_folder: Path) -> None:
    change(
        grid_folder,
        lambda rows: rows.__setitem__(slice(None), [r for r in rows if r["attack"] != "worst"]),
        grid={"control": "esd", "search": None},
    )
    assert "There was no search for the worst one" in seen(grid_folder).text


def test_cost_is_seconds_and_no_recovery_is_drawn_hollow_and_said(grid_folder: Path) -> None:
    page = seen(grid_folder)
    (esd,) = traces(page, "cost-0", method="esd", scope="")
    assert (esd["x"], esd["y"]) == ([20.5], [pytest.approx(0.2 * 50)])
    assert not esd["marker"]["symbol"].endswith("-open")
    (gift,) = traces(page, "cost-0", method="esd+gift", scope="")
    assert gift["marker"]["symbol"] == "star-open"
    assert gift["y"][0] > 0.2 * 150
    assert "not within 150 steps" in gift["hovertemplate"]
    assert [note["text"] for note in page.figures["cost-0"]["layout"]["annotations"]] == ["not within 150 steps"]
    assert "not within 150 steps" in page.rows["tiny/esd+gift/lora/"]
    assert "150 (2 of 3)" in " ".join(page.rows["tiny/esd+imma/lora/"].split())


def test_resistance_against_price(grid_folder: Path) -> None:
    page = seen(grid_folder)
    for figure, prices in (("safe-accuracy-0", made_grid.SAFE), ("fid-0", made_grid.FID)):
        points = traces(page, figure, method="esd+gift", scope="mushroom")
        assert {t["meta"]["attack"] for t in points} == {"lora", "full", "worst"}
        assert [t["x"][0] for t in points] == pytest.approx([prices["esd+gift"] + (0.05 if figure == "fid-0" else 0)] * 3)
        assert [t["meta"]["attack"] for t in points if not t["marker"]["symbol"].endswith("-open")] == ["worst"]
        assert not traces(page, figure, method="ascent"), "what never counts has no resistance to draw"


def test_benign_adaptability_and_the_best_of_several_pictures(grid_folder: Path) -> None:
    page = seen(grid_folder)
    harmless = page.text[page.text.index("Share of the original's gain") :]
    low, high = bootstrap([0.84, 0.86, 0.84, 0.86], clusters=["a", "a", "b", "b"])
    assert re.search(rf"esd\+gift ?all ?0\.85 \[{low:.2f}, {high:.2f}\]", harmless)
    assert "ascent" not in harmless[: harmless.index("Taught: cactus (near inside)")], "what never counts has no mean"
    ends = [curve("esd+gift", "worst", c, s)[-1][1] for c in CONCEPTS for s in SEEDS]
    best = [f"{sum(1 - (1 - end) ** n for end in ends) / 4:.2f}" for n in (1, 4, 16)]
    drawn = page.text[page.text.index("at least one of so many pictures") :]
    assert re.search(rf"esd\+gift ?worst ?all ?{' ?'.join(map(re.escape, best))}", drawn)


def test_records_without_them_have_a_page(grid_folder: Path) -> None:
    left_out = {"best_of", "adaptability"}
    rows = [{key: value for key, value in row.items() if key not in left_out} for row in every_cell()]
    (grid_folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    page = seen(grid_folder)
    assert "Learning something harmless" not in page.text
    assert "Best of" not in page.text


def section(html: str, start: str) -> str:
    """A section or a table's part of the page, from a marker to the table's end."""
    part = html[html.index(start) :]
    return part[: part.index("</table>")]


def test_likeness_to_the_attacker_s_pictures_by_every_embedder(grid_folder: Path) -> None:
    html = source(grid_folder)
    likeness = section(html, 'id="likeness"')
    assert "By recogniser similarity (stand-in for CLIP)" in likeness
    assert "By recogniser layers (stand-in for LPIPS)" in html
    row = re.search(r'<tr data-method="esd\+gift" data-attack="lora" data-model="tiny" data-scope="">.*?</tr>', likeness)
    assert row
    lines = (grid_folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
    cells = [cell for cell in map(json.loads, lines) if (cell["method"], cell["attack"]) == ("esd+gift", "lora")]
    last = sum(cell["similarity"]["bundled"]["gap"]["last"] for cell in cells) / len(cells)
    assert f'<td class="n">{last:.2f} <span' in row[0]
    assert '<td class="n">12.5 <span class="interval">of 41.0</span></td>' in row[0]


def test_what_else_moved_is_told_once_a_method(grid_folder: Path) -> None:
    html = source(grid_folder)
    moved = section(html, "<h3>What else moved</h3>")
    rows = re.findall(r'<tr data-method="([^"]+)" data-model="tiny" data-scope="">', moved)
    assert sorted(rows) == sorted(set(rows))
    assert "esd+gift" in rows
    assert '0.70 <span class="interval">[0.70, 0.70]</span> <span class="interval">of 0.96</span>' in moved
    assert "Neighbours: radish and cactus." in html


def test_records_without_likeness_have_a_page(grid_folder: Path) -> None:
    def strip(rows: Rows) -> None:
        for row in rows:
            for key in ("similarity", "memory", "diversity_after"):
                row.pop(key, None)
            for key in ("neighbours", "diversity"):
                row.get("price", {}).pop(key, None)

    change(grid_folder, strip)
    html = source(grid_folder)
    assert "No embedder was asked for" in html
    assert "What else moved" not in html


def test_what_proves_nothing_is_said_and_never_protection(grid_folder: Path) -> None:
    def spoil(rows: Rows) -> None:
        for row in rows:
            if row["attack"] == "full" and row["status"] == "ok":
                row.update(status="inconclusive", control_recovers=False, flags=[VOID])

    page = seen(grid_folder)
    assert "4 collapsed" in page.rows["tiny/ascent/lora/"]
    change(grid_folder, spoil)
    page = seen(grid_folder)
    for method in CHAINS:
        shown = " ".join(page.rows[f"tiny/{method}/full/"].split())
        assert ("4 collapsed" if method == "ascent" else "4 inconclusive") in shown
        assert "not within" not in shown
        assert "%" not in shown
    assert {t["opacity"] for t in traces(page, "curve-1", scope="") if t.get("mode") == "lines+markers"} == {0.35}
    assert page.figures["cost-1"]["data"] == []
    assert not traces(page, "fid-0", attack="full")
    assert "No cell counts: nothing here is evidence of protection" in page.text
    assert "Not ranked, since some attack on it has no cell that counts: none, esd, ascent, esd+imma and esd+gift." in page.text
    assert "least of the concept came back" not in page.text


def test_the_ranking_is_by_the_worst_attack(grid_folder: Path) -> None:
    html = source(grid_folder)
    assert ranked(html) == ["esd+gift", "esd+imma", "esd", "none", "ascent"]
    first = html[html.index('data-rank="tiny/esd+gift/"') : html.index('data-rank="tiny/esd+imma/"')]
    assert "<td>worst</td>" in first
    assert "not ranked" in html[html.index('data-rank="tiny/ascent/"') :][:600]
    text = seen(grid_folder).text
    assert "least of the concept came back with esd+gift (area 0.15 under worst)" in text
    assert "damaged:" not in text


def test_every_concept_has_a_ranking_of_its_own(grid_folder: Path) -> None:
    def spoil(rows: Rows) -> None:
        for row in rows:
            if row["method"] == "esd+gift" and row["concept"] == "mushroom" and row["status"] == "ok":
                row["area"] = 0.99

    change(grid_folder, spoil)
    html = source(grid_folder)
    assert ranked(html, "mushroom")[:4] == ["esd+imma", "esd", "none", "esd+gift"]
    assert ranked(html, "style:noto")[:2] == ["esd+gift", "esd+imma"]
    assert len(re.findall(r'<div data-scope="[^"]*" data-model="tiny">', html)) == 3
    assert html.index('data-rank="tiny/none/"') < html.index('data-rank="tiny/none/mushroom"')


def test_damage_is_ranked_behind_and_said(grid_folder: Path) -> None:
    def spoil(rows: Rows) -> None:
        for row in rows:
            if row["method"] == "esd+gift":
                row["price"]["safe_accuracy"] = 0.5

    change(grid_folder, spoil)
    html = source(grid_folder)
    for scope in ("", *CONCEPTS):
        assert ranked(html, scope) == ["esd+imma", "esd", "none", "esd+gift", "ascent"]
    page = seen(grid_folder)
    said = "damaged: safe accuracy 0.50 of 0.92, less than 75 % of that of 'none'"
    assert page.text.count(said) == 4, "a table for each scope, and the summary"
    assert f"behind every method that is not damaged: esd+gift ({said})" in page.text
    assert "least of the concept came back with esd+imma" in page.text


def test_the_filter_is_labelled_and_hidden_without_scripts(grid_folder: Path) -> None:
    html = source(grid_folder)
    form = html[html.index('<form id="filter"') : html.index("</form>")]
    assert re.match(r"<form [^>]*\bhidden>", form)
    assert re.findall(r"<legend>(\w+)</legend>", form) == ["Methods", "Attacks"]
    boxes = re.findall(r'<label><input type="checkbox" name="(\w+)" value="([^"]+)" checked>', form)
    assert boxes == [("method", m) for m in CHAINS] + [("attack", a) for a in ("lora", "full", "worst")]
    assert '<label for="scope">Concept</label> <select id="scope"' in form
    assert re.findall(r'<option value="([^"]*)"', form) == ["", *CONCEPTS]
    assert re.search(r'<p id="shown" role="status" aria-live="polite">', form)
    assert "<noscript><p>The filter needs scripts; without them everything is shown" in html
    assert "hidden" not in html.replace(form, "").replace("aria-hidden", "").split("<body>")[1]


def test_every_sheet_is_embedded_with_a_description(grid_folder: Path) -> None:
    page = seen(grid_folder)
    listed = json.loads((grid_folder / "pictures.json").read_text(encoding="utf-8"))
    assert len(listed) == 20
    assert len(page.images) == len({image["src"] for image in page.images}) == 20
    for image in page.images:
        assert (image["src"] or "").startswith("data:image/png;base64,")
        assert (image["width"], image["height"]) == ("96", "64")
        assert "Mean scores: before 0." in (image["alt"] or "")
    assert "a big mushroom (seed 2000001)" in page.text


def test_pictures_that_need_too_much_room_are_left_out_and_told(grid_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_pictures, "ROOM", 1000)
    page = seen(grid_folder)
    assert len(page.images) == 10
    assert "Left out, since the page would grow too large: style:noto." in page.text


def test_a_grid_without_pictures_has_a_page(grid_folder: Path) -> None:
    (grid_folder / "pictures.json").unlink()
    assert "No pictures were kept" in seen(grid_folder).text


def test_flags_are_explained_and_say_where(grid_folder: Path) -> None:
    text = seen(grid_folder).text
    assert "Raised for: 47 of 48 cells." in text
    assert "The cell could not be computed." in text
    assert "failed: 'price esd+imma' failed: a weight is NaN or infinite esd+imma under lora on style:noto, seed 1" in text
    assert "2 seeds, fewer than the 3 that the protocol asks for." in text
    assert "bootstraps that draw whole concepts, each with all of its seeds" in text
    assert "rests on 36 pictures, which alone makes it uncertain by up to about ±0.17" in text


def test_a_grid_of_failures_has_a_page(grid_folder: Path) -> None:
    rows = [{**row, "status": "failed", "error": "no room", "flags": ["failed: no room"]} for row in every_cell()]
    write(grid_folder, rows, sheets=False)
    page = seen(grid_folder)
    assert "no cell could be computed, so nothing can be said" in page.text
    assert {" ".join(text.split())[-10:-2] for key, text in page.rows.items() if key.endswith("/")} == {"4 failed"}


def test_several_models_are_told_apart(grid_folder: Path) -> None:
    change(grid_folder, lambda rows: rows.extend([{**row, "model": "other"} for row in every_cell()]))
    page = seen(grid_folder)
    assert {key.split("/")[0] for key in page.rows} == {"tiny", "other"}
    assert "fid-1" in page.figures
    assert 'name="model" value="other"' in source(grid_folder)


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</script><b>", "{{ 7*7 }}"])
def test_text_from_the_records_stays_text(grid_folder: Path, evil: str) -> None:
    def edit(rows: Rows) -> None:
        for row in rows:
            row["model"] = evil
            row["settings"] = {"methods": {evil: {evil: evil}}, "attack": {"name": evil}, "control": evil}
            row["flags"] = [evil]
            row["method"] = evil if row["method"] == "esd+gift" else row["method"]
            row["attack"] = evil if row["attack"] == "lora" else row["attack"]
            row["concept"] = evil if row["concept"] == "mushroom" else row["concept"]
        rows[0].update(status="failed", error=evil)

    before = seen(grid_folder)
    change(grid_folder, edit, grid={"control": evil, evil: evil, "search": {"trials": 3, evil: evil}}, sheets=False)
    row = next(r for r in every_cell() if r["status"] == "ok" and r["method"] == "esd+gift" and r["attack"] == "lora")
    (grid_folder / "pictures.json").write_text(
        json.dumps(
            [
                {
                    **made_grid.sheet(row),
                    **dict.fromkeys(("model", "concept", "method", "attack"), evil),
                    "file": "pictures/mushroom-0-esd-lora.png",
                    "prompts": [evil] * 4,
                }
            ]
        )
    )
    summary = json.loads((grid_folder / "summary.json").read_text())
    summary["provenance"] = {"commit": evil, "machine": {evil: evil}}
    (grid_folder / "summary.json").write_text(json.dumps(summary))
    page = seen(grid_folder)
    assert page.tags.count("script") == before.tags.count("script")
    assert page.tags.count("img") == 1
    assert page.tags.count("b") == before.tags.count("b")
    assert page.text.count(evil) >= 30
    names = [trace["name"] for figure in page.figures.values() for trace in figure["data"] if "name" in trace]
    assert names
    assert not [name for name in names if "<" in name]


def test_same_records_same_bytes(grid_folder: Path) -> None:
    first = write_grid_page(grid_folder).read_bytes()
    assert write_grid_page(grid_folder).read_bytes() == first
    change(grid_folder, lambda rows: rows[0].update(score_after=0.5))
    assert write_grid_page(grid_folder).read_bytes() != first


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda r: r.clear(), "records.jsonl is malformed at the whole"),
        (lambda r: r[2].pop("curve"), "line 3.ok.curve"),
        (lambda r: r[2].pop("status"), "line 3"),
        (lambda r: r[2].update(status="splendid"), "line 3"),
        (lambda r: r[2].update(score_after=float("nan")), "line 3: NaN"),
        (lambda r: r[2].update(curve=[[0, 0.1]]), "measure at least step 0 and the last step"),
        (lambda r: r[2].update(curve=[[0, 0.1], [9, 0.2], [5, 0.2]]), "from step 9 to step 5"),
        (lambda r: r[2].update(method=""), "line 3.ok.method"),
        (lambda r: r.append(r[2]), "listed twice"),
        (lambda r: r[2].update(concept="half a pair \ud800"), "surrogates"),
    ],
)
def test_malformed_records_are_one_line_with_a_remedy(grid_folder: Path, edit: Callable[[Rows], object], named: str) -> None:
    rows = every_cell()
    edit(rows)
    (grid_folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(GiftError) as caught:
        write_grid_page(grid_folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(grid_folder / "records.jsonl") in message
    assert named in message
    assert "gift bench" in message
    assert not (grid_folder / "report").exists()


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda s: s[0].update(method="stranger"), "is of no measured cell"),
        (lambda s: s[0]["seeds"].pop(), "differ in number"),
        (lambda s: s[0].update(steps=[]), "steps"),
        (lambda s: s[0].update(file="pictures/none.png"), "pictures/none.png"),
        (lambda s: s[0].update(file="../../../../../../etc/passwd"), "outside"),
        (lambda s: s[0].update(file="records.jsonl"), "not a PNG"),
    ],
)
def test_malformed_lists_of_pictures_are_told(grid_folder: Path, edit: Callable[[Rows], object], named: str) -> None:
    path = grid_folder / "pictures.json"
    listed = json.loads(path.read_text())
    edit(listed)
    path.write_text(json.dumps(listed))
    with pytest.raises(GiftError, match=named) as caught:
        write_grid_page(grid_folder)
    assert str(path) in str(caught.value)
    assert "gift bench" in str(caught.value)


@pytest.mark.parametrize("name", ["records.jsonl", "summary.json"])
@pytest.mark.parametrize("text", [None, "{", "[]", "[" * 100_000])
def test_a_missing_or_broken_file_is_named(grid_folder: Path, name: str, text: str | None) -> None:
    if text is None:
        (grid_folder / name).unlink()
    else:
        (grid_folder / name).write_text(text)
    with pytest.raises(GiftError, match=rf"{re.escape(name)} .*run 'gift bench'"):
        write_grid_page(grid_folder)


def test_a_report_finds_out_what_a_folder_holds(folder: Path, tmp_path: Path) -> None:
    assert "Relearning reduction" in write_report(folder).read_text(encoding="utf-8")
    grid = tmp_path / "grid"
    grid.mkdir()
    with pytest.raises(GiftError, match=r"neither result\.json nor records\.jsonl; give a folder"):
        write_report(grid)
    write(grid, every_cell())
    assert 'id="filter"' in write_report(grid).read_text(encoding="utf-8")
    (grid / "result.json").write_text("{}")
    with pytest.raises(GiftError, match=r"both result\.json and records\.jsonl"):
        write_report(grid)
