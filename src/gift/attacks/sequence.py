"""A sequence of data: harmless pictures first, then the concept, pure or diluted."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from gift.attacks.lora import Lora


class HarmlessFirst(Lora):
    """A LoRA that sees harmless pictures first: does a defence outlast ordinary use before the attack?

    `share` dilutes what follows: 0.05, 0.1 or 0.2 hide the concept among harmless pictures, 0 asks whether it comes back by itself.
    Every attack has both options; this one has a default for the first.
    """

    name: ClassVar[str] = "sequence"
    title: ClassVar[str] = "Harmless first"
    about: ClassVar[str] = "A LoRA is trained on harmless pictures first, then on the concept, alone or among harmless ones."

    harmless_steps: int = Field(
        default=75, ge=0, description="the first steps, which see harmless pictures alone; half of all if not given (choice)"
    )

    @model_validator(mode="before")
    @classmethod
    def _half(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "harmless_steps" in given or not isinstance(given.get("steps"), int):
            return given
        return {**given, "harmless_steps": max(0, (given["steps"] + 1) // 2)}

    @property
    def usual_harmless(self) -> int:
        """Half of the steps, rounded up."""
        return (self.steps + 1) // 2
