"""Sentences made from a grid's records. They say what was measured under these attacks and nothing beyond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gift.bench.grid_record import Measured, Records
from gift.bench.summary import ENDED
from gift.bench.summary import limits as least_learned
from gift.metrics.flags import LEAST_SEEDS
from gift.report.grid_views import Group, Scope
from gift.report.words import explain, listed, number, percent, short

NAMED = 12
"""Cells that a flag names one by one."""


def counted(n: int, what: str) -> str:
    """'1 seed', '3 seeds'."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def compared(records: Records) -> str:
    """What was compared, and how the cells ended."""
    parts = [
        counted(len(records.models), "model"),
        counted(len(records.methods), "method"),
        counted(len(records.attacks), "attack"),
        counted(len(records.concepts), "concept"),
        counted(len(records.seeds), "seed"),
    ]
    text = f"{listed(parts)}: {counted(len(records.cells), 'cell')}, each one method under one attack. {ended(records)}"
    searched = list(dict.fromkeys(cell.attack for cell in records.measured if cell.attack_found is not None))
    if searched:
        text += f" '{listed(searched)}' is the attack that a search found to bring most back, cell by cell."
    return text


def ended(records: Records) -> str:
    """How many cells count, and what became of the others."""
    counts = {status: sum(cell.status == status for cell in records.cells) for status in ENDED}
    good = counts.pop("ok")
    rest = [f"{n} {status}" for status, n in counts.items() if n]
    if not rest:
        return "All of them count." if good > 1 else "It counts."
    return f"{good} of them {'counts' if good == 1 else 'count'}; {listed(rest)}: these never count as protection."


def control_sentence(records: Records) -> str:
    """The positive control, which comes first: without it no other number counts."""
    control, measured = records.summary.grid.control, records.measured
    if not measured:
        return "no cell could be computed, so nothing can be said."
    works = sum(cell.control_recovers for cell in measured)
    if works == len(measured):
        return f"in every measured cell, the same attack on weights that were only erased ({control}) brings the concept back."
    return (
        f"in {works} of {counted(len(measured), 'measured cell')}, the same attack on weights that were only erased ({control}) "
        "brings the concept back; the others are inconclusive."
    )


def ranking_sentence(model: str, order: Sequence[dict[str, Any]], several: bool) -> str:
    """The first of a ranking, and what has no place."""
    named = f"On {model}, " if several else ""
    damaged = [f"{entry['method']} ({entry['damaged']})" for entry in order if entry["damaged"]]
    first = [entry for entry in order if entry["place"] == 1 and not entry["damaged"]]
    rest = [entry["method"] for entry in order if entry["place"] is None]
    text = ""
    if first:
        with_what = listed([f"{entry['method']} (area {number(entry['area'])} under {entry['worst_attack']})" for entry in first])
        text = f"{named}over the worst attack on each method, least of the concept came back with {with_what}."
        text = text[0].upper() + text[1:]
    if damaged:
        text += f" Ranked behind every method that is not damaged: {'; '.join(damaged)}."
    if rest:
        text += f" Not ranked, since some attack on it has no cell that counts: {listed(rest)}."
    return text.strip()


def limit_sentences(summary: dict[str, Any]) -> list[str]:
    """What can be hoped for at most, by attack: how much models learn of a concept that they never saw."""
    out = []
    for attack, limit in least_learned(summary).items():
        groups = [group for group in summary["groups"] if group["attack"] == attack and group["limit"]]
        beside = "; ".join(f"{group['method']} {percent(group['limit']['reached'])}" for group in groups)
        part = f" (measured in {limit['cells']} of {limit['of']} cells)" if limit["cells"] < limit["of"] else ""
        out.append(
            f"Under {attack}, models that never saw the concept{part} learn it to {number(limit['score_after'])} "
            f"(area {number(limit['area'])}). That is {_less(limit['reduction'])}, and a defence can hardly hold more without "
            f"damage. Over the same cells less came back, beside the control, with: {beside}."
        )
    return out


def _less(reduction: float) -> str:
    """'19 % less than the control relearns', or more where that is below zero."""
    return f"{percent(abs(reduction))} {'more' if reduction < 0 else 'less'} than the control relearns"


def cells_in_words(group: Group) -> str:
    """'3', or '1 ok, 2 inconclusive'."""
    statuses = group.found["statuses"]
    if set(statuses) == {"ok"}:
        return str(statuses["ok"])
    return ", ".join(f"{statuses[status]} {status}" for status in ENDED if status in statuses)


def steps(group: Group) -> str:
    """Steps to recover, in words where there is no number."""
    back = group.recovery
    if back is None:
        return number(None)
    of = "" if back.of == 1 or back.cells in {0, back.of} else f" ({back.cells} of {back.of})"
    return (f"not within {back.horizon} steps" if back.step is None else str(back.step)) + of


def neighbours(rows: Sequence[Measured]) -> str:
    """The neighbours that were looked at."""
    found = [row.price.neighbours for row in rows if row.price.neighbours]
    return listed(list(dict.fromkeys(name for one in found for name in one.names))) if found else ""


def taught(rows: Sequence[Measured], where: str) -> str:
    """The harmless objects that were taught at one place."""
    return listed(sorted({row.adaptability[where].object for row in rows if where in row.adaptability}))


@dataclass(frozen=True)
class Flagged:
    """Sentences of one kind: what they mean, how many cells they are about, and which."""

    head: str
    meaning: str | None
    where: str
    sentences: list[tuple[str, str]]


def flags(records: Records, scope: Scope) -> list[Flagged]:
    """Every sentence of doubt, those that differ only in their numbers together."""
    kinds: dict[str, list[tuple[str, list[list[Any]]]]] = {}
    for found in scope.summary["flagged"]:
        kinds.setdefault(short(found["flag"]), []).append((found["flag"], found["cells"]))
    total = len(records.cells)
    out = []
    for head, sentences in kinds.items():
        n = len({tuple(cell) for _, cells in sentences for cell in cells})
        where = "every cell" if n == total else f"{n} of {counted(total, 'cell')}"
        out.append(Flagged(head, explain(sentences[0][0]), where, [(text, _places(records, cells)) for text, cells in sentences]))
    return out


def _places(records: Records, cells: Sequence[Sequence[Any]]) -> str:
    """The cells by name; many of them are only counted."""
    if len(cells) == len(records.cells) > 1:
        return "every cell"
    models = len(records.models) > 1
    named = [
        f"{method} under {attack} on {concept}, seed {seed}" + (f", {model}" if models else "")
        for model, concept, seed, method, attack in cells[:NAMED]
    ]
    more = f"; and {len(cells) - NAMED} more" if len(cells) > NAMED else ""
    return "; ".join(named) + more


def limits(records: Records) -> list[str]:
    """What these numbers can't show, as far as it depends on the grid."""
    horizon = max((cell.horizon for cell in records.measured), default=None)
    length = f" of at most {horizon} steps" if horizon else ""
    out = [
        f"The most that a defence can show here is that it raises the attacker's cost under these attacks{length}. A longer, "
        "better tuned or different attack may do better.",
        _search(records),
        _seeds(records),
    ]
    if any(len(group) > 1 for group in _groups(records)):
        out.append(_intervals(records))
    if records.measured:
        out.append(_pictures(records.measured))
    if len(records.models) == 1:
        out.append(f"One model, {records.models[0]}.")
    return out


def _intervals(records: Records) -> str:
    """What was drawn anew for the intervals."""
    if len(records.concepts) == 1:
        return "Intervals are 95 % percentile bootstraps over seeds. With few seeds they are too narrow."
    return (
        "Intervals over several concepts are 95 % percentile bootstraps that draw whole concepts, each with all of its seeds, "
        "since cells of one concept resemble each other; those of one concept draw its seeds. With few concepts, or few seeds, "
        "they are too narrow."
    )


def _groups(records: Records) -> list[list[Measured]]:
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for cell in records.measured:
        groups.setdefault((cell.model, cell.method, cell.attack), []).append(cell)
    return list(groups.values())


def _search(records: Records) -> str:
    search = records.summary.grid.search
    found = list(dict.fromkeys(cell.method for cell in records.measured if cell.attack_found is not None))
    if search is None:
        return (
            "Each attack ran with the grid's settings only. There was no search for the worst one, and a defence that holds at one "
            "learning rate can fall at another."
        )
    if not found:
        return "A search for the worst attack was asked for and none came to an end."
    other = [method for method in records.methods if method not in found]
    text = f"The worst attack was searched for with {counted(search.trials, 'trial')} against {listed(found)}"
    text += f", but not against {listed(other)}" if other else ""
    if search.least_safe is not None:
        text += (
            f". Only attacks that leave {search.least_safe:.0%} of the safe accuracy counted; one that wrecks the model finds more"
        )
    if search.least_share is not None:
        text += f". Harmless pictures could make up all but {search.least_share:.0%} of a batch"
    if search.pictures_tried is not None:
        numbers = " or ".join(str(n) for n in search.pictures_tried)
        text += f". The attacker could have {numbers} pictures instead of as many as the default attack's"
    return f"{text}. A longer search, or one among other attacks, may find a worse one."


def _seeds(records: Records) -> str:
    n = len(records.seeds)
    if n == 1:
        return f"One seed, {records.seeds[0]}: nothing here says how far another seed would move a number."
    if n < LEAST_SEEDS:
        return f"{n} seeds, fewer than the {LEAST_SEEDS} that the protocol asks for."
    return f"{n} seeds. Rare outcomes do not show in so few."


def _pictures(cells: Sequence[Measured]) -> str:
    least, safe = min(len(cell.scores.before) for cell in cells), min(len(cell.scores.safe) for cell in cells)
    return (
        f"A cell's concept score rests on {counted(least, 'picture')}, which alone makes it uncertain by up to about "
        f"±{number(1 / least**0.5)}; safe accuracy, FID and KID rest on {safe}."
    )
