"""`gift demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gift.cli.common import ConceptOption, ConfigOption, RestartOption, SeedOption, quiet_libraries, reporting, resolve
from gift.cli.output import begin_afresh, output_folder, write_config

if TYPE_CHECKING:
    from rich.table import Table


@reporting
def demo(
    concept: ConceptOption = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the page, the model and result.json go.")] = Path("demo"),
    steps: Annotated[int | None, typer.Option(help="Attack steps.", min=1)] = None,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1, max=2)] = 2,
    config: ConfigOption = None,
    restart: RestartOption = False,
    seed: SeedOption = None,
) -> None:
    """Defend the bundled model by five methods, attack each three times, measure, and write the page.

    Example: `gift demo --concept mushroom --seed 0 --output demo/`

    The concept may be any object of the bundled model, style:NAME or category:NAME; see `gift list concepts`.
    """
    given = resolve(config, {"concept": concept, "steps": steps, "seed": seed})
    import shutil

    from rich.console import Console

    from gift.bench.beside import run_demo
    from gift.bench.config import DemoConfig
    from gift.bench.demo import Demo
    from gift.bench.result import Writer
    from gift.report.page import write_page
    from gift.settings import validated
    from gift.training.progress import Live

    chosen = validated(DemoConfig, given, "demo")
    with output_folder(output, "demo", "model") as folder:
        run = Demo(chosen, folder, Live())
        begin_afresh(restart, folder / "work" / "checkpoints", run.reporter.say, run.store.folder)
        write_config(folder, "demo", chosen.model_dump(mode="json"))
        outcome = run_demo(run, jobs, quiet_libraries)
        record = Writer(run, outcome).write()
        page = write_page(folder)
        shutil.rmtree(folder / "work", ignore_errors=True)
        console = Console()
        console.print(table(record))
        if any(method["real"] for method in record["methods"]):
            far = [f"{method['method']} {method['real']['fid']:.1f}" for method in record["methods"] if method["real"]]
            console.print(f"FID to drawings of the same prompts: {', '.join(far)}", highlight=False)
        for attack in record["attacks"]:
            if not attack["control_recovers"]:
                name = attack["title"]
                console.print(
                    f"INCONCLUSIVE: {name} does not bring the concept back on erased-only weights; its rows prove nothing."
                )
        for line in dict.fromkeys(f"{m['title']}: {flag}" for m in record["methods"] for flag in m["flags"]):
            console.print(f"note: {line}")
        console.print(f"page: {page}\nimmunized model: {folder / 'model'}\nrecord: {folder / 'result.json'}", highlight=False)


def table(record: dict[str, Any]) -> Table:
    """The demo's one table."""
    from rich.table import Table as RichTable

    title = f"{record['concept']}, seed {record['seed']}: concept score before and after attacks of up to {record['horizon']} steps"
    out = RichTable(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))  # within 80 columns
    heads = (
        "method",
        "attack",
        "before",
        "after",
        "reduced",
        "back",
        "safe",
        "FID",
        "def. s",
        "att. s",
        "MB",
    )  # within 80 columns
    for head in heads:
        out.add_column(head, justify="left" if head in {"method", "attack"} else "right", no_wrap=True)
    for row in record["rows"]:
        reduction, recovers = row["relearning_reduction"], row["steps_to_recover"]
        out.add_row(
            row["method"],
            row["attack"],
            f"{row['score_before']:.2f}",
            f"{row['score_after']:.2f}",
            "-" if reduction is None else f"{reduction:+.0%}",
            f"> {row['curve'][-1][0]}" if recovers is None else str(recovers),
            f"{row['safe_accuracy']:.2f}",
            f"{row['fid']:.2f}",
            f"{row['defence_seconds']:.0f}",
            f"{row['attack_seconds']:.0f}",
            f"{row['peak_mb']:.0f}",
        )
    return out
