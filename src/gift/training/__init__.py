"""One training loop: steps, checkpoints, resume, finite checks, progress."""
