"""Writes what a demo measured: `result.json` with every sample's score, and contact sheets of the pictures."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from gift import __version__
from gift.bench.config import CONTROL
from gift.bench.demo import Demo, Outcome
from gift.bench.neighbours import neighbour_damage
from gift.bench.provenance import commit, machine
from gift.bench.record import Result
from gift.data.prompts import Ask
from gift.files import file_word, write_bytes, write_json
from gift.metrics.concept import mean
from gift.metrics.flags import attack_flags, comparison_flags
from gift.metrics.recovery import control_recovers, relearning_reduction, steps_to_recover
from gift.pixels import contact_sheet, png_bytes

SHOWN = 12  # pictures of a contact sheet
COLUMNS = 6

Curve = list[tuple[int, float]]


def curve_of(trial: dict[str, Any]) -> Curve:
    """(step, mean score) of a stored trial."""
    return [(int(step), mean(seen["scores"])) for step, seen in trial["seen"]]


class Writer:
    """Turns an outcome into files."""

    def __init__(self, demo: Demo, outcome: Outcome) -> None:
        self.demo, self.outcome, self.config = demo, outcome, outcome.config
        self.asks = demo.bench.asks(self.config.evaluation_pictures)
        self.safe_asks = demo.bench.safe_evaluation(self.config.safe_evaluation_pictures)
        self.original = outcome.scored["original"].score
        self.samples: list[dict[str, Any]] = []
        self.grids: list[dict[str, Any]] = []

    def write(self) -> dict[str, Any]:
        """Writes `result.json`, `pictures/` and `model/`, and returns the record."""
        methods = [self.method(name) for name in self.demo.chains]
        rows = [self.row(name, attack) for name in self.demo.chains for attack in self.demo.attacks]
        record = {
            "version": __version__,
            "commit": commit(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": self.config.model,
            "concept": str(self.demo.bench.concept),
            "seed": self.config.seed,
            "horizon": max(how.steps for how in self.demo.attacks.values()),
            "original_score": self.original,
            "settings": self.config.model_dump(mode="json"),
            "machine": machine(),
            "seconds": round(self.outcome.seconds, 1),
            "methods": methods,
            "attacks": [self.attack(name) for name in self.demo.attacks],
            "rows": rows,
            "samples": self.samples,
            "grids": self.grids,
        }
        best = "gift" if "gift" in self.demo.chains else list(self.demo.chains)[-1]
        self.outcome.costs[best].model.save(self.demo.folder / "model")
        Result.model_validate(record)
        write_json(self.demo.folder / "result.json", record)
        return record

    def method(self, name: str) -> dict[str, Any]:
        """One defence: what it is, what it cost, what it left."""
        chain = self.demo.chains[name]
        methods = self.demo.methods(chain)
        price, cost, scored = self.outcome.prices[name], self.outcome.costs[name], self.outcome.scored[name]
        near, original = (self.outcome.neighbours[which] for which in (name, "original"))
        self.show(name, None, 0, "concept", scored.images, scored.scores, self.asks)
        self.show(name, None, 0, "safe", price["images"], price["scores"], self.safe_asks)
        return {
            "method": name,
            "chain": chain,
            "title": " after ".join(m.title for m in reversed(methods)),
            "about": methods[-1].about,
            "arguments": {m.name: m.model_dump(mode="json") for m in methods},
            "defence_seconds": round(cost.seconds, 2),
            "peak_mb": round(cost.peak_mb, 1),
            "score_before": scored.score,
            "safe_accuracy": price["safe_accuracy"],
            "fid": price["fid"],
            "kid": price["kid"],
            "real": price["real"],
            "neighbours": neighbour_damage(near, original) if near else None,
            "flags": [price["collapse"]] if price["collapse"] else [],
        }

    def attack(self, name: str) -> dict[str, Any]:
        """One attack, and whether it works on the control."""
        headings = [other.heading for other in self.demo.attacks.values()]
        how, control = self.demo.attacks[name], curve_of(self.outcome.trials[CONTROL, name])
        return {
            "attack": name,
            "title": how.heading if headings.count(how.heading) == 1 else f"{how.heading} ({name})",
            "about": how.about,
            "arguments": how.model_dump(mode="json"),
            "pictures": self.demo.pictures[name],
            "control_recovers": control_recovers(control, self.original),
            "control_score": control[-1][1],
        }

    def row(self, name: str, attack: str) -> dict[str, Any]:
        """One method under one attack. The keys are a contract with other tools."""
        trial = self.outcome.trials[name, attack]
        curve, control = curve_of(trial), curve_of(self.outcome.trials[CONTROL, attack])
        for step, seen in trial["seen"]:
            if step:
                self.show(
                    name, attack, int(step), "concept", seen["images"], seen["scores"], self.asks, last=step == trial["seen"][-1][0]
                )
        cost, price = self.outcome.costs[name], self.outcome.prices[name]
        first = self.demo.attacks[attack].before_concept
        flags = attack_flags(trial["losses"], trial["norms"], trial["matched"], harmless=first)
        flags += comparison_flags(
            control_recovered=control_recovers(control, self.original),
            control_left=control[0][1] / self.original if self.original else None,
            seeds=1,
            collapse=price["collapse"],
        )
        reduction = relearning_reduction(curve, control)
        return {
            "method": name,
            "attack": attack,
            "concept": str(self.demo.bench.concept),
            "seed": self.config.seed,
            "score_before": curve[0][1],
            "score_after": curve[-1][1],
            "curve": [list(point) for point in curve],
            "relearning_reduction": None if reduction is None else round(reduction, 6),
            "steps_to_recover": steps_to_recover(curve, self.original) if self.original > 0 else None,
            "safe_accuracy": price["safe_accuracy"],
            "fid": price["fid"],
            "defence_seconds": round(cost.seconds, 2),
            "attack_seconds": round(trial["seconds"], 2),
            "peak_mb": round(max(cost.peak_mb, trial["peak_mb"]), 1),
            "flags": flags,
        }

    def show(
        self,
        method: str,
        attack: str | None,
        step: int,
        group: str,
        images: torch.Tensor,
        scores: list[float],
        asks: list[Ask],
        *,
        last: bool = True,
    ) -> None:
        """Keeps every sample's score, and a contact sheet where the page shows one."""
        self.samples += [
            {"method": method, "attack": attack, "step": step, "group": group, "prompt": a.prompt, "seed": a.seed, "score": s}
            for a, s in zip(asks, scores, strict=True)
        ]
        if not last:
            return
        file = Path("pictures") / f"{method}-{file_word(attack or 'before')}-{step}-{group}.png"
        write_bytes(self.demo.folder / file, png_bytes(contact_sheet(images[:SHOWN], COLUMNS)))
        self.grids.append(
            {
                "method": method,
                "attack": attack,
                "step": step,
                "group": group,
                "file": file.as_posix(),
                "prompts": [a.prompt for a in asks[:SHOWN]],
                "seeds": [a.seed for a in asks[:SHOWN]],
                "scores": scores[:SHOWN],
                "columns": COLUMNS,
                "size": images.shape[-1],
            }
        )
