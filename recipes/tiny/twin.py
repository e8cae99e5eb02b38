"""Twins that never saw a concept: the bundled model's recipe without some of its pictures and captions.

How fast an attack teaches such a twin is the natural limit of resistance. Twins are not shipped; `limit` writes their curves to
the package's `never_learned.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gift.attacks import Attack
from gift.bench.identity import model_identity, options_of
from gift.bench.never import FILE, PICTURES, attack_of, pictures_of
from gift.bench.trial import attack_and_score
from gift.bench.workbench import Workbench
from gift.files import write_json
from gift.metrics.concept import mean, prompted
from gift.models import load
from gift.settings import make_attack, parse_options

from .denoiser import make, train

CHECKPOINT = "denoiser.pt"
SAFE_PICTURES = 240  # of prompts that a twin has seen, for its safe accuracy (choice)


def train_twin(output: Path, never: Sequence[str], steps: int, compiled: bool = False, mixed: bool = False) -> None:
    """Trains a twin (resumable) and writes it as a pipeline folder, `output`/model.

    Args:
        output: its folder; the checkpoint is kept there, too.
        never: the concepts that it never sees.
        steps: optimiser steps.
        compiled: by `torch.compile`.
        mixed: forwards in bfloat16.
    """
    output.mkdir(parents=True, exist_ok=True)
    train(steps, compiled=compiled, never=never, checkpoint=output / CHECKPOINT, mixed=mixed)
    _, parts = make()
    state = torch.load(output / CHECKPOINT, weights_only=True)
    parts.load_state_dict(state["average"])
    model = load("tiny")
    for name in parts:
        getattr(model.pipeline, name).load_state_dict(parts[name].state_dict())
    model.save(output / "model")
    write_json(output / "twin.json", {"never": list(never), "steps": state["step"]})
    print(f"twin without {', '.join(never)}: {state['step']} steps, in {output / 'model'}")


@dataclass(frozen=True)
class Case:
    """One attack with a concept that the twin never saw, its seed, and how many pictures the attacker has."""

    concept: str
    attack: Attack
    seed: int
    pictures: int = PICTURES


def cases_of(twin: Path, attacks: Sequence[str], seeds: Sequence[int], steps: int) -> list[Case]:
    """Each attack with each seed on each concept that a twin never saw.

    Args:
        twin: what `train_twin` wrote.
        attacks: names of attacks, with options after a colon, as 'full:rate=1e-3,optimiser=sgd'.
        seeds: of the attacks.
        steps: of the attacks.
    """
    made = []
    for name in attacks:
        kind, _, options = name.partition(":")
        made.append(make_attack(kind, {"steps": steps, **parse_options(options.split(",") if options else [])}))
    return [Case(concept, how, seed) for concept in _about(twin)["never"] for seed in seeds for how in made]


def cases_in(twin: Path, records: Sequence[Path]) -> list[Case]:
    """The attacks of grids' records, those that their searches found among them, on the concepts that a twin never saw.

    Args:
        twin: what `train_twin` wrote.
        records: folders of grids.
    """
    never, found = _about(twin)["never"], {}
    for folder in records:
        for line in (folder / "records.jsonl").read_text().splitlines():
            row = json.loads(line)
            if row["status"] == "ok" and row["concept"] in never:
                options = {name: value for name, value in attack_of(row).items() if name != "name"}
                case = Case(row["concept"], make_attack(attack_of(row)["name"], options), row["seed"], pictures_of(row))
                found[repr(case)] = case
    return list(found.values())


def _about(twin: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((twin / "twin.json").read_text())
    return about


def _kept() -> dict[str, Any]:
    if not FILE.exists():
        return {"of": model_identity(load("tiny")), "twins": [], "curves": []}
    kept: dict[str, Any] = json.loads(FILE.read_text())
    return kept


def measure_limit(twin: Path, cases: Sequence[Case]) -> None:
    """Attacks a twin with what it never saw, and adds the curves to the package's `never_learned.json`.

    What is there already for the same twin is not measured again, so the command can be interrupted.

    Args:
        twin: what `train_twin` wrote.
        cases: the attacks.
    """
    about = _about(twin)
    model = load(twin / "model")
    bench = Workbench.of(model, about["never"], 0)
    asks = bench.safe_evaluation(SAFE_PICTURES)
    images = model.generate([a.prompt for a in asks], [a.seed for a in asks])
    assert bench.art is not None
    about["safe_accuracy"] = round(mean(prompted(bench.recogniser, bench.art, images, asks)[0]), 4)
    for case in cases:
        entry: dict[str, Any] = {
            "concept": case.concept,
            "attack": options_of(case.attack),
            "seed": case.seed,
            "twin_steps": about["steps"],
            "never": about["never"],
            "pictures": case.pictures,
        }
        if any(entry.items() <= {"pictures": PICTURES, **other}.items() for other in _kept()["curves"]):
            continue
        of = Workbench.of(model, case.concept, case.seed)
        harmless = of.harmless_set(case.pictures) if case.attack.needs_harmless else None
        data = of.attack_set(case.pictures)
        trial = attack_and_score(model, case.attack, data, of.asks(36), of.scorer, seed=case.seed, harmless=harmless)
        kept = _kept()  # again: another process may have measured something meanwhile
        kept["twins"] = [other for other in kept["twins"] if other["never"] != about["never"]] + [about]
        kept["curves"].append({**entry, "curve": [[step, round(score, 4)] for step, score in trial.curve]})
        write_json(FILE, kept)
        print(f"{case.concept}, {case.attack!r}, seed {case.seed}: {trial.curve}", flush=True)
