"""Computes one piece: nothing here knows of grids, processes or clusters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gift.attacks import Attack
from gift.bench.context import Context, opened
from gift.bench.harmless import teach
from gift.bench.identity import pictures_digest
from gift.bench.pieces import Piece
from gift.bench.price import price_of
from gift.bench.search import search
from gift.bench.space import SearchConfig
from gift.bench.store import Store
from gift.bench.trial import Scored, Trial, Watch, attack_and_score, score_model
from gift.data.latents import LatentSet
from gift.errors import GiftError
from gift.metrics.concept import mean
from gift.models import DenoisingModel
from gift.settings import make_attack, make_immunizers
from gift.training.checkpoint import Checkpoints
from gift.training.measure import Meter
from gift.training.progress import Reporter

Value = dict[str, Any]
SHOWN = 4
"""Pictures of each look that an attack's piece keeps to be looked at (choice)."""


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

    def remember(self) -> tuple[Value, bool]:
        """The piece, and whether it had to be computed.

        Raises:
            GiftError: a piece that it rests on is missing, or what its kind raises.
        """
        fresh: list[bool] = []

        def compute() -> Value:
            fresh.append(True)
            self.pass_gate()
            return KINDS[self.piece.kind](self)

        return self.store.remember(self.piece.kind, self.piece.content, compute), bool(fresh)

    def pass_gate(self) -> None:
        """Nothing can be shown with a concept that the original model never draws."""
        if self.piece.gate and mean(found(self.store, self.piece.gate)["scores"]) == 0:
            concept = self.piece.settings["concept"]
            raise GiftError(
                f"the original model never draws '{concept}', so nothing can be shown; choose another concept or more pictures"
            )

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
        context = Context.of(place, settings["concept"], settings["seed"])
        if context.identity != settings["model"]:
            raise GiftError(f"{place} is another model than when the grid was laid out; start the grid again")
        return context

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


def found(store: Store, piece: Piece) -> Value:
    """A finished piece.

    Raises:
        GiftError: it is not there.
    """
    value = store.find(piece.kind, piece.content)
    if value is None:
        raise GiftError(f"'{piece.label}' is missing or damaged in {store.folder}; start the grid again")
    return value


def _set(work: Work) -> Value:
    bench, n = work.context.bench, work.piece.settings["pictures"]
    drawn = bench.concept_set(n) if work.piece.settings["role"] == "concept" else bench.safe_set(n)
    return {"latents": drawn.latents, "which": drawn.which, "prompts": drawn.prompts}


def _latent_set(work: Work, role: str) -> LatentSet:
    """A set as it was drawn; prompts are encoded again."""
    kept, model = work.need(role), work.context.bench.model
    where = model.device
    return LatentSet(kept["latents"].to(where), model.encode_prompts(kept["prompts"]), kept["which"].to(where), kept["prompts"])


def _defence(work: Work) -> Value:
    settings = work.piece.settings
    method = make_immunizers(settings["method"], settings["arguments"])[0]
    kept = work.checkpoints()
    with Meter() as meter:
        model = method(
            work.model("start"),
            _latent_set(work, "concept"),
            _latent_set(work, "safe"),
            seed=settings["seed"],
            checkpoints=kept,
            reporter=work.reporter,
        )
    kept.clear()
    earlier = work.need("start") if "start" in work.piece.needs else {"seconds": 0.0, "peak_mb": 0.0, "steps": 0}
    return {
        "weights": dict(model.denoiser.state_dict()),
        "seconds": earlier["seconds"] + meter.seconds,
        "peak_mb": max(earlier["peak_mb"], meter.peak_mb),
        "steps": earlier["steps"] + method.total_steps,
    }


def _score(work: Work) -> Value:
    bench = work.context.bench
    scored = score_model(work.model(), bench.asks(work.piece.settings["pictures"]), bench.scorer)
    return {"images": scored.images, "scores": scored.scores}


def _price(work: Work) -> Value:
    bench = work.context.bench
    asks = bench.safe_evaluation(work.piece.settings["pictures"])
    images = work.model().generate([a.prompt for a in asks], [a.seed for a in asks])
    reference: torch.Tensor = work.need("original")["images"] if "original" in work.piece.needs else images
    return {"images": images, **price_of(bench, asks, images, reference)}


def run_trial(work: Work, how: Attack, part: str = "", watch: Watch | None = None) -> Trial:
    """One attack on the piece's weights, scored along the way."""
    settings = work.piece.settings
    pictures, n = settings["sizes"]
    context, score = work.context, work.need("score")
    kept = work.checkpoints(part)
    done = attack_and_score(
        work.model(),
        how,
        context.attack_set(pictures),
        context.bench.asks(n),
        context.bench.scorer,
        seed=settings["seed"],
        harmless=context.bench.harmless_set(pictures) if how.needs_harmless else None,
        base=opened(work.piece.places["base"])[0] if how.needs_base else None,
        before=Scored(score["images"], score["scores"]),
        checkpoints=kept,
        reporter=work.reporter,
        watch=watch,
    )
    kept.clear()
    return done


def as_value(how: Attack, done: Trial) -> Value:
    """A trial without its weights, as JSON; of the pictures only digests."""
    return {
        "attack": how.name,
        "arguments": how.model_dump(mode="json"),
        "seen": [
            {"step": step, "scores": seen.scores, "pictures": pictures_digest(seen.images)}
            for step, seen in sorted(done.seen.items())
        ],
        **done.training(),
    }


def _attack(work: Work) -> Value:
    chosen = work.need("search")["worst"] if "search" in work.piece.needs else work.piece.settings
    how = make_attack(chosen["attack"], chosen["arguments"])
    done = run_trial(work, how)
    return {**as_value(how, done), "shown": shown(done)}


def shown(done: Trial) -> Value:
    """The first pictures of each look, uint8 (SHOWN, 3, H, W), with their prompts and seeds; the same ones at every look."""
    asks = done.asks[:SHOWN]
    return {
        "prompts": [ask.prompt for ask in asks],
        "seeds": [ask.seed for ask in asks],
        "looks": [{"step": step, "images": seen.images[:SHOWN].clone()} for step, seen in sorted(done.seen.items())],
    }


def _search(work: Work) -> Value:
    settings = work.piece.settings
    first = make_attack(settings["attack"], settings["arguments"])
    config = SearchConfig(**settings["search"])
    lasting = {**work.piece.content, "settings": {**settings, "search": {**settings["search"], "trials": None}}}
    name = Store.key("study", lasting)  # more trials go on from the same study

    def attempt(number: int, how: Attack, watch: Watch) -> Value:
        return as_value(how, run_trial(work, how, f"-{number}", watch))

    return search(config, first, attempt, work.folder / "studies" / f"{name}.db", seed=settings["seed"], reporter=work.reporter)


def _harmless(work: Work) -> Value:
    settings = work.piece.settings
    bench = Context.of(work.piece.places["model"], settings["harmless"], settings["seed"]).bench
    how = make_attack(settings["attack"], settings["arguments"])
    return teach(work.model(), how, bench.attack_set(2 * settings["pictures"]), settings["seed"])


KINDS: dict[str, Callable[[Work], Value]] = {
    "set": _set,
    "defence": _defence,
    "score": _score,
    "price": _price,
    "attack": _attack,
    "search": _search,
    "harmless": _harmless,
}
