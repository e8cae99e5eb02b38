"""Two processes of the command line that train together, forked from one that has the libraries: each would load them anew."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

from torch.distributed.elastic.utils.distributed import get_free_port

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["gift.cli.main", "gift.attacks", "gift.immunizers", "gift.bench.evaluation"])


def speak(here: Path, rank: int, arguments: list[str], environment: dict[str, str]) -> None:
    """Runs the command line as the launched process `rank`, in `here`, with its output in files there."""
    os.environ.update(environment)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    os.chdir(here)
    for handle, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), handle)
    sys.argv = ["gift", *arguments]
    import torch

    from gift.cli.main import main

    torch.set_num_threads(1)
    main()


def launch_pair(here: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `torch.distributed.run` with two processes does, without its own start."""
    environment |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(get_free_port())}
    environment["ACCELERATE_USE_CPU"] = "true"
    pair = [FORKED.Process(target=speak, args=(here, rank, list(arguments), environment)) for rank in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(300)  # one that waits for the other's part of a batch ends with it
        process.kill()
        process.join()
    code = next((process.exitcode for process in pair if process.exitcode), 0)
    told = ["".join((here / f"{name}-{rank}.txt").read_text() for rank in range(2)) for name in ("out", "err")]
    return subprocess.CompletedProcess(list(arguments), code, *told)
