"""Several processes that train one model together (`accelerate launch`): each computes its share of every batch.

All of them draw the same pictures, noise and timesteps from the same seeds, so that a run has the same losses, to rounding, in any
number of processes. The first one alone writes files and speaks.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from gift.errors import GiftError


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def share(rows: int) -> slice:
    """This process's rows of a batch; all of them in a run by itself.

    Raises:
        GiftError: there are fewer rows than processes.
    """
    if not _together():
        return slice(None)
    processes = dist.get_world_size()
    if rows < processes:
        raise GiftError(f"a batch of {rows} can't be shared by {processes} processes; raise batch_size or launch fewer")
    return slice(dist.get_rank(), None, processes)


def mean_over_all(mine: torch.Tensor, rows: int) -> torch.Tensor:
    """The mean over a batch of rows of which every process has summed a share.

    Its value is the whole batch's; its gradient is that of this process's share, scaled so that the mean of all processes'
    gradients (`average_gradients`) is the whole batch's, also through functions of the mean.

    Args:
        mine: the sum over this process's rows, ().
        rows: of the whole batch.
    """
    if not _together():
        return mine / rows
    local = mine * (dist.get_world_size() / rows)
    whole = local.detach().clone()
    dist.all_reduce(whole)
    return local + (whole / dist.get_world_size() - local).detach()


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces every gradient by its mean over the processes; a missing one counts as zero; shares are means already."""
    if not _together():
        return
    for parameter in parameters:
        if isinstance(parameter, DTensor):
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()


def anywhere(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if not _together():
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value)
    return bool(value > 0)


def wait() -> None:
    """Waits for all processes."""
    if _together():
        dist.barrier()


def leave() -> None:
    """Ends the group of processes: none goes while another still has something to send it."""
    wait()
    if _together():
        dist.destroy_process_group()
