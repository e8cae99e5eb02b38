"""A denoiser's weights, gradients and optimiser state shared out over processes (FSDP), where a launcher asks for it.

`accelerate launch --use_fsdp` and configurations of that kind say so in the environment (ACCELERATE_USE_FSDP). The sharding is
PyTorch's own (`fully_shard`, FSDP2): each block of the denoiser is put together for its forward and backward and taken apart after.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from gift.errors import GiftError
from gift.launch import flagged, launched
from gift.models import DenoisingModel


def wanted() -> bool:
    """Whether several processes were launched that shall share out the weights."""
    return launched() > 1 and flagged("ACCELERATE_USE_FSDP")


def refuse(what: str, remedy: str) -> None:
    """Stops what can't be computed on shares.

    Raises:
        GiftError: the weights are to be shared out.
    """
    if wanted():
        raise GiftError(f"{what} can't run with sharded weights (FSDP); {remedy}, or launch without FSDP")


def whole(value: Any) -> Any:
    """The full tensor of a share; anything else as it is. All processes must ask together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_tree(value: Any) -> Any:
    """The same inside dicts, lists and tuples."""
    if isinstance(value, dict):
        return {key: whole_tree(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole_tree(part) for part in value)
    return whole(value)


def share_like(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's share of a full tensor, if `like` is a share of that shape; else the tensor itself."""
    if isinstance(like, DTensor) and value.shape == like.shape and not isinstance(value, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value


class Shares:
    """A model's denoiser in shares, in place, until `undo`.

    Args:
        model: its denoiser is sharded if that is wanted, and else left alone.
        weights: those that will be trained, by their names in the denoiser; others are passed through.

    Attributes:
        weights: the same names with the shares.
    """

    def __init__(self, model: DenoisingModel, weights: dict[str, nn.Parameter]) -> None:
        self.model, self.weights = model, weights
        self.empty: Any = None
        if not wanted():
            return
        if model.scaler is not None:
            refuse("fp16", "use bf16")
        if model.compiled:
            refuse("torch.compile", "leave compile out")
        denoiser = model.denoiser
        hollow = {id(p): nn.Parameter(p.detach().to("meta"), requires_grad=p.requires_grad) for p in denoiser.parameters()}
        self.empty = copy.deepcopy(denoiser, dict(hollow))  # the plain module without weights, to come back to
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(model.device.type, (dist.get_world_size(),))
        blocks = [block for child in denoiser.children() if isinstance(child, nn.ModuleList) for block in child]
        for block in (*blocks, denoiser):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        now = dict(denoiser.named_parameters())
        self.weights = {name: now.get(name, parameter) for name, parameter in weights.items()}

    @torch.no_grad()
    def undo(self) -> None:
        """Puts a plain denoiser with whole weights in the sharded one's place; all processes must do it together."""
        if self.empty is None:
            return
        sharded = self.model.denoiser
        full = {name: whole(p.detach()) for name, p in sharded.named_parameters()}
        full |= {name: buffer.detach() for name, buffer in sharded.named_buffers() if name in self.empty.state_dict()}
        self.empty.load_state_dict(full, assign=True)
        self.empty.train(sharded.training)
        self.model.pipeline.register_modules(**{self.model.denoiser_part: self.empty})
        self.empty = None
