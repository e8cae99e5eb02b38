"""`gift attack`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gift.cli.common import (
    AccumulateOption,
    CheckpointingOption,
    CompileOption,
    ConfigOption,
    EmaOption,
    GuidanceOption,
    HeldOption,
    ModelArgument,
    OneOption,
    PrecisionOption,
    RestartOption,
    SeedOption,
    SetOption,
    StepsOption,
    TrackerOption,
    VariantOption,
    check_pictures,
    reporting,
    resolve,
    saving,
)
from gift.cli.output import begin_afresh, output_folder, write_config
from gift.errors import GiftError

if TYPE_CHECKING:
    from gift.api import Curve
    from gift.attacks import Attack
    from gift.cli.configs import AttackConfig


@reporting
def attack(
    model: ModelArgument = None,
    variant: VariantOption = None,
    sampler_steps: StepsOption = None,
    guidance: GuidanceOption = None,
    held_in: HeldOption = None,
    concept: OneOption = None,
    attack: Annotated[str | None, typer.Option("--attack", help="See gift list attacks.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.", min=0)] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the attacked weights and the curve go.")] = Path("attacked"),
    concept_images: Annotated[Path | None, typer.Option(help="The attacker's pictures; else bundled drawings.")] = None,
    pictures: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Bundled drawings that the attacker has; by default 64, or 7 where a few suit the attack.", min=1
        ),
    ] = None,
    harmless_images: Annotated[
        Path | None, typer.Option(help="Other pictures, for attacks that hide the concept among them; else bundled drawings.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="A public model, named as the first, for attacks that lean on one (toward-base, transplant).")
    ] = None,
    skip_bad_images: Annotated[bool | None, typer.Option("--skip-bad-images", help="Go on without unreadable pictures.")] = None,
    search: Annotated[
        int | None, typer.Option(metavar="N", help="Try N attacks, the given one first, and report the worst.", min=0)
    ] = None,
    least_safe: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Of a search: only attacks that leave this share of the safe accuracy count."),
    ] = None,
    least_share: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Of a search: harmless pictures may make up all but this share of an attack's batches."),
    ] = None,
    pictures_tried: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Of a search: so many bundled drawings are tried, too; may be repeated, by default 7."),
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
    restart: RestartOption = False,
    seed: SeedOption = None,
    settings: SetOption = None,
) -> None:
    """Fine-tune a model toward a concept, as an attacker would, and measure how fast it comes back.

    Example: `gift attack out/model --concept mushroom --attack lora --steps 150 --output attacked/`
    """
    flags: dict[str, Any] = {
        "model": model,
        "variant": variant,
        "sampler_steps": sampler_steps,
        "guidance": guidance,
        "held_in": held_in,
        "concept": concept,
        "attack": attack,
        "steps": steps,
        "concept_images": concept_images,
        "pictures": pictures,
        "harmless_images": harmless_images,
        "base": base,
        "seed": seed,
        "tracker": tracker,
    }
    flags |= saving(
        precision=precision, gradient_checkpointing=gradient_checkpointing, accumulate=accumulate, ema=ema, compile=compile_with
    )
    flags |= {
        "skip_bad_images": skip_bad_images,
        "search": search,
        "least_safe": least_safe,
        "least_share": least_share,
        "pictures_tried": pictures_tried or None,
        "similarity": similarity,
        "kohya": kohya,
    }
    given = resolve(config, flags, settings)
    from gift.api import attack as run
    from gift.bench.workbench import Workbench
    from gift.bench.worst import STUDY
    from gift.cli.searching import search_attack
    from gift.launch import launched
    from gift.models import load
    from gift.models.loading import load_beside
    from gift.training.checkpoint import clear_below
    from gift.training.progress import Live
    from gift.training.tracking import finish, tracked

    chosen, how = checked(given)
    if pictures is not None and chosen.concept_images is not None:
        raise GiftError("--pictures says how many bundled drawings, and all in concept_images are used; leave one of them out")
    if chosen.search and launched() > 1:
        raise GiftError("a search is for one process; leave --search out, or accelerate launch")
    if chosen.kohya:
        _check_kohya(chosen, how)
    chosen.saving.check()
    reporter = tracked(Live(), chosen.tracker, output, chosen.model_dump(mode="json"))
    read = [chosen.model, chosen.base, chosen.concept_images, chosen.harmless_images]
    with output_folder(output, "attack", "weights", read) as folder:
        check_pictures(chosen.harmless_images, skip_bad_images=chosen.skip_bad_images)
        check_pictures(chosen.concept_images, skip_bad_images=chosen.skip_bad_images, least=2 if chosen.similarity else 1)
        opened = load(chosen.model, **chosen.opening)
        if chosen.kohya and opened.denoiser_part != "unet":
            raise GiftError(f"--kohya writes the LoRA of a UNet, and {chosen.model} has a {opened.denoiser_part}; leave it out")
        public = load_beside(chosen.base, chosen.variant, held_in=chosen.held_in) if chosen.base else None
        bench = Workbench.of(opened, chosen.concept, chosen.seed, skip_bad_images=chosen.skip_bad_images)
        bench.judge(chosen.similarity, 2, chosen.concept_images)  # told before anything is written
        reporter.say(opened.describe())
        begin_afresh(restart, folder / "work", reporter.say)
        if restart and chosen.search:
            (folder / STUDY).unlink(missing_ok=True)
        write_config(folder, "attack", chosen.model_dump(mode="json"))
        if chosen.search:
            search_attack(opened, public, chosen, folder, reporter)
            return
        rest = chosen.model_dump(
            exclude={"saving", "tracker", "model", "options", "search", *chosen.OF_A_SEARCH, "kohya", "base", *chosen.OPENING}
        )
        curve = run(
            opened,
            base=public,
            **rest,
            cache=folder / "work" / "latents",
            work=folder / "work" / "steps",
            reporter=reporter,
            saving=chosen.saving,
            keep_work=True,
            **chosen.options,
        )
        done, flags_found = curve.trial.attacked, write(folder, chosen, curve)
        clear_below(folder / "work" / "steps")
        for step, score in curve:
            print(f"step {step:>5}  {'likeness' if chosen.similarity else 'concept score'} {score:.3f}")
        for flag in flags_found:
            print(f"note: {flag}")
        finish(reporter)
        reporter.say(f"weights in {folder / 'weights'} after {done.seconds:.0f} s; {done.matched} tensors trained")


def _check_kohya(chosen: AttackConfig, how: Attack) -> None:
    """Verifies that an attack writes what kohya's layout is for.

    Raises:
        GiftError: it writes no LoRA, or nothing.
    """
    from gift.attacks.lora import Lora

    if chosen.search:
        raise GiftError("--kohya writes an attack's weights, and a search keeps none; leave it out, and repeat the worst with it")
    if not (isinstance(how, Lora) and how.adapter == "lora"):
        which = f"attack '{how.name}' with adapter '{how.adapter}'" if isinstance(how, Lora) else f"attack '{how.name}'"
        raise GiftError(f"--kohya is for LoRA files, and {which} writes none; leave it out, or use --attack lora")


def checked(given: dict[str, Any]) -> tuple[AttackConfig, Attack]:
    """The resolved configuration and the attack that it names.

    Raises:
        GiftError: an unknown attack or option; a model or pictures are missing, or would not be used.
    """
    from gift.attacks.base import FEW
    from gift.cli.configs import AttackConfig
    from gift.settings import make_attack, validated

    options = given.get("options")
    if isinstance(options, dict) and "steps" in options:  # --steps and --set steps are one
        given = {**given, "steps": options["steps"], "options": {k: v for k, v in options.items() if k != "steps"}}
    chosen = validated(AttackConfig, given, "attack")
    how = make_attack(chosen.attack, {"steps": chosen.steps, **chosen.options})
    check_needs(how, chosen)
    drawings: dict[str, Any] = {"pictures": None}  # of one's own all are used
    if chosen.concept_images is None:
        drawings["pictures"] = how.drawings(chosen.pictures)
        if chosen.search and chosen.pictures_tried is None:
            drawings["pictures_tried"] = (FEW,)
    return chosen.model_copy(update=drawings), how


def check_needs(how: Attack, chosen: AttackConfig) -> None:
    """Verifies that the attack has the base and the pictures that it needs, and, outside a search, no others and no bound of one.

    Raises:
        GiftError: one is missing, or would not be used.
    """
    if how.needs_base and chosen.base is None:
        raise GiftError(f"attack '{how.name}' leans on a public base model; give it with --base, as --base tiny")
    if not chosen.search:
        for name in chosen.OF_A_SEARCH:
            if getattr(chosen, name) is not None:
                raise GiftError(f"{name} is for the attacks of a search; give --search N, too, or leave it out")
        how.refuse_unused(base=chosen.base is not None, harmless_images=chosen.harmless_images is not None)


def write(folder: Path, chosen: AttackConfig, curve: Curve) -> list[str]:
    """Writes the attacked weights and `attack.json`; returns what is odd about the run."""
    from gift.bench.trial import steps_to_look
    from gift.files import write_json
    from gift.metrics.flags import attack_flags
    from gift.models.kohya import write_kohya
    from gift.models.lora import LORA_FILE

    done = curve.trial.attacked
    curve.save(folder / "weights")
    losses, norms = ([step[name] for step in done.logs] for name in ("loss", "gradient_norm"))
    flags = attack_flags(losses, norms, done.matched, harmless=done.attack.before_concept)
    unseen = [str(step) for step in steps_to_look(chosen.steps) if step not in curve.trial.seen]
    if unseen:
        flags.append(f"no score at step {', '.join(unseen)}: not enough memory to draw there")
    record = {
        "config": chosen.model_dump(mode="json"),
        "curve": [list(point) for point in curve],
        "scores": {str(step): seen.scores for step, seen in curve.trial.seen.items()},
        "losses": [x["loss"] for x in done.logs],
        "trained_tensors": done.matched,
        "seconds": round(done.seconds, 2),
        "peak_mb": round(done.peak_mb, 1),
        "flags": flags,
    }
    write_json(folder / "attack.json", record)
    if chosen.kohya:
        write_kohya(folder / "weights" / LORA_FILE)
    return flags
