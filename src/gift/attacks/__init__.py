"""Fine-tuning as anyone would do it. A new attack is a file here and a line in `ATTACKS`."""

from gift.attacks.adaptive import Reinit, TowardBase, Transplant
from gift.attacks.base import Attack, Attacked
from gift.attacks.custom_diffusion import CustomDiffusion
from gift.attacks.dreambooth import DreamBooth, DreamBoothLora
from gift.attacks.full import Full
from gift.attacks.lora import Lora
from gift.attacks.relative import Relative
from gift.attacks.sequence import HarmlessFirst
from gift.attacks.textual_inversion import TextualInversion

ATTACKS: dict[str, type[Attack]] = {
    kind.name: kind
    for kind in (
        Lora,
        Full,
        DreamBooth,
        DreamBoothLora,
        TextualInversion,
        CustomDiffusion,
        HarmlessFirst,
        Relative,
        Reinit,
        TowardBase,
        Transplant,
    )
}

__all__ = [
    "ATTACKS",
    "Attack",
    "Attacked",
    "CustomDiffusion",
    "DreamBooth",
    "DreamBoothLora",
    "Full",
    "HarmlessFirst",
    "Lora",
    "Reinit",
    "Relative",
    "TextualInversion",
    "TowardBase",
    "Transplant",
]
