"""`gift bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gift.cli.common import quiet_libraries, reporting
from gift.cli.output import output_folder

if TYPE_CHECKING:
    from rich.table import Table

    from gift.bench.runner import Workers


WIDE = 140
"""Columns of a terminal that has room for intervals."""
MOST = 1024
"""Processes or threads (choice)."""


@reporting
def bench(
    grid: Annotated[
        str | None, typer.Argument(help="A YAML file, or a bundled grid: smoke, development, paper, worst, full.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where pieces, records, pictures and the page go.")] = Path(
        "bench"
    ),
    jobs: Annotated[int | None, typer.Option(help="Processes, or pieces at once on a cluster.", min=1, max=MOST)] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each process; by default the cores are shared out.", min=1, max=MOST)
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="On a Ray cluster: 'local' starts one here, 'auto' or HOST:PORT joins one."),
    ] = None,
) -> None:
    """Run a grid of models, methods, attacks, concepts and seeds; stop it any time, and the same command goes on.

    Example: `gift bench smoke --output bench/`
    """
    import torch
    from rich.console import Console

    from gift.bench.bench import run_grid
    from gift.bench.grid import bundled, read_grid
    from gift.bench.ray_runner import check_address
    from gift.errors import CellsFailed, GiftError
    from gift.files import write_json
    from gift.report.grid_page import write_grid_page
    from gift.training.progress import Live

    if grid is None:
        raise GiftError(f"name a grid: a YAML file, or one of {', '.join(bundled())}")
    chosen = read_grid(grid)
    if ray is not None:
        check_address(ray)
    reporter = Live()
    if threads and ray is None and (jobs or 1) == 1:
        torch.set_num_threads(threads)

    with output_folder(output) as folder:

        def workers() -> Workers:
            from gift.bench.processes import Processes
            from gift.bench.ray_runner import RayWorkers
            from gift.bench.runner import Here

            if ray is not None:
                return RayWorkers(folder, ray, jobs, threads or 1, quiet_libraries)
            return Here(folder, reporter) if (jobs or 1) == 1 else Processes(folder, jobs or 1, threads, quiet_libraries)

        outcome = run_grid(chosen, folder, workers, reporter)
        write_json(folder / "grid.json", chosen.model_dump(mode="json"))
        console = Console()
        console.print(table(outcome.summary, wide=console.width >= WIDE))
        for model, order in outcome.summary["ranking"].items():
            console.print(f"{model}: " + "; ".join(place(entry) for entry in order), highlight=False, markup=False, soft_wrap=True)
        for found in outcome.summary["flagged"]:
            where = found["cells"]
            some = ", ".join("/".join(str(part) for part in cell[1:]) for cell in where[:3])
            more = f" and {len(where) - 3} more" if len(where) > 3 else ""
            console.print(f"note: {found['flag']} ({some}{more})", highlight=False, markup=False, soft_wrap=True)
        tally = outcome.tally
        print(f"pieces: {tally.computed} computed, {tally.found} found, {len(tally.failed)} failed")
        print(f"page: {write_grid_page(folder)}\nrecords: {folder / 'records.jsonl'}\nsummary: {folder / 'summary.json'}")
        if outcome.failed:
            first = outcome.failed[0]
            raise CellsFailed(
                f"{len(outcome.failed)} of {len(outcome.rows)} cells failed, the first {first['method']} under {first['attack']} "
                f"on {first['concept']}, seed {first['seed']}: {first['error']}; the same command tries them again"
            )


def place(entry: dict[str, Any]) -> str:
    """One method of the ranking in words."""
    if entry["place"] is None:
        return f"{entry['method']} not ranked: some attack has no conclusive cell"
    note = f", {entry['damaged']}" if entry["damaged"] else ""
    return f"{entry['place']}. {entry['method']} (area {entry['area']:.3f} under {entry['worst_attack']}{note})"


def table(summary: dict[str, Any], wide: bool = False) -> Table:
    """The groups in one table; what has no conclusive cell shows how its cells ended instead.

    Args:
        summary: the grid's.
        wide: show the intervals, too, for which 80 columns are too few.
    """
    from rich.table import Table as RichTable

    from gift.bench.never import NAME
    from gift.bench.summary import limits

    title = "means over concepts and seeds" + (", with 95 % intervals" if wide else "")
    out = RichTable(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    several = len({group["model"] for group in summary["groups"]}) > 1
    names = [*(["model"] if several else []), "method", "attack"]
    for head in (*names, "before", "after", "area", "reduced", "back", "safe", "FID", "SGR", "def. s", "att. s"):
        out.add_column(head, justify="left" if head in names else "right", no_wrap=True)
    for group in summary["groups"]:
        who = [group[name] for name in names]
        if not group["conclusive"]:
            out.add_row(*who, ", ".join(f"{count} {status}" for status, count in group["statuses"].items()))
            continue
        means, recovered, costs = group["means"], group["recovered"], group["costs"]
        shown = [_cell(means[key], wide) for key in ("score_before", "score_after", "area", "relearning_reduction")]
        gap = next((found["gap_last"] for found in group["similarity"].values()), None)
        seconds = [f"{costs[side]['seconds']:.0f}" for side in ("defence", "attack")]
        price = [_cell(means["safe_accuracy"], wide), _cell(means["fid"], wide), _cell(gap, wide)]
        out.add_row(*who, *shown, f"{recovered['cells']}/{recovered['of']}", *price, *seconds)
    for attack, limit in limits(summary).items():
        least = [f"{limit[key]:.2f}" for key in ("score_before", "score_after", "area", "reduction")]
        part = f" ({limit['cells']} of {limit['of']})" if limit["cells"] < limit["of"] else ""
        out.add_row(*([""] if several else []), NAME + part, attack, *least)
    return out


def _cell(value: dict[str, Any] | None, wide: bool) -> str:
    if value is None:
        return "-"
    low_high = f" [{value['interval'][0]:.2f}, {value['interval'][1]:.2f}]" if wide and value["interval"] else ""
    return f"{value['mean']:.2f}{low_high}"
