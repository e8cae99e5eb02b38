"""What a record says besides the recovery curve, from a cell's pieces by what they are to it."""

from __future__ import annotations

from typing import Any

from gift.bench.config import PLACES
from gift.bench.corner import Cell
from gift.bench.harmless import adaptability
from gift.metrics.concept import mean
from gift.metrics.gap import gap_rates, relative_gap, similarity_gap

Row = dict[str, Any]
Curve = list[tuple[int, float]]


def rounded(value: float | None) -> float | None:
    """To six digits, so that records compare."""
    return None if value is None else round(value, 6)


def adaptabilities(cell: Cell, pieces: dict[str, Row]) -> Row:
    """For each harmless object that was taught: where it lies, and the share of the original's gain that is reached."""
    out: Row = {}
    for where in PLACES:
        role = f"harmless {where}"
        if role in pieces:
            share = adaptability(pieces[f"{role}, original"], pieces[role])
            losses = {key: round(pieces[role][key], 6) for key in ("loss_before", "loss_after")}
            scores = {"score": mean(pieces[role]["scores"]), "original_score": mean(pieces[f"{role}, original"]["scores"])}
            safe: Row = {}
            if "safe" in pieces[role]:
                safe = {"safe": rounded(pieces[role]["safe"]), "original_safe": rounded(pieces[f"{role}, original"]["safe"])}
            out[where] = {"object": cell.pieces[role].settings["harmless"], "share": rounded(share), **scores, **losses, **safe}
    return out


def memory_of(found: Row) -> Row:
    """How near the last pictures come to the attacker's: distances in grey levels, and the share of near copies."""
    nearest = sorted(found["nearest"])
    middle = (nearest[(len(nearest) - 1) // 2] + nearest[len(nearest) // 2]) / 2
    values = {"nearest": nearest[0], "median": middle, "apart": found["apart"], "copied": found["copied"]}
    return {key: round(value, 4) for key, value in values.items()}


def similarity_of(key: str, pieces: dict[str, Row]) -> Row:
    """By one embedder: likeness to the attacker's pictures along the attack and its gap rates, and what moved elsewhere."""
    curve, control = (_likeness_curve(pieces[f"likeness {key}{end}"]) for end in ("", ", control"))
    rates = gap_rates(control, curve)
    benign = [_benign_gap(f"likeness {key}, harmless {where}", pieces) for where in PLACES]
    known = [gap for gap in benign if gap is not None]
    return {
        "curve": [list(point) for point in curve],
        "control_curve": [list(point) for point in control],
        "gap": {name: rounded(value) for name, value in (("mean", rates.mean), ("last", rates.last), ("highest", rates.highest))},
        "relative_gap": round(relative_gap([rates.last], known), 6) if known and rates.last is not None else None,
        **{name: pieces[f"shift {key}"][name] for name in ("name", "cmmd", "paired", "real_cmmd", "original_real_cmmd")},
    }


def _likeness_curve(piece: Row) -> Curve:
    """(step, mean similarity to the attacker's pictures)."""
    return [(int(look["step"]), mean(look["similarity"])) for look in piece["looks"]]


def _benign_gap(role: str, pieces: dict[str, Row]) -> float | None:
    """SGR of a harmless object that was taught, beside the original weights; None where it was not, or means nothing."""
    if role not in pieces:
        return None
    undefended, defended = (_likeness_curve(pieces[part])[-1][1] for part in (f"{role}, original", role))
    return similarity_gap(undefended, defended)
