"""The charts of a demonstration's page, as plotly figures."""

from __future__ import annotations

import plotly.graph_objects as go

from gift.bench.record import Result
from gift.report.drawing import HALF, SCORES, axis, label, layout, marker
from gift.report.palette import looks
from gift.report.words import inconclusive


def _half(figure: go.Figure, result: Result) -> None:
    """Marks half of the original model's score: above it, the concept counts as recovered."""
    figure.add_hline(y=result.original_score / 2, line=HALF)


def _strength(result: Result, attack: str) -> float:
    """Opacity of an attack's lines and points: faint where they prove nothing."""
    return 0.35 if inconclusive(result, attack) else 1.0


def recovery(result: Result, attack: str) -> go.Figure:
    """Concept score against attack step, one line a method.

    Args:
        result: the whole record.
        attack: the name of one of its attacks.
    """
    last = max([result.horizon, *(step for row in result.rows for step, _ in row.curve)])
    figure = go.Figure(
        layout=layout(
            axis("attack step", range=[-0.04 * last, 1.03 * last], nticks=6),
            axis("concept score", **SCORES),
        )
    )
    drawn = looks([m.method for m in result.methods])
    for name, look in drawn.items():
        row = result.row(name, attack)
        if row is None:
            continue
        title = label(result.title(name))
        figure.add_scatter(
            x=[step for step, _ in row.curve],
            y=[score for _, score in row.curve],
            name=title,
            opacity=_strength(result, attack),
            mode="lines+markers",
            line={"color": look.colour, "width": 2.2, "dash": look.dash},
            marker=marker(look, 8),
            cliponaxis=False,
            hovertemplate=f"{title}<br>step %{{x}}: score %{{y:.2f}}<extra></extra>",
        )
    _half(figure, result)
    return figure


def price(result: Result, attack: str) -> go.Figure:
    """Score after the attack (resistance) against accuracy on safe prompts (price), one point a method.

    Args:
        result: the whole record.
        attack: the name of one of its attacks.
    """
    known = [row.safe_accuracy for row in result.rows if row.safe_accuracy is not None]
    low = max(0.0, min([*known, 1.0]) - 0.08)
    high = min(1.0, max([*known, 0.0]) + 0.08) if known else 1.0
    figure = go.Figure(
        layout=layout(
            axis("safe accuracy (right: less damage)", range=[low, high], nticks=6, tickformat=".2f"),
            axis("score after attack", **SCORES),
        )
    )
    for name, look in looks([m.method for m in result.methods]).items():
        row = result.row(name, attack)
        if row is None or row.safe_accuracy is None:
            continue
        title = label(result.title(name))
        figure.add_scatter(
            x=[row.safe_accuracy],
            y=[row.score_after],
            name=title,
            opacity=_strength(result, attack),
            mode="markers",
            marker=marker(look, 13),
            cliponaxis=False,
            hovertemplate=f"{title}<br>safe accuracy %{{x:.2f}}<br>score after attack %{{y:.2f}}<extra></extra>",
        )
    _half(figure, result)
    return figure
