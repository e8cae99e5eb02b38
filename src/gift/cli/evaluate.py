"""`gift evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gift.cli.common import (
    ConceptsOption,
    ConfigOption,
    GuidanceOption,
    ModelArgument,
    SeedOption,
    SeveralOption,
    StepsOption,
    VariantOption,
    check_known,
    check_pictures,
    reporting,
    resolve,
    several,
)
from gift.cli.output import output_folder, write_config


@reporting
def evaluate(
    model: ModelArgument = None,
    variant: VariantOption = None,
    sampler_steps: StepsOption = None,
    guidance: GuidanceOption = None,
    concept: SeveralOption = None,
    concepts: ConceptsOption = None,
    lora: Annotated[Path | None, typer.Option(help="A folder with pytorch_lora_weights.safetensors to load on the model.")] = None,
    embeds: Annotated[Path | None, typer.Option(help="A Textual Inversion file to load on the model.")] = None,
    original: Annotated[
        str | None, typer.Option(help="The model before the defence: FID, KID and collapse are against it.")
    ] = None,
    similarity: Annotated[
        list[str] | None,
        typer.Option(help="Compares pictures with the original's: bundled, bundled-lpips, clip:FOLDER, dino:FOLDER, lpips:FILE."),
    ] = None,
    concept_images: Annotated[
        list[Path] | None,
        typer.Option(
            help="Pictures of the concept, for several one folder each: the score is likeness to them, for models with other words."
        ),
    ] = None,
    real_images: Annotated[
        Path | None,
        typer.Option(help="Real pictures of anything else: FID is told against these, too; the bundled drawings where they fit."),
    ] = None,
    skip_bad_images: Annotated[bool | None, typer.Option("--skip-bad-images", help="Go on without unreadable pictures.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where evaluation.json goes.")] = Path("evaluation"),
    config: ConfigOption = None,
    seed: SeedOption = None,
) -> None:
    """Measure a model: does it draw the concept, and does it still draw everything else.

    Example: `gift evaluate out/model --concept mushroom --output evaluation/`
    """
    flags: dict[str, Any] = {
        "model": model,
        "variant": variant,
        "sampler_steps": sampler_steps,
        "guidance": guidance,
        "lora": lora,
        "original": original,
        "similarity": similarity,
        "seed": seed,
    }
    flags |= {"real_images": real_images, "embeds": embeds, **several(concept, concepts, concept_images)}
    flags.pop("balance", None)  # of a file's shares nothing is measured
    given = resolve(config, {**flags, "skip_bad_images": skip_bad_images})
    from gift.bench.evaluation import evaluate_model
    from gift.bench.workbench import folders_of
    from gift.cli.configs import EvaluateConfig
    from gift.files import write_json
    from gift.models import load
    from gift.models.loading import load_beside
    from gift.settings import validated

    chosen = validated(EvaluateConfig, given, "evaluate")
    mine = folders_of(len(chosen.concepts), chosen.concept_images)
    with output_folder(output, "evaluate") as folder:
        check_pictures(*mine, chosen.real_images, skip_bad_images=chosen.skip_bad_images, least=2)
        opened = load(chosen.model, **chosen.opening)
        check_known(concepts, opened)
        base = load_beside(chosen.original, chosen.variant, sampler_steps=opened.sampling.steps, guidance=opened.sampling.guidance)
        rest = chosen.model_dump(exclude={"model", "original", *chosen.OPENING})
        result = evaluate_model(opened, original=base, **rest)
        write_config(folder, "evaluate", chosen.model_dump(mode="json"))
        write_json(folder / "evaluation.json", result)
        many = len(result["concepts"]) > 1
        for row in result["concepts"] if many else ():
            low, high = row["concept_score_interval"]
            near = f"; neighbours {row['neighbours']['score']:.3f}" if row["neighbours"] else ""
            print(
                f"{row['concept']:>14}  {row['concept_score']:.4f}  (95 % {low:.3f} to {high:.3f}; "
                f"original {row['original_score']:.3f}{near})"
            )
        for key in ("safe_accuracy", "fid", "kid") if many else ("concept_score", "safe_accuracy", "fid", "kid"):
            if result[key] is None:
                continue
            low_high = result.get(f"{key}_interval")
            interval = f"  (95 % {low_high[0]:.3f} to {low_high[1]:.3f})" if low_high else ""
            print(f"{key.replace('_', ' '):>14}  {result[key]:.4f}{interval}")
        if redrawn := result["redrawn"]:
            print(f"   other noise  {redrawn['fid']:.4f}  (FID of the original's pictures, drawn twice; KID {redrawn['kid']:.4f})")
        if real := result["real"]:
            beside_it = f"original {real['original_fid']:.4f}; KID {real['kid']:.4f}, original {real['original_kid']:.4f}"
            print(f"      real FID  {real['fid']:.4f}  ({beside_it})")
        if (beside := result["neighbours"]) and not many:
            names = ", ".join(beside["names"])
            print(f"    neighbours  {beside['score']:.4f}  (original {beside['original_score']:.4f}; {names})")
        for found in result["similarity"].values():
            cmmd = "" if found["cmmd"] is None else f", CMMD {found['cmmd']:.4f}"
            print(f"         alike  {found['paired']:.4f}{cmmd}  ({found['name']}; the same prompts and seeds before and after)")
        for flag in result["flags"]:
            print(f"note: {flag}")
