"""Makes a page of one file: style sheet, scripts and plotly inside it, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from gift.report import words
from gift.report.drawing import bundle

TEMPLATES = Path(__file__).parent / "templates"
PAGE = Path("report", "index.html")
"""Where a page lies in the folder that it is about."""


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": words.number, "percent": words.percent, "yaml": _yaml, "short": words.short}
    return environment


def _yaml(value: dict[str, Any]) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False).strip()


def _asset(text: str, closing: str) -> Markup:
    """Our own style sheet or script, or plotly's, as it is; never the record's text. `closing` would end its element early."""
    if closing in text:
        raise ValueError(f"an inlined file holds {closing}")
    return Markup(text)


def _files(names: Sequence[str], closing: str) -> Markup:
    return _asset("".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names), closing)


def render(template: str, figures: Mapping[str, go.Figure], *, styles: Sequence[str], scripts: Sequence[str], **values: Any) -> str:
    """A page as HTML. The same arguments give the same text; all of `values` is escaped.

    Args:
        template: a file of `templates/` that extends `base.html.j2`.
        figures: by the id of the element that each is drawn in.
        styles: files of `templates/`, in order.
        scripts: files of `templates/`, in order.
        values: what the template shows.
    """
    inlined = {
        "css": _files(styles, "</style"),
        "script": _files(scripts, "</script"),
        "plotly": _asset(get_plotlyjs(), "</script"),
        "figures": _asset(bundle(figures), "</"),
    }
    return _environment().get_template(template).render(**values, **inlined)
