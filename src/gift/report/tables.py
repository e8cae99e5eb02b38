"""The tables of the pages of results, one function a kind: a grid's summary to Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable
from statistics import median
from typing import Any

from gift.bench.config import PLACES
from gift.bench.never import NAME as LIMIT
from gift.bench.never import PICTURES, limit_of, measured, never_learned, pictures_of
from gift.bench.safe_after import share_left
from gift.bench.summary import damages, limits, mean_in
from gift.metrics.concept import mean
from gift.metrics.recovery import area, steps_to_recover
from gift.report.frontier import front, settings_of
from gift.report.markdown import plain, table
from gift.report.searched import searched
from gift.report.targets import targets
from gift.report.words import number, percent
from gift.settings import make_attack

Summary = dict[str, Any]
"""Of `gift.bench.summary.summarise`, with the records in 'rows'."""


def _with_interval(found: dict[str, Any] | None, show: Callable[[float | None], str]) -> str:
    if found is None:
        return "–"
    ends = found["interval"]
    return show(found["mean"]) if ends is None else f"{show(found['mean'])} ({show(ends[0])} to {show(ends[1])})"


def _names(summary: Summary, what: str) -> list[str]:
    return list(dict.fromkeys(group[what] for group in summary["groups"]))


def _labels(summary: Summary) -> dict[str, str]:
    """What each method is called: damaged ones say so, since weights that draw badly are slow to learn anything."""
    damaged = damages(summary["rows"])
    return {name: plain(name) + (" (damaged)" if name in damaged else "") for name in _names(summary, "method")}


def _by_attack(summary: Summary, show: Callable[[dict[str, Any]], str]) -> list[list[str]]:
    """A row a method, a column an attack; where no cell counts it says how they ended."""
    found = {(group["method"], group["attack"]): group for group in summary["groups"]}

    def cell(group: dict[str, Any] | None) -> str:
        if group is None:
            return "–"
        return show(group) if group["conclusive"] else ", ".join(f"{n} {status}" for status, n in group["statuses"].items())

    attacks = _names(summary, "attack")
    return [[told, *(cell(found.get((method, attack))) for attack in attacks)] for method, told in _labels(summary).items()]


def _limits(summary: Summary, show: Callable[[dict[str, float]], str]) -> list[list[str]]:
    """The row of twins that never saw the concepts, a column an attack, and of how many of the cells it is where it is not of all,
    so that nobody reads it beside means over others; none where they were not measured."""
    least = limits(summary)

    def told(found: dict[str, float]) -> str:
        return show(found) + (f" ({found['cells']} of {found['of']})" if found["cells"] < found["of"] else "")

    return [[LIMIT, *(told(least[a]) if a in least else "–" for a in _names(summary, "attack"))]] if least else []


def resistance(summary: Summary) -> str:
    """For each method and attack the relearning reduction with its interval and the last score; last what twins learn."""

    def show(group: dict[str, Any]) -> str:
        return f"{_with_interval(group['means']['relearning_reduction'], percent)}; {number(mean_in(group, 'score_after'))}"

    def twins(found: dict[str, float]) -> str:
        return f"{percent(found['reduction'])}; {number(found['score_after'])}"

    return table(["method", *map(plain, _names(summary, "attack"))], [*_by_attack(summary, show), *_limits(summary, twins)])


def recovery(summary: Summary) -> str:
    """For each method and attack in how many cells half the original's score came back, and after how many steps."""

    def show(group: dict[str, Any]) -> str:
        found = sorted(step for step in group["recovered"]["steps"] if step is not None)
        told = f"{len(found)}/{group['recovered']['of']}"
        return f"{told} after {found[0]}" + (f" to {found[-1]}" if found[-1] > found[0] else "") if found else told

    return table(["method", *map(plain, _names(summary, "attack"))], _by_attack(summary, show))


PRICES = ("concept before", "safe accuracy", "FID", "neighbours", "benign adaptability", "defence")
REAL = "FID to drawings"


def _far(group: dict[str, Any]) -> tuple[float, float] | None:
    """The distance of a method's pictures to drawings, and the original's; None unless each of its cells has them."""
    found, beside = group["means"]["real_fid"], group["means"]["real_fid_original"]
    if found is None or found["n"] < group["means"]["fid"]["n"]:
        return None
    return found["mean"], beside["mean"]


def _heads(summary: Summary) -> list[str]:
    """`PRICES`, with the distance to drawings after that to the original's pictures, where any method's was measured."""
    measured = {group["method"] for group in summary["groups"] if group["conclusive"] and _far(group)}
    return [*PRICES[:3], *([REAL] if len(measured) > 1 else []), *PRICES[3:]]  # one alone compares with nothing


def _conclusive(summary: Summary, method: str) -> dict[str, Any] | None:
    """A method's group of the most cells that count: what was measured before any attack is the same in all that have the same."""
    found = [group for group in summary["groups"] if group["method"] == method and group["conclusive"]]
    return max(found, key=lambda group: group["statuses"]["ok"], default=None)


def _prices(summary: Summary, method: str) -> list[str]:
    """What `_heads` names; the same before any attack, so of the attack that counts in most cells."""
    heads = _heads(summary)
    group = _conclusive(summary, method)
    if group is None:
        return ["–"] * len(heads)
    real = "–"
    if far := _far(group):
        further = round(far[0] - far[1], 1)
        real = f"{number(far[0], 1)} ({'+' if further > 0 else ''}{number(further, 1)})"
    shares = [share for where in PLACES if (share := mean_in(group, f"adaptability {where}")) is not None]
    return [
        number(mean_in(group, "score_before")),
        _with_interval(group["means"]["safe_accuracy"], number),
        number(mean_in(group, "fid"), 1),
        *([real] if REAL in heads else []),
        number(mean_in(group, "neighbours")),
        percent(mean(shares)) if shares else "–",
        f"{group['costs']['defence']['seconds']:.0f} s",
    ]


def price(summary: Summary) -> str:
    """For each method what it costs elsewhere and how long it takes."""
    return table(["method", *_heads(summary)], [[told, *_prices(summary, method)] for method, told in _labels(summary).items()])


def taught(summary: Summary) -> str:
    """For each method what its weights are to build on: how often they draw a harmless object that they were taught, and what other
    prompts ask for, each beside the original weights taught the same."""

    def cells(group: dict[str, Any]) -> list[str]:
        out = []
        for where in PLACES:
            for name, beside in ((f"taught {where}", f"taught {where}, original"), (f"left {where}", f"left {where}, original")):
                value, original = mean_in(group, name), mean_in(group, beside)
                out.append("–" if value is None else f"{number(value)} ({number(original)})")
        return out

    rows = {}
    for method, told in _labels(summary).items():
        group = _conclusive(summary, method)
        rows[told] = cells(group) if group else ["–"] * 2 * len(PLACES)
    heads = [f"{what} {where}" for where in PLACES for what in ("taught", "left after")]
    kept = [i for i in range(len(heads)) if any(row[i] != "–" for row in rows.values())]
    return table(["method", *(heads[i] for i in kept)], [[told, *(row[i] for i in kept)] for told, row in rows.items()])


def overall(summary: Summary) -> str:
    """For each method the mean relearning reduction under every attack and what it costs, in one table; last what twins learn."""
    rows = _by_attack(summary, lambda group: percent(mean_in(group, "relearning_reduction")))
    rows = [[*row, *_prices(summary, method)] for row, method in zip(rows, _names(summary, "method"), strict=True)]
    twins = _limits(summary, lambda found: percent(found["reduction"]))
    heads = _heads(summary)
    rows += [[*row, *["–"] * len(heads)] for row in twins]
    return table(["method", *map(plain, _names(summary, "attack")), *heads], rows)


def seeds(summary: Summary) -> str:
    """For each method and attack the mean relearning reduction of each seed; then how many points the seeds of one concept are
    apart, the median concept's and the most."""

    def show(group: dict[str, Any]) -> str:
        by: dict[str, dict[Any, list[float]]] = {"seed": {}, "concept": {}}
        for row in summary["rows"]:
            if (row["method"], row["attack"], row["status"]) == (group["method"], group["attack"], "ok"):
                for what, found in by.items():
                    found.setdefault(row[what], []).append(row["relearning_reduction"] or 0.0)
        apart = [100 * (max(found) - min(found)) for found in by["concept"].values()]
        means = [percent(mean(found)) for _, found in sorted(by["seed"].items())]
        return f"{', '.join(means)}; {median(apart):.0f}, {max(apart):.0f}"

    return table(["method", *map(plain, _names(summary, "attack"))], _by_attack(summary, show))


def concepts(summary: Summary) -> str:
    """For each method and concept the relearning reduction under the attack that brings most back there, and whether the method
    counts as damaged on that concept; last that of twins."""
    counted = [row for row in summary["rows"] if row["status"] == "ok"]
    names = list(dict.fromkeys(row["concept"] for row in summary["rows"]))
    found: dict[str, dict[str, list[tuple[str, float]]]] = {method: {} for method in _names(summary, "method")}
    for row in counted:
        found[row["method"]].setdefault(row["concept"], []).append((row["attack"], row["relearning_reduction"] or 0.0))
        if least := limit_of(row):
            found.setdefault(LIMIT, {}).setdefault(row["concept"], []).append((row["attack"], least["reduction"]))

    damaged = {name: damages([row for row in summary["rows"] if row["concept"] == name]) for name in names}

    def worst(method: str, name: str) -> str:
        seen = found[method].get(name, [])
        by_attack = {attack: mean([value for name, value in seen if name == attack]) for attack, _ in seen}
        least = min(by_attack, key=lambda attack: by_attack[attack], default=None)
        doubt = ", damaged" if method in damaged[name] else ""
        return "–" if least is None else f"{percent(by_attack[least])} ({plain(least)}{doubt})"

    rows = [[plain(method), *(worst(method, name) for name in names)] for method in found]
    return table(["method", *(plain(name) for name in names)], rows)


def left(summary: Summary) -> str:
    """For each method and attack how much of the concept is drawn over the attack (area), and the safe accuracy after it."""

    def show(group: dict[str, Any]) -> str:
        return f"{number(mean_in(group, 'area'))}; {number(mean_in(group, 'safe_after'))}"

    return table(["method", *map(plain, _names(summary, "attack"))], _by_attack(summary, show))


def attacks(summary: Summary) -> str:
    """A row an attack, a column a method: the area under the curve, by how much less is relearned than on the control, and the safe
    accuracy after it."""

    def show(group: dict[str, Any]) -> str:
        reduction = percent(mean_in(group, "relearning_reduction"))
        return f"{number(mean_in(group, 'area'))}; {reduction}; {number(mean_in(group, 'safe_after'))}"

    columns: list[list[str]] = [[plain(attack) for attack in _names(summary, "attack")]]
    columns += [row[1:] for row in _by_attack(summary, show)]
    return table(["attack", *_labels(summary).values()], list(zip(*columns, strict=True)))


def found(summary: Summary) -> str:
    """For each worst attack of a search: what it is; the area under the curve, and the step at which half of the original's score
    is back, on these weights, on the control and on twins that never saw the concept; by how much less is learned here and by the
    twins than on the control; and how much of the safe accuracy it leaves here."""
    rows = []
    for row in summary["rows"]:
        if row["status"] != "ok" or "attack_found" not in row:
            continue
        how, left = row["attack_found"], share_left(row.get("safe_after"))
        told = ", ".join([how["name"], f"{how['rate']:.1e}", *(how[name] for name in ("optimiser", "schedule") if name in how)])
        first = how.get("harmless_steps") or 0
        told += f", {first} harmless step{'s' if first > 1 else ''}" if first else ""
        told += f", {number(how['share'])} of its pictures the concept's" if how.get("share", 1.0) < 1 else ""
        told += ", text encoder" if how.get("text_encoder") else ""
        told += f", {row['pictures_found']} pictures" if row.get("pictures_found", PICTURES) != PICTURES else ""
        mine, control = ([(int(step), score) for step, score in row[name]] for name in ("curve", "control_curve"))
        curves = [mine, control, never_learned(row["concept"], how, mine[-1][0], pictures_of(row))]
        areas = [number(None if curve is None else area(curve)) for curve in curves]
        back = [None if curve is None else steps_to_recover(curve, row["original_score"]) for curve in curves]
        after = ["–" if step is None else str(step) for step in back]
        head = f"{plain(row['concept'])}, {plain(row['method'])}, seed {row['seed']}"
        least = limit_of(row)
        shares = [percent(share) for share in (row["relearning_reduction"], None if least is None else least["reduction"])]
        rows.append([head, plain(told), *map("; ".join, (areas, after, shares)), percent(left)])
    beside = f"here; control; {LIMIT}"
    heads = ["worst attack", f"area ({beside})", f"half back ({beside})", f"reduction (here; {LIMIT})", "safe accuracy left"]
    return table(["concept, method, seed", *heads], rows)


def share(summary: Summary) -> str:
    """For each method and attack how far it is from the limit: its relearning reduction beside that of twins, over the cells that
    have them, and the one as a multiple of the other where the limit is above zero."""

    def show(group: dict[str, Any]) -> str:
        found = group["limit"]
        if found is None:
            return "–"
        times = f"; {number(found['share'], 1)} times" if found["reduction"] > 0 else ""
        return f"{percent(found['reached'])} beside {percent(found['reduction'])}{times}"

    return table(["method", *map(plain, _names(summary, "attack"))], _by_attack(summary, show))


def frontier(summary: Summary) -> str:
    """The settings that no other one beats in both FID and mean relearning reduction, the cheapest first."""
    found = settings_of(summary)
    rows = [
        [plain(s.method), number(s.fid, 1), percent(s.reduction), number(s.safe_accuracy), number(s.neighbours)]
        for s in front(found)
    ]
    return table([f"method ({len(rows)} of {len(found)})", "FID", "relearning reduction", "safe accuracy", "neighbours"], rows)


def limit() -> str:
    """For each concept and attack how often twins that never saw the concept draw it after so many steps, over twins and seeds."""
    found = measured().curves
    if not found:
        return ""
    steps = sorted({step for curves in found.values() for curve in curves for step in curve})
    rows = []
    for (concept, attack, options, pictures), curves in found.items():
        given, usual = json.loads(options), make_attack(attack, {}).model_dump(mode="json")
        unusual = [f"{name.replace('_', ' ')} {given[name]}" for name in given if name != "rate" and given[name] != usual[name]]
        unusual += [f"{pictures} pictures"] if pictures != PICTURES else []
        told = ", ".join([plain(attack), *([f"{given['rate']:.3g}"] if "rate" in given else []), *map(plain, unusual)])
        means = [[curve[step] for curve in curves if step in curve] for step in steps]
        scores = [number(mean(values)) if values else "–" for values in means]
        rows.append([f"{plain(concept)}, {told}", str(len(curves)), *scores])
    return table(["concept, attack", "runs", *(f"step {step}" for step in steps)], rows)


KINDS: dict[str, Callable[[Summary], str]] = {
    "resistance": resistance,
    "recovery": recovery,
    "price": price,
    "concepts": concepts,
    "seeds": seeds,
    "overall": overall,
    "share": share,
    "left": left,
    "attacks": attacks,
    "taught": taught,
    "found": found,
    "searched": searched,
    "frontier": frontier,
    "targets": targets,
}
