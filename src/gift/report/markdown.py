"""Markdown that stays what it is whatever a record says: text from records is escaped unless it is ours.

Escapes hold in CommonMark and in GitHub's tables; autolinks, mentions and formulas of the model hub are switched off, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"
SPECIAL = re.compile(r"([\\`*_\[\]{}|~#$!@])")
LINKS = re.compile(r"(?i)(:)(?=//)|(?<=\bwww)(\.)|(?<=\bmailto)(:)")
LIST = re.compile(r"^(\d*)([-+=.)])(?=[\s=-]|$)")
"""What would begin a list, draw a rule, or underline a heading."""
TURNS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Invisible characters that turn the reading direction, so that a name can look like another."""


class Markdown(str):
    """Text that is Markdown already and goes through unescaped."""

    __slots__ = ()


def visible(text: str) -> str:
    """Without control characters (but line breaks), halves of surrogate pairs, and marks that turn the reading direction."""
    return "".join(c for c in text if c == "\n" or (unicodedata.category(c) not in {"Cc", "Cs"} and c not in TURNS))


def plain(text: str) -> Markdown:
    """Any text as one line of Markdown that shows just that text: in a paragraph, list, heading, table or picture's description."""
    line = visible(" ".join(text.split())).strip()
    line = SPECIAL.sub(r"\\\1", line)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = LINKS.sub(lambda found: "\\" + found[0], line)
    return Markdown(LIST.sub(lambda found: f"{found[1]}\\{found[2]}", line))


def fenced(text: str, language: str = "") -> Markdown:
    """A block of code whose fence is longer than any run of backticks in it."""
    text = visible(text.replace("\r\n", "\n").replace("\r", "\n")).strip("\n")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return Markdown(f"{fence}{language}\n{text}\n{fence}")


def settings(value: Any) -> Markdown:
    """Settings as a block of YAML."""
    return fenced(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120), "yaml")


def _shown(value: object) -> str:
    if isinstance(value, Markdown):
        return value
    return plain(value if isinstance(value, str) else repr(value))


@cache
def environment() -> Environment:
    """Templates whose every value is escaped by `plain` unless it is `Markdown`."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"settings": settings, "fenced": fenced}
    return made


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others numbers."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
