"""The page's charts, as plotly figures. Colours that depend on light or dark are set by the page's style sheet, not here."""

from __future__ import annotations

import json
from html import escape
from typing import Any

import plotly.graph_objects as go

from gift.bench.record import Result
from gift.report.palette import Look, looks
from gift.report.words import inconclusive

CONFIG = {"displayModeBar": False, "responsive": True, "scrollZoom": False, "doubleClick": "reset", "showTips": False}
FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", "size": 13, "color": "#5b636d"}
FAINT = "rgba(128, 136, 146, 0.28)"
HALF = {"color": "#7d8590", "width": 1.2, "dash": "longdashdot"}
LARGER = {"star": 3, "triangle-up": 2, "triangle-down": 2, "diamond": 1}  # so that all shapes look equally large
HEIGHT = 330


def _label(text: str) -> str:
    """Text from a record, made safe for plotly, which reads some markup in names and hover text."""
    return escape(text, quote=False)


def _axis(title: str, **more: Any) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": FAINT,
        "zeroline": False,
        "showline": False,
        "ticks": "",
        "fixedrange": True,
        "automargin": True,
    } | more


def _layout(x: dict[str, Any], y: dict[str, Any]) -> go.Layout:
    return go.Layout(
        template="none",
        xaxis=x,
        yaxis=y,
        height=HEIGHT,
        margin={"l": 52, "r": 14, "t": 12, "b": 46},
        font=FONT,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        hovermode="closest",
        dragmode=False,
        hoverlabel={"bgcolor": "#20252b", "bordercolor": "#20252b", "font": {"color": "#ffffff", "size": 13}},
    )


def _half(figure: go.Figure, result: Result) -> None:
    """Marks half of the original model's score: above it, the concept counts as recovered."""
    figure.add_hline(y=result.original_score / 2, line=HALF)


def _strength(result: Result, attack: str) -> float:
    """Opacity of an attack's lines and points: faint where they prove nothing."""
    return 0.35 if inconclusive(result, attack) else 1.0


def _marker(look: Look, size: int) -> dict[str, Any]:
    return {"symbol": look.symbol, "size": size + LARGER.get(look.symbol, 0), "color": look.colour}


def recovery(result: Result, attack: str) -> go.Figure:
    """Concept score against attack step, one line a method.

    Args:
        result: the whole record.
        attack: the name of one of its attacks.
    """
    last = max([result.horizon, *(step for row in result.rows for step, _ in row.curve)])
    figure = go.Figure(
        layout=_layout(
            _axis("attack step", range=[-0.04 * last, 1.03 * last], nticks=6),
            _axis("concept score", range=[-0.06, 1.06], dtick=0.25),
        )
    )
    drawn = looks([m.method for m in result.methods])
    for name, look in drawn.items():
        row = result.row(name, attack)
        if row is None:
            continue
        title = _label(result.title(name))
        figure.add_scatter(
            x=[step for step, _ in row.curve],
            y=[score for _, score in row.curve],
            name=title,
            opacity=_strength(result, attack),
            mode="lines+markers",
            line={"color": look.colour, "width": 2.2, "dash": look.dash},
            marker=_marker(look, 8),
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
        layout=_layout(
            _axis("safe accuracy (right: less damage)", range=[low, high], nticks=6, tickformat=".2f"),
            _axis("score after attack", range=[-0.06, 1.06], dtick=0.25),
        )
    )
    for name, look in looks([m.method for m in result.methods]).items():
        row = result.row(name, attack)
        if row is None or row.safe_accuracy is None:
            continue
        title = _label(result.title(name))
        figure.add_scatter(
            x=[row.safe_accuracy],
            y=[row.score_after],
            name=title,
            opacity=_strength(result, attack),
            mode="markers",
            marker=_marker(look, 13),
            cliponaxis=False,
            hovertemplate=f"{title}<br>safe accuracy %{{x:.2f}}<br>score after attack %{{y:.2f}}<extra></extra>",
        )
    _half(figure, result)
    return figure


def bundle(figures: dict[str, go.Figure]) -> str:
    """Figures as one JSON text that can stand inside a script element.

    Args:
        figures: by the id of the element that each is drawn in.
    """
    value = {"config": CONFIG, "figures": {div: json.loads(figure.to_json(engine="json")) for div, figure in figures.items()}}
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
