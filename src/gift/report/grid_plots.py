"""The charts of a grid's page, as plotly figures.

Each trace carries in `meta` the `method`, `attack` and `scope` ('' for all concepts) that it is about, so that the page's filter
can leave it out; what a trace does not name it is not filtered by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from gift.metrics.concept import mean
from gift.report.drawing import HALF, SCORES, axis, label, layout, marker
from gift.report.grid_views import Group, Point, Recovery
from gift.report.palette import Look
from gift.report.words import number

FAINT = 0.35
"""Opacity of what proves nothing."""
BAND = 0.16
ROOM = 1.3
"""How far above the longest attack the points lie whose concept did not come back."""
Looks = dict[str, Look]


def _meta(group: Group) -> dict[str, str]:
    return {"method": group.method, "attack": group.attack, "scope": group.scope}


def _with_alpha(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {alpha})"


def span(point: Point) -> str:
    """A mean with its interval, in words."""
    low_high = f" [{number(point.interval[0])}, {number(point.interval[1])}]" if point.interval else ""
    return number(point.mean) + low_high


def _band(figure: go.Figure, group: Group, look: Look) -> None:
    """The 95 % interval at every step, where there is one."""
    ends = [(point.step, *point.interval) for point in group.line if point.interval]
    if not ends:
        return
    figure.add_scatter(
        x=[step for step, _, _ in ends] + [step for step, _, _ in reversed(ends)],
        y=[high for _, _, high in ends] + [low for _, low, _ in reversed(ends)],
        meta=_meta(group),
        mode="lines",
        fill="toself",
        fillcolor=_with_alpha(look.colour, BAND if group.conclusive else BAND * FAINT),
        line={"width": 0},
        hoverinfo="skip",
    )


def recovery(groups: Sequence[Group], looks: Looks, control: str) -> go.Figure:
    """Mean concept score against attack step: a line with a band for each method, and half of the original's score.

    Args:
        groups: of one model and attack, of all scopes.
        looks: of the methods.
        control: the method on whose weights the attack must work; where it is no group itself, each method's control is drawn.
    """
    drawn = [group for group in groups if group.line]
    last = max((group.line[-1].step for group in drawn), default=1)
    figure = go.Figure(
        layout=layout(axis("attack step", range=[-0.04 * last, 1.03 * last], nticks=6), axis("concept score", **SCORES))
    )
    for group in drawn:
        _band(figure, group, looks[group.method])
    listed = any(group.method == control for group in groups)
    for group in drawn:
        look, title = looks[group.method], label(group.method)
        strength, doubt = (1.0, "") if group.conclusive else (FAINT, " (proves nothing)")
        if not listed:
            figure.add_scatter(
                x=[point.step for point in group.control],
                y=[point.mean for point in group.control],
                meta=_meta(group),
                opacity=strength,
                mode="lines",
                line={"color": look.colour, "width": 1.4, "dash": "dot"},
                hovertemplate=f"the same attack on {label(control)}<br>step %{{x}}: score %{{y:.2f}}<extra></extra>",
            )
        figure.add_scatter(
            x=[point.step for point in group.line],
            y=[point.mean for point in group.line],
            text=[span(point) for point in group.line],
            name=title,
            meta=_meta(group),
            opacity=strength,
            mode="lines+markers",
            line={"color": look.colour, "width": 2.2, "dash": look.dash},
            marker=marker(look, 8),
            cliponaxis=False,
            hovertemplate=f"{title}{doubt}<br>step %{{x}}: score %{{text}}<extra></extra>",
        )
    for scope in dict.fromkeys(group.scope for group in drawn):
        goal = mean([row.original_score for group in drawn if group.scope == scope for row in group.rows]) / 2
        figure.add_scatter(
            x=[-0.04 * last, 1.03 * last],
            y=[goal, goal],
            meta={"scope": scope},
            mode="lines",
            line=HALF,
            hovertemplate=f"half of the original's score: {number(goal)}<extra></extra>",
        )
    return figure


def _back(recovery: Recovery) -> str:
    """When the concept came back, for the hover text."""
    of = "" if recovery.of == 1 else f" ({recovery.cells} of {recovery.of} cells recovered)"
    if recovery.step is None:
        return f"not within {recovery.horizon} steps, {number(recovery.seconds, 1)} s{of}"
    return f"back at step {recovery.step}, about {number(recovery.seconds, 1)} s{of}"


def cost(groups: Sequence[Group], looks: Looks) -> go.Figure:
    """The attacker's seconds until the concept is back against the defender's, a point a method.

    Where it is not back within the attack's steps, the point is hollow and stands above a line that says so.

    Args:
        groups: of one model and attack, of all scopes.
        looks: of the methods.
    """
    known = [(group, group.recovery, group.defence_seconds) for group in groups if group.recovery is not None]
    longest = max((row.costs.attack.seconds for group in groups for row in group.rows), default=1.0) or 1.0
    farthest = max((paid for _, _, paid in known if paid is not None), default=0.0) or 1.0
    never = longest * ROOM
    figure = go.Figure(
        layout=layout(
            axis("defender's seconds", range=[-0.06 * farthest, 1.08 * farthest], nticks=6),
            axis("attacker's seconds to recover", range=[-0.06 * never, 1.1 * never], nticks=6),
        )
    )
    horizons = {back.horizon for _, back, _ in known if back and back.step is None}
    if horizons:
        line = longest * (1.6 + ROOM) / 2.6
        figure.add_hline(y=line, line={**HALF, "dash": "dot"})
        figure.add_annotation(
            text=f"not within {max(horizons)} steps",
            x=0,
            xref="paper",
            xanchor="left",
            y=line,
            yanchor="bottom",
            showarrow=False,
            font={"size": 12},
        )
    for group, back, paid in known:
        assert back is not None
        look, title = looks[group.method], label(group.method)
        shape = marker(look, 13)
        if back.step is None:
            shape = {**shape, "symbol": f"{look.symbol}-open", "line": {"width": 2.2, "color": look.colour}}
        figure.add_scatter(
            x=[paid],
            y=[never if back.step is None else back.seconds],
            name=title,
            meta=_meta(group),
            mode="markers",
            marker=shape,
            cliponaxis=False,
            hovertemplate=f"{title}<br>defence {number(paid, 1)} s<br>{_back(back)}<extra></extra>",
        )
    return figure


FIDELITY = {
    "safe_accuracy": ("safe accuracy (right: less damage)", ".2f"),
    "fid": ("FID (left: less damage)", None),
}


def fidelity(groups: Sequence[Group], looks: Looks, price: str) -> go.Figure:
    """Area under the recovery curve (resistance) against a price, a point for each method and attack.

    The method's worst attack is filled, others are hollow. Groups without a cell that counts are left out.

    Args:
        groups: of one model, of all scopes.
        looks: of the methods.
        price: a key of `FIDELITY`.
    """
    title, form = FIDELITY[price]
    known: list[tuple[Group, float, dict[str, Any]]] = []
    for group in groups:
        paid, area = group.means[price], group.means["area"]
        if paid and area:
            known.append((group, paid["mean"], area))
    values = [x for _, x, _ in known] or [0.0]
    room = max(0.08 * (max(values) - min(values)), 0.02)
    shown = {"range": [min(values) - room, max(values) + room], "nticks": 6} | ({"tickformat": form} if form else {})
    figure = go.Figure(layout=layout(axis(title, **shown), axis("area (low: resistant)", **SCORES)))
    for group, x, found in sorted(known, key=lambda entry: entry[0].worst):  # the filled ones over the others
        look, name = looks[group.method], label(group.method)
        shape, y = marker(look, 12), found["mean"]
        if not group.worst:
            shape = {**shape, "symbol": f"{look.symbol}-open", "opacity": 0.75, "line": {"width": 1.6, "color": look.colour}}
        bars: dict[str, Any] = {}
        if found["interval"]:
            low, high = found["interval"]
            bars["error_y"] = {
                "type": "data",
                "symmetric": False,
                "array": [high - y],
                "arrayminus": [y - low],
                "color": _with_alpha(look.colour, 0.5),
                "thickness": 1.2,
                "width": 3,
            }
        figure.add_scatter(
            x=[x],
            y=[y],
            name=name,
            meta=_meta(group),
            mode="markers",
            marker=shape,
            cliponaxis=False,
            hovertemplate=f"{name} under {label(group.attack)}{' (its worst)' if group.worst else ''}<br>"
            f"{title.split(' (')[0]} %{{x:.2f}}<br>area %{{y:.2f}}<extra></extra>",
            **bars,
        )
    return figure
