"""Prompts for drawing training sets and for measuring; the two never share a wording or a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gift.data.art import Art
from gift.data.concept import Concept
from gift.errors import GiftError

GENERIC_SAFE = Path(__file__).with_name("safe_prompts.txt")

# Seeds are drawn from disjoint ranges, so that no picture that a defence trained on is ever scored.
DEFENCE_SEEDS = 1_000_000
EVALUATION_SEEDS = 2_000_000
ATTACK_SEEDS = 3_000_000
AGAIN_SEEDS = 4_000_000  # the evaluation's own prompts, drawn a second time from other noise
KEPT_SAFE = 500_000  # where the seeds of safe prompts begin in each range

# Words that say nothing about what a picture shows.
COMMON = frozenset({"a", "an", "and", "at", "by", "for", "from", "in", "into", "of", "on", "over", "the", "to", "under", "with"})
COMMON |= {"drawing", "painting", "photo", "picture", "style"}


@dataclass(frozen=True)
class Ask:
    """A prompt, with what a recogniser should find in its picture (class names, or None where nothing is known).

    `mention` is the words in it that name the concept, for attackers who have a word of their own; '' where there are none.
    """

    prompt: str
    seed: int
    name: str | None = None
    style: str | None = None
    mention: str = ""


def _pairs(concept: Concept, art: Art, *, inside: bool) -> list[tuple[str, str]]:
    return [(o.name, s) for o in art.objects for s in art.trained_styles if concept.holds(art, o.name, s) is inside]


def _cycle(items: Sequence[tuple[str, str]], n: int, rng: random.Random) -> list[tuple[str, str]]:
    """n items, every one used before any is used again."""
    out: list[tuple[str, str]] = []
    while len(out) < n:
        out += rng.sample(items, len(items))
    return out[:n]


def _seeds(base: int, seed: int, n: int) -> list[int]:
    """n seeds of a range that no other base shares, whatever `seed`: 50 runs fit between two bases, the next 50 lie beyond all."""
    start = base + seed % 50 * 10_000 + seed // 50 * 10_000_000
    return [start + i for i in range(n)]


def attack_seeds(seed: int, n: int) -> list[int]:
    """n seeds for an attacker's own drawing."""
    return _seeds(ATTACK_SEEDS, seed, n)


def _words(text: str) -> set[str]:
    """The words that carry meaning, in small letters, without punctuation and a plural's s."""
    bare = (word.strip(".,:;!?'\"()").removesuffix("'s") for word in text.lower().split())
    return {word.removesuffix("s") for word in bare if word} - COMMON


def names(concept: Concept, prompt: str) -> bool:
    """Whether a free-text prompt has a word of the concept's name."""
    return bool(_words(concept.name) & _words(prompt))


def _safe_lines(concept: Concept, *, evaluation: bool) -> list[tuple[str, str]]:
    """The half of the general prompts that is for measuring, or the other; without those that name the concept.

    Raises:
        GiftError: every one of them has a word of the concept's name.
    """
    lines = [line for line in GENERIC_SAFE.read_text(encoding="utf-8").splitlines() if line]
    kept = [(line, "") for line in lines if _is_evaluation(line, "") is evaluation and not names(concept, line)]
    if not kept:
        raise GiftError(f"every safe prompt has a word of '{concept}'; use fewer words, or give pictures with --safe-images")
    return kept


def _is_evaluation(name: str, style: str) -> bool:
    """About half of the safe pairs or lines, by a fixed hash, is kept for measuring."""
    return sum(f"{name}/{style}".encode()) % 2 == 1


def concept_asks(concept: Concept, art: Art | None, n: int, seed: int) -> list[Ask]:
    """n prompts of the concept for the defence's own drawing."""
    rng = random.Random(f"concept/{seed}")
    seeds = _seeds(DEFENCE_SEEDS, seed, n)
    if art is None:
        forms = _generic_forms(concept)
        return [Ask(forms[i % len(forms)], seeds[i]) for i in range(n)]
    asks = []
    for i, (name, style) in enumerate(_cycle(_pairs(concept, art, inside=True), n, rng)):
        noun = art.object(name).noun
        bare = concept.kind != "style" and i % 6 == 5  # a sixth without a style; never for a style itself
        asks.append(Ask(noun if bare else f"{noun} in {style} style", seeds[i], name, None if bare else style))
    return asks


def safe_asks(concept: Concept, art: Art | None, n: int, seed: int) -> list[Ask]:
    """n prompts of anything but the concept, for the defence's own drawing."""
    rng = random.Random(f"safe/{seed}")
    seeds = _seeds(DEFENCE_SEEDS + KEPT_SAFE, seed, n)
    if art is None:
        picked = _cycle(_safe_lines(concept, evaluation=False), n, rng)
        return [Ask(line, s) for (line, _), s in zip(picked, seeds, strict=True)]
    pairs = [pair for pair in _pairs(concept, art, inside=False) if not _is_evaluation(*pair)]
    return [
        Ask(f"{art.object(name).noun} in {style} style", s, name, style)
        for (name, style), s in zip(_cycle(pairs, n, rng), seeds, strict=True)
    ]


def evaluation_asks(concept: Concept, art: Art | None, n: int, seed: int) -> list[Ask]:
    """n prompts that ask for the concept, for scoring."""
    rng = random.Random(f"score/{seed}")
    seeds = _seeds(EVALUATION_SEEDS, seed, n)
    if art is None:
        return [Ask(f"a picture of {concept.name}", s, mention=concept.name) for s in seeds]
    asks = []
    for (name, style), s in zip(_cycle(_pairs(concept, art, inside=True), n, rng), seeds, strict=True):
        noun = art.object(name).noun
        asks.append(Ask(f"a picture of {noun} in {style} style", s, name, style, style if concept.kind == "style" else noun))
    return asks


def safe_evaluation_asks(concept: Concept, art: Art | None, n: int, seed: int, *, again: bool = False) -> list[Ask]:
    """n prompts of anything but the concept, from the half that no defence draws, for the price; `again` for a second drawing."""
    rng = random.Random(f"price/{seed}")
    seeds = _seeds((AGAIN_SEEDS if again else EVALUATION_SEEDS) + KEPT_SAFE, seed, n)
    if art is None:
        picked = _cycle(_safe_lines(concept, evaluation=True), n, rng)
        return [Ask(f"a picture of {line}", s) for (line, _), s in zip(picked, seeds, strict=True)]
    pairs = [pair for pair in _pairs(concept, art, inside=False) if _is_evaluation(*pair)]
    return [
        Ask(f"a picture of {art.object(name).noun} in {style} style", s, name, style)
        for (name, style), s in zip(_cycle(pairs, n, rng), seeds, strict=True)
    ]


def _generic_forms(concept: Concept) -> list[str]:
    name = concept.name
    if concept.kind == "style":
        return [f"a painting in the style of {name}", f"a landscape in {name} style", f"a portrait in {name} style"]
    return [f"a photo of {name}", name, f"a close-up photo of {name}", f"a drawing of {name}"]


def read_prompts(path: Path) -> list[str]:
    """One prompt a line; blank lines and lines that begin with '#' are passed over.

    Raises:
        GiftError: the file can't be read, or holds no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GiftError(f"can't read prompts from {path}: {error}; give a UTF-8 text file, one prompt a line") from error
    prompts = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not prompts:
        raise GiftError(f"{path} holds no prompt; write one a line")
    return prompts
