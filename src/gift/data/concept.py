"""What is to be immunized against: an object, a drawing style, a category, or free text for models with their own vocabulary."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal
from unicodedata import category

from gift.data.art import Art, load_art
from gift.errors import GiftError, one_of

Kind = Literal["object", "style", "category", "text"]


@dataclass(frozen=True)
class Concept:
    """A concept by kind and name. `str()` gives the form that the command line takes."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return self.name if self.kind in {"object", "text"} else f"{self.kind}:{self.name}"

    def holds(self, art: Art, name: str, style: str) -> bool:
        """Whether a drawing of `name` in `style` shows the concept."""
        if self.kind == "style":
            return style == self.name
        if self.kind == "category":
            return art.object(name).category == self.name
        return name == self.name


def speaks_art(tokenizer: Any) -> bool:
    """Whether a model's tokenizer has the bundled vocabulary: then its concepts are the bundled drawings' own."""
    try:
        vocabulary = tokenizer.get_vocab()
    except AttributeError:
        return False
    return len(vocabulary) < 10_000 and all(f"{style}</w>" in vocabulary for style in load_art().trained_styles)


def spelled(text: str) -> str:
    """A concept's name in one spelling, whatever spaces it was written with."""
    return re.sub(r"\s*:\s*", ":", " ".join(text.split()))


def parse_concept(text: str, art: Art | None) -> Concept:
    """Reads 'mushroom', 'style:openmoji' or 'category:food'; without `art`, any text is a concept.

    Raises:
        GiftError: the text is empty or holds control characters or undecodable bytes, or the bundled model does not know the name.
    """
    if not isinstance(text, str):
        raise GiftError(f"the concept is {text!r}; give a name such as 'mushroom', 'style:openmoji' or 'category:food'")
    text = " ".join(text.split())
    if any(category(c) in {"Cc", "Cs"} for c in text):
        raise GiftError(f"the concept {text!r} holds a character that is not text; write it in UTF-8")
    if art is None:  # to such a model a category is a word like any other
        text = re.sub(r"^(category:\s*)+", "", text)
    kind, colon, name = text.partition(":")
    name = name.strip()
    if not text or (colon and not name):
        raise GiftError("the concept is empty; give a name such as 'mushroom', 'style:openmoji' or 'category:food'")
    if art is None:
        return Concept("style", name) if kind == "style" and colon else Concept("text", text)
    known: dict[str, list[str]] = {"object": art.names, "style": list(art.trained_styles), "category": art.categories}
    if colon and kind not in known:
        raise GiftError(f"no kind of concept '{kind}'; use NAME, style:NAME or category:NAME")
    if not colon:
        kind, name = "object", text
    if name not in known[kind]:
        raise one_of(kind if colon else "concept", name, known[kind])
    return Concept(kind, name)  # type: ignore[arg-type]
