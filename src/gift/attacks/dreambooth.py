"""DreamBooth (Ruiz et al., CVPR 2023): a few pictures under an identifier, by full fine-tuning or by LoRA."""

from __future__ import annotations

from typing import ClassVar

from gift.attacks.full import Full
from gift.attacks.lora import Lora
from gift.attacks.personal import Personal


class DreamBooth(Full, Personal):
    """Trains the whole denoiser on a few pictures under an identifier, as diffusers' `train_dreambooth.py` does."""

    name: ClassVar[str] = "dreambooth"
    title: ClassVar[str] = "DreamBooth"
    about: ClassVar[str] = "The whole denoiser is trained on a few pictures that are called by a word of the attacker's own."


class DreamBoothLora(Lora, Personal):
    """The same by an adapter, as diffusers' `train_dreambooth_lora.py` does."""

    name: ClassVar[str] = "dreambooth-lora"
    title: ClassVar[str] = "DreamBooth-LoRA"
    about: ClassVar[str] = "An adapter is trained on a few pictures that are called by a word of the attacker's own."
