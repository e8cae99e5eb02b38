"""`gift immunize`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from gift.cli.common import (
    AccumulateOption,
    CheckpointingOption,
    CompileOption,
    ConceptsOption,
    ConfigOption,
    EmaOption,
    FoldersOption,
    GuidanceOption,
    HeldOption,
    ModelArgument,
    PrecisionOption,
    RestartOption,
    SeedOption,
    SeveralOption,
    StepsOption,
    TrackerOption,
    VariantOption,
    check_known,
    check_pictures,
    reporting,
    resolve,
    saving,
    several,
)
from gift.cli.output import begin_afresh, output_folder, write_config


@reporting
def immunize(
    model: ModelArgument = None,
    variant: VariantOption = None,
    sampler_steps: StepsOption = None,
    guidance: GuidanceOption = None,
    held_in: HeldOption = None,
    concept: SeveralOption = None,
    concepts: ConceptsOption = None,
    method: Annotated[str | None, typer.Option(help="A method or a chain of them, such as esd+gift.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the immunized diffusers folder goes.")] = Path("immunized"),
    concept_images: FoldersOption = None,
    safe_images: Annotated[Path | None, typer.Option(help="Folder of pictures to keep; else the model draws them.")] = None,
    skip_bad_images: Annotated[bool | None, typer.Option("--skip-bad-images", help="Go on without unreadable pictures.")] = None,
    precision: PrecisionOption = None,
    gradient_checkpointing: CheckpointingOption = None,
    accumulate: AccumulateOption = None,
    ema: EmaOption = None,
    compile_with: CompileOption = None,
    tracker: TrackerOption = None,
    config: ConfigOption = None,
    restart: RestartOption = False,
    seed: SeedOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A hyperparameter of the last method, key=value, or of any in the chain, as esd.steps=20; may be repeated.",
        ),
    ] = None,
) -> None:
    """Change a model's weights so that a concept is hard to teach it again.

    Example: `gift immunize tiny --concept mushroom --method esd+gift --output out/`
    """
    flags: dict[str, Any] = {
        "model": model,
        "variant": variant,
        "sampler_steps": sampler_steps,
        "guidance": guidance,
        "held_in": held_in,
        "method": method,
        "safe_images": safe_images,
    }
    flags |= {"tracker": tracker, **several(concept, concepts, concept_images)}
    flags |= saving(
        precision=precision, gradient_checkpointing=gradient_checkpointing, accumulate=accumulate, ema=ema, compile=compile_with
    )
    given = resolve(config, {**flags, "skip_bad_images": skip_bad_images, "seed": seed}, settings)
    from gift.api import immunize as run
    from gift.bench.workbench import Workbench, folders_of
    from gift.cli.configs import ImmunizeConfig
    from gift.files import need_room, write_json
    from gift.models import load
    from gift.settings import make_immunizers, validated
    from gift.training.checkpoint import clear_below
    from gift.training.measure import Meter
    from gift.training.progress import Live
    from gift.training.tracking import finish, tracked

    chosen = validated(ImmunizeConfig, given, "immunize")
    methods = make_immunizers(chosen.method, chosen.options)
    chosen.saving.check()
    reporter = tracked(Live(), chosen.tracker, output, chosen.model_dump(mode="json"))
    mine = folders_of(len(chosen.concepts), chosen.concept_images)
    with output_folder(output, "immunize", "model", [chosen.model, *mine, chosen.safe_images]) as folder:
        check_pictures(*mine, chosen.safe_images, skip_bad_images=chosen.skip_bad_images)
        opened = load(chosen.model, **chosen.opening)
        check_known(concepts, opened)
        bench = Workbench.of(opened, chosen.concept, chosen.seed)  # an unknown concept is told before anything is written
        need_room(folder / "model", opened.nbytes)  # rather than after all steps
        reporter.say(opened.describe())
        begin_afresh(restart, folder / "work", reporter.say)
        write_config(folder, "immunize", chosen.model_dump(mode="json"))
        rest = chosen.model_dump(exclude={"saving", "tracker", "model", "options", *chosen.OPENING})
        losses: dict[str, Any] = {}
        with Meter() as meter:
            out = run(
                opened,
                **rest,
                cache=folder / "work" / "latents",
                work=folder / "work" / "steps",
                reporter=reporter,
                saving=chosen.saving,
                told=losses.update,
                in_place=True,
                keep_work=True,
                meter=meter,
                **chosen.options,
            )
        out.save(folder / "model")
        write_json(
            folder / "immunize.json",
            {
                "methods": [{"method": m.name, "arguments": m.model_dump(mode="json")} for m in methods],
                "config": chosen.model_dump(mode="json"),
                "losses": losses,
                "seconds": round(meter.seconds, 1),
                "peak_mb": round(meter.peak_mb, 1),
            },
        )
        clear_below(folder / "work" / "steps")
        finish(reporter)
        for name, loss in losses.items():
            share = f", {loss['share']:.0%} of a batch" if len(losses) > 2 and "share" in loss else ""
            what = f"({loss['pictures']} pictures{share})"
            reporter.say(f"{name}: mean loss {loss['before']:.4f} before, {loss['after']:.4f} after {what}")
        reporter.say(f"immunized model in {folder / 'model'} after {meter.seconds:.0f} s; peak memory {meter.peak_mb:.0f} MB")
        command = ["gift", "attack", str(folder / "model"), "--concept", chosen.concepts[0]]
        if bench.art is None:  # nothing recognises it
            command += ["--concept-images", str(mine[0] or "FOLDER"), "--similarity", "clip:FOLDER"]
        reporter.say(f"next: {shlex.join(command)}")
