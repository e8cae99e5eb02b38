"""The concept's pictures under made-up words: an attacker needs not call the concept by the word that was immunized."""

from __future__ import annotations

import random

import torch

from gift.data.mention import reworded, with_identifier
from gift.immunizers.base import Task
from gift.models.base import Cond, swapped, take

FEWEST = 64
"""Prompts with made-up words at least, whatever D_h has of its own (choice)."""
CONSONANTS, VOWELS = "bcdfghjklmnpqrstvwz", "aeiou"


def made_up(seed: int, count: int) -> list[str]:
    """`count` words of one to three syllables of two letters each; some may be words of a language, as 'do'."""
    rng = random.Random(f"words/{seed}")
    return ["".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 3))) for _ in range(count)]


class ConceptBatches:
    """Draws batches of D_h, a share of whose pictures stand under a made-up word in the concept's place.

    Args:
        task: the model and D_h. Where a prompt does not say by which words it names the concept, all of it is 'a picture of …'.
        share: of the pictures; 0 encodes and draws nothing more.
    """

    def __init__(self, task: Task, share: float) -> None:
        self.data, self.share = task.concept, share
        if not share:
            return
        own = self.data.prompts
        self.each = -(-FEWEST // len(own))
        mentions = self.data.mentions or [""] * len(own)
        words = made_up(task.seed, self.each * len(own))
        pairs = [*zip(own, mentions, strict=True)] * self.each
        prompts = [
            reworded(prompt, mention, lambda named, word=word: with_identifier(word, named, noun=False))  # type: ignore[misc]
            for (prompt, mention), word in zip(pairs, words, strict=True)
        ]
        self.other: Cond = task.model.encode_prompts(prompts)

    def __call__(self, size: int, generator: torch.Generator) -> tuple[torch.Tensor, Cond]:
        """Latents (N, C, h, w) and conditioning."""
        pick = self.data.draw(size, generator)
        latents, cond = self.data.at(pick)
        if not self.share:
            return latents, cond
        renamed = torch.rand(size, generator=generator) < self.share
        turn = torch.randint(self.each, (size,), generator=generator) * len(self.data.prompts)
        rows = (self.data.which[pick.to(self.data.which.device)].cpu() + turn).to(latents.device)
        return latents, swapped(cond, renamed, take(self.other, rows))
