"""One look per method, the same in every chart, legend and table.

Colours follow Okabe and Ito (told apart with any common colour blindness), darkened or lightened until each keeps a contrast of
3:1 on the light and on the dark page. Marker shape and dash repeat what the colour says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup


@dataclass(frozen=True)
class Look:
    """How one method is drawn. `symbol` and `dash` are plotly's names."""

    colour: str
    symbol: str
    dash: str = "solid"


KNOWN = {
    "original": Look("#7d8590", "circle", "dash"),
    "none": Look("#7d8590", "circle", "dash"),
    "esd": Look("#d55e00", "square", "dot"),
    "ascent": Look("#b565a7", "triangle-up"),
    "imma": Look("#0b8f6b", "diamond"),
    "gift": Look("#2a7fc9", "star"),
}
SPARE = [Look("#a07a00", "triangle-down"), Look("#3f8fa8", "cross"), Look("#9a6a4f", "x"), Look("#8a6fd1", "pentagon")]

SHAPES = {
    "circle": '<circle cx="14" cy="7" r="4.2"/>',
    "square": '<rect x="10" y="3" width="8" height="8"/>',
    "triangle-up": '<path d="M14 2.2 18.6 11H9.4Z"/>',
    "triangle-down": '<path d="M14 11.8 18.6 3H9.4Z"/>',
    "diamond": '<path d="M14 1.8 19.2 7 14 12.2 8.8 7Z"/>',
    "star": '<path d="M14 .8 15.8 5 20.2 5.3 16.8 8.2 17.9 12.6 14 10.2 10.1 12.6 11.2 8.2 7.8 5.3 12.2 5Z"/>',
    "cross": '<path d="M12.3 2.5h3.4v2.8h2.8v3.4h-2.8v2.8h-3.4V8.7H9.5V5.3h2.8Z"/>',
    "x": '<path d="M10.5 2.5 14 5.5 17.5 2.5 18.8 4 15.6 7 18.8 10 17.5 11.5 14 8.5 10.5 11.5 9.2 10 12.4 7 9.2 4Z"/>',
    "pentagon": '<path d="M14 2 19 5.8 17.1 11.8H10.9L9 5.8Z"/>',
}
DASHES = {
    "solid": "",
    "dash": ' stroke-dasharray="5 3"',
    "dot": ' stroke-dasharray="1.5 2.5"',
    "longdash": ' stroke-dasharray="9 4"',
    "dashdot": ' stroke-dasharray="6 2.5 1.5 2.5"',
}
AGAIN = ("solid", "longdash", "dashdot")
"""Dashes of the spare looks when they start over."""


def _spare(place: int) -> Look:
    return replace(SPARE[place % len(SPARE)], dash=AGAIN[place // len(SPARE) % len(AGAIN)])


def looks(methods: Sequence[str], last: Mapping[str, str] | None = None) -> dict[str, Look]:
    """A look for each method; unknown ones take the spare looks in order, and start over with another dash when those run out.

    Args:
        methods: their names.
        last: the last method of each one's chain; the first chain that ends in a known method looks like it, unless that
            method is there itself.
    """
    drawn = {name: KNOWN[name] for name in methods if name in KNOWN}
    taken = set(drawn)
    for name, end in (last or {}).items():
        if name not in drawn and end in KNOWN and end not in taken:
            drawn[name] = KNOWN[end]
            taken.add(end)
    strangers = [name for name in methods if name not in drawn]
    return {name: drawn.get(name) or _spare(strangers.index(name)) for name in methods}


HALFWAY = Markup(
    '<svg class="swatch" viewBox="0 0 28 14" width="28" height="14" aria-hidden="true" focusable="false">'
    '<path d="M0 7h28" fill="none" stroke="#7d8590" stroke-width="1.4" stroke-dasharray="9 3 2 3"/></svg>'
)


def swatch(look: Look) -> Markup:
    """A small inline drawing of the method's line and marker. Hidden from screen readers: the name stands beside it."""
    line = f'<path d="M0 7h28" fill="none" stroke="{look.colour}" stroke-width="2"{DASHES[look.dash]}/>'
    return Markup(
        f'<svg class="swatch" viewBox="0 0 28 14" width="28" height="14" aria-hidden="true" focusable="false">{line}'
        f'<g fill="{look.colour}">{SHAPES[look.symbol]}</g></svg>'
    )
