"""No defence: the weights as they are. The zero line of every comparison."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from gift.errors import GiftError
from gift.immunizers.base import Immunizer, Method, Task


class Nothing(Immunizer):
    """theta* = theta_0."""

    name: ClassVar[str] = "none"
    title: ClassVar[str] = "Original"
    about: ClassVar[str] = "The model as it was released, without any defence."

    steps: int = Field(default=0, ge=0, le=0, description="always zero")

    def begin(self, task: Task) -> Method:
        """Never called: there are no steps."""
        raise GiftError("'none' has no steps; choose another method")
