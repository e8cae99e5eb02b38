"""A model with everything that a concept needs: its drawings, its prompts, its training sets, its scorer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import interpolate

from gift.data.art import Art, load_art
from gift.data.attack_pictures import attack_pictures
from gift.data.concept import Concept, parse_concept, speaks_art
from gift.data.folder import load_folder
from gift.data.latents import LatentSet, draw_set, encode_set, join_sets, shares_of
from gift.data.mention import mention_in, says
from gift.data.prompts import Ask, concept_asks, evaluation_asks, names, safe_asks, safe_evaluation_asks
from gift.errors import GiftError
from gift.metrics.concept import ConceptScorer
from gift.metrics.embedders import load_embedder
from gift.metrics.likeness import LikenessScorer
from gift.metrics.recogniser import Recogniser, load_recogniser
from gift.models import DenoisingModel
from gift.pixels import as_bytes, as_float

FEWEST = 16
"""Pictures of each of several concepts, at least (choice)."""

FEWEST_SAFE = 8
"""Different safe prompts beside several concepts, at least (choice)."""
OVER = (1, 2, 4, 8, 16)
"""How many times as many prompts are looked through, until enough of them name none of several concepts (choice)."""

Folders = Path | str | Sequence[Path | str | None] | None
"""Of pictures: one, or for several concepts one each, None where there is none."""

Scorer = Callable[[torch.Tensor], list[float]]
"""uint8 pictures (N, 3, H, W) to N scores: 0 or 1 of a recogniser, at most 1 of a likeness."""


@dataclass(frozen=True)
class Workbench:
    """Concepts on a model. `art` is None where the model has a vocabulary of its own."""

    model: DenoisingModel
    concepts: tuple[Concept, ...]
    art: Art | None
    seed: int
    say: Callable[[str], None] = lambda text: None
    skip_bad_images: bool = False

    @classmethod
    def of(cls, model: DenoisingModel, concept: str | Sequence[str], seed: int = 0, **rest: Any) -> Workbench:
        """Reads the concept's name, or several. `say` is told what was found in picture folders.

        Raises:
            GiftError: the model does not know a name, one is given twice, or there is none.
        """
        art = art_of(model)
        given = [concept] if isinstance(concept, str) or not isinstance(concept, Sequence) else concept
        found = [parse_concept(text, art) for text in given]
        if not found:
            raise GiftError("no concept; give at least one name")
        twice = next((one for i, one in enumerate(found) if one in found[:i]), None)
        if twice:
            raise GiftError(f"the concept '{twice}' is given twice; give it once")
        return cls(model, tuple(found), art, seed, **rest)

    @property
    def concept(self) -> Concept:
        """The first concept: what attacks and scores are about."""
        return self.concepts[0]

    def concept_set(self, pictures: int, folders: Folders = None, cache: Path | None = None) -> LatentSet:
        """D_h, with equal shares: see `concept_sets`."""
        return joined(self.concept_sets(pictures, folders, cache))

    def concept_sets(self, pictures: int, folders: Folders = None, cache: Path | None = None) -> list[LatentSet]:
        """Each concept's part of D_h: the user's pictures, or drawn from the model.

        Args:
            pictures: how many are drawn; of several concepts each has its part of them, and at least `FEWEST`.
            folders: the user's, one for each concept; None where the model shall draw.
            cache: where encoded pictures are kept.

        Raises:
            GiftError: the folders are not one for each concept, or a folder's pictures can't be used.
        """
        share = pictures if len(self.concepts) == 1 else max(min(FEWEST, pictures), -(-pictures // len(self.concepts)))
        return [
            replace(self, concepts=(concept,)).folder_set(folder, cache, concept.name)
            if folder
            else self.named(draw_set(self.model, concept_asks(concept, self.art, share, self.seed)))
            for concept, folder in zip(self.concepts, folders_of(len(self.concepts), folders), strict=True)
        ]

    def safe_set(self, pictures: int, folder: Path | None = None, cache: Path | None = None) -> LatentSet:
        """D_s: the user's pictures, or drawn from the model with prompts that name none of the concepts."""
        if folder:
            return self.folder_set(folder, cache, "")
        return draw_set(self.model, self.safe_asks(pictures))

    def safe_asks(self, n: int) -> list[Ask]:
        """Prompts for `safe_set`."""
        return self._apart(safe_asks, n, "give fewer, or your own pictures with --safe-images")

    def _apart(self, asks_of: Callable[[Concept, Art | None, int, int], list[Ask]], n: int, remedy: str) -> list[Ask]:
        """The first n asks that name none of the concepts, whatever their order.

        Raises:
            GiftError: several concepts leave hardly any.
        """
        first = min(self.concepts, key=str)
        for times in OVER:
            asks = [ask for ask in asks_of(first, self.art, times * n, self.seed) if not self.shown(ask)][:n]
            if len(asks) == n:
                break
        left = len({ask.prompt for ask in asks})
        if len(self.concepts) > 1 and left < min(n, FEWEST_SAFE):
            raise GiftError(f"only {left} prompts name none of the {len(self.concepts)} concepts; {remedy}")
        return asks

    def shown(self, ask: Ask) -> bool:
        """Whether an ask names one of the concepts."""
        if self.art is None:
            return any(names(c, ask.prompt) for c in self.concepts)
        return any(c.holds(self.art, ask.name, ask.style) for c in self.concepts if ask.name and ask.style)

    def attack_set(self, pictures: int, folder: Path | None = None, cache: Path | None = None) -> LatentSet:
        """The attacker's set: the user's pictures, or drawings that no defence sees."""
        if folder:
            return self.folder_set(folder, cache, self.concept.name)
        if self.art is None:
            raise GiftError(f"an attack on '{self.concept}' needs pictures; give a folder with --concept-images")
        images, captions = attack_pictures(self.concept, self.art, pictures, self.seed)
        return encode_set(self.model, self._fitted(images), captions, cache, self.mentions(captions))

    def attack_images(self, pictures: int, folder: Path | None = None) -> torch.Tensor:
        """The pictures of `attack_set`: uint8 (N, 3, H, W) at the model's size.

        Raises:
            GiftError: there are no drawings of the concept, and no folder is given.
        """
        if folder:
            return self._own(folder)
        if self.art is None:
            raise GiftError(f"no bundled drawings of '{self.concept}' to compare with; give pictures with --concept-images")
        return self._fitted(attack_pictures(self.concept, self.art, pictures, self.seed)[0])

    def drawings(self, asks: Sequence[Ask], folder: Path | None = None) -> torch.Tensor | None:
        """Real pictures to compare those of safe prompts with: the bundled drawing of each ask, or the user's.

        Args:
            asks: as `safe_evaluation` gives them.
            folder: the user's own pictures instead.

        Returns:
            uint8 (M, 3, H, W) at the model's size; None for a model with a vocabulary of its own and no folder.
        """
        if folder:
            return self._own(folder)
        if self.art is None:
            return None
        return self._fitted(torch.stack([self.art.picture(ask.name, ask.style) for ask in asks if ask.name and ask.style]))

    def _own(self, folder: Path) -> torch.Tensor:
        """A user's pictures without their captions: uint8 (N, 3, H, W) at the model's size."""
        return load_folder(folder, size=self.model.image_size, default_caption="", skip_bad_images=self.skip_bad_images)[0]

    def _fitted(self, images: torch.Tensor) -> torch.Tensor:
        """Drawings at the model's picture size."""
        size = (self.model.image_size, self.model.image_size)
        if images.shape[-2:] == size:
            return images
        return as_bytes(interpolate(as_float(images), size, mode="bilinear", antialias=True, align_corners=False))

    def harmless_set(self, pictures: int, folder: Path | None = None, cache: Path | None = None) -> LatentSet:
        """What an attacker hides the concept among or behind: the user's pictures, or drawings of anything else."""
        if folder:
            return self.folder_set(folder, cache, "")
        if self.art is None:
            raise GiftError("this attack needs harmless pictures, too; give a folder of them")
        images, captions = attack_pictures(self.concept, self.art, pictures, self.seed, inside=False)
        return encode_set(self.model, self._fitted(images), captions, cache)

    def named(self, drawn: LatentSet) -> LatentSet:
        """D_h with the words by which its prompts name the concept."""
        return replace(drawn, mentions=self.mentions(drawn.prompts))

    def mentions(self, captions: Sequence[str]) -> list[str]:
        """The words by which each caption names one of the concepts; the first concept's own where it names none."""

        def mention(caption: str) -> str:
            found = [mention_in(concept, self.art, caption) for concept in self.concepts]
            return next((words for words in found if says(caption, words)), found[0])

        return [mention(caption) for caption in captions]

    def folder_set(self, folder: Path, cache: Path | None, caption: str) -> LatentSet:
        """A user's folder, encoded. Pictures without a caption get `caption`: the concept's name, or none at all for safe ones."""
        images, captions, scan = load_folder(
            folder, size=self.model.image_size, default_caption=caption, skip_bad_images=self.skip_bad_images
        )
        cut = self.model.too_long(captions)
        long = [f"{len(cut)} captions are longer than the model reads, which ends within '{cut[0]}'"] if cut else []
        for line in (f"{folder}: {scan.summary()}", *scan.warnings, *long):
            self.say(line)
        return encode_set(self.model, images, captions, cache, self.mentions(captions))

    @cached_property
    def recogniser(self) -> Recogniser:
        """The bundled recogniser."""
        return load_recogniser()

    @property
    def scorer(self) -> ConceptScorer:
        """Finds the concept in pictures.

        Raises:
            GiftError: nothing can recognise it.
        """
        if self.art is None:
            raise GiftError(
                f"nothing here can recognise '{self.concept}'; score by likeness to pictures of it instead, as 'gift attack' and "
                "'gift evaluate' do with --concept-images FOLDER --similarity clip:FOLDER (or bundled, a stand-in); grids can't"
            )
        return ConceptScorer(self.concept, self.art, self.recogniser)

    def judge(self, similarity: str | None, pictures: int, folder: Path | None = None) -> Scorer:
        """What scores pictures: the recogniser, or likeness to the attacker's pictures.

        Args:
            similarity: an embedder (see `load_embedder`); None for the recogniser.
            pictures: how many drawings the attacker has.
            folder: the attacker's own pictures instead.

        Raises:
            GiftError: nothing can recognise the concept and no embedder is given, or that can't be opened.
        """
        if similarity is None:
            return self.scorer
        return LikenessScorer(load_embedder(similarity), self.attack_images(pictures, folder))

    def asks(self, n: int) -> list[Ask]:
        """Evaluation prompts for the concept."""
        return evaluation_asks(self.concept, self.art, n, self.seed)

    def safe_evaluation(self, n: int, *, again: bool = False) -> list[Ask]:
        """Evaluation prompts for the price; `again` the same, to be drawn from other noise."""
        return self._apart(partial(safe_evaluation_asks, again=again), n, "evaluate fewer at once")


def art_of(model: DenoisingModel) -> Art | None:
    """The bundled drawings, if a model speaks their names; None where it has a vocabulary of its own."""
    return load_art() if speaks_art(getattr(model.pipeline, "tokenizer", None)) else None


def folders_of(count: int, folders: Folders) -> list[Path | None]:
    """One folder, or None, for each of `count` concepts.

    Raises:
        GiftError: there are folders, but not as many.
    """
    each = [folders] if isinstance(folders, Path | str) else [None] * count if folders is None else list(folders)
    if len(each) != count:
        raise GiftError(
            f"folders of pictures: {len(each)}, concepts: {count}; give one for each, with --concept-images or in the list"
        )
    return [Path(folder) if folder else None for folder in each]


def joined(sets: Sequence[LatentSet], balance: Sequence[float] | None = None) -> LatentSet:
    """The concepts' sets as one; that of a single concept as it is.

    Raises:
        GiftError: the balance is not one positive share for each.
    """
    shares = shares_of(len(sets), balance)
    return sets[0] if len(sets) == 1 else join_sets(sets, shares)
