"""Opens a pipeline and hides what differs between families."""

from gift.models.base import Cond, DenoisingModel, Noised, take
from gift.models.loading import FAMILIES, TINY, load

__all__ = ["FAMILIES", "TINY", "Cond", "DenoisingModel", "Noised", "load", "take"]
