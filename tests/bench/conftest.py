"""A demo that takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

SMALL: dict[str, Any] = {
    "concept": "category:food",
    "steps": 3,
    "methods": ("original", "ascent", "gift"),
    "concept_pictures": 4,
    "safe_pictures": 4,
    "attack_pictures": 4,
    "evaluation_pictures": 4,
    "safe_evaluation_pictures": 6,
    "neighbour_pictures": 0,
    "sampler_steps": 4,
    "method_options": {
        "esd": {"steps": 3, "sampler_steps": 3, "batch_size": 2},
        "ascent": {"steps": 3, "batch_size": 2},
        "gift": {"steps": 3, "settle_steps": 1, "batch_size": 2, "attacker": {"steps": 2, "batch_size": 2}},
    },
}


@pytest.fixture
def small(art_model: str) -> Callable[..., dict[str, Any]]:
    """Makes options of a demo that takes seconds."""
    return lambda **changes: {**SMALL, "model": art_model, **changes}
