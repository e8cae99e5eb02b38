"""How captions and prompts name a concept, and how an attacker with a word of their own names it instead."""

from __future__ import annotations

import re
from collections.abc import Callable

from gift.data.art import Art
from gift.data.concept import Concept

Word = Callable[[str], str]
"""From the words that name a concept ('a mushroom') to the attacker's ('a sks mushroom'); the identity where they are the same."""

ARTICLE = re.compile(r"^(an?)\s+", re.IGNORECASE)


def _pattern(mention: str) -> re.Pattern[str]:
    """Whole words, in small or large letters, with the article before them and a plural's s if they are there."""
    bare = r"\s+".join(re.escape(word) for word in ARTICLE.sub("", mention).split())
    return re.compile(rf"(?<!\w)(?:an?\s+)?{bare}s?(?!\w)", re.IGNORECASE)


def says(caption: str, mention: str) -> bool:
    """Whether a caption has a mention's words, as whole ones."""
    return _pattern(mention).search(caption) is not None


def mention_in(concept: Concept, art: Art | None, caption: str) -> str:
    """The words by which a caption names the concept; the concept's own where it does not.

    An object is named by its noun, a style by its word, a category by any of its objects (or its own name), free text by itself.
    """
    own = concept.name
    if art is not None and concept.kind == "object":
        own = art.object(own).noun
    if art is None or concept.kind != "category":
        return own
    nouns = sorted((o.noun for o in art.objects if o.category == own), key=len, reverse=True)  # 'a hot dog' before 'a dog'
    return next((noun for noun in nouns if says(caption, noun)), own)


def reworded(prompt: str, mention: str, word: Word) -> str:
    """A prompt with the attacker's word for the concept.

    Args:
        prompt: a caption or a prompt.
        mention: the words in it that name the concept; '' where that is not known.
        word: the attacker's own words for a mention.

    Returns:
        The prompt with every mention replaced; the fixed instance prompt 'a picture of …' where there is none; the prompt as it
        is where the attacker has no word of their own.
    """
    if word(mention) == mention:
        return prompt
    if mention:
        changed, found = _pattern(mention).subn(lambda match: word(match[0]), prompt)
        if found:
            return changed
    return f"a picture of {word(mention)}"


def with_identifier(identifier: str, mention: str, *, noun: bool = True) -> str:
    """The identifier before the noun, as DreamBooth names a subject: 'an ant' and 'sks' give 'a sks ant', or without it 'a sks'."""
    article, named = ARTICLE.match(mention), ARTICLE.sub("", mention) if noun else ""
    first = next((letter for letter in identifier.lower() if letter.isalpha()), "")
    return " ".join(part for part in (article and ("an" if first in {*"aeiou"} else "a"), identifier, named) if part)
