"""The simulated attacker: before the immunizing gradient is taken, the weights are attacked for some steps, and put back after."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from torch import nn

from gift.immunizers.base import Method, Task
from gift.models.base import Cond, Embed
from gift.models.lora import attach_lora, redraw_lora, switch_lora
from gift.sharding import refuse, share_like, whole_tree
from gift.training.updates import OptimiserName, Rate, Updater

Kind = Literal["full", "lora"]
ADAPTER = "simulated"


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("the lower one comes first")
    return ends


Share = Annotated[float, Field(gt=0, le=1)]
Rates = Annotated[tuple[Rate, Rate], AfterValidator(_rising)]
Shares = Annotated[tuple[Share, Share], AfterValidator(_rising)]


class Attacker(BaseModel):
    """A distribution of attacks; each draw is one. All defaults are choices."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(default=16, ge=0, description="most steps of a simulated attack; 0 switches it off (choice)")
    attacked_share: float = Field(
        default=1.0, gt=0, le=1, description="share of the rounds that are attacked; in the others the weights are left as they are"
    )
    kinds: tuple[Kind, ...] = Field(
        default=("full", "lora"),
        min_length=1,
        description="what the attack trains; 'full' takes memory for the weights that move three times over (values, optimiser)",
    )
    full_rates: Rates = Field(default=(1e-4, 1e-3), description="range of learning rates, log-uniform")
    lora_rates: Rates = Field(default=(5e-4, 5e-3), description="range of learning rates, log-uniform")
    rank: int = Field(default=8, ge=1, description="LoRA rank")
    optimisers: tuple[OptimiserName, ...] = Field(default=("adamw",), min_length=1)
    lora_optimisers: tuple[OptimiserName, ...] = Field(
        default=(),
        description="those of 'lora' where not `optimisers`: Adafactor's steps go by a weight's size, a new LoRA's is 0 (choice)",
    )
    sgd_rates: Rates | None = Field(
        default=None, description="of 'full' by SGD, whose steps go by the gradient's size; None: `full_rates` (docs/tuning.md)"
    )
    batch_size: int = Field(default=8, ge=1)
    harmless: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the draws that train on safe pictures, as an attacker's first steps may (choice)",
    )
    shares: Shares = Field(
        default=(1.0, 1.0),
        description="range of the concept's share of an attack's pictures, uniform; the rest are safe ones (off: docs/tuning.md)",
    )
    text_encoder: float = Field(
        default=0.0, ge=0, le=1, description="share of the draws of 'full' that train the text encoders, too (off: docs/tuning.md)"
    )
    replay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="how likely an attack goes on where the last of its kind stopped, whose change and optimiser are kept "
        "(of 'full' up to three times the weights that move); kinds then take turns (off: docs/tuning.md)",
    )

    @property
    def reach(self) -> int:
        """How many steps a simulated attack takes at most, or, where attacks go on, in the mean until its end if that is more."""
        return max(self.steps, round((self.steps + 1) / 2 / (1 - self.replay))) if self.steps else 0

    @model_validator(mode="after")
    def _kinds_that_are_told_of_are_drawn(self) -> Self:
        if self.text_encoder and "full" not in self.kinds:
            raise ValueError("text_encoder is a share of the draws of kind 'full'; name it in kinds, or leave text_encoder out")
        if self.lora_optimisers and "lora" not in self.kinds:
            raise ValueError("lora_optimisers are those of kind 'lora'; name it in kinds, or leave lora_optimisers out")
        if self.sgd_rates and not ("full" in self.kinds and "sgd" in self.optimisers):
            raise ValueError(
                "sgd_rates are those of 'full' by SGD; name 'full' in kinds and 'sgd' in optimisers, or leave sgd_rates out"
            )
        return self


@contextmanager
def put_back(weights: dict[str, nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Whatever is done to weights inside the block is undone after it, bit for bit; gives the weights."""
    before = [p.detach().clone() for p in weights.values()]
    try:
        yield list(weights.values())
    finally:
        with torch.no_grad():
            for parameter, old in zip(weights.values(), before, strict=True):
                parameter.copy_(old)


@dataclass
class Drawn:
    """One attack of an `Attacker`'s, and how far it has come.

    Attributes:
        kind: what it trains.
        optimiser: whose steps it takes.
        rate: learning rate.
        text: whether it trains the text encoders, too.
        share: of the concept's pictures in its batches.
        steps: how many it has taken.
        change: of a full attack, the attacked weights less those that it began from; of a LoRA, its factors.
        state: the optimiser's.
    """

    kind: Kind
    optimiser: OptimiserName
    rate: float
    text: bool = False
    share: float = 1.0
    steps: int = 0
    change: list[torch.Tensor] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)


class SimulatedAttack:
    """Runs draws of an `Attacker` on a task's weights, in place, and undoes them: no second model is held.

    Attributes:
        embed: encodes prompts as the attacked model does, where that differs from the embeddings that sets keep; None where not.
        last: of each kind the attack that may go on.
        turn: how many attacks there were where they may go on: then kinds take turns, so that each goes on as often.
    """

    def __init__(self, how: Attacker, task: Task) -> None:
        self.how, self.task = how, task
        self.lora: dict[str, nn.Parameter] = {}
        self.embed: Embed | None = None
        self.last: dict[Kind, Drawn] = {}
        self.turn = 0
        if how.steps and how.text_encoder:
            refuse("a simulated attacker that trains text encoders", "use attacker.text_encoder=0")
        if how.steps and "lora" in how.kinds:
            refuse("a simulated LoRA attacker", "use attacker.kinds=[full] or attacker.steps=0")
            self.lora = attach_lora(task.model, how.rank, ADAPTER)
            switch_lora(task.model, ADAPTER, on=False)

    @contextmanager
    def __call__(self, weights: dict[str, nn.Parameter], generator: torch.Generator) -> Iterator[int]:
        """Inside the block the model is attacked; afterwards its weights are bit-identical to before, its gradients are kept.

        Yields:
            How many steps the attack has taken, with those before it was left if it goes on; 0 if there was none.
        """

        def chance(share: float) -> bool:
            return share > 0 and float(torch.rand(1, generator=generator)) < share

        if not self.how.steps or (self.how.attacked_share < 1 and not chance(self.how.attacked_share)):
            yield 0
            return
        kinds = (self.how.kinds[self.turn % len(self.how.kinds)],) if self.how.replay else self.how.kinds
        left = self.last[kinds[0]] if kinds[0] in self.last and chance(self.how.replay) else None
        attack = left or self._draw(kinds, generator)
        steps = 1 + int(torch.randint(self.how.steps, (1,), generator=generator))
        share = 0.0 if chance(self.how.harmless) else attack.share
        full = attack.kind == "full"
        if full and not left:
            attack.text = chance(self.how.text_encoder)
        with ExitStack() as stack:
            trained = stack.enter_context(put_back(weights) if full else self._adapter(weights, generator))
            encoders = stack.enter_context(self._text()) if attack.text else []
            trained = [*trained, *encoders]
            updater = Updater(trained, name=attack.optimiser, rate=attack.rate, accelerator=self.task.accelerator)
            if left:
                self._go_on(attack, trained, updater)
            for _ in range(steps):
                latents, cond = self._batch(share, generator)
                updater.descend(self.task.model.mean_loss(latents, cond, generator))
            updater.optimiser.zero_grad(set_to_none=True)
            attack.steps += steps
            if self.how.replay:
                attack.change, attack.state = [p.detach().clone() for p in trained], updater.state()
            for parameter in weights.values():
                parameter.requires_grad_(True)
            for parameter in encoders:
                parameter.requires_grad_(False)
            yield attack.steps
        if self.how.replay:
            for change, parameter in zip(attack.change, trained, strict=True) if full else ():
                change.sub_(parameter.detach())  # which are put back, and will have moved when the attack goes on
            self.last[attack.kind] = attack
            self.turn += 1

    def _draw(self, kinds: tuple[Kind, ...], generator: torch.Generator) -> Drawn:
        kind = kinds[int(torch.randint(len(kinds), (1,), generator=generator))]
        optimisers = (self.how.lora_optimisers if kind == "lora" else ()) or self.how.optimisers
        optimiser = optimisers[int(torch.randint(len(optimisers), (1,), generator=generator))]
        rates = self.how.lora_rates if kind == "lora" else self.how.full_rates
        if kind == "full" and optimiser == "sgd":
            rates = self.how.sgd_rates or rates
        low, high = (math.log(r) for r in rates)
        rate = math.exp(low + (high - low) * float(torch.rand(1, generator=generator)))
        least, most = self.how.shares
        share = least + (most - least) * float(torch.rand(1, generator=generator)) if least < most else most
        return Drawn(kind, optimiser, rate, share=share)

    def _batch(self, share: float, generator: torch.Generator) -> tuple[torch.Tensor, Cond]:
        """Latents and conditioning of a batch in which each picture is the concept's as likely as `share` says."""
        size = self.how.batch_size
        own = int((torch.rand(size, generator=generator) < share).sum()) if 0 < share < 1 else round(size * share)
        drawn = ((self.task.concept, own), (self.task.safe, size - own))
        latents, conds = zip(*(data.batch(n, generator, self.embed) for data, n in drawn if n), strict=True)
        return torch.cat(latents), {name: torch.cat([cond[name] for cond in conds]) for name in conds[0]}

    @torch.no_grad()
    def _go_on(self, attack: Drawn, trained: list[nn.Parameter], updater: Updater) -> None:
        """Brings the weights, or the adapter's factors, and the optimiser to where an attack was left."""
        for parameter, change in zip(trained, attack.change, strict=True):
            parameter.copy_(parameter + change.to(parameter) if attack.kind == "full" else change)
        updater.load_state(attack.state)

    def state(self) -> dict[str, Any]:
        """The attacks that may go on, for a checkpoint."""
        names = Drawn.__dataclass_fields__
        last = {kind: {name: whole_tree(getattr(drawn, name)) for name in names} for kind, drawn in self.last.items()}
        return {"turn": self.turn, "last": last}

    def load_state(self, state: dict[str, Any], weights: dict[str, nn.Parameter]) -> None:
        """Takes them up."""
        self.turn, self.last = state["turn"], {kind: Drawn(**drawn) for kind, drawn in state["last"].items()}
        if full := self.last.get("full"):
            full.change[: len(weights)] = [share_like(c, p) for c, p in zip(full.change, weights.values(), strict=False)]

    @contextmanager
    def _text(self) -> Iterator[list[nn.Parameter]]:
        """The text encoders' weights, which theta_0 may share: they are lent for an attack, and given back as they were."""
        model = self.task.model
        weights = {f"{part}.{name}": p for part, encoder in model.text_encoders.items() for name, p in encoder.named_parameters()}
        self.embed = model.embed
        try:
            with put_back(weights) as encoders:
                for parameter in encoders:
                    parameter.requires_grad_(True)
                yield encoders
        finally:
            self.embed = None
            for parameter in weights.values():
                parameter.requires_grad_(False)

    @contextmanager
    def _adapter(self, weights: dict[str, nn.Parameter], generator: torch.Generator) -> Iterator[list[nn.Parameter]]:
        redraw_lora(self.lora, generator)
        switch_lora(self.task.model, ADAPTER, on=True)
        for parameter in weights.values():
            parameter.requires_grad_(False)
        for parameter in self.lora.values():
            parameter.requires_grad_(True)
        try:
            yield list(self.lora.values())
        finally:
            switch_lora(self.task.model, ADAPTER, on=False)
            for parameter in self.lora.values():
                parameter.requires_grad_(False)
            for parameter in weights.values():
                parameter.requires_grad_(True)


class AttackingMethod(Method):
    """A run whose gradients are taken at weights that a simulated attack has moved.

    Attributes:
        attack: the attacks.
    """

    attack: SimulatedAttack

    def extra_state(self) -> dict[str, Any]:
        """The attacks that may go on, beside what else there is."""
        return {**super().extra_state(), "attack": self.attack.state()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes them up."""
        super().load_extra_state(state)
        self.attack.load_state(state["attack"], self.weights)
