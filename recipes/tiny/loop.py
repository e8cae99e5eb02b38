"""A resumable training loop for the recipe: checkpoints written whole or not at all, EMA weights, a log line a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .config import SEED


def rate(step: int, steps: int, peak: float, warmup: int = 200, decay: float = 0.3) -> float:
    """Warm-up, constant, then a linear fall to zero over the last `decay` of the steps (so that a run can be lengthened)."""
    fall = (steps - step) / max(1.0, decay * steps)
    return peak * min(1.0, (step + 1) / warmup, max(fall, 0.0))


class Run:
    """One resumable run of `steps` optimiser steps on `model` (a module, possibly several in a ModuleDict)."""

    def __init__(self, path: Path, model: nn.Module, *, peak: float, steps: int, ema: float = 0.999) -> None:
        self.path, self.model, self.peak, self.steps, self.ema = path, model, peak, steps, ema
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.step = 0
        self.seconds = 0.0
        if path.exists():
            self._load()

    def _load(self) -> None:
        state: dict[str, Any] = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]
        print(f"resumed {self.path.name} at step {self.step}", flush=True)

    def save(self) -> None:
        """Writes beside, then renames."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
        }
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.path)

    def average_model(self) -> nn.Module:
        """Puts the averaged weights into the model and returns it."""
        self.model.load_state_dict(self.average)
        return self.model

    @torch.no_grad()
    def _average(self, share: float) -> None:
        """Moves the averaged weights by `share` toward the model's; counters are copied."""
        now = self.model.state_dict()
        real = [key for key, tensor in now.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.average[key] for key in real], [now[key] for key in real], share)
        for key in now.keys() - set(real):
            self.average[key].copy_(now[key])

    def go(self, loss: Callable[[int, torch.Generator], torch.Tensor], every: float = 180.0) -> None:
        """Runs to the end. `loss(step, generator)` draws its own batch; each step has its own seed, so a resumed run repeats."""
        self.model.train()
        saved = logged = time.time()
        total, count = 0.0, 0
        while self.step < self.steps:
            began = time.time()
            generator = torch.Generator().manual_seed(SEED * 1_000_003 + self.step)
            value = loss(self.step, generator)
            if not torch.isfinite(value):
                raise FloatingPointError(f"loss is {value.item()} at step {self.step}; last checkpoint kept in {self.path}")
            for group in self.optimiser.param_groups:
                group["lr"] = rate(self.step, self.steps, self.peak)
            self.optimiser.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            self.step += 1
            keep = min(self.ema, (1 + self.step) / (10 + self.step))
            self._average(1 - keep)
            total, count = total + value.item(), count + 1
            now = time.time()
            self.seconds += now - began
            if now - logged > 30 or self.step == self.steps:
                left = (self.steps - self.step) * self.seconds / self.step
                print(f"step {self.step}/{self.steps} loss {total / count:.4f} left {left / 60:.0f} min", flush=True)
                logged, total, count = now, 0.0, 0
            if now - saved > every:
                self.save()
                saved = now
        self.save()
