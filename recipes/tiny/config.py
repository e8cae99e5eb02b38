"""Where the recipe works and the choices that every stage shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "tiny"  # checkpoints and downloads; never committed
ASSETS = ROOT / "src" / "gift" / "assets"
OBJECTS = Path(__file__).with_name("objects.yaml")

SIZE = 64  # pixels
MARGIN = 2  # white pixels around every drawing
COLUMNS = 20  # of an atlas
SEED = 7


@dataclass(frozen=True)
class Source:
    """One npm package of drawings. `trained` styles teach the denoiser; the others are kept for attackers and tests."""

    package: str
    version: str
    author: str
    trained: bool


SOURCES: dict[str, Source] = {
    "noto": Source("noto", "1.2.9", "Google Inc.", True),
    "twemoji": Source("twemoji", "1.2.5", "Twitter", True),
    "fluent": Source("fluent-emoji-flat", "1.2.6", "Microsoft Corporation", True),
    "emojione": Source("emojione", "1.2.3", "Emoji One", True),
    "openmoji": Source("openmoji", "1.2.29", "OpenMoji", True),
    "monotone": Source("emojione-monotone", "1.2.1", "Emoji One", True),
    "classic": Source("noto-v1", "1.2.5", "Google Inc.", False),
    "gradient": Source("fluent-emoji", "1.2.7", "Microsoft Corporation", False),
}

HELD_OUT_PAIRS = 0.08  # share of object x style pairs that the denoiser never sees (a choice)
RECOGNISER_HELD_OUT_PAIRS = 0.05  # share that the recogniser never sees; disjoint from the above (a choice)

MAX_TOKENS = 24
TEXT_WIDTH = 128
LATENT_CHANNELS = 8
