"""GIFT and the methods that it has to beat. A new one is a file here and a line in `IMMUNIZERS`."""

from gift.immunizers.ascent import Ascent
from gift.immunizers.base import Immunizer, Method, Task
from gift.immunizers.esd import Esd
from gift.immunizers.gift import Gift
from gift.immunizers.imma import Imma
from gift.immunizers.joint import Joint
from gift.immunizers.meta_unlearning import MetaUnlearning
from gift.immunizers.mima import Mima
from gift.immunizers.none import Nothing
from gift.immunizers.original import Original
from gift.immunizers.pgu import Pgu
from gift.immunizers.repnoise import RepNoise
from gift.immunizers.resalign import ResAlign
from gift.immunizers.rescaled import Rescaled
from gift.immunizers.seam import Seam
from gift.immunizers.simulated import Attacker
from gift.immunizers.uce import Uce
from gift.immunizers.undo import Undo

IMMUNIZERS: dict[str, type[Immunizer]] = {
    kind.name: kind
    for kind in (
        *(Nothing, Rescaled, Ascent, Joint),  # controls
        *(Esd, Uce, Imma, RepNoise, Mima, MetaUnlearning, ResAlign, Pgu, Undo, Seam),
        Gift,
    )
}

__all__ = [
    "IMMUNIZERS",
    "Ascent",
    "Attacker",
    "Esd",
    "Gift",
    "Imma",
    "Immunizer",
    "Joint",
    "MetaUnlearning",
    "Method",
    "Mima",
    "Nothing",
    "Original",
    "Pgu",
    "RepNoise",
    "ResAlign",
    "Rescaled",
    "Seam",
    "Task",
    "Uce",
    "Undo",
]
