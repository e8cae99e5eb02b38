"""gift: make text-to-image diffusion models hard to fine-tune for harm, and measure how hard."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gift.errors import GiftError

if TYPE_CHECKING:
    from gift.api import Curve, attack, immunize, load
    from gift.attacks import ATTACKS
    from gift.immunizers import IMMUNIZERS

__version__ = "0.1.0"
__all__ = ["ATTACKS", "IMMUNIZERS", "Curve", "GiftError", "attack", "immunize", "load"]

_HOMES = {"ATTACKS": "gift.attacks", "IMMUNIZERS": "gift.immunizers"}


def __getattr__(name: str) -> Any:
    """Imports PyTorch and the rest only when they are asked for: `gift --help` answers at once."""
    if name in __all__:
        return getattr(import_module(_HOMES.get(name, "gift.api")), name)
    raise AttributeError(f"module 'gift' has no attribute '{name}'")
