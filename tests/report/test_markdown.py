"""Text from a record is shown as it is, wherever it stands, and makes no structure."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from gift.report.markdown import Markdown, environment, fenced, plain, settings, visible

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
EVIL = [
    "a|b",
    "</details><script>alert(1)</script>",
    "<!-- -->",
    "&lt;b&gt;",
    "`code`",
    "```",
    "- list",
    "+ list",
    "* list",
    "1. list",
    "12) list",
    "# heading #",
    "> quote",
    "---",
    "- - -",
    "===",
    "[a](https://example.com)",
    "![a](x.png)",
    "[a]: https://example.com",
    "_a_ *b* **c** ~~d~~",
    "\\",
    "a\\|b",
    "two\nlines\r\nthree\u2028four\x85five",
    "---\nlicense: mit\n---",
    "\tindented",
    "nul\x00bell\x07",
    "turned \u202eletters",
    "{{ 7*7 }}{% raw %}",
]


def shown(token: Token) -> str:
    """What a reader sees of an inline token."""
    return "".join(child.content for child in token.children or [])


def reads(text: str) -> str:
    return visible(" ".join(text.split())).strip()


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize(
    ("frame", "types"),
    [
        ("- {}\n- end", ["bullet_list_open", "list_item_open", "paragraph_open", "inline"]),
        ("| head |\n|---|\n| {} |\n", ["table_open"]),
        ("before {} after", ["paragraph_open", "inline", "paragraph_close"]),
        ("# {}", ["heading_open", "inline", "heading_close"]),
    ],
)
def test_it_stays_text_in_every_place(text: str, frame: str, types: list[str]) -> None:
    benign, given = (READER.parse(frame.format(x)) for x in ("word", plain(text)))
    assert [token.type for token in given] == [token.type for token in benign]
    assert [token.type for token in given][: len(types)] == types
    assert not [c for token in given for c in token.children or [] if c.type not in {"text", "text_special"}]
    assert reads(text) in [shown(token).removeprefix("before ").removesuffix(" after") for token in given if token.type == "inline"]


@given(st.text(max_size=40))
def test_any_text_in_a_table_cell_is_read_back(text: str) -> None:
    tokens = READER.parse(f"| head | more |\n|---|---|\n| {plain(text)} | end |\n")
    inline = [token for token in tokens if token.type == "inline"]
    assert len(inline) == 4
    assert shown(inline[2]) == reads(text)


@pytest.mark.parametrize("text", ["see https://example.com", "www.example.com", "mailto:me", "@someone", "$$x$$", "me@example.com"])
def test_what_hubs_turn_into_links_and_formulas_is_escaped(text: str) -> None:
    assert not re.search(r"(?<!\\)(://|@|\$)|(?<=www)\.|mailto:", plain(text))
    assert shown(READER.parse(plain(text))[1]) == text


@pytest.mark.parametrize("text", ["LoRA (rank 4)", "esd+gift", "0.90", "-", "style:noto", "not within 150 steps", "−0.20"])
def test_ordinary_text_stays_readable(text: str) -> None:
    assert plain(text) in {text, f"\\{text}"}


@given(st.text(alphabet="`~ab\n -", max_size=40))
def test_nothing_gets_out_of_a_fence(text: str) -> None:
    (token,) = READER.parse(fenced(text, "sh"))
    assert (token.type, token.info) == ("fence", "sh")
    assert token.content.strip("\n") == text.strip("\n")


def test_settings_are_yaml_in_a_fence_that_holds() -> None:
    (token,) = READER.parse(settings({"a": "x\n```\n# y", "```": [1, None]}))
    assert token.type == "fence"
    assert "```" in token.content


def test_templates_escape_all_but_our_own_markdown() -> None:
    template = environment().from_string("{{ evil }} {{ ours }} {{ number }}")
    assert template.render(evil="*a*", ours=Markdown("*b*"), number=3) == "\\*a\\* *b* 3"
