"""A page of results: its tables are those of the records, and nothing else is touched."""

from __future__ import annotations

import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gift.bench import never
from gift.bench.grid import read_grid
from gift.bench.plan import make_plan
from gift.errors import GiftError
from gift.metrics.intervals import bootstrap
from gift.report import results, tables
from tests.report.made_grid import IDENTITY

ROOT = Path(__file__).resolve().parents[2]
HEAD = "# Results\n\n<!-- table: {} made -->\nold\n<!-- end -->\n\nText | stays.\n"


def page_of(folder: Path, grid_folder: Path, kind: str) -> Path:
    target = folder / "results" / "made"
    target.mkdir(parents=True)
    (target / "records.jsonl").write_text((grid_folder / "records.jsonl").read_text())
    page = folder / "results.md"
    page.write_text(HEAD.format(kind))
    return page


def made(page: Path) -> str:
    return results.filled(page, page.with_suffix(""))


def rows_of(text: str) -> dict[str, list[str]]:
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


def test_resistance_is_the_mean_over_cells_that_count(tmp_path: Path, grid_folder: Path) -> None:
    text = made(page_of(tmp_path, grid_folder, "resistance"))
    found = rows_of(text)
    cells = [json.loads(line) for line in (grid_folder / "records.jsonl").read_text().splitlines()]
    for method in ("esd+gift", "ascent"):
        for place, attack in enumerate(found["method"]):
            mine = [c for c in cells if (c["method"], c["attack"], c["status"]) == (method, attack, "ok")]
            if not mine:
                continue
            values, clusters = [c["relearning_reduction"] for c in mine], [c["concept"] for c in mine]
            low, high = bootstrap(values, clusters=clusters)
            told = [int(n) for n in re.findall(r"(-?\d+)\s%", found[method][place].replace("\N{MINUS SIGN}", "-"))]
            assert told == pytest.approx([100 * sum(values) / len(values), 100 * low, 100 * high], abs=0.51)
            last = sum(c["score_after"] for c in mine) / len(mine)
            assert float(found[method][place].rsplit("; ", 1)[1]) == pytest.approx(last, abs=0.0051)
    assert text.endswith("\n\nText | stays.\n")
    assert "old" not in text


def test_parts_of_a_grid_make_one_table(tmp_path: Path, grid_folder: Path) -> None:
    page = page_of(tmp_path, grid_folder, "resistance")
    whole = made(page)
    lines = (tmp_path / "results" / "made" / "records.jsonl").read_text().splitlines()
    for name, part in (("one", lines[:-2]), ("two", lines[-3:])):  # a cell is in both
        (tmp_path / "results" / name).mkdir()
        (tmp_path / "results" / name / "records.jsonl").write_text("\n".join(part))
    page.write_text(page.read_text().replace("resistance made", "resistance one+two"))
    assert made(page) == whole.replace("resistance made", "resistance one+two")
    other = json.loads(lines[-3])
    other["settings"]["methods"]["gift"] |= {"other_words": 0.0}  # as a version that does not know it did
    (tmp_path / "results" / "two" / "records.jsonl").write_text("\n".join([json.dumps(other), *lines[-2:]]))
    assert made(page) == whole.replace("resistance made", "resistance one+two")
    other["settings"]["methods"]["gift"] |= {"other_words": 0.5}
    (tmp_path / "results" / "two" / "records.jsonl").write_text(json.dumps(other))
    with pytest.raises(GiftError, match="has other settings than in another part"):
        made(page)
    other["settings"]["methods"]["gift"] |= {"other_words": 0.0}
    other["settings"]["horizon"] = 7
    (tmp_path / "results" / "two" / "records.jsonl").write_text(json.dumps(other))
    with pytest.raises(GiftError, match="has other settings than in another part"):
        made(page)


@pytest.mark.parametrize("changed", ["methods", "control", "horizon"])
def test_parts_in_which_a_method_means_two_things_make_no_table(changed: str, tmp_path: Path, grid_folder: Path) -> None:
    """Concepts of another kind apart, of which methods have defaults of their own."""
    other = {"methods": {"gift": {"steps": 3}}, "control": "none", "horizon": 7}[changed]
    rows = [json.loads(line) for line in (grid_folder / "records.jsonl").read_text().splitlines()]
    one = next(row for row in rows if (row["concept"], row["method"], row["attack"]) == ("mushroom", "esd+gift", "lora"))
    page = page_of(tmp_path, grid_folder, "resistance")
    for concept, allowed in (("style:openmoji", True), ("owl", False)):
        changes = {**one, "concept": concept, "settings": {**one["settings"], changed: other}}
        (tmp_path / "results" / "made" / "records.jsonl").write_text("\n".join(map(json.dumps, (one, changes))))
        if allowed:
            made(page)
        else:
            with pytest.raises(
                GiftError, match=r"esd\+gift under lora means two things in these parts; give each a name of its own"
            ):
                made(page)


def test_the_overall_table_puts_resistance_beside_its_price(tmp_path: Path, grid_folder: Path) -> None:
    page = page_of(tmp_path, grid_folder, "overall")
    found = rows_of(made(page))
    kept = {}
    for kind in ("resistance", "price"):
        page.write_text(HEAD.format(kind))
        kept[kind] = rows_of(made(page))
    for method in ("method", "esd+gift", "ascent"):
        attacks = len(kept["resistance"]["method"])
        assert found[method][attacks:] == kept["price"][method]
        shares = [cell.split(" (")[0].split("; ")[0] for cell in kept["resistance"][method]]
        assert found[method][:attacks] == shares


@pytest.mark.parametrize("others", ["not run", "inconclusive"])
def test_a_price_is_of_all_cells_though_the_first_attack_counts_in_one_alone(
    tmp_path: Path, grid_folder: Path, others: str
) -> None:
    page = page_of(tmp_path, grid_folder, "price")
    kept = tmp_path / "results" / "made" / "records.jsonl"
    rows = [row for row in map(json.loads, kept.read_text().splitlines()) if row["method"] == "esd" and row["attack"] == "lora"]
    assert len(rows) > 1
    for at, row in enumerate(rows):
        row["price"]["fid"] = 10.0 * (at + 1)
    first = [{**rows[0], "attack": "first"}, *({**row, "attack": "first", "status": others} for row in rows[1:])]
    told = [row for row in first if row["status"] != "not run"] + rows
    kept.write_text("".join(json.dumps(row) + "\n" for row in told))
    found = rows_of(made(page))
    assert float(found["esd"][found["method"].index("FID")]) == pytest.approx(5.0 * (len(rows) + 1), abs=0.051)


def test_the_distance_to_drawings_is_told_where_it_was_measured(tmp_path: Path, grid_folder: Path) -> None:
    page = page_of(tmp_path, grid_folder, "price")
    assert "FID to drawings" not in made(page)
    file = tmp_path / "results" / "made" / "records.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        if row["status"] != "failed" and row["method"] in {"esd", "esd+gift", "ascent"}:
            further = {"esd+gift": 3.0, "esd": -1.3, "ascent": 0.0}[row["method"]]
            row["price"]["real"] = {"fid": 20.0 + further, "kid": 0.0, "original_fid": 20.0, "original_kid": 0.0}
    file.write_text("\n".join(map(json.dumps, rows)))
    for kind in ("price", "overall"):
        page.write_text(HEAD.format(kind))
        found = rows_of(made(page))
        place = found["method"].index("FID to drawings")
        assert found["method"][place - 1] == "FID"
        told = {method: cells[place] for method, cells in found.items()}
        assert (told["esd+gift"], told["esd"]) == ("23.0 (+3.0)", "18.7 (\N{MINUS SIGN}1.3)")
        assert set(told.values()) == {"FID to drawings", "---:", told["esd"], told["esd+gift"], told["ascent"], "\N{EN DASH}"}
    next(row for row in rows if row["method"] == "esd")["price"].pop("real")  # a mean over some of the cells is of other cells
    file.write_text("\n".join(map(json.dumps, rows)))
    assert rows_of(made(page))["esd"][place] == "\N{EN DASH}"
    for row in rows:
        if row["method"] in {"ascent", "esd"} and row["status"] != "failed":
            row["price"].pop("real", None)
    file.write_text("\n".join(map(json.dumps, rows)))
    assert "FID to drawings" not in made(page), "one method alone compares with nothing"


def test_the_means_of_the_seeds_and_how_far_apart_a_concept_is() -> None:
    def row(seed: int, concept: str, reduction: float, status: str = "ok") -> dict[str, Any]:
        row = {"method": "m", "attack": "a", "seed": seed, "concept": concept, "relearning_reduction": reduction, "status": status}
        return {**row, "model": "tiny", "settings": {"methods": {"m": {}}, "control": "none"}}

    rows = [row(0, "owl", 0.1), row(1, "owl", 0.4), row(0, "ant", 0.3), row(1, "ant", 0.2), row(0, "bee", 0.2), row(1, "bee", 0.9)]
    group = {"method": "m", "attack": "a", "conclusive": True}
    assert rows_of(tables.seeds({"rows": rows, "groups": [group]}))["m"] == ["20 %, 50 %; 30, 70"]
    rows[-1] = row(1, "bee", 0.9, "inconclusive")
    assert rows_of(tables.seeds({"rows": rows, "groups": [group]}))["m"] == ["20 %, 30 %; 10, 30"]


@pytest.mark.parametrize("kind", tables.KINDS)
def test_every_table_has_a_row_a_method(tmp_path: Path, grid_folder: Path, kind: str) -> None:
    page = page_of(tmp_path, grid_folder, kind)
    text = made(page)
    found = rows_of(text)
    methods = {json.loads(line)["method"] for line in (grid_folder / "records.jsonl").read_text().splitlines()}
    if kind == "frontier":  # some of them, under a head that counts them and a rule
        assert methods >= set(list(found)[2:]) > set()
    elif kind == "found":  # one for each search
        assert {head.split(", ")[1] for head in list(found)[2:]} == {method for method in methods if "+" in method}
    elif kind == "searched":  # this grid's search has no bound
        assert len(found) == 2
    elif kind == "attacks":  # a column a method
        assert methods <= set(found["attack"])
    else:
        assert methods <= found.keys()
    assert len({len(cells) for cells in found.values()}) == 1
    page.write_text(text)
    assert made(page) == text


def test_the_limit_is_the_mean_of_the_twins(tmp_path: Path, grid_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attack = {"name": "full", "steps": 50, "rate": 1e-3, "schedule": "cosine", "harmless_steps": 7, "warmup": 0}
    curves = [{"concept": "owl", "attack": attack, "curve": [[0, 0.0], [50, last]]} for last in (0.5, 0.75)]
    (tmp_path / "never.json").write_text(json.dumps({"of": IDENTITY, "twins": [], "curves": curves}))
    monkeypatch.setattr(never, "FILE", tmp_path / "never.json")
    never.measured.cache_clear()
    found = rows_of(made(page_of(tmp_path, grid_folder, "limit")))
    never.measured.cache_clear()
    assert found == {
        "concept, attack": ["runs", "step 0", "step 50"],
        "---": ["---:"] * 3,
        "owl, full, 0.001, harmless steps 7, schedule cosine": ["2", "0.00", "0.62"],
    }


def test_the_limit_of_a_concept_is_that_of_the_attack_that_teaches_the_twins_most(
    tmp_path: Path, grid_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [json.loads(line) for line in (grid_folder / "records.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["status"] == "ok")
    last = row["curve"][-1][0]
    flat = {"concept": row["concept"], "attack": row["settings"]["attack"], "curve": [[step, 0.25] for step in (0, last)]}
    (tmp_path / "never.json").write_text(json.dumps({"of": IDENTITY, "twins": [], "curves": [flat]}))
    monkeypatch.setattr(never, "FILE", tmp_path / "never.json")
    never.measured.cache_clear()
    page = page_of(tmp_path, grid_folder, "concepts")
    found = rows_of(made(page))
    page.write_text(HEAD.format("share"))
    shares = made(page)
    never.measured.cache_clear()
    (steps, scores) = zip(*row["control_curve"], strict=True)
    spans = [(b - a) * (x + y) / 2 for a, b, x, y in zip(steps, steps[1:], scores, scores[1:], strict=False)]
    told = found["never learned"][found["method"].index(row["concept"])]
    beside = rows_of(shares)[row["method"]][rows_of(shares)["method"].index(row["attack"])]
    percent = int(re.findall(r"(-?\d+)\s%", told.replace("\N{MINUS SIGN}", "-"))[0])
    assert percent == pytest.approx(100 * (1 - 0.25 * last / sum(spans)), abs=0.51)
    assert f"({row['attack']})" in told
    mine = [
        r
        for r in rows
        if (r["concept"], r["method"], r["attack"], r["status"]) == (*map(row.get, ("concept", "method", "attack")), "ok")
    ]
    reached = sum(r["relearning_reduction"] for r in mine) / len(mine)
    ends = [int(n) for n in re.findall(r"(-?\d+)\s%", beside.replace("\N{MINUS SIGN}", "-"))]
    assert ends[0] == pytest.approx(100 * reached, abs=0.51)
    times = re.search(r"; (-?[\d.]+) times", beside.replace("\N{MINUS SIGN}", "-"))
    assert (times is not None) is (ends[1] > 0)
    if times:
        assert float(times[1]) == pytest.approx(reached / (1 - 0.25 * last / sum(spans)), abs=0.051)


def test_the_command_checks_and_writes(
    tmp_path: Path, grid_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = page_of(tmp_path, grid_folder, "price")
    command = ["results", str(page), "--records", str(page.with_suffix(""))]
    monkeypatch.setattr(sys, "argv", [*command, "--check"])
    with pytest.raises(SystemExit) as left:
        results.main()
    assert left.value.code == 2
    assert "differ from their records" in capsys.readouterr().err
    assert "old" in page.read_text()
    monkeypatch.setattr(sys, "argv", command)
    results.main()
    assert capsys.readouterr().out in page.read_text()
    monkeypatch.setattr(sys, "argv", [*command, "--check"])
    results.main()


@pytest.mark.parametrize(
    ("kind", "records", "words"),
    [
        ("nothing", "{}", "no table 'nothing'; known: limit, resistance"),
        ("price", "{}", "is malformed"),
        ("price", "{", "not valid JSON"),
    ],
)
def test_what_can_not_be_made_is_told(tmp_path: Path, grid_folder: Path, kind: str, records: str, words: str) -> None:
    page = page_of(tmp_path, grid_folder, kind)
    (tmp_path / "results" / "made" / "records.jsonl").write_text(records)
    with pytest.raises(GiftError, match=words):
        made(page)


@pytest.mark.parametrize("page", results.PAGES, ids=str)
def test_the_projects_own_pages_are_those_of_their_records(page: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert results.filled(ROOT / page, ROOT / results.RECORDS) == text
    assert results.BLOCK.search(text)


GRIDS = sorted((ROOT / results.RECORDS).glob("*/grid.yaml"))


def known_then(asked: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """Of some options those that a record knows, in nested ones too."""
    both = ((name, asked[name], kept) for name, kept in told.items())
    return {name: known_then(now, kept) if isinstance(kept, dict) else now for name, now, kept in both}


@pytest.mark.parametrize("grid", GRIDS, ids=lambda file: file.parent.name)
def test_a_grid_asks_for_what_its_records_tell(monkeypatch: pytest.MonkeyPatch, grid: Path) -> None:
    """Options that are newer than the records are at values at which nothing of them shows, or the file would be another grid's."""
    monkeypatch.setattr("gift.bench.plan.forget", lambda: None)  # all grids are of the bundled model, which is opened once for all
    cells = {(cell.concept, cell.method, cell.attack): cell for cell in make_plan(read_grid(grid)).cells}
    rows = [json.loads(line) for line in (grid.parent / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(row["concept"], row["method"], row["attack"]) for row in rows} == cells.keys()
    for row in rows:
        for immunizer in cells[row["concept"], row["method"], row["attack"]].chain:
            told = row["settings"]["methods"].get(immunizer.name, {})
            asked = immunizer.model_dump(mode="json")
            assert known_then(asked, told) == told, (row["method"], immunizer.name)
            newer = {name: value for name, value in asked.items() if name not in told}
            assert newer == {name: results.WITHOUT_EFFECT.get(name) for name in newer}, (row["method"], immunizer.name)


def test_what_a_search_tried_is_told_though_nothing_of_it_counts(tmp_path: Path, grid_folder: Path) -> None:
    rows = [json.loads(line) for line in (grid_folder / "records.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("search", None)
    first, second, third, *_ = (row for row in rows if row["attack"] == "worst" and row["status"] == "ok")
    trials = [(0.3, 0.4, 0.8, True), (0.2, 0.9, 0.9, True), (0.7, 0.6, 0.1, False)]
    told = [dict(zip(("area", "last", "safe_left", "counts"), trial, strict=True)) for trial in trials]
    first["search"] = {"trials": told}
    second["search"] = {"trials": told[2:]}
    second["status"] = "inconclusive"
    third["search"] = {"trials": [{"area": 0.5, "last": 0.5, "safe_left": None, "counts": True}]}  # a search without a bound
    folder = tmp_path / "grid"
    folder.mkdir()
    (folder / "records.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    found = rows_of(made(page_of(tmp_path, folder, "searched")))
    percent = "\N{NARROW NO-BREAK SPACE}%"
    assert {head: cells for head, cells in found.items() if "seed" in head and head[:7] != "concept"} == {
        f"{first['concept']}, {first['method']}, seed {first['seed']}": [
            "3", "2", f"0.30; 0.40; 80{percent}", f"0.70; 0.60; 10{percent}"
        ],
        f"{second['concept']}, {second['method']}, seed {second['seed']}": ["1", "0", "–", f"0.70; 0.60; 10{percent}"],
    }  # fmt: skip


def test_what_a_search_found_is_told_with_what_it_leaves(
    tmp_path: Path, grid_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [json.loads(line) for line in (grid_folder / "records.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["attack"] == "worst" and row["status"] == "ok")
    row["attack_found"] = {"name": "full", "rate": 2.114e-3, "optimiser": "adamw", "schedule": "cosine", "harmless_steps": 7}
    row["attack_found"] |= {"text_encoder": True, "share": 0.64}
    row["pictures_found"] = 7
    row["safe_after"] = {"pictures": 60, "before": 0.9, "after": 0.45}
    folder = tmp_path / "grid"
    folder.mkdir()
    (folder / "records.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    last, most = row["curve"][-1][0], row["original_score"]
    twin = {"concept": row["concept"], "attack": row["attack_found"], "pictures": 7, "curve": [[0, 0.0], [last, most]]}
    many = {**twin, "pictures": 48, "curve": [[0, 0.0], [last, 0.0]]}
    (tmp_path / "never.json").write_text(json.dumps({"of": IDENTITY, "twins": [], "curves": [many, twin]}))
    monkeypatch.setattr(never, "FILE", tmp_path / "never.json")
    never.measured.cache_clear()
    found = rows_of(made(page_of(tmp_path, folder, "found")))
    never.measured.cache_clear()
    told = found[f"{row['concept']}, {row['method']}, seed {row['seed']}"]
    assert told[0] == "full, 2.1e-03, adamw, cosine, 7 harmless steps, 0.64 of its pictures the concept's, text encoder, 7 pictures"
    curves = [row["curve"], row["control_curve"], [[0, 0.0], [last, most]]]
    areas = [sum((b - a) * (x + y) / 2 for (a, x), (b, y) in pairwise(curve)) / curve[-1][0] for curve in curves]
    assert [float(value) for value in told[1].split("; ")] == pytest.approx(areas, abs=0.0051)
    assert told[2].split("; ") == [next((str(step) for step, score in curve if score >= most / 2), "–") for curve in curves]
    reductions = [int(share.rstrip("\N{NARROW NO-BREAK SPACE}%").replace("\N{MINUS SIGN}", "-")) for share in told[3].split("; ")]
    assert reductions == pytest.approx([100 * row["relearning_reduction"], 100 * (1 - areas[2] / areas[1])], abs=0.51)
    assert told[-1] == "50\N{NARROW NO-BREAK SPACE}%"
    others = [cells for head, cells in found.items() if cells[-1] == "–"]
    assert len(others) == len(found) - 3, "of the others nothing was measured"
    assert all(cells[1].endswith("; –") and cells[2].endswith("; –") and cells[3].endswith("; –") for cells in others)


@pytest.mark.parametrize("changed", ["rate", "pictures"])
def test_worst_attacks_of_two_searches_on_one_cell_stand_in_no_one_table(changed: str, tmp_path: Path, grid_folder: Path) -> None:
    page = page_of(tmp_path, grid_folder, "found")
    lines = (tmp_path / "results" / "made" / "records.jsonl").read_text().splitlines()
    other = next(row for row in map(json.loads, lines) if row["attack"] == "worst" and row["status"] == "ok")
    if changed == "rate":
        other["attack_found"] = other["attack_found"] | {"rate": 0.5}
    else:
        other["pictures_found"] = 7
    (tmp_path / "results" / "two").mkdir()
    (tmp_path / "results" / "two" / "records.jsonl").write_text(json.dumps(other))
    page.write_text(page.read_text().replace("found made", "found made+two"))
    with pytest.raises(GiftError, match="under worst has other settings than in another part"):
        made(page)


def test_what_attacks_leave_is_told_beside_what_they_bring_back(tmp_path: Path, grid_folder: Path) -> None:
    rows = [json.loads(line) for line in (grid_folder / "records.jsonl").read_text().splitlines()]
    for row in rows:
        if row["status"] == "ok" and row["attack"] == "full":
            row["safe_after"] = {"pictures": 60, "before": 0.9, "after": 0.25}
    folder = tmp_path / "grid"
    folder.mkdir()
    (folder / "records.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    page = page_of(tmp_path, folder, "left")
    found = rows_of(made(page))
    areas = [row["area"] for row in rows if (row["method"], row["attack"], row["status"]) == ("esd+gift", "full", "ok")]
    told = found["esd+gift"]
    assert told[found["method"].index("full")] == f"{sum(areas) / len(areas):.2f}; 0.25"
    assert told[found["method"].index("lora")].endswith("; \N{EN DASH}")
    page.write_text(HEAD.format("attacks"))
    turned = rows_of(made(page))
    area, reduction, after = turned["full"][turned["attack"].index("esd+gift")].split("; ")
    assert f"{area}; {after}" == told[found["method"].index("full")]
    page.write_text(HEAD.format("resistance"))
    resisted = rows_of(made(page))
    assert resisted["esd+gift"][resisted["method"].index("full")].startswith(reduction)


def test_damaged_methods_are_told_in_every_table_of_methods(tmp_path: Path, grid_folder: Path) -> None:
    rows = [json.loads(line) for line in (grid_folder / "records.jsonl").read_text().splitlines()]
    for row in rows:
        if row["method"] == "esd+gift" and row["concept"] == "mushroom":
            row["price"]["safe_accuracy"] = 0.3
    for kind in ("resistance", "price", "overall", "left", "recovery", "attacks", "concepts"):
        page = page_of(tmp_path / kind, grid_folder, kind)
        (page.with_suffix("") / "made" / "records.jsonl").write_text("\n".join(map(json.dumps, rows)))
        found = rows_of(made(page))
        if kind == "attacks":
            assert "esd+gift (damaged)" in found["attack"]
            assert "esd+imma" in found["attack"]
        elif kind == "concepts":
            told = dict(zip(found["method"], found["esd+gift"], strict=True))
            assert ", damaged)" in told["mushroom"]
            assert "damaged" not in told["style:noto"]
            assert "damaged" not in "".join(found["esd+imma"])
        else:
            assert "esd+gift (damaged)" in found
            assert "esd+imma" in found
