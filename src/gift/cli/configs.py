"""The verbs' configurations: what a YAML file may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gift.bench.config import LARGEST_SEED
from gift.metrics.embedders import STAND_IN
from gift.training.precision import EXACT, Saving


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "tiny"
    concept: str
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)


class _TrainingConfig(_Config):
    saving: Saving = EXACT
    tracker: str | None = None


class ImmunizeConfig(_TrainingConfig):
    """`gift immunize`."""

    concept: str | list[str]  # type: ignore[assignment]
    method: str = "gift"
    concept_images: Path | None = None
    safe_images: Path | None = None
    balance: list[float] | None = None
    concept_pictures: int = Field(default=64, ge=2)
    safe_pictures: int = Field(default=192, ge=2)
    skip_bad_images: bool = False
    options: dict[str, Any] = Field(default_factory=dict)


class AttackConfig(_TrainingConfig):
    """`gift attack`."""

    attack: str = "lora"
    steps: int = Field(default=150, ge=0)
    search: int = Field(default=0, ge=0)
    concept_images: Path | None = None
    pictures: int = Field(default=64, ge=1)
    evaluation_pictures: int = Field(default=36, ge=2)
    similarity: str | None = None
    kohya: bool = False
    skip_bad_images: bool = False
    options: dict[str, Any] = Field(default_factory=dict)


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
    concept_images: Path | None = None
