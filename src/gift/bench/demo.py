"""The main job, end to end: defend by several methods, attack each, measure, and keep the record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from gift.attacks import ATTACKS, Attack
from gift.bench.config import CONTROL, METHODS, AttackEntry, DemoConfig, method_options
from gift.bench.identity import libraries, model_identity, options_of
from gift.bench.neighbours import neighbour_scores
from gift.bench.price import price_of
from gift.bench.store import Store
from gift.bench.trial import Scored, attack_and_score, score_model
from gift.bench.workbench import Workbench
from gift.data.latents import LatentSet
from gift.errors import GiftError, one_of
from gift.files import file_word
from gift.immunizers import Immunizer
from gift.metrics.concept import mean
from gift.models import DenoisingModel, load
from gift.settings import make_attack, make_immunizers
from gift.training.checkpoint import Checkpoints
from gift.training.measure import Meter
from gift.training.progress import Reporter, Silent


@dataclass
class Defended:
    """A method's weights and what they cost."""

    model: DenoisingModel
    seconds: float
    peak_mb: float


@dataclass
class Outcome:
    """All that a demo measured, by method and by (method, attack)."""

    config: DemoConfig
    scored: dict[str, Scored] = field(default_factory=dict)
    prices: dict[str, dict[str, Any]] = field(default_factory=dict)
    neighbours: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    trials: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    costs: dict[str, Defended] = field(default_factory=dict)
    seconds: float = 0.0


class Demo:
    """Runs a `DemoConfig` in a folder. Pieces that are finished are kept in `work/`, so a second start goes on."""

    def __init__(self, config: DemoConfig, folder: Path, reporter: Reporter | None = None) -> None:
        for name in config.methods:
            if name not in METHODS:
                raise one_of("method", name, list(METHODS))
        self.config, self.folder, self.reporter = config, folder, reporter or Silent()
        self.chains = {n: c for n, c in METHODS.items() if n in {"original", CONTROL, *config.methods}}
        used = {part for chain in self.chains.values() for part in chain.split("+")}
        for what, named, known in (
            ("method_options", config.method_options, used),
            ("attack_options", config.attack_options, set(ATTACKS)),
        ):
            for name in named:
                if name not in known:
                    raise one_of(f"entry of {what}", name, sorted(known))
        self.attacks = {entry.label: self._attack_of(entry) for entry in config.attacks}
        self.pictures = {entry.label: entry.pictures or config.attack_pictures for entry in config.attacks}
        if len({file_word(name) for name in self.attacks}) < len(config.attacks):
            raise GiftError("attacks lists one name twice; give each once, or a name of its own")
        model = load(config.model, sampler_steps=config.sampler_steps, guidance=config.guidance)
        self.bench, self.identity = Workbench.of(model, config.concept, config.seed), model_identity(model)
        self.options = method_options(self.bench.concept.kind, config.method_options)
        for chain in self.chains.values():
            self.methods(chain)
        self.scorer = self.bench.scorer
        self.store = Store(folder / "work" / "pieces")
        self._sets: tuple[LatentSet, LatentSet] | None = None
        self._attack_set, self._harmless_set = cache(self.bench.attack_set), cache(self.bench.harmless_set)
        self._defended: dict[str, Defended] = {}

    def attack_set(self, attack: str) -> LatentSet:
        """The pictures that an attack has."""
        return self._attack_set(self.pictures[attack])

    def harmless(self, attack: str) -> LatentSet | None:
        """The harmless pictures that an attack has, where it needs them: as many."""
        return self._harmless_set(self.pictures[attack]) if self.attacks[attack].needs_harmless else None

    def _attack_of(self, entry: AttackEntry) -> Attack:
        shared = self.config.attack_options.get(entry.attack, {})
        return make_attack(entry.attack, {"steps": self.config.steps, **shared, **entry.options})

    def run(self, *, only: Sequence[str] = (), wait: Mapping[str, Callable[[], object]] | None = None) -> Outcome:
        """Computes everything that is not there yet.

        Args:
            only: names of methods; all by default.
            wait: called before the method of that name, while another process computes it.
        """
        began = time.perf_counter()
        out = Outcome(self.config)
        for name, chain in self.chains.items():
            if only and name not in only:
                continue
            self.reporter.say(f"{name}: defence, price, attacks")
            if wait and name in wait:
                wait[name]()
            defended = out.costs[name] = self.defend(chain)
            out.scored[name] = self.score(name, defended.model)
            if name == "original" and out.scored[name].score == 0:
                raise GiftError(
                    f"the original model never draws '{self.bench.concept}', so nothing can be shown; choose another concept"
                )
            out.prices[name] = self.price(name, defended.model, out.prices.get("original"))
            out.neighbours[name] = self.neighbours(name, defended.model)
            for attack in self.attacks:
                out.trials[name, attack] = self.trial(name, attack, defended.model, out.scored[name])
        out.seconds = time.perf_counter() - began
        return out

    def methods(self, chain: str) -> list[Immunizer]:
        """The methods of a chain, each with its own options."""
        return [make_immunizers(name, self.options.get(name))[0] for name in chain.split("+")]

    def settings(self, chain: str) -> dict[str, Any]:
        """What a chain's weights depend on."""
        config = self.config
        sizes = [config.concept_pictures, config.safe_pictures]
        return {
            "model": self.identity,
            "libraries": libraries(),
            "concept": config.concept,
            "seed": config.seed,
            "methods": [options_of(m) for m in self.methods(chain)],
            "sets": sizes,
        }

    def checkpoints(self, name: str, settings: dict[str, Any]) -> Checkpoints:
        """Where a training keeps its state until its piece is written."""
        return Checkpoints(self.folder / "work" / "checkpoints" / name, settings)

    def sets(self) -> tuple[LatentSet, LatentSet]:
        """D_h and D_s, drawn once for all methods."""
        if self._sets is None:
            self.reporter.say("drawing the defence's own pictures of the concept and of everything else")
            self._sets = self.bench.concept_set(self.config.concept_pictures), self.bench.safe_set(self.config.safe_pictures)
        return self._sets

    def defend(self, chain: str) -> Defended:
        """The weights of a chain; its beginning is shared with other chains."""
        if chain in self._defended:
            return self._defended[chain]
        *earlier, last = chain.split("+")
        start = self.defend("+".join(earlier)) if earlier else Defended(self.bench.model, 0.0, 0.0)
        if last == "none":
            return start
        method = self.methods(last)[0]
        settings = self.settings(chain)

        kept = self.checkpoints(chain, settings)

        def compute() -> dict[str, Any]:
            concept, safe = self.sets()
            with Meter() as meter:
                going = replace(kept, meter=meter)
                model = method(start.model, concept, safe, seed=self.config.seed, checkpoints=going, reporter=self.reporter)
            return {"weights": dict(model.denoiser.state_dict()), "seconds": meter.seconds, "peak_mb": meter.peak_mb}

        piece = self.store.remember(f"defence/{chain}", settings, compute)
        kept.clear()
        model = self.bench.model.copy()
        model.denoiser.load_state_dict(piece["weights"])
        model.denoiser.eval().requires_grad_(False)
        done = Defended(model, start.seconds + piece["seconds"], max(start.peak_mb, piece["peak_mb"]))
        self._defended[chain] = done
        return done

    def score(self, name: str, model: DenoisingModel) -> Scored:
        """The concept's score before any attack."""
        n = self.config.evaluation_pictures

        def compute() -> dict[str, Any]:
            scored = score_model(model, self.bench.asks(n), self.scorer)
            return {"images": scored.images, "scores": scored.scores}

        piece = self.store.remember(f"score/{name}", {**self.settings(self.chains[name]), "n": n}, compute)
        return Scored(piece["images"], piece["scores"])

    def price(self, name: str, model: DenoisingModel, original: dict[str, Any] | None) -> dict[str, Any]:
        """Safe pictures, their accuracy, and their distance from the original model's and from the drawings."""
        n = self.config.safe_evaluation_pictures
        asks = self.bench.safe_evaluation(n)

        def compute() -> dict[str, Any]:
            images = model.generate([a.prompt for a in asks], [a.seed for a in asks])
            return {"images": images}

        images: torch.Tensor = self.store.remember(f"price/{name}", {**self.settings(self.chains[name]), "n": n}, compute)["images"]
        drawings = self.bench.drawings(asks)
        measured = price_of(self.bench, asks, images, original["images"] if original else images, drawings)
        return {"images": images, "safe_accuracy": mean(measured["scores"]), **measured}

    def neighbours(self, name: str, model: DenoisingModel) -> dict[str, list[float]]:
        """The scores of the concept's nearest neighbours before any attack, by their names; none if none are asked for."""
        n = self.config.neighbour_pictures
        if not n:
            return {}
        settings = {**self.settings(self.chains[name]), "n": n}
        found: dict[str, list[float]] = self.store.remember(
            f"neighbours/{name}", settings, lambda: neighbour_scores(self.bench, model, n)
        )["scores"]
        return found

    def trial(self, name: str, attack: str, model: DenoisingModel, before: Scored) -> dict[str, Any]:
        """One attack with its curve."""
        how = self.attacks[attack]
        settings = {**self.settings(self.chains[name]), "attack": options_of(how), "n": self.config.evaluation_pictures}
        settings["pictures"] = self.pictures[attack]

        kept = self.checkpoints(f"{name}-{file_word(attack)}", settings)

        def compute() -> dict[str, Any]:
            asks = self.bench.asks(self.config.evaluation_pictures)
            done = attack_and_score(
                model,
                how,
                self.attack_set(attack),
                asks,
                self.scorer,
                seed=self.config.seed,
                harmless=self.harmless(attack),
                before=before,
                checkpoints=kept,
                reporter=self.reporter,
            )
            return {
                "seen": [[step, {"images": s.images, "scores": s.scores}] for step, s in sorted(done.seen.items())],
                **done.training(),
            }

        piece = self.store.remember(f"attack/{name}/{attack}", settings, compute)
        kept.clear()
        return piece
