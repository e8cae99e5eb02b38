"""The cells of one model, concept and seed of a grid, and the pieces that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from gift.attacks import Attack
from gift.bench.config import Where, widest
from gift.bench.context import Context, embedder, opened
from gift.bench.grid import ORIGINAL, WORST, Grid, MethodEntry
from gift.bench.harmless import harmless_concept
from gift.bench.identity import libraries
from gift.bench.neighbours import neighbours
from gift.bench.pieces import Piece
from gift.bench.safe_after import PICTURES
from gift.bench.workbench import Workbench
from gift.data.concept import parse_concept
from gift.immunizers import Immunizer

NOWHERE: Mapping[str, str] = {}


@dataclass(frozen=True)
class Defence:
    """A chain of methods (none: the original), and all concepts that it immunizes against at once, if there are several."""

    chain: tuple[Immunizer, ...] = ()
    group: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """For the reader."""
        names = "+".join(method.name for method in self.chain) or ORIGINAL
        return f"{names} against {' and '.join(self.group)}" if self.group else names

    @property
    def undone(self) -> Defence:
        """The original's weights beside the same concepts."""
        return replace(self, chain=())

    @property
    def about(self) -> dict[str, Any]:
        """What the settings of pieces say that are alike for all concepts of the group."""
        return {"concept": self.group[0], "together": list(self.group[1:])} if self.group else {}


UNDEFENDED = Defence()


@dataclass(frozen=True)
class Cell:
    """One method under one attack, for one model, concept and seed; `pieces` by what they are to it.

    `group` are all concepts that the method is about, if there are several.
    """

    model: str
    concept: str
    seed: int
    method: str
    attack: str
    chain: tuple[Immunizer, ...]
    how: Attack
    pieces: dict[str, Piece]
    group: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Where its record is kept, without ending."""
        words = [self.model.rstrip("/").rpartition("/")[2], self.concept, str(self.seed), self.method, self.attack]
        plain = "-".join("".join(c if c.isalnum() or c in "+._" else "-" for c in word) for word in words)
        return f"{plain}-{self.pieces['attack'].key[:8]}"


class Corner:
    """All that one model, concept and seed share."""

    def __init__(self, grid: Grid, model: str, concept: str, seed: int) -> None:
        self.drawn = grid.drawn
        context = Context.of(model, concept, seed, drawn=self.drawn)
        self.grid, self.model, self.concept, self.seed = grid, model, str(context.bench.concept), seed
        self.root = {"model": context.identity, "libraries": libraries(), "concept": self.concept, "seed": seed}
        self.kind, self.art = context.bench.concept.kind, context.bench.art
        self.recogniser = context.recogniser_identity
        self.places = {"model": model, "base": grid.base or model, "drawn": self.drawn}
        self.base = opened(grid.base)[1] if grid.base else context.identity
        self.original = self.score(UNDEFENDED)
        # Found once a group, though every attack and embedder asks.
        self.taught, self.near = cache(self._taught), cache(self._near)

    def _taught(self, group: tuple[str, ...]) -> dict[Where, str]:
        config, bench = self.grid.harmless, self.beside(group)
        return {where: harmless_concept(bench, where, self.grid.sizes.safe_pictures) for where in config.places} if config else {}

    def _near(self, group: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(str, neighbours(self.beside(group)))) if self.grid.sizes.neighbour_pictures else ()

    def piece(
        self, kind: Any, what: str, settings: dict[str, Any], needs: dict[str, Piece | None], places: Mapping[str, str] = NOWHERE
    ) -> Piece:
        """A piece of this corner; it waits for the original model's score unless it is that score, or about several concepts."""
        own = "concept" not in settings
        return Piece(
            kind,
            f"{kind} {what} ({self.concept + ', ' if own else ''}seed {self.seed})",
            {**self.root, **settings},
            {role: piece for role, piece in needs.items() if piece is not None},
            {**self.places, **places},
            gate=getattr(self, "original", None) if own else None,
        )

    def set(self, role: str, by: Defence) -> Piece:
        """D_h or D_s, drawn by the original model."""
        sizes = self.grid.sizes
        pictures = sizes.concept_pictures if role == "concept" else sizes.safe_pictures
        what = f"{role}, {' and '.join(by.group)}" if by.group else role
        return self.piece("set", what, {"role": role, "pictures": pictures, **by.about}, {})

    def defence(self, by: Defence) -> Piece | None:
        """A chain's weights, which rest on those of its beginning; None for the original's."""
        if not by.chain:
            return None
        *earlier, last = by.chain
        start = self.defence(replace(by, chain=tuple(earlier)))
        needs = {"concept": self.set("concept", by), "safe": self.set("safe", by), "start": start}
        settings = {"method": last.name, "arguments": last.model_dump(mode="json"), **by.about}
        return self.piece("defence", by.words, settings, needs)

    def score(self, by: Defence) -> Piece:
        """The concept's score before any attack."""
        settings = {"recogniser": self.recogniser, "pictures": self.grid.sizes.evaluation_pictures}
        return self.piece("score", by.words, settings, {"defence": self.defence(by)})

    def safe(self, by: Defence) -> Piece:
        """The safe accuracy before any attack, of the pictures that are drawn after each."""
        settings = {"recogniser": self.recogniser, "pictures": PICTURES, **self.besides(by)}
        return self.piece("safe", by.words, settings, {"defence": self.defence(by)})

    def besides(self, by: Defence) -> dict[str, Any]:
        """The other concepts that a defence is about, of which no prompt is a safe one."""
        others = [str(concept) for concept in self.beside(by.group).concepts[1:]]
        return {"besides": others} if others else {}

    def price(self, by: Defence) -> Piece:
        """What the defence costs elsewhere, beside the original."""
        needs = {"defence": self.defence(by), "original": self.price(by.undone) if by.chain else None}
        return self.piece("price", by.words, self.pictures(by), needs)

    def harmless(self, by: Defence) -> dict[str, Piece]:
        """What a defence does to the learning of harmless objects, by where those lie; nothing if the grid asks for nothing."""
        if self.grid.harmless is None:
            return {}
        how = self.grid.teaching()
        out: dict[str, Piece] = {}
        for where, name in self.taught(by.group).items():
            settings = {"harmless": name, "pictures": self.grid.harmless.pictures, "drawn": self.grid.harmless.drawn}
            settings["recogniser"] = self.recogniser
            settings |= {"attack": how.name, "arguments": how.model_dump(mode="json"), **self.left_out(by)}
            settings |= {"safe_after": PICTURES, **self.besides(by)} if self.grid.safe_after else {}
            out[where] = self.piece("harmless", f"{name} on {by.words}", settings, {"defence": self.defence(by)})
        return out

    def left_out(self, by: Defence) -> dict[str, Any]:
        """The styles that a defence is about: to draw a harmless object in one of them is no harmless thing."""
        styles = [concept.name for concept in self.beside(by.group).concepts if concept.kind == "style"]
        return {"without": styles} if styles else {}

    def attack(self, by: Defence, pictures: int, how: Attack | None, search: Piece | None = None) -> Piece:
        """An attack's curve, on so many pictures; the attack is given, or what a search has found."""
        bounded = search and self.grid.search and self.grid.search.least_safe
        safe = self.safe(by) if self.grid.safe_after or bounded else None
        needs = {"defence": self.defence(by), "score": self.score(by), "search": search, "original": self.original, "safe": safe}
        settings: dict[str, Any] = {"recogniser": self.recogniser, "sizes": self.attack_sizes(pictures)}
        settings |= self.besides(by) if safe else {}
        if how:
            settings |= {"attack": how.name, "arguments": how.model_dump(mode="json")}
        if search or (how and how.needs_base):
            settings["base"] = self.base
        return self.piece("attack", f"{how.name if how else WORST} on {by.words}", settings, needs)

    def search(self, by: Defence, pictures: int, first: Attack) -> Piece:
        """A search for the worst attack on so many pictures."""
        assert self.grid.search is not None
        config = self.grid.search.model_dump(mode="json", exclude={"methods", "kinds"}, exclude_none=True)
        config["kinds"] = list(self.grid.search.kinds_known())
        settings = {"recogniser": self.recogniser, "sizes": self.attack_sizes(pictures), "base": self.base, "search": config}
        settings |= {"attack": first.name, "arguments": first.model_dump(mode="json")}
        safe = self.safe(by) if self.grid.search.least_safe else None
        settings |= self.besides(by) if safe else {}
        needs = {"defence": self.defence(by), "score": self.score(by), "safe": safe}
        return self.piece("search", f"against {by.words}", settings, needs)

    def neighbours(self, by: Defence) -> Piece | None:
        """How well the concept's neighbours are drawn, those that are no part of the group; None where they are not asked for."""
        pictures, near = self.grid.sizes.neighbour_pictures, self.near(by.group)
        if not near:
            return None
        settings: dict[str, Any] = {"recogniser": self.recogniser, "near": list(near), "pictures": pictures}
        settings |= {"together": [str(concept) for concept in self.beside(by.group).concepts[1:]]} if by.group else {}
        return self.piece("neighbours", by.words, settings, {"defence": self.defence(by)})

    def likeness(self, which: str, drawn: Piece, of: str, pictures: int) -> Piece:
        """How much an attacked model's pictures look like what it was taught."""
        settings = {"embedder": embedder(which).identity, "of": of, "pictures": pictures}
        if "without" in drawn.settings:
            settings["without"] = drawn.settings["without"]
        if "harmless" in drawn.settings:
            settings["among"] = 2 * pictures  # as many as `harmless` splits into those to teach and those held out
        what = f"{embedder(which).key} of {drawn.label.partition(' (')[0]}"
        return self.piece("likeness", what, settings, {"drawn": drawn}, {"embedder": which})

    def likenesses(self, drawn: Mapping[str, Piece]) -> dict[str, Piece]:
        """How much pictures look like what they were taught, by every embedder and by the names that they are given with."""
        out: dict[str, Piece] = {}
        for which in self.grid.similarity:
            for name, piece in drawn.items():
                of = piece.settings.get("harmless", self.concept)
                pictures = piece.settings["pictures"] if "harmless" in piece.settings else piece.settings["sizes"][0]
                out[f"likeness {embedder(which).key}{name}"] = self.likeness(which, piece, of, pictures)
        return out

    def prices(self, by: Defence) -> dict[str, Piece | None]:
        """A defence's pictures of other prompts, and the original's, for pieces that compare them."""
        return {"price": self.price(by), "original": self.price(by.undone)}

    def real(self, by: Defence) -> Piece:
        """How near pictures of other prompts are to the drawings."""
        return self.piece("real", by.words, self.pictures(by), self.prices(by))

    def redrawn(self, by: Defence) -> Piece:
        """How far the original's pictures of other prompts are from those that it draws from other noise."""
        return self.piece("redrawn", by.undone.words, self.pictures(by), {"original": self.price(by.undone)})

    def pictures(self, by: Defence) -> dict[str, Any]:
        """What pieces about pictures of other prompts depend on."""
        return {"recogniser": self.recogniser, "pictures": self.grid.sizes.safe_evaluation_pictures, **by.about}

    def shifts(self, by: Defence) -> dict[str, Piece]:
        """How far pictures of other prompts moved from the original's, and are from the drawings, by every embedder."""
        pictures, needs = self.grid.sizes.safe_evaluation_pictures, self.prices(by)
        return {
            f"shift {embedder(which).key}": self.piece(
                "shift",
                f"{embedder(which).key} of {by.words}",
                {"embedder": embedder(which).identity, "pictures": pictures, **by.about},
                needs,
                {"embedder": which},
            )
            for which in self.grid.similarity
        }

    def beside(self, group: Sequence[str]) -> Workbench:
        """The concept's workbench, with the others of a group behind it."""
        others = [name for name in group if name != self.concept]
        return Context.of(self.model, self.concept, self.seed, others, self.drawn).bench

    def attack_sizes(self, pictures: int) -> list[int]:
        """What an attack sees and what it is scored on."""
        return [pictures, self.grid.sizes.evaluation_pictures]

    def by(self, entry: MethodEntry) -> Defence:
        """An entry's methods, and the group that they are about; its order is the entry's own, so that cells share its pieces.

        Raises:
            GiftError: the model does not know a concept of the group.
        """
        named = [parse_concept(name, self.art) for name in entry.together]
        others = [] if self.concept in map(str, named) or not named else [parse_concept(self.concept, self.art)]
        group = [*others, *named]
        if len(group) < 2:
            return Defence(self.grid.chain_of(entry, self.kind))
        kind = widest([concept.kind for concept in group])
        return Defence(self.grid.chain_of(entry, kind), tuple(map(str, group)))

    def cells(self) -> list[Cell]:
        """The cells, method by method."""
        grid = self.grid
        entries = grid.everything()
        control = next(Defence(grid.chain_of(entry, self.kind)) for entry in entries if entry.label == grid.control)
        searched = grid.searched()
        attacks = [(entry.label, entry.pictures or grid.sizes.attack_pictures, grid.attack_of(entry)) for entry in grid.attacks]
        out: list[Cell] = []
        for entry in entries:
            by = self.by(entry)
            defence = self.defence(by)
            shared = {"original": self.original, "score": self.score(by), "price": self.price(by)}
            shared |= {"real": self.real(by), "redrawn": self.redrawn(by)}
            shared |= {"defence": defence} if defence else {}
            near, nearest = self.neighbours(by), self.neighbours(by.undone)
            shared |= {"neighbours": near, "neighbours, original": nearest} if near and nearest else {}
            shared |= self.shifts(by)
            taught = {f"harmless {where}": piece for where, piece in self.harmless(by).items()}
            taught |= {f"harmless {where}, original": piece for where, piece in self.harmless(by.undone).items()}
            shared |= taught | self.likenesses({f", {name}": piece for name, piece in taught.items()})
            runs: list[tuple[str, int, Attack, Piece | None]] = [(*attack, None) for attack in attacks]
            if entry.label in searched:
                _, pictures, first = attacks[0]
                runs.append((WORST, pictures, first, self.search(by, pictures, first)))
            for label, pictures, how, search in runs:
                given = None if search else how
                attack, beside = (self.attack(whose, pictures, given, search) for whose in (by, control))
                pieces = {**shared, "attack": attack, "control": beside, **self.likenesses({"": attack, ", control": beside})}
                pieces |= {"search": search} if search else {}
                out.append(Cell(self.model, self.concept, self.seed, entry.label, label, by.chain, how, pieces, by.group))
        return out
