"""`python -m gift.bench.speed`: what a defence costs beside plain fine-tuning, as ratios measured in one run.

Times are medians over interleaved rounds, so that a noisy machine troubles every contender alike; memory is the peak
resident size of a fresh process for each while it steps. The floor of a GIFT step is 2.0: one forward and one backward for
each level.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from gift.attacks import Full
from gift.attacks.base import FineTuning
from gift.bench.provenance import machine
from gift.bench.workbench import Workbench
from gift.data.latents import LatentSet
from gift.immunizers import Gift, Imma, Immunizer, Task
from gift.models import DenoisingModel, load
from gift.training.loop import step_generator
from gift.training.measure import Meter
from gift.training.precision import make_accelerator
from gift.training.updates import make_optimiser

BATCH = 16
CONTENDERS: dict[str, Immunizer] = {
    "gift": Gift.plain(batch_size=BATCH),
    "gift, defaults": Gift(batch_size=BATCH),
    "gift, noising": Gift.plain(batch_size=BATCH, noise_weight=0.1),
    "imma": Imma(batch_size=BATCH),
}


def materials(model: DenoisingModel) -> tuple[LatentSet, LatentSet]:
    """Small sets, whose size does not change a step's cost."""
    bench = Workbench.of(model, "mushroom")
    return bench.attack_set(BATCH), bench.harmless_set(BATCH)


def contender(name: str, model: DenoisingModel, concept: LatentSet, safe: LatentSet) -> Callable[[int], object]:
    """A function that takes one step of 'plain' or of a defence, on a copy."""
    accelerator = make_accelerator(model)
    copy = model.copy()
    copy.denoiser.train()
    stepper: Any
    if name == "plain":
        stepper = FineTuning(Full(batch_size=BATCH), copy, safe, accelerator)
    else:
        stepper = CONTENDERS[name].begin(Task(copy, concept, safe, accelerator, 0))
    return lambda i: stepper.step(i, step_generator(0, i))


def seconds(work: Callable[[int], object], i: int) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    work(i)
    return time.perf_counter() - began


def step_times(model: DenoisingModel, rounds: int) -> dict[str, float]:
    """Median seconds a step of each contender, interleaved."""
    concept, safe = materials(model)
    work = {name: contender(name, model, concept, safe) for name in ("plain", *CONTENDERS)}
    for step in work.values():
        step(0)
    times: dict[str, list[float]] = {name: [] for name in work}
    for i in range(1, rounds + 1):
        for name, step in work.items():
            times[name].append(seconds(step, i))
    return {name: statistics.median(values) for name, values in times.items()}


def caching(model: DenoisingModel, rounds: int) -> float:
    """Seconds of a plain step that encodes its pictures and captions anew, over one on cached latents and embeddings."""
    bench = Workbench.of(model, "mushroom")
    data = bench.attack_set(BATCH)
    images = torch.randint(256, (BATCH, 3, model.image_size, model.image_size), dtype=torch.uint8)
    prompts = [data.prompts[i] for i in data.which.tolist()]
    cached = contender("plain", model, data, data)

    def uncached(i: int) -> None:
        model.encode_images(images)
        model.encode_prompts(prompts)
        cached(i)

    times: dict[str, list[float]] = {"cached": [], "uncached": []}
    for i in range(rounds):
        times["cached"].append(seconds(cached, i))
        times["uncached"].append(seconds(uncached, i))
    return statistics.median(times["uncached"]) / statistics.median(times["cached"])


def adafactor(model: DenoisingModel, rounds: int) -> float:
    """Seconds of PyTorch's Adafactor on the denoiser's weights, over those of the one that is used here."""
    weights = list(model.copy().denoiser.requires_grad_(True).parameters())
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    theirs, ours = torch.optim.Adafactor(weights, lr=1e-6, eps=(None, 1.0)), make_optimiser("adafactor", weights, 1e-6, 0.0)
    times = [(seconds(lambda _: theirs.step(), i), seconds(lambda _: ours.step(), i)) for i in range(rounds)]
    return statistics.median(each[0] for each in times) / statistics.median(each[1] for each in times)


def peak_mb(name: str, steps: int = 4) -> float:
    """Peak resident memory of a fresh process that takes a few steps of one contender."""
    done = subprocess.run(
        [sys.executable, "-m", "gift.bench.speed", "--peak", name, "--steps", str(steps)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout.strip().splitlines()[-1])["peak_mb"])


def print_peak(name: str, steps: int) -> None:
    """The fresh process's part of `peak_mb`."""
    model = load("tiny")
    step = contender(name, model, *materials(model))
    with Meter() as meter:
        for i in range(steps):
            step(i)
    print(json.dumps({"peak_mb": meter.peak_mb}))


def main() -> None:
    """Prints the ratios."""
    parser = argparse.ArgumentParser(description="Costs of a defence beside plain fine-tuning, as ratios in one run.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peak", choices=["plain", *CONTENDERS], help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        print_peak(given.peak, given.steps)
        return
    model = load("tiny")
    about = machine()
    print(
        f"{model.describe()}; batch {BATCH}; {about['threads']} threads, torch {about['torch']}; medians of {given.rounds} rounds"
    )
    times = step_times(model, given.rounds)
    print(f"plain fine-tuning step                      {times['plain'] * 1000:.0f} ms")
    for name in CONTENDERS:
        print(f"{name + ' step / plain step':<43} {times[name] / times['plain']:.2f}")
    print(f"{'gift step / imma step':<43} {times['gift'] / times['imma']:.2f}")
    print(f"{'uncached step / cached step':<43} {caching(model, given.rounds):.2f}")
    print(f"{'adafactor of PyTorch / of gift':<43} {adafactor(model, given.rounds):.2f}")
    plain = peak_mb("plain")
    print(f"plain fine-tuning peak memory               {plain:.0f} MB")
    for name in CONTENDERS:
        print(f"{name + ' peak / plain peak':<43} {peak_mb(name) / plain:.2f}")


if __name__ == "__main__":
    main()
