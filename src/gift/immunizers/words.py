"""The concept's pictures under made-up words: an attacker needs not call the concept by the word that was immunized."""

from __future__ import annotations

import random

import torch

from gift.data.latents import LatentSet
from gift.data.mention import reworded, with_identifier
from gift.models import DenoisingModel
from gift.models.base import Cond, Embed, take

FEWEST = 64
"""Prompts with made-up words at least, whatever the set has of its own (choice)."""
CONSONANTS, VOWELS = "bcdfghjklmnpqrstvwz", "aeiou"


def made_up(seed: int, count: int) -> list[str]:
    """`count` words of one to three syllables of two letters each; some may be words of a language, as 'do'."""
    rng = random.Random(f"words/{seed}")
    return ["".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 3))) for _ in range(count)]


class Renamed:
    """A concept's pictures, each of whose prompts has made-up words in the concept's place.

    Args:
        model: encodes the prompts.
        data: D_h. Where a prompt does not say by which words it names the concept, all of it is 'a picture of …'.
        seed: of the words.
    """

    def __init__(self, model: DenoisingModel, data: LatentSet, seed: int) -> None:
        self.data = data
        self.each = -(-FEWEST // len(data.prompts))
        mentions = data.mentions or [""] * len(data.prompts)
        pairs = [*zip(data.prompts, mentions, strict=True)] * self.each
        words = made_up(seed, len(pairs))
        self.prompts = [
            reworded(prompt, mention, lambda named, word=word: with_identifier(word, named, noun=False))  # type: ignore[misc]
            for (prompt, mention), word in zip(pairs, words, strict=True)
        ]
        self.cond: Cond = model.encode_prompts(self.prompts)

    def batch(self, size: int, generator: torch.Generator, embed: Embed | None = None) -> tuple[torch.Tensor, Cond]:
        """`size` pictures drawn with replacement, each under one of its prompt's words: latents and conditioning.

        Args:
            size: how many.
            generator: of the draws.
            embed: encodes the prompts anew; None for the embeddings that are kept.
        """
        pick = self.data.draw(size, generator).to(self.data.which.device)
        turn = torch.randint(self.each, (size,), generator=generator).to(pick.device)
        rows = self.data.which[pick] + turn * len(self.data.prompts)
        cond = take(self.cond, rows) if embed is None else embed([self.prompts[row] for row in rows.tolist()])
        return self.data.latents[pick], cond
