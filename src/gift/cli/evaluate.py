"""`gift evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gift.cli.common import ConceptOption, ConfigOption, ModelArgument, SeedOption, output_folder, reporting, resolve, write_config


@reporting
def evaluate(
    model: ModelArgument = None,
    concept: ConceptOption = None,
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
        Path | None, typer.Option(help="Pictures of the concept: the score is likeness to them, for models with other words.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where evaluation.json goes.")] = Path("evaluation"),
    config: ConfigOption = None,
    seed: SeedOption = None,
) -> None:
    """Measure a model: does it draw the concept, and does it still draw everything else.

    Example: `gift evaluate out/model --concept mushroom --output evaluation/`
    """
    flags = {"model": model, "concept": concept, "lora": lora, "original": original, "similarity": similarity, "seed": seed}
    flags |= {"concept_images": concept_images, "embeds": embeds}
    given = resolve(config, flags)
    from gift.bench.evaluation import evaluate_model
    from gift.cli.configs import EvaluateConfig
    from gift.files import write_json
    from gift.settings import validated

    chosen = validated(EvaluateConfig, given, "evaluate")
    with output_folder(output) as folder:
        result = evaluate_model(**chosen.model_dump())
        write_config(folder, "evaluate", chosen.model_dump(mode="json"))
        write_json(folder / "evaluation.json", result)
        for key in ("concept_score", "safe_accuracy", "fid", "kid"):
            if result[key] is None:
                continue
            low_high = result.get(f"{key}_interval")
            interval = f"  (95 % {low_high[0]:.3f} to {low_high[1]:.3f})" if low_high else ""
            print(f"{key.replace('_', ' '):>14}  {result[key]:.4f}{interval}")
        if near := result["neighbours"]:
            print(f"    neighbours  {near['score']:.4f}  (original {near['original_score']:.4f}; {', '.join(near['names'])})")
        for found in result["similarity"].values():
            cmmd = "" if found["cmmd"] is None else f", CMMD {found['cmmd']:.4f}"
            print(f"         alike  {found['paired']:.4f}{cmmd}  ({found['name']}; the same prompts and seeds before and after)")
        for flag in result["flags"]:
            print(f"note: {flag}")
