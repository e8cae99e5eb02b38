"""What a grid compares: models x methods x attacks x concepts x seeds, as a YAML file says it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gift.attacks import ATTACKS, Attack
from gift.bench.config import CONTROL, DRAWN, LARGEST_SEED, AttackEntry, Attacks, Guidance, SamplerSteps, method_options, named
from gift.bench.harmless import HarmlessConfig
from gift.bench.space import SearchConfig
from gift.config_file import read_yaml
from gift.data.concept import spelled
from gift.errors import GiftError, one_of
from gift.immunizers import IMMUNIZERS, Immunizer
from gift.metrics.embedders import STAND_IN
from gift.settings import make_attack, make_immunizers, validated

GRIDS = Path(__file__).with_name("grids")
ORIGINAL = "none"
WORST = "worst"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MethodEntry(_Part):
    """A method or a chain of them, with options. `name` tells two entries of one chain apart."""

    chain: str
    name: str = ""
    options: dict[str, dict[str, Any]] = Field(default_factory=dict, description="hyperparameters by method of the chain")
    together: tuple[str, ...] = Field(
        default=(),
        description="immunize against all of these concepts in one run, which their cells share; a cell's own joins them if it is "
        "none of them",
    )

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.name or self.chain


Methods = tuple[Annotated[MethodEntry, named("chain")], ...]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


class Sizes(_Part):
    """How many pictures; all are choices."""

    concept_pictures: int = Field(default=48, ge=2, description="drawn for D_h")
    safe_pictures: int = Field(default=512, ge=2, description="drawn for D_s")
    attack_pictures: int = Field(default=48, ge=2, description="the attacker's")
    evaluation_pictures: int = Field(default=36, ge=2, description="a concept score")
    safe_evaluation_pictures: int = Field(default=120, ge=4, description="safe accuracy, FID, KID")
    neighbour_pictures: int = Field(default=24, ge=0, description="of the concept's nearest neighbours together; 0 leaves them out")


class Grid(_Part):
    """One benchmark. The original model's scores and the control are computed even where they are not listed."""

    models: tuple[str, ...] = Field(default=("tiny",), min_length=1)
    base: str | None = Field(default=None, description="public model for attacks that lean on one; by default the original")
    concepts: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(min_length=1)
    methods: Methods = Field(min_length=1)
    attacks: Attacks = Field(min_length=1)
    control: str = Field(
        default=CONTROL, description="the erased-only method, or chain, on which every attack must bring the concept back"
    )
    method_options: dict[str, dict[str, Any]] = Field(default_factory=dict, description="hyperparameters by method, in every chain")
    attack_options: dict[str, dict[str, Any]] = Field(default_factory=dict, description="hyperparameters by attack")
    horizon: int = Field(default=150, ge=1, description="attack steps (choice)")
    sizes: Sizes = Field(default_factory=Sizes)
    sampler_steps: SamplerSteps = None
    guidance: Guidance = None
    similarity: tuple[str, ...] = Field(
        default=(STAND_IN,),
        description="what compares pictures with the attacker's and with the original's: bundled, bundled-lpips, clip:FOLDER, "
        "dino:FOLDER, lpips:FILE",
    )
    safe_after: bool = Field(
        default=False,
        description="draw safe prompts from attacked weights, too, and from those that were taught a harmless object: is a "
        "model left, or one concept?",
    )
    search: SearchConfig | None = Field(default=None, description="search for the worst attack on every defended method")
    harmless: HarmlessConfig | None = Field(default=None, description="teach each method's weights harmless objects, too")

    @model_validator(mode="after")
    def _every_name_once(self) -> Self:
        groups: dict[str, Sequence[object]] = {
            "models": self.models,
            "concepts": [spelled(concept) for concept in self.concepts],
            "seeds": self.seeds,
            "methods": [entry.label for entry in self.methods],
            "attacks": [entry.label for entry in self.attacks],
            "similarity": [which.partition(":")[0] for which in self.similarity],
            **{f"{entry.label}: together": [spelled(name) for name in entry.together] for entry in self.methods},
        }
        for what, names in groups.items():
            twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
            if twice is not None:
                raise ValueError(f"{what} lists '{twice}' twice; give each once, or a name of its own")
        if self.search and WORST in groups["attacks"]:
            raise ValueError(f"attacks lists '{WORST}', which is the search's own name; give it another")
        return self

    @property
    def drawn(self) -> str:
        """How its models are opened to be drawn from, as `gift.bench.context.opened` takes it."""
        return json.dumps({name: value for name in DRAWN if (value := getattr(self, name)) is not None})

    def everything(self) -> tuple[MethodEntry, ...]:
        """The methods, and the control before them if it is not one of them."""
        listed = any(entry.label == self.control for entry in self.methods)
        return self.methods if listed else (MethodEntry(chain=self.control), *self.methods)

    def chain_of(self, entry: MethodEntry, kind: str = "object") -> tuple[Immunizer, ...]:
        """An entry's methods in order, as a concept of some kind needs them; none at all for 'none'.

        Raises:
            GiftError: an unknown method or option.
        """
        parts = [part.strip() for part in entry.chain.split("+")]
        for part in entry.options:
            if part not in parts:
                raise one_of(f"method of chain '{entry.chain}' with options", part, parts)
        shared = method_options(kind, self.method_options)
        options = [{**shared.get(part, {}), **entry.options.get(part, {})} for part in parts]
        made = [make_immunizers(part, given)[0] for part, given in zip(parts, options, strict=True)]
        return tuple(method for method in made if method.name != ORIGINAL)

    def attack_of(self, entry: AttackEntry) -> Attack:
        """An entry's attack; its steps are the horizon unless it has its own.

        Raises:
            GiftError: an unknown attack or option.
        """
        return make_attack(entry.attack, {"steps": self.horizon, **self.attack_options.get(entry.attack, {}), **entry.options})

    def teaching(self) -> Attack:
        """How harmless objects are taught.

        Raises:
            GiftError: an unknown attack, one that needs more than pictures, or one that teaches another word than the object's.
        """
        assert self.harmless is not None
        name = self.harmless.attack
        how = make_attack(name, {**self.attack_options.get(name, {}), "steps": self.harmless.steps})
        if how.needs_base or how.needs_harmless:
            raise GiftError(f"'{name}' can't teach harmless objects: it needs more than their pictures; use lora or full")
        if how.trains_text or how.word("owl") != "owl":  # what is held out and asked for has the objects' own words, as they were
            raise GiftError(
                f"'{name}' can't teach harmless objects: it changes words or text encoders; use lora or full on the denoiser"
            )
        return how

    def searched(self) -> tuple[str, ...]:
        """Labels of the methods against which the worst attack is searched for."""
        if self.search is None:
            return ()
        defended = [e.label for e in self.everything() if e.label != self.control and self.chain_of(e)]
        return self.search.methods or tuple(defended)

    def check(self) -> None:
        """Builds every method and attack once.

        Raises:
            GiftError: an unknown name or option.
        """
        for what, given, known in (
            ("method_options", self.method_options, list(IMMUNIZERS)),
            ("attack_options", self.attack_options, list(ATTACKS)),
        ):
            for name in given:
                if name not in known:
                    raise one_of(f"entry of {what}", name, known)
        labels = [entry.label for entry in self.everything()]
        for method in self.everything():
            self.chain_of(method)
        for attack in self.attacks:
            self.attack_of(attack)
        if self.harmless:
            self.teaching()
        if self.search:
            self.search.kinds_known()
        for name in self.searched():
            if name not in labels:
                raise one_of("method to search against", name, labels)


def bundled() -> list[str]:
    """Names of the grids that come with the package."""
    return sorted(file.stem for file in GRIDS.glob("*.yaml"))


def read_grid(source: Path | str) -> Grid:
    """Reads a grid from a YAML file, or by a bundled grid's name.

    Raises:
        GiftError: no such file or grid, not YAML, or something in it can't be used.
    """
    path = Path(source)
    if not path.is_file() and path.name == str(source) and not path.suffix:
        if str(source) not in bundled() and not path.exists():
            raise one_of("grid", str(source), bundled())
        path = GRIDS / f"{source}.yaml" if str(source) in bundled() else path
    value = read_yaml(path, "the grid", f"check the path, or name one of: {', '.join(bundled())}")
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise GiftError(f"{path} is not a list of 'option: value' lines; see the bundled grids: {', '.join(bundled())}")
    grid = validated(Grid, value, "grid")
    grid.check()
    return grid
