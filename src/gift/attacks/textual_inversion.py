"""Textual Inversion (Gal et al., ICLR 2023): a new word whose embedding alone is learned."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from torch import nn

from gift.attacks.base import FEW, Attack
from gift.errors import GiftError
from gift.files import whole_folder
from gift.models import DenoisingModel
from gift.models.placeholder import add_placeholder, fold_placeholder, save_placeholder
from gift.training.updates import Rate


class TextualInversion(Attack):
    """Trains the embedding of a placeholder and nothing else, as diffusers' `textual_inversion.py` does.

    A word can only choose among what the model draws, so the pictures must be such as it draws. The first of an object's bundled
    drawings are as the artists drew them, those after them turned and recoloured: it has a few by default, not dozens
    (docs/results.md, DreamBooth and Textual Inversion).
    """

    name: ClassVar[str] = "textual-inversion"
    title: ClassVar[str] = "Textual Inversion"
    about: ClassVar[str] = "Only the embedding of a new word is trained; every weight of the model stays."

    few: ClassVar[int | None] = FEW

    rate: Rate = Field(default=5e-2, description="learning rate (choice for the bundled model; on Stable Diffusion 5e-4 is usual)")
    token: str = Field(
        default="<concept>", pattern=r"^\S+$", description="the placeholder, which takes the concept's place in prompts"
    )
    vectors: int = Field(
        default=8,
        ge=1,
        le=32,
        description="embeddings that the placeholder stands for (measured: one teaches the bundled model nothing; the trainer: 1)",
    )
    initialiser: str = Field(default="picture", description="word whose embedding they start as (choice; the trainer asks for one)")

    @property
    def trains_text(self) -> bool:
        """Always."""
        return True

    def word(self, mention: str) -> str:
        """The placeholder, in place of the noun and its article."""
        return self.token

    def suits(self, model: DenoisingModel) -> None:
        """As every attack; and the pipeline must be one that diffusers reads such embeddings into."""
        super().suits(model)
        if not hasattr(model.pipeline, "load_textual_inversion"):
            raise GiftError(f"diffusers reads no Textual Inversion into a {type(model.pipeline).__name__}; use another attack")

    def attach(self, model: DenoisingModel) -> dict[str, nn.Parameter]:
        """The placeholder's embeddings."""
        model.denoiser.requires_grad_(False)
        return add_placeholder(model, self.token, self.vectors, self.initialiser)

    def release(self, work: DenoisingModel) -> None:
        """Puts the embeddings into the text encoders' own tables."""
        fold_placeholder(work)

    def save(self, model: DenoisingModel, folder: Path) -> Path:
        """`learned_embeds.safetensors`, as `pipeline.load_textual_inversion` opens it."""
        with whole_folder(folder) as part:
            save_placeholder(model, self.token, self.vectors, part, "learned_embeds")
        return folder
