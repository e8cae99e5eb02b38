"""A piece at work in the folder of its grid: nothing here knows of grids, processes or clusters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gift.bench.context import Context
from gift.bench.pieces import Piece
from gift.bench.store import Store
from gift.bench.workbench import Workbench
from gift.data.latents import LatentSet
from gift.errors import GiftError
from gift.models import DenoisingModel
from gift.training.checkpoint import Checkpoints
from gift.training.progress import Reporter

Value = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """A piece in the folder of its grid: `pieces/` holds what is finished, `work/` checkpoints, `studies/` searches."""

    folder: Path
    piece: Piece
    reporter: Reporter | None = None

    @property
    def store(self) -> Store:
        """The finished pieces."""
        return Store(self.folder / "pieces")

    def need(self, role: str) -> Value:
        """A piece that this one rests on."""
        return found(self.store, self.piece.needs[role])

    @property
    def context(self) -> Context:
        """The model with all that the concept needs.

        Raises:
            GiftError: the model at that place is another than when the grid was laid out.
        """
        settings, place = self.piece.settings, self.piece.places["model"]
        others = settings.get("together", ())
        context = Context.of(place, settings["concept"], settings["seed"], others, self.piece.places["drawn"])
        if context.identity != settings["model"]:
            raise GiftError(f"{place} is another model than when the grid was laid out; start the grid again")
        return context

    @property
    def beside(self) -> Workbench:
        """The concept's workbench with all that the defence is about behind it, so that its safe prompts name none of them."""
        settings, places = self.piece.settings, self.piece.places
        others = settings.get("besides", ())
        return Context.of(places["model"], settings["concept"], settings["seed"], others, places["drawn"]).bench

    def model(self, role: str = "defence") -> DenoisingModel:
        """The original with the weights of a defence, if there is one."""
        original = self.context.bench.model
        if role not in self.piece.needs:
            return original
        model = original.copy()
        model.denoiser.load_state_dict(self.need(role)["weights"])
        model.denoiser.eval().requires_grad_(False)
        return model

    def checkpoints(self, part: str = "") -> Checkpoints:
        """Where training keeps its state; bound to the piece by its key."""
        return Checkpoints(self.folder / "work" / f"{self.piece.key}{part}", {"piece": self.piece.key})

    def latent_set(self, role: str) -> LatentSet:
        """A set as it was drawn; prompts are encoded again."""
        kept, bench = self.need(role), self.context.bench
        model, where = bench.model, bench.model.device
        drawn = LatentSet(
            kept["latents"].to(where),
            model.encode_prompts(kept["prompts"]),
            kept["which"].to(where),
            kept["prompts"],
            weights=kept.get("weights"),
            concept_of=kept.get("concept_of"),
        )
        return bench.named(drawn) if role == "concept" else drawn


def found(store: Store, piece: Piece, *, tensors: bool = True) -> Value:
    """A finished piece; without `tensors` None stands for each.

    Raises:
        GiftError: it is not there.
    """
    value = store.find(piece.kind, piece.content, tensors=tensors)
    if value is None:
        raise GiftError(f"'{piece.label}' is missing or damaged in {store.folder}; start the grid again")
    return value
