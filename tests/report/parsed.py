"""A page read back as HTML."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

LOADING = {"src", "href", "srcset", "action", "data", "poster", "formaction", "background", "xlink:href"}
VOID_TAGS = {"meta", "link", "img", "br", "hr", "input"}


class Seen(HTMLParser):
    """Collects what the checks below ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.rows: dict[str, str] = {}
        self.images: list[dict[str, str | None]] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.styles = ""
        self.figures: dict[str, Any] = {}
        self._row: str | None = None
        self._json = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in LOADING]
        self.styles += " ".join(value or "" for name, value in attrs if name == "style")
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag == "tr":
            self._row = given.get("data-row")
            if self._row is not None:
                assert self._row not in self.rows, "a row is shown twice"
                self.rows[self._row] = ""
        if tag in {"td", "th"} and self._row is not None:
            self.rows[self._row] += " "
        if tag == "img":
            self.images.append(given)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self._json = given.get("type") == "application/json"
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr":
            self._row = None
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._json:
            self.figures = json.loads(data)["figures"]
            self._json = False
        if "style" in self.open:
            self.styles += data
        elif "script" not in self.open:
            self.text += data
            if self._row is not None:
                self.rows[self._row] += data


def parsed(page: Path) -> Seen:
    """What a written page holds."""
    parser = Seen()
    parser.feed(page.read_text(encoding="utf-8"))
    parser.close()
    parser.text = " ".join(parser.text.split())
    return parser
