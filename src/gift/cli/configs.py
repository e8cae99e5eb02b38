"""The verbs' configurations: what a YAML file may say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from gift.api import ONE_CONCEPT
from gift.bench.config import DRAWN, LARGEST_SEED, Guidance, SamplerSteps
from gift.metrics.embedders import STAND_IN
from gift.models.loading import Held
from gift.training.precision import EXACT, Saving

Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "tiny"
    variant: str | None = None
    sampler_steps: SamplerSteps = None
    guidance: Guidance = None
    concept: str
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)

    OPENING: ClassVar[tuple[str, ...]] = ("variant", *DRAWN)

    @field_validator("*", mode="before")
    @classmethod
    def _a_place(cls, value: object, info: ValidationInfo) -> object:
        """Refuses an empty path, which would be the folder that the command runs in."""
        field = cls.model_fields[info.field_name or ""]
        if "Path" in str(field.annotation) and "" in (value if isinstance(value, list) else [value]):
            raise ValueError("the path is empty; name a folder or file, or leave it out")
        return value

    @property
    def concepts(self) -> list[str]:
        """One or several."""
        return self.concept if isinstance(self.concept, list) else [self.concept]

    @property
    def opening(self) -> dict[str, Any]:
        """The arguments of `gift.load` beside the model itself."""
        return {name: getattr(self, name) for name in self.OPENING}


class _TrainingConfig(_Config):
    OPENING: ClassVar[tuple[str, ...]] = (*_Config.OPENING, "held_in")

    held_in: Held = "fp32"
    saving: Saving = EXACT
    tracker: str | None = None


def _one_each(value: Any, info: ValidationInfo) -> Any:
    """Verifies that a list holds one thing for each concept.

    Raises:
        ValueError: it holds more, or fewer.
    """
    concept = info.data.get("concept", "")
    count = len(concept) if isinstance(concept, list) else 1
    if value is not None and count != (len(value) if isinstance(value, list) else 1):
        raise ValueError(f"{count} concepts need {count} values, one each" if count > 1 else "one concept needs one value")
    return value


class ImmunizeConfig(_TrainingConfig):
    """`gift immunize`."""

    concept: str | list[str]  # type: ignore[assignment]
    method: str = "gift"
    concept_images: Path | list[Path | None] | None = None
    safe_images: Path | None = None
    balance: list[Share] | None = None
    concept_pictures: int = Field(default=64, ge=2)
    safe_pictures: int = Field(default=512, ge=2)
    skip_bad_images: bool = False
    options: dict[str, Any] = Field(default_factory=dict)

    _as_many = field_validator("balance", "concept_images")(_one_each)


class AttackConfig(_TrainingConfig):
    """`gift attack`."""

    OF_A_SEARCH: ClassVar[tuple[str, ...]] = ("least_safe", "least_share", "pictures_tried")

    attack: str = "lora"
    steps: int = Field(default=150, ge=0)
    search: int = Field(default=0, ge=0)
    least_safe: float | None = Field(default=None, gt=0, le=1)
    least_share: float | None = Field(default=None, gt=0, lt=1)
    pictures_tried: tuple[Annotated[int, Field(ge=2)], ...] | None = Field(default=None, min_length=1)
    concept_images: Path | None = None
    harmless_images: Path | None = None
    base: str | None = None
    pictures: int | None = Field(default=None, ge=1)
    evaluation_pictures: int = Field(default=36, ge=2)
    similarity: str | None = None
    kohya: bool = False
    skip_bad_images: bool = False
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("concept", mode="before")
    @classmethod
    def _one(cls, value: object) -> object:
        if isinstance(value, list) and len(value) > 1:
            raise ValueError(ONE_CONCEPT)
        return value[0] if isinstance(value, list) and value else value


class EvaluateConfig(_Config):
    """`gift evaluate`."""

    concept: str | list[str]  # type: ignore[assignment]
    original: str = "tiny"
    lora: Path | None = None
    embeds: Path | None = None
    pictures: int = Field(default=72, ge=2)
    safe_pictures: int = Field(default=120, ge=4)
    neighbour_pictures: int = Field(default=24, ge=0)
    similarity: tuple[str, ...] = (STAND_IN,)
    concept_images: Path | list[Path | None] | None = None
    real_images: Path | None = None
    skip_bad_images: bool = False
    redraw: bool = True

    _as_many = field_validator("concept_images")(_one_each)
