"""The demo's settings. Every number is a choice that keeps it within a quarter of an hour on two cores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

METHODS = {"original": "none", "esd": "esd", "ascent": "ascent", "imma": "esd+imma", "gift": "esd+gift"}
CONTROL = "esd"
WIDER: dict[str, dict[str, dict[str, Any]]] = {
    "style": {"esd": {"steps": 200, "rate": 3e-4}},
    "category": {"esd": {"steps": 200}},
}
"""Hyperparameters by a concept's kind, where a file says nothing else: with ESD's own 80 steps at 2e-4, which erase an object, the
control still draws a style or a category almost as often as the original does (`gift demo --concept style:openmoji`). Choices."""
Where = Literal["near inside", "near outside", "far inside", "far outside"]
PLACES: tuple[Where, ...] = get_args(Where)
"""Where harmless objects lie: by their likeness to the concept, and whether the safe set names them."""
LARGEST_SEED = 2**31 - 1
MOST = 1000
"""Sampler steps and guidance, as `gift.models.sampling` has it."""
SamplerSteps = Annotated[
    int | None, Field(ge=1, le=MOST, description="sampler steps of every picture; by default the model's sampling.json, else 15")
]
Guidance = Annotated[
    float | None,
    Field(ge=0, le=MOST, allow_inf_nan=False, description="of every picture; by default the model's sampling.json, else 2"),
]
DRAWN = ("sampler_steps", "guidance")
"""The settings that say how a model is drawn from, by their names as arguments of `gift.load`."""


class AttackEntry(BaseModel):
    """An attack with options. `name` tells two entries of one attack apart."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    attack: str
    name: str = ""
    options: dict[str, Any] = Field(default_factory=dict, description="hyperparameters")
    pictures: int | None = Field(default=None, ge=2, description="that its attacker has; by default as many as the others'")

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.name or self.attack


def named(key: str) -> BeforeValidator:
    """Lets a bare name stand for an entry without options."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


Attacks = tuple[Annotated[AttackEntry, named("attack")], ...]
HARMLESS_FIRST = AttackEntry(attack="full", name="full after 10", options={"harmless_steps": 10})
"""What a defence's resistance should outlast and may not: ten steps of other pictures first (docs/tuning.md)."""


def widest(kinds: Sequence[str]) -> str:
    """Of the kinds of concepts that are immunized together, the one whose hyperparameters all of them get."""
    return next((kind for kind in kinds if kind in WIDER), kinds[0])


def method_options(kind: str, given: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Hyperparameters by method: what was given, over what a concept of this kind needs."""
    wider = WIDER.get(kind, {})
    return {name: {**wider.get(name, {}), **given.get(name, {})} for name in {**wider, **given}}


class DemoConfig(BaseModel):
    """What the demo compares. A YAML file may give any of these; flags go over it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "tiny"
    concept: str = "mushroom"
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    steps: int = Field(default=100, ge=1, description="attack steps: the horizon")
    attacks: Attacks = Field(default=(AttackEntry(attack="lora"), AttackEntry(attack="full"), HARMLESS_FIRST), min_length=1)
    methods: tuple[str, ...] = Field(default=tuple(METHODS), description="original and esd are always among them: the controls")
    concept_pictures: int = Field(default=48, ge=2, description="drawn for D_h")
    safe_pictures: int = Field(default=512, ge=2, description="drawn for D_s")
    attack_pictures: int = Field(default=48, ge=2, description="the attacker's")
    evaluation_pictures: int = Field(default=30, ge=2, description="a concept score")
    safe_evaluation_pictures: int = Field(default=120, ge=4, description="safe accuracy, FID, KID")
    neighbour_pictures: int = Field(default=24, ge=0, description="of the concept's nearest neighbours together; 0 leaves them out")
    sampler_steps: SamplerSteps = None
    guidance: Guidance = None
    method_options: dict[str, dict[str, Any]] = Field(default_factory=dict, description="hyperparameters by method")
    attack_options: dict[str, dict[str, Any]] = Field(default_factory=dict, description="hyperparameters by attack")
