"""Weights of other sizes that compute the same: what looks like resistance and is none. The control for attacks' step sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D
from pydantic import Field
from torch import nn

from gift.errors import GiftError
from gift.immunizers.base import Immunizer, Method, Task
from gift.sharding import refuse
from gift.training.loop import Logs


class Rescaled(Immunizer):
    """What writes to a UNet's residual stream is multiplied by c; the norms that all of its readers begin with take it out again.

    So is what comes before a residual block's second norm. Biases of what passes the stream on are multiplied, too. The function
    is the same but for the norms' eps, while steps of one size, as Adam's, are c times smaller beside those weights. Nothing is
    taken away and nothing is defended: `relative` undoes it, and benign adaptability shows it.
    """

    name: ClassVar[str] = "rescaled"
    title: ClassVar[str] = "Rescaled"
    about: ClassVar[str] = "Multiplies weights where norms undo it, so that fine-tuning is slower: a control that defends nothing."
    uses_safe: ClassVar[bool] = False
    draws_pictures: ClassVar[bool] = False

    steps: int = Field(default=1, ge=0, le=1, description="the rescaling, or none")
    factor: float = Field(default=10.0, gt=0, description="c (choice)")
    adapter_rank: None = Field(default=None, description="always none: whole weights are multiplied")

    def begin(self, task: Task) -> Method:
        """Builds the run."""
        return RescaledRun(self, task)


class RescaledRun(Method):
    """One rescaling."""

    def __init__(self, how: Rescaled, task: Task) -> None:
        refuse("the rescaled control", "use another method")
        if not isinstance(task.model.denoiser, UNet2DConditionModel):
            raise GiftError(f"the rescaled control is written for UNets, and {task.model.source} has none; use another method")
        super().__init__(task, "all")
        self.how = how

    @torch.no_grad()
    def step(self, index: int, generator: torch.Generator) -> Logs:
        """All multiplications; tells the share of the denoiser's weights that were multiplied."""
        count = 0
        for tensor in written(self.task.model.denoiser):
            tensor.mul_(self.how.factor)
            count += tensor.numel()
        return {"share": count / sum(p.numel() for p in self.weights.values())}


def written(unet: nn.Module) -> Iterator[nn.Parameter]:
    """The tensors of a UNet that are of the residual stream's size, or are read through a norm alone.

    Raises:
        GiftError: its residual blocks take the timestep after their norm.
    """
    yield from unet.get_submodule("conv_in").parameters()
    for name, module in unet.named_modules():
        match module:
            case ResnetBlock2D():
                if module.time_embedding_norm != "default" or module.time_emb_proj is None:
                    raise GiftError(f"'{name}' takes the timestep after its norm: the rescaled control does not know such blocks")
                for part in (module.conv1, module.time_emb_proj, module.conv2):
                    yield from part.parameters()
                if module.conv_shortcut is not None and module.conv_shortcut.bias is not None:
                    yield module.conv_shortcut.bias
            case Transformer2DModel():
                yield from module.proj_in.parameters()
                for block in module.transformer_blocks:
                    for part in (block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[-1]):
                        yield from part.parameters()
                yield module.proj_out.bias
            case Downsample2D() | Upsample2D() if module.conv is not None and module.conv.bias is not None:
                yield module.conv.bias
