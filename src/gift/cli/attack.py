"""`gift attack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gift.cli.common import (
    AccumulateOption,
    CheckpointingOption,
    CompileOption,
    ConfigOption,
    EmaOption,
    ModelArgument,
    OneOption,
    PrecisionOption,
    SeedOption,
    SetOption,
    TrackerOption,
    VariantOption,
    check_pictures,
    output_folder,
    reporting,
    resolve,
    saving,
    write_config,
)


@reporting
def attack(
    model: ModelArgument = None,
    variant: VariantOption = None,
    concept: OneOption = None,
    attack: Annotated[str | None, typer.Option("--attack", help="See gift list attacks.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.", min=0)] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the attacked weights and the curve go.")] = Path("attacked"),
    concept_images: Annotated[Path | None, typer.Option(help="The attacker's pictures; else bundled drawings.")] = None,
    skip_bad_images: Annotated[bool | None, typer.Option("--skip-bad-images", help="Go on without unreadable pictures.")] = None,
    search: Annotated[
        int | None, typer.Option(metavar="N", help="Try N attacks, the given one first, and report the worst.", min=0)
    ] = None,
    similarity: Annotated[
        str | None,
        typer.Option(help="Score by likeness to the attacker's pictures: bundled, clip:FOLDER, dino:FOLDER, …"),
    ] = None,
    kohya: Annotated[bool | None, typer.Option("--kohya", help="Write the LoRA in kohya's layout, too.")] = None,
    precision: PrecisionOption = None,
    gradient_checkpointing: CheckpointingOption = None,
    accumulate: AccumulateOption = None,
    ema: EmaOption = None,
    compile_with: CompileOption = None,
    tracker: TrackerOption = None,
    config: ConfigOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
) -> None:
    """Fine-tune a model toward a concept, as an attacker would, and measure how fast it comes back.

    Example: `gift attack out/model --concept mushroom --attack lora --steps 150 --output attacked/`
    """
    flags: dict[str, Any] = {
        "model": model,
        "variant": variant,
        "concept": concept,
        "attack": attack,
        "steps": steps,
        "concept_images": concept_images,
        "seed": seed,
        "tracker": tracker,
    }
    flags |= saving(
        precision=precision, gradient_checkpointing=gradient_checkpointing, accumulate=accumulate, ema=ema, compile=compile_with
    )
    flags |= {"skip_bad_images": skip_bad_images, "search": search, "similarity": similarity, "kohya": kohya}
    given = resolve(config, flags, settings)
    from gift.api import attack as run
    from gift.bench.workbench import Workbench
    from gift.cli.configs import AttackConfig
    from gift.cli.searching import search_attack
    from gift.errors import GiftError
    from gift.files import write_json
    from gift.metrics.flags import attack_flags
    from gift.models import load
    from gift.models.kohya import write_kohya
    from gift.models.lora import LORA_FILE
    from gift.parallel import launched
    from gift.settings import make_attack, validated
    from gift.training.progress import Live
    from gift.training.tracking import finish, tracked

    options = given.get("options")
    if isinstance(options, dict) and "steps" in options:  # --steps and --set steps are one
        given = {**given, "steps": options["steps"], "options": {k: v for k, v in options.items() if k != "steps"}}
    chosen = validated(AttackConfig, given, "attack")
    if chosen.search and launched() > 1:
        raise GiftError("a search is for one process; leave --search out, or accelerate launch")
    make_attack(chosen.attack, {"steps": chosen.steps, **chosen.options})
    reporter = tracked(Live(), chosen.tracker, output, chosen.model_dump(mode="json"))
    with output_folder(output) as folder:
        check_pictures(chosen.concept_images, skip_bad_images=chosen.skip_bad_images)
        opened = load(chosen.model, variant=chosen.variant)
        bench = Workbench.of(opened, chosen.concept, chosen.seed, skip_bad_images=chosen.skip_bad_images)
        bench.judge(chosen.similarity, 2, chosen.concept_images)  # told before anything is written
        reporter.say(opened.describe())
        write_config(folder, "attack", chosen.model_dump(mode="json"))
        if chosen.search:
            search_attack(opened, chosen, folder, reporter)
            return
        rest = chosen.model_dump(exclude={"saving", "tracker", "model", "variant", "options", "search", "kohya"})
        curve = run(
            opened,
            **rest,
            cache=folder / "work" / "latents",
            work=folder / "work" / "steps",
            reporter=reporter,
            saving=chosen.saving,
            **chosen.options,
        )
        done = curve.trial.attacked
        curve.save(folder / "weights")
        if chosen.kohya:
            write_kohya(folder / "weights" / LORA_FILE)
        flags_found = attack_flags([x["loss"] for x in done.logs], [x["gradient_norm"] for x in done.logs], done.matched)
        write_json(
            folder / "attack.json",
            {
                "config": chosen.model_dump(mode="json"),
                "curve": [list(point) for point in curve],
                "scores": {str(step): seen.scores for step, seen in curve.trial.seen.items()},
                "losses": [x["loss"] for x in done.logs],
                "trained_tensors": done.matched,
                "seconds": round(done.seconds, 2),
                "peak_mb": round(done.peak_mb, 1),
                "flags": flags_found,
            },
        )
        for step, score in curve:
            print(f"step {step:>5}  {'likeness' if chosen.similarity else 'concept score'} {score:.3f}")
        for flag in flags_found:
            print(f"note: {flag}")
        finish(reporter)
        reporter.say(f"weights in {folder / 'weights'} after {done.seconds:.0f} s; {done.matched} tensors trained")
