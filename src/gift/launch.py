"""What a launcher's environment says about this process (`accelerate launch`), without torch: commands ask before they load it."""

from __future__ import annotations

import os


def launched() -> int:
    """How many processes were launched together; 1 by itself."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def flagged(variable: str) -> bool:
    """Whether a launcher's environment says yes to something."""
    return os.environ.get(variable, "").lower() in {"1", "true", "yes"}


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return launched() == 1 or int(os.environ.get("RANK") or 0) == 0
