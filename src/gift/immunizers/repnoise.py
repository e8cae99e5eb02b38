"""RepNoise (Rosati et al., NeurIPS 2024, arXiv 2405.14577), a defence of language models, ported to denoisers."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from gift.immunizers.joint import Joint
from gift.immunizers.terms import Distance
from gift.training.updates import Rate


class RepNoise(Joint):
    """theta <- theta - lr grad[L(theta; D_s) + beta mean_l MMD(h_l(D_h), N(0, 1)) - alpha log(1 + L(theta; D_h))].

    The paper's loss is a joint one, so this is `Joint` with the paper's terms: h_l is the output of every transformer block's
    MLP, as in the published code. Different here: the objective is the denoiser's instead of cross-entropy; the ascent is on the
    last output alone (the code also ascends at every layer, read through the output embedding); the MMD is between single
    positions rather than whole samples, and of the mean of five kernels rather than their sum; nothing pairs a concept's picture
    with a safe one. The authors' code warns that alpha, beta and the rate have to be searched for each model.
    """

    name: ClassVar[str] = "repnoise"
    title: ClassVar[str] = "RepNoise"
    about: ClassVar[str] = "One loss: safe training, the concept's representations drawn to noise, and bounded ascent on its loss."

    rate: Rate = Field(default=5e-4, description="learning rate (choice)")
    noise_weight: float = Field(default=0.001, ge=0, description="beta")
    ascent_weight: float = Field(default=1.0, ge=0, description="alpha (the code: 1)")
    layers: str = Field(
        default=r"\.(ff|img_mlp)$",
        description="layers whose outputs are noised: the blocks' MLPs (the code's); of FLUX those of its two-stream blocks",
    )
    distance: Distance = Field(default="mmd", description="distance to noise (the paper's)")
    varied_share: float = Field(default=0.0, ge=0, lt=1, description="share of safe pictures that are varied (none, as published)")
    varied_concept: float = Field(default=0.0, ge=0, lt=1, description="share of the concept's pictures that are varied (none)")
