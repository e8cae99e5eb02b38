"""What methods reach of the targets, beside sums made by hand."""

from __future__ import annotations

from typing import Any

from gift.report.targets import MET, TARGETS, targets

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


def row(method: str, attack: str, reduction: float, **changes: Any) -> dict[str, Any]:
    """A record's parts that the table reads."""
    price = {
        "safe_accuracy": 0.9,
        "fid": 5.0,
        "neighbours": {"score": 0.8, "original_score": 0.9},
        "redrawn": {"fid": 3.0, "kid": 0.0},
    }
    places = {"near inside": {"share": 0.9}, "far outside": {"share": 1.1}}
    plain = {"model": "tiny", "concept": "owl", "seed": 0, "status": "ok", "adaptability": places, "original_score": 1.0}
    settings = {"methods": {} if method == "none" else {method: {}}, "control": "esd"}
    found = {**plain, "settings": settings, "method": method, "attack": attack, "relearning_reduction": reduction}
    return {**found, "price": {**price, **changes.pop("price", {})}, **changes}


def told(*rows: dict[str, Any]) -> dict[str, list[str]]:
    groups = [{"method": method} for method in dict.fromkeys(row["method"] for row in rows)]
    lines = [
        line.strip("| \n").split(" | ")
        for line in targets({"rows": rows, "groups": groups}).replace("\N{NARROW NO-BREAK SPACE}", " ").splitlines()
    ]
    assert lines[0] == ["method", *TARGETS]
    return {line[0]: line[1:] for line in lines[2:]}


def test_every_target_is_marked_where_it_is_met() -> None:
    original = row("none", "lora", 0.0, price={"safe_accuracy": 0.91, "fid": 0.0, "neighbours": None})
    worst = [[0, 0.0], [10, 0.2], [50, 0.5], [100, 0.9]]
    control = [[0, 0.0], [10, 0.6], [50, 0.9], [100, 0.9]]
    good = [
        row("a", "lora", 0.99, price={"fid": 3.5}),
        row("a", "full", 0.93, price={"fid": 3.5}),
        row("a", "worst", -0.5, curve=worst, control_curve=control, price={"fid": 3.5}),
    ]
    found = told(original, *good, row("b", "lora", 1.0), row("b", "full", 0.5, seed=1, price={"safe_accuracy": 0.7, "fid": 9.0}))
    mark = f" {MET}"
    assert found["a"] == [
        f"93 %{mark}",
        f"96 %{mark}",  # of the attacks that everyone met: the worst is that of a search
        f"5.0 (1 of 1){mark}",
        f"0.5{mark}",
        f"1.0{mark}",
        f"100 %{mark}",
        "10.0",
    ]
    # No untouched weights were measured at seed 1, so that its safe accuracy is beside nothing.
    assert found["b"] == ["50 %", "75 %", DASH, "4.0", f"1.0{mark}", f"100 %{mark}", "10.0"]


def test_what_is_compared_with_itself_has_no_resistance() -> None:
    alone = row("none", "lora", 0.0, price={"fid": 0.0})
    alone["settings"]["control"] = "none"
    found = told(alone, row("esd", "lora", 0.0), row("a", "lora", 0.4))
    assert found["none"][:2] == found["esd"][:2] == [DASH, DASH]
    assert found["a"][:2] == ["40 %", "40 %"]
    assert found["esd"][3:5] == found["a"][3:5]


def test_each_corner_counts_once_and_a_method_that_gains_is_within_the_target() -> None:
    original = [row("none", "lora", 0.0, seed=seed, price={"safe_accuracy": 0.8, "fid": 0.0}) for seed in (0, 1)]
    cells = [row("a", attack, 0.5, price={"safe_accuracy": 0.9}) for attack in ("lora", "full", "full, 1e-3")]
    found = told(*original, *cells, row("a", "lora", 0.5, seed=1, price={"safe_accuracy": 0.6, "fid": 1.0}))
    assert found["a"][3:5] == ["0.0" + f" {MET}", "5.0"]
    assert told(*original, *cells)["a"][4] == f"{MINUS}10.0 {MET}"


def test_what_is_told_as_the_target_meets_it() -> None:
    cell = row("a", "lora", 0.896, price={"neighbours": {"score": 0.8496, "original_score": 0.9}})
    assert told(cell)["a"][0] == f"90 % {MET}"
    assert told(cell)["a"][1] == "90 %"
    assert told(cell)["a"][6] == f"5.0 {MET}"


def test_what_was_not_measured_is_not_told_and_failed_cells_do_not_count() -> None:
    bare = row("a", "lora", 0.7, price={"redrawn": None, "neighbours": None}, adaptability={})
    spoilt = row("a", "full", 0.0, status="inconclusive")
    assert told(bare, spoilt)["a"] == ["70 %", "70 %", *[DASH] * 5]


def test_an_attack_that_never_gets_there_took_its_whole_length() -> None:
    never, soon = [[0, 0.0], [100, 0.1]], [[0, 0.0], [10, 0.5], [100, 0.9]]
    slow = row("a", "worst", 1.0, curve=never, control_curve=soon)
    fast = row("a", "worst", 0.0, curve=soon, control_curve=soon, seed=1)
    there = row("a", "worst", 0.0, curve=soon, control_curve=[[0, 0.7], [100, 0.9]], seed=2)  # never gone: nothing to compare
    assert told(slow, fast, there)["a"][2] == "1.0 (1 of 2)"
    assert told(slow)["a"][2] == f"10.0 (1 of 1) {MET}"
