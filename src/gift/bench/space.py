"""What a search for the worst attack varies: read off the attacks' own fields, so that a new attack joins by itself."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BaseModel, ConfigDict, Field

from gift.attacks import ATTACKS, Attack
from gift.errors import GiftError, one_of
from gift.models import DenoisingModel
from gift.settings import make_attack
from gift.training.updates import OptimiserName

SGD_SCALE = 300.0
"""SGD's rates are so much higher: its clipped step is as long as the rate, Adam's about rate * sqrt(weights) (choice)."""

PICTURES = "pictures"
"""The parameter that is no attack's field: how many pictures its attacker has."""

Params = dict[str, Any]


class SearchConfig(BaseModel):
    """How the worst attack is looked for. All defaults are choices."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trials: int = Field(default=24, ge=1, description="attacks tried; the first are the defaults")
    kinds: tuple[str, ...] = Field(default=(), description="attacks among which it chooses; empty for all that need no base")
    decades: float = Field(default=3.0, ge=2, le=8, description="width of the learning rates around each default (protocol: >= 2)")
    optimisers: tuple[OptimiserName, ...] = Field(default=("adamw", "adam", "sgd", "adafactor"), min_length=1)
    ranks: tuple[int, int] = Field(default=(4, 128), description="least and highest LoRA rank (protocol: 4 to 128)")
    longest_warmup: float = Field(default=0.3, ge=0, lt=1, description="share of the steps")
    longest_harmless: int = Field(
        default=20, ge=0, description="most first steps on harmless pictures alone, up to half of all; 0 where there are none"
    )
    least_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="least share of the concept's pictures in the steps after those, the rest harmless, as an attacker trains who "
        "wants to keep the rest; None: as each attack has it",
    )
    pruner: Literal["median", "hyperband", "none"] = Field(default="median", description="stops attacks that fall behind")
    least_safe: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of the safe accuracy that an attack must leave to count, measured on every trial; None: all count",
    )
    pictures_tried: tuple[Annotated[int, Field(ge=2)], ...] | None = Field(
        default=None,
        min_length=1,
        description="numbers of bundled drawings among which the attacker chooses, beside as many as the default attack has; of an "
        "object the first few are not varied; None: as many as the default attack",
    )
    methods: tuple[str, ...] = Field(default=(), description="names of the methods searched against; empty for all defended ones")

    def kinds_known(self) -> tuple[str, ...]:
        """The attacks among which the search chooses.

        Raises:
            GiftError: one is unknown.
        """
        for name in self.kinds:
            if name not in ATTACKS:
                raise one_of("attack to search", name, list(ATTACKS))
        return self.kinds or tuple(name for name, kind in ATTACKS.items() if not kind.needs_base)


def without_harmless(config: SearchConfig) -> SearchConfig:
    """The same search where there are no harmless pictures to be had."""
    kinds = tuple(name for name in config.kinds_known() if not ATTACKS[name]().needs_harmless)
    return config.model_copy(update={"kinds": kinds, "longest_harmless": 0, "least_share": None})


class Space:
    """The attacks that a search can try: one start of each kind, and what may change in it.

    Parameters have the fields' names, so that kinds that share a field share what was learned about it. `rate` is a factor on the
    kind's own default, which is worth more to a search over several kinds than the rate itself; `warmup` is a share of the steps.

    Args:
        config: ranges.
        first: the default attack; the others start from their own defaults, with as many steps.
        pictures: how many pictures its attacker has, and so do the other kinds' starts.
        model: what is attacked, so that nothing is tried that can't be run on it; None where that is not known.

    Attributes:
        left_out: why kinds are not tried, by name.

    Raises:
        GiftError: the default attack can't be run on the model.
    """

    def __init__(self, config: SearchConfig, first: Attack, pictures: int, model: DenoisingModel | None = None) -> None:
        if model is not None:
            first.suits(model)
        self.model = model
        self.left_out: dict[str, str] = {}
        self.config = config
        self.pictures = tuple(dict.fromkeys((pictures, *(config.pictures_tried or ()))))
        others = [name for name in config.kinds_known() if name != first.name]
        self.starts = {first.name: first}
        for how in (make_attack(name, {"steps": first.steps}) for name in others):
            if why := self._against(how):
                self.left_out[how.name] = why
            else:
                self.starts[how.name] = how
        self.ranges = {name: self._ranges(how) for name, how in self.starts.items()}
        self._tell_apart()

    def _against(self, how: Attack) -> str | None:
        """Why an attack can't be run on the model; None where it can."""
        try:
            if self.model is not None:
                how.suits(self.model)
        except GiftError as error:
            return str(error)
        return None

    def _choice(self, how: Attack, name: str, values: tuple[Any, ...]) -> CategoricalDistribution:
        """Those of an option's values with which the attack can be run on the model."""
        others = {value: type(how)(**{**how.model_dump(), name: value}) for value in values}
        return CategoricalDistribution(tuple(value for value, other in others.items() if self._against(other) is None))

    def _ranges(self, how: Attack) -> dict[str, BaseDistribution]:
        """The ranges of one kind, each of which holds the start."""
        config, half = self.config, 10 ** (self.config.decades / 2)
        low, high = config.ranks
        found: dict[str, BaseDistribution] = {}
        for name, field in type(how).model_fields.items():
            value = getattr(how, name)
            if name == "rate":
                found[name] = FloatDistribution(1 / half, half, log=True)
            elif name == "rank":
                found[name] = IntDistribution(min(low, value), max(high, value), log=True)
            elif name == "warmup":
                found[name] = FloatDistribution(0.0, max(config.longest_warmup, self._share(how)))
            elif name == "harmless_steps":
                if most := max(min(config.longest_harmless, how.steps // 2), value):
                    found[name] = IntDistribution(0, most)
            elif name == "share":
                if config.least_share is not None:
                    found[name] = FloatDistribution(min(config.least_share, value), 1.0)
            elif name == "optimiser":
                found[name] = CategoricalDistribution(tuple(dict.fromkeys((value, *config.optimisers))))
            elif get_origin(field.annotation) is Literal:
                found[name] = self._choice(how, name, get_args(field.annotation))
            elif field.annotation is bool:
                found[name] = self._choice(how, name, (False, True))
        return found | ({PICTURES: CategoricalDistribution(self.pictures)} if len(self.pictures) > 1 else {})

    def _tell_apart(self) -> None:
        """A name means one range in a study: where two kinds differ, each has its own."""
        seen: dict[str, list[BaseDistribution]] = {}
        for ranges in self.ranges.values():
            for name, spread in ranges.items():
                seen.setdefault(name, []).append(spread)
        self.shared = {name for name, spreads in seen.items() if all(spread == spreads[0] for spread in spreads)}

    def key(self, kind: str, name: str) -> str:
        """A field's name in the study."""
        return name if name in self.shared else f"{kind}.{name}"

    @staticmethod
    def _share(how: Attack) -> float:
        return how.warmup / how.steps if how.steps else 0.0

    def defaults(self, kind: str) -> Params:
        """The parameters that give a kind's start, unchanged."""
        how = self.starts[kind]
        plain = {"rate": 1.0, "warmup": self._share(how), PICTURES: self.pictures[0]}
        own = {name: plain[name] if name in plain else getattr(how, name) for name in self.ranges[kind]}
        return {"attack": kind, **{self.key(kind, name): value for name, value in own.items()}}

    def suggest(self, trial: Trial) -> Params:
        """Draws an attack's parameters."""
        kind = trial.suggest_categorical("attack", tuple(self.starts))
        return {"attack": kind, **{self.key(kind, n): _draw(trial, self.key(kind, n), r) for n, r in self.ranges[kind].items()}}

    def build(self, params: Mapping[str, Any]) -> Attack:
        """The attack of some parameters."""
        how = self.starts[params["attack"]]
        changes = {name: params[self.key(how.name, name)] for name in self.ranges[how.name] if name != PICTURES}
        scale = {"sgd": SGD_SCALE}
        changes["rate"] = how.rate * changes["rate"] * (scale.get(changes["optimiser"], 1.0) / scale.get(how.optimiser, 1.0))
        changes["warmup"] = round(changes["warmup"] * how.steps)
        return type(how)(**{**how.model_dump(), **changes})

    def pictures_of(self, params: Mapping[str, Any]) -> int:
        """How many pictures the attacker of some parameters has."""
        return int(params.get(PICTURES, self.pictures[0]))


def _draw(trial: Trial, name: str, spread: BaseDistribution) -> Any:
    if isinstance(spread, CategoricalDistribution):
        return trial.suggest_categorical(name, spread.choices)
    if isinstance(spread, IntDistribution):
        return trial.suggest_int(name, spread.low, spread.high, log=spread.log)
    assert isinstance(spread, FloatDistribution)
    return trial.suggest_float(name, spread.low, spread.high, log=spread.log)


def quiet() -> None:
    """Keeps Optuna's own lines out of the output."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="The reported value is ignored")  # a resumed trial sees the same again
