"""Twins that never saw a concept: the bundled model's recipe without some of its pictures and captions.

How fast an attack teaches such a twin is the natural limit of resistance. Twins are not shipped; their curves are
(`docs/results.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from gift.files import write_json
from gift.models import load

from .denoiser import make, train

CHECKPOINT = "denoiser.pt"


def train_twin(output: Path, never: Sequence[str], steps: int, compiled: bool = False) -> None:
    """Trains a twin (resumable) and writes it as a pipeline folder, `output`/model.

    Args:
        output: its folder; the checkpoint is kept there, too.
        never: the concepts that it never sees.
        steps: optimiser steps.
        compiled: by `torch.compile`.
    """
    output.mkdir(parents=True, exist_ok=True)
    train(steps, compiled=compiled, never=never, checkpoint=output / CHECKPOINT)
    _, parts = make()
    state = torch.load(output / CHECKPOINT, weights_only=True)
    parts.load_state_dict(state["average"])
    model = load("tiny")
    for name in parts:
        getattr(model.pipeline, name).load_state_dict(parts[name].state_dict())
    model.save(output / "model")
    write_json(output / "twin.json", {"never": list(never), "steps": state["step"]})
    print(f"twin without {', '.join(never)}: {state['step']} steps, in {output / 'model'}")
