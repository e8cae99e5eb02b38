"""What searches for the worst attack came upon: all that they tried, and what of that leaves a model."""

from __future__ import annotations

from typing import Any

from gift.report.markdown import plain, table
from gift.report.words import number, percent


def searched(summary: dict[str, Any]) -> str:
    """For each search: how many attacks it tried and how many of them leave enough of the safe accuracy to count; of those, and of
    all, the one with the largest area under its curve: that area, its last score, and its share of the safe accuracy before.

    An attack that leaves enough may be too weak to teach the control anything: then the row of the worst one is inconclusive, and
    this is what is known. Searches without a bound, and those whose trials do not say what they leave, have no row.
    """
    rows = []
    for row in summary["rows"]:
        trials = [trial for trial in (row.get("search") or {}).get("trials", []) if trial.get("safe_left") is not None]
        if not trials:
            continue
        counting = [trial for trial in trials if trial["counts"]]
        head = f"{plain(row['concept'])}, {plain(row['method'])}, seed {row['seed']}"
        rows.append([head, str(len(trials)), str(len(counting)), _most(counting), _most(trials)])
    return table(["concept, method, seed", "attacks", "leave enough", "most of those", "most of all"], rows)


def _most(trials: list[dict[str, Any]]) -> str:
    """Area, last score and what is left, of the trial with the largest area."""
    if not trials:
        return "–"
    most = max(trials, key=lambda trial: trial["area"])
    return f"{number(most['area'])}; {number(most['last'])}; {percent(most['safe_left'])}"
