"""`python -m recipes.tiny STAGE`: one command a stage, in this order; each resumes where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gift.models.sampling import GUIDANCE

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def fetch() -> None:
    """Fetch the drawings (npm)."""
    from .fetch import fetch as run

    run()


@app.command()
def rasterise() -> None:
    """Draw the atlases and the index into the package's data."""
    from .rasterise import rasterise as run

    run()


@app.command()
def autoencoder(steps: int = 5200) -> None:
    """Train the autoencoder (resumable)."""
    from .autoencoder import measure, train

    train(steps)
    measure()


@app.command()
def perceptual(steps: int = 1500) -> None:
    """Train the network that compares pictures for the next stage (resumable)."""
    from .perceptual import train

    train(steps)


@app.command()
def decoder(steps: int = 4000) -> None:
    """Train the autoencoder's decoder on, on frozen latents (resumable)."""
    from .autoencoder import measure
    from .decoder import train

    train(steps)
    measure()


@app.command()
def recogniser(steps: int = 3000) -> None:
    """Train the recogniser (resumable) and measure it."""
    from .recogniser import train

    train(steps)


@app.command()
def drawings() -> None:
    """Write what the recogniser's embeddings of the drawings are."""
    from .recogniser import keep_drawings

    keep_drawings()


@app.command()
def denoiser(steps: int = 16000, warm: bool = False, compiled: bool = False) -> None:
    """Train UNet and text encoder (resumable; raise --steps to go on, --warm starts from the shipped weights)."""
    from .denoiser import train

    train(steps, warm, compiled)


@app.command()
def twin(
    output: Path,
    never: Annotated[list[str], typer.Option(help="A concept that it never sees; may be repeated.")],
    steps: int = 12000,
    compiled: bool = False,
    mixed: Annotated[bool, typer.Option(help="Forwards in bfloat16, faster on a CPU that has it.")] = False,
) -> None:
    """Train a twin of the bundled model that never saw some concepts (resumable)."""
    from .twin import train_twin

    train_twin(output, never, steps, compiled, mixed)


@app.command()
def limit(
    twin: Path,
    attack: Annotated[list[str] | None, typer.Option(help="An attack, as lora or full:rate=1e-3; may be repeated.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="May be repeated; 0, 1 and 2 by default.")] = None,
    steps: int = 150,
    records: Annotated[list[Path] | None, typer.Option(help="The attacks of a grid's records instead; may be repeated.")] = None,
) -> None:
    """Measure how fast attacks teach a twin what it never saw, for `never_learned.json`."""
    from .twin import cases_in, cases_of, measure_limit

    listed = cases_of(twin, attack or ["lora", "full"], seed or [0, 1, 2], steps)
    measure_limit(twin, cases_in(twin, records) if records else listed)


@app.command()
def export(before: int = 0) -> None:
    """Write the pipeline folder into the package's data; `--before` counts the steps before a warm start, for the card."""
    from .export import export as run

    run(before)


@app.command()
def check(n: int = 480, seed: int = 0, full: bool = True, guidance: float = GUIDANCE) -> None:
    """Print how well the bundled model and the recogniser do."""
    from .check import check as run

    run(n, seed, full, guidance)


@app.command()
def samples(path: Path = Path("docs/images/samples.png"), seed: int = 0) -> None:
    """Draw the sheet of samples for the README."""
    from .check import samples as run

    run(path, seed)


if __name__ == "__main__":
    app()
