"""`python -m gift.bench.concepts`: what immunizing against several concepts costs beside one, as ratios measured in one run.

The steps are shared by all concepts, and so is the safe set; of each concept at least a few pictures are drawn.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from gift.api import immunize
from gift.bench.provenance import machine
from gift.data.art import load_art
from gift.models import load
from gift.training.measure import Meter

COUNTS = (1, 3, 10)


def cost(concepts: list[str], method: str, steps: int) -> Meter:
    """Wall time and peak memory of a defence of the bundled model, drawing its pictures included."""
    with tempfile.TemporaryDirectory() as cache, Meter() as meter:
        immunize("tiny", concepts, method, steps=steps, settle_steps=steps, esd={"steps": steps}, cache=Path(cache))
    return meter


def main() -> None:
    """Prints the ratios."""
    parser = argparse.ArgumentParser(
        prog="python -m gift.bench.concepts", description="Costs of several concepts beside one, as ratios in one run."
    )
    parser.add_argument("--steps", type=int, default=20, help="rounds, settling steps and erasing steps, each")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--seed", type=int, default=0, help="of the choice of objects")
    given = parser.parse_args()
    names = random.Random(given.seed).sample(load_art().names, max(given.counts))
    about = machine()
    print(f"{load('tiny').describe()}; esd+gift, {given.steps} steps each; {about['threads']} threads, torch {about['torch']}")
    cost(names[:1], "esd+gift", 1)  # what only a first run pays for
    first: Meter | None = None
    for count in given.counts:
        meter = cost(names[:count], "esd+gift", given.steps)
        first = first or meter
        ratio, peak = meter.seconds / first.seconds, meter.peak_mb / first.peak_mb
        print(f"{count:>3} concepts {meter.seconds:8.1f} s ({ratio:.2f} x) {meter.peak_mb:8.0f} MB ({peak:.2f} x)", flush=True)


if __name__ == "__main__":
    main()
