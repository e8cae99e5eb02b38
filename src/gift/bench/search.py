"""The worst attack, by an Optuna study that is kept on the disk: stop it anywhere and it goes on to the same end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial, TrialState

from gift.attacks import Attack
from gift.bench.safe_after import share_left
from gift.bench.space import PICTURES, SearchConfig, Space, quiet
from gift.bench.trial import Scored, Watch
from gift.errors import GiftError, NonFiniteError, OtherSettings
from gift.metrics.concept import mean
from gift.metrics.recovery import area
from gift.models import DenoisingModel
from gift.settings import make_attack
from gift.training.measure import Meter
from gift.training.progress import Reporter

Attempt = Callable[[int, Attack, int, Watch], dict[str, Any]]
"""Runs trial number n on so many pictures; calls `watch(step, scored)` as the curve grows; gives what `trained.as_value` gives,
with `safe_after` where the search has a `least_safe`."""

FRESH = 5
"""Trials that are never pruned, so that there is a median (Optuna's own default)."""


def search(
    config: SearchConfig,
    first: Attack,
    attempt: Attempt,
    database: Path,
    *,
    model: DenoisingModel | None = None,
    pictures: int,
    seed: int,
    of: str = "",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Looks for the attack with the largest area under its recovery curve.

    The first trial is the default attack, the next are the other kinds' defaults; a tree-structured Parzen estimator (TPE)
    proposes the rest. Each proposal has a seed of its own, so it depends on the finished trials alone.

    With `least_safe`, attacks that leave less of the safe accuracy don't count. To the estimator they are worth less than nothing,
    the less they leave; and no attack is stopped because it falls behind them.

    Args:
        config: ranges, trials, pruner.
        first: the default attack.
        attempt: runs one attack.
        database: the study's SQLite file; a study in it goes on.
        model: what is attacked: nothing is tried that can't be run on it.
        pictures: how many its attacker has.
        seed: of the proposals.
        of: what is attacked and with what pictures, in a word; a study of another goes on no further.
        reporter: told of each trial.

    Returns:
        default, worst: trials (the worst by area among whole ones that count; its 'trial' is all that `attempt` gave); best_last:
        the highest last score of any of those; trials: all of them; steps, seconds, peak_mb: what the search cost the attacker.

    Raises:
        OtherSettings: the file is of another search.
        GiftError: the file can't be used, the default attack can't be run on the model, or no attack counts.
        Interrupted: stopped on request; the trial's checkpoint was written.
    """
    space = Space(config, first, pictures, model)
    if reporter:
        for name, why in space.left_out.items():
            reporter.say(f"the search leaves out {name}: {why}")
    study = _open(config, first, database, seed, of)
    while (number := len(_settled(study))) < config.trials:
        trial = _next(study, space, number, seed)
        how = make_attack(trial.user_attrs["attack"], trial.user_attrs["arguments"])
        having = _pictures(trial, pictures)
        outcome = _try(study, trial, how, partial(attempt, number, how, having), config.least_safe)
        if reporter:
            on = f" on {having} pictures" if len(space.pictures) > 1 else ""
            reporter.say(f"trial {number + 1} of {config.trials}: {how.name} at rate {how.rate:.3g}{on}: {outcome}")
    rows = [
        _row(number, trial, _pictures(trial, pictures), config.least_safe)
        for number, trial in enumerate(_settled(study)[: config.trials])
    ]
    whole = [row for row in rows if row["state"] == "complete"]
    if not whole:
        raise GiftError(f"no attack of the search ran to its end: {rows[0]['error']}; lower the default learning rate")
    whole = [row for row in whole if row["counts"]]
    if not whole:
        raise GiftError(f"no attack of the search left {config.least_safe:.0%} of the safe accuracy; lower least_safe, or try more")
    worst = max(whole, key=lambda row: (row["area"], -row["number"]))
    return {
        "default": rows[0],
        "worst": {**worst, "trial": _settled(study)[worst["number"]].user_attrs["value"]},
        "best_last": max(row["last"] for row in whole),
        "trials": rows,
        "steps": sum(row["steps"] for row in rows),
        "seconds": sum(row["seconds"] for row in rows),
        "peak_mb": max(row["peak_mb"] for row in rows),
    }


def _open(config: SearchConfig, first: Attack, database: Path, seed: int, of: str) -> optuna.Study:
    quiet()
    pruners: dict[str, Callable[[], BasePruner]] = {
        "median": lambda: MedianPruner(n_startup_trials=FRESH),
        "hyperband": lambda: HyperbandPruner(min_resource=10, max_resource=max(10, first.steps)),
        "none": NopPruner,
    }
    ranges = config.model_dump_json(exclude={"trials", "methods"}, exclude_none=True)
    settings = f"{ranges} seed={seed} first={first!r} of={of}"
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            storage=f"sqlite:///{database}",
            study_name="search",  # hyperband's brackets are drawn by it
            direction="maximize",
            pruner=pruners[config.pruner if config.least_safe is None else "none"](),
            load_if_exists=True,
        )
        kept = study.user_attrs.get("settings")
        if kept is None:
            study.set_user_attr("settings", settings)
    except Exception as error:  # SQLAlchemy's, Alembic's and SQLite's own errors have no common ancestor
        reason = " ".join(str(error).split())[:160]
        raise GiftError(f"{database} can't hold the search ({reason}); remove it or choose another --output") from error
    if kept not in {None, settings}:
        raise OtherSettings(
            f"{database} is of a search with other settings, or of other weights or pictures; use the same, choose another "
            "--output, or begin afresh with --restart"
        )
    return study


def _settled(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that came to an end, in order. One that was killed while its parameters were drawn is none."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() and "arguments" in t.user_attrs]


def _next(study: optuna.Study, space: Space, number: int, seed: int) -> optuna.Trial:
    """The trial that was cut short, or a new one with all its parameters drawn."""
    for old in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if "arguments" in old.user_attrs:
            return optuna.Trial(study, old._trial_id)
        study.tell(old.number, state=TrialState.FAIL)
    study.sampler = optuna.samplers.TPESampler(seed=(seed * 1_000_003 + number) % 2**32)
    starts = list(space.starts)
    if number < len(starts) and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(space.defaults(starts[number]))
    trial = study.ask()
    params = space.suggest(trial)
    how = space.build(params)
    trial.set_user_attr(PICTURES, space.pictures_of(params))
    trial.set_user_attr("attack", how.name)
    trial.set_user_attr("arguments", how.model_dump(mode="json"))
    return trial


def _pictures(trial: optuna.Trial | FrozenTrial, otherwise: int) -> int:
    """How many pictures a trial's attacker has; one of an earlier version may not say, and had as many as the default attack."""
    return int(trial.user_attrs.get(PICTURES, otherwise))


def _try(
    study: optuna.Study, trial: optuna.Trial, how: Attack, run: Callable[[Watch], dict[str, Any]], least_safe: float | None
) -> str:
    """Runs a trial and writes down how it ended."""

    def watch(step: int, scored: Scored) -> None:
        trial.report(scored.score, step)
        if step < how.steps and trial.should_prune():
            raise optuna.TrialPruned

    with Meter() as meter:
        try:
            value = run(watch)
        except optuna.TrialPruned:
            value = {"error": None}
        except NonFiniteError as error:
            value = {"error": str(error)}
    trial.set_user_attr("value", value if "seen" in value else {**value, "seconds": meter.seconds, "peak_mb": meter.peak_mb})
    if "seen" in value:
        points = _curve(value)
        told = f"area {area(points):.3f}, last score {points[-1][1]:.3f}"
        if least_safe is None:
            study.tell(trial, area(points))
            return told
        left = share_left(value["safe_after"]) or 0.0
        counts = left >= least_safe
        study.tell(trial, area(points) if counts else left / least_safe - 1)
        return f"{told}, leaves {left:.0%} of the safe accuracy" + ("" if counts else ", too little to count")
    if value["error"]:
        study.tell(trial, 0.0 if least_safe is None else -1.0)  # a broken model shows nothing
        return str(value["error"])
    study.tell(trial, state=TrialState.PRUNED)
    return "stopped, it fell behind"


def _curve(value: dict[str, Any]) -> list[tuple[int, float]]:
    return [(seen["step"], mean(seen["scores"])) for seen in value["seen"]]


def _row(number: int, trial: FrozenTrial, pictures: int, least_safe: float | None) -> dict[str, Any]:
    """A settled trial for the record; of one that was stopped or broke down, what was seen until then.

    With a `least_safe`, `safe_left` is the share of the safe accuracy that it left, and `counts` whether that is enough.
    """
    value = trial.user_attrs["value"]
    left = share_left(value.get("safe_after"))
    whole = "seen" in value
    curve = _curve(value) if whole else sorted(trial.intermediate_values.items())
    return {
        "number": number,
        "state": "complete" if whole else "broken" if value["error"] else "pruned",
        "error": None if whole else value["error"],
        "attack": trial.user_attrs["attack"],
        "arguments": trial.user_attrs["arguments"],
        "pictures": pictures,
        "curve": [list(point) for point in curve],
        "area": round(area(curve), 6) if whole else None,
        "last": curve[-1][1] if curve else None,
        "highest": max((score for _, score in curve), default=None),
        "steps": trial.user_attrs["arguments"]["steps"] if whole else max((step for step, _ in curve), default=0),
        "seconds": value["seconds"],
        "peak_mb": value["peak_mb"],
        "safe_left": left,
        "counts": whole and (least_safe is None or (left or 0.0) >= least_safe),
    }
