"""Fine-tuning as anyone would do it. A new attack is a file here and a line in `ATTACKS`."""

from gift.attacks.base import Attack, Attacked
from gift.attacks.full import Full
from gift.attacks.lora import Lora

ATTACKS: dict[str, type[Attack]] = {kind.name: kind for kind in (Lora, Full)}

__all__ = ["ATTACKS", "Attack", "Attacked", "Full", "Lora"]
