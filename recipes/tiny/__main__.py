"""`python -m recipes.tiny STAGE`: one command a stage, in this order; each resumes where it stopped."""

from __future__ import annotations

import typer

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
def autoencoder(steps: int = 4000) -> None:
    """Train the autoencoder (resumable)."""
    from .autoencoder import measure, train

    train(steps)
    measure()


@app.command()
def recogniser(steps: int = 3000) -> None:
    """Train the recogniser (resumable) and measure it."""
    from .recogniser import train

    train(steps)


@app.command()
def denoiser(steps: int = 16000) -> None:
    """Train UNet and text encoder (resumable; raise --steps to go on)."""
    from .denoiser import train

    train(steps)


if __name__ == "__main__":
    app()
