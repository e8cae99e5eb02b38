"""Grids that take seconds, for the tests of this folder."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "concepts": ["category:animal"],  # what the bundled recogniser sees most in a random model's pictures
    "seeds": [0],
    "methods": ["none", "esd", "esd+gift", "esd+imma"],
    "attacks": ["lora"],
    "horizon": 11,
    "sampler_steps": 4,
    "sizes": {
        "concept_pictures": 4,
        "safe_pictures": 4,
        "attack_pictures": 4,
        "evaluation_pictures": 6,
        "safe_evaluation_pictures": 6,
        "neighbour_pictures": 4,
    },
    "method_options": {
        "esd": {"steps": 2, "sampler_steps": 3, "batch_size": 2},
        "gift": {"steps": 2, "settle_steps": 1, "batch_size": 2, "attacker": {"steps": 2, "batch_size": 2}},
        "imma": {"steps": 2, "batch_size": 2},
    },
    "attack_options": {"lora": {"batch_size": 2}},
}


def small_grid(model: str, **changes: Any) -> dict[str, Any]:
    """The small grid with changes, as a YAML file would say it."""
    return {**SMALL, "models": [model], **changes}
