"""What all charts share. Colours that depend on light or dark are set by the page's style sheet, not here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

import plotly.graph_objects as go

from gift.report.palette import Look

CONFIG = {"displayModeBar": False, "responsive": True, "scrollZoom": False, "doubleClick": "reset", "showTips": False}
FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", "size": 13, "color": "#5b636d"}
FAINT = "rgba(128, 136, 146, 0.28)"
HALF = {"color": "#7d8590", "width": 1.2, "dash": "longdashdot"}
LARGER = {"star": 3, "triangle-up": 2, "triangle-down": 2, "diamond": 1}  # so that all shapes look equally large
HEIGHT = 330
SCORES = {"range": [-0.06, 1.06], "dtick": 0.25}


def label(text: str) -> str:
    """Text from a record, made safe for plotly, which reads some markup in names and hover text."""
    return escape(text, quote=False)


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a title; `more` is plotly's."""
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": FAINT,
        "zeroline": False,
        "showline": False,
        "ticks": "",
        "fixedrange": True,
        "automargin": True,
    } | more


def layout(x: dict[str, Any], y: dict[str, Any]) -> go.Layout:
    """A chart's frame around two axes."""
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


def marker(look: Look, size: int) -> dict[str, Any]:
    """A look's marker, `size` in pixels."""
    return {"symbol": look.symbol, "size": size + LARGER.get(look.symbol, 0), "color": look.colour}


def bundle(figures: Mapping[str, go.Figure]) -> str:
    """Figures as one JSON text that can stand inside a script element.

    Args:
        figures: by the id of the element that each is drawn in.
    """
    value = {"config": CONFIG, "figures": {div: json.loads(figure.to_json(engine="json")) for div, figure in figures.items()}}
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
