"""The search for the worst attack, on a made-up attacker whose worst is known."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from gift.attacks import ATTACKS, Attack
from gift.bench.search import search
from gift.bench.space import SearchConfig, Space, without_harmless
from gift.bench.trial import Scored, Watch, steps_to_look
from gift.errors import GiftError, NonFiniteError
from gift.settings import make_attack

STEPS = 100
MANY, FEW = 48, 7
"""Pictures that the made-up attacker has, and so few with which it recovers twice as much as with all others."""
BEST = 3.0
"""The learning rate's factor at which the made-up attacker recovers most."""


def seen(score: float) -> Scored:
    return Scored(torch.zeros(2, 3, 1, 1, dtype=torch.uint8), [score, score])


class Attacker:
    """Recovers the more, the nearer its rate is to `BEST` defaults; counts what it ran; can be killed at a look of a trial.

    With `mild`, a rate of so many defaults leaves 0.9 of the safe accuracy, twice as high a one 0.45.
    """

    def __init__(self, kill: tuple[int, int] | None = None, mild: float | None = None) -> None:
        self.kill, self.ran, self.mild = kill, [], mild  # type: ignore[var-annotated]
        self.had: list[int] = []

    def __call__(self, number: int, how: Attack, pictures: int, watch: Watch) -> dict[str, Any]:
        self.ran.append((number, how))
        self.had.append(pictures)
        default = make_attack(how.name).rate
        if how.rate > 25 * default and how.optimiser != "sgd":
            raise NonFiniteError("the loss is nan")
        height = math.exp(-abs(math.log(how.rate / default / BEST))) * (2 if pictures == FEW else 1)
        looks = [(step, round(height * step / STEPS, 6)) for step in steps_to_look(STEPS)]
        for at, (step, score) in enumerate(looks[1:], 1):
            if self.kill == (number, at):
                raise KeyboardInterrupt
            watch(step, seen(score))
        return {
            "attack": how.name,
            "arguments": how.model_dump(mode="json"),
            "seen": [{"step": step, "scores": [score, score], "pictures": ""} for step, score in looks],
            "losses": [1.0],
            "norms": [1.0],
            "matched": 1,
            "seconds": 0.0,
            "peak_mb": 0.0,
            **({"safe_after": {"before": 0.8, "after": 0.72 * self.mild * default / how.rate}} if self.mild else {}),
        }


def plain(value: Any) -> Any:
    """Without times."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in {"seconds", "peak_mb"}}
    return [plain(item) for item in value] if isinstance(value, list) else value


def look_for(folder: Path, attempt: Attacker, first: Attack | None = None, seed: int = 0, **changes: Any) -> dict[str, Any]:
    config = SearchConfig(**{"trials": 14, "kinds": ("lora", "full"), **changes})
    first = first or make_attack("lora", {"steps": STEPS})
    return plain(search(config, first, attempt, folder / "study.db", pictures=MANY, seed=seed))


@pytest.mark.parametrize("name", ATTACKS)
def test_the_first_trial_is_the_default_attack_and_the_next_are_the_other_kinds(name: str, tmp_path: Path) -> None:
    first = make_attack(name, {"steps": STEPS})
    attempt = Attacker()
    found = look_for(tmp_path, attempt, first, kinds=("full", "lora", "textual-inversion"), trials=3)
    expected = [first, *(make_attack(k, {"steps": STEPS}) for k in ("full", "lora", "textual-inversion") if k != name)]
    assert [how for _, how in attempt.ran] == expected[:3]
    assert found["default"]["arguments"] == first.model_dump(mode="json")
    assert found["default"]["number"] == 0


@given(
    rate=st.floats(1e-6, 1e2),
    steps=st.integers(1, 5000),
    warmup=st.floats(0, 1),
    rank=st.integers(1, 300),
    optimiser=st.sampled_from(["adamw", "adam", "sgd", "adafactor", "adamw8bit"]),
    schedule=st.sampled_from(["constant", "cosine", "linear"]),
    text=st.booleans(),
)
def test_the_defaults_parameters_give_exactly_the_default(
    rate: float, steps: int, warmup: float, rank: int, optimiser: str, schedule: str, text: bool
) -> None:
    options = {"rate": rate, "steps": steps, "warmup": round(warmup * steps), "rank": rank, "harmless_steps": rank % steps}
    how = make_attack("lora", {**options, "optimiser": optimiser, "schedule": schedule, "text_encoder": text})
    space = Space(SearchConfig(), how, MANY)
    assert space.build(space.suggest(FixedTrial(space.defaults("lora")))) == how  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_searched_by_its_own_fields(name: str) -> None:
    how = make_attack(name, {"steps": STEPS})
    ranges = Space(SearchConfig(), how, MANY).ranges[name]
    assert {"rate", "optimiser", "schedule", "warmup"} <= ranges.keys()
    assert ("text_encoder" in ranges) is ("text_encoder" in type(how).model_fields)
    assert ("rank" in ranges) is ("rank" in type(how).model_fields)
    spread: Any = ranges["rate"]
    assert spread.log
    assert math.log10(spread.high / spread.low) >= 2
    harmless: Any = ranges["harmless_steps"]
    assert (harmless.low, harmless.high) == (0, max(20, how.harmless_steps))
    assert ("steps" in ranges, "batch_size" in ranges, "token" in ranges) == (False, False, False)


def test_where_no_harmless_pictures_are_none_are_asked_for() -> None:
    space = Space(without_harmless(SearchConfig()), make_attack("lora", {"steps": STEPS}), MANY)
    assert "sequence" in SearchConfig().kinds_known()
    assert "sequence" not in space.starts
    assert not any("harmless_steps" in ranges for ranges in space.ranges.values())


def test_harmless_pictures_are_mixed_in_where_asked_and_where_there_are_any() -> None:
    how, asked = make_attack("lora", {"steps": STEPS}), SearchConfig(least_share=0.25)
    space = Space(asked, how, MANY)
    spread: Any = space.ranges["full"]["share"]
    assert (spread.low, spread.high) == (0.25, 1.0)
    assert space.build(space.defaults("lora")) == how
    assert space.build({**space.defaults("lora"), space.key("lora", "share"): 0.5}).share == 0.5
    for config in (SearchConfig(), without_harmless(asked)):
        assert not any("share" in ranges for ranges in Space(config, how, MANY).ranges.values())


def test_a_search_may_choose_the_number_of_pictures(tmp_path: Path) -> None:
    plain, choosing = Attacker(), Attacker()
    look_for(tmp_path / "plain", plain)
    assert set(plain.had) == {MANY}
    found = look_for(tmp_path / "choosing", choosing, trials=20, pruner="none", pictures_tried=(FEW, 12))
    assert (found["default"]["pictures"], found["worst"]["pictures"]) == (MANY, FEW)
    assert choosing.had[:2] == [MANY, MANY], "the kinds' defaults first"
    assert set(choosing.had) == {MANY, FEW, 12}
    assert [row["pictures"] for row in found["trials"]] == choosing.had
    with pytest.raises(GiftError, match="other settings"):
        look_for(tmp_path / "choosing", Attacker(), trials=21, pruner="none", pictures_tried=(FEW,))


def test_a_study_of_before_numbers_of_pictures_were_kept_goes_on(tmp_path: Path) -> None:
    found = look_for(tmp_path, Attacker(), trials=3)
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("DELETE FROM trial_user_attributes WHERE key = 'pictures'")
    assert look_for(tmp_path, Attacker(), trials=3) == found


def test_few_steps_leave_room_for_the_concept() -> None:
    spread: Any = Space(SearchConfig(), make_attack("full", {"steps": 7}), MANY).ranges["full"]["harmless_steps"]
    assert spread.high == 3


def test_the_search_stays_in_its_ranges_and_finds_a_worse_attack_than_the_default(tmp_path: Path) -> None:
    attempt = Attacker()
    found = look_for(tmp_path, attempt, trials=40, pruner="none")
    assert len(found["trials"]) == 40
    for _, how in attempt.ran:
        default: Any = make_attack(how.name)
        factor = how.rate / default.rate / (300 if how.optimiser == "sgd" else 1)
        assert factor * (1 + 1e-9) >= 10**-1.5
        assert factor <= 10**1.5 * (1 + 1e-9)
        assert how.warmup <= 0.3 * STEPS
        assert 4 <= getattr(how, "rank", 8) <= 128
        assert how.steps == STEPS
        assert how.harmless_steps <= 20
    assert len({how.harmless_steps for _, how in attempt.ran}) > 3
    rates = [how.rate / make_attack(how.name).rate for _, how in attempt.ran]
    assert max(rates) / min(rates) > 100
    assert found["worst"]["area"] > found["default"]["area"]
    assert found["default"]["area"] == pytest.approx(1 / BEST / 2, abs=1e-6)
    assert found["worst"]["area"] > 0.8 * 0.5, "half is the most there is"
    assert found["best_last"] >= found["worst"]["last"]
    assert found["worst"]["area"] == max(row["area"] for row in found["trials"] if row["state"] == "complete")
    assert found["steps"] == sum(row["steps"] for row in found["trials"])


def test_the_same_seed_gives_the_same_search_and_another_seed_another(tmp_path: Path) -> None:
    one = look_for(tmp_path / "a", Attacker())
    assert look_for(tmp_path / "b", Attacker()) == one
    assert look_for(tmp_path / "c", Attacker(), seed=1)["trials"][2:] != one["trials"][2:]


@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_a_search_that_is_killed_goes_on_to_the_same_end(tmp_path: Path, pruner: str) -> None:
    whole = Attacker()
    expected = look_for(tmp_path / "whole", whole, pruner=pruner)
    for kill in [(0, 1), (1, 3), (5, 2), (13, 1)]:
        first, second = Attacker(kill), Attacker()
        try:
            look_for(tmp_path / f"cut-{kill}", first, pruner=pruner)
        except KeyboardInterrupt:
            assert look_for(tmp_path / f"cut-{kill}", second, pruner=pruner) == expected
            assert second.ran == whole.ran[kill[0] :]
        else:  # the pruner was quicker
            assert next(row for row in expected["trials"] if row["number"] == kill[0])["state"] != "complete"


def test_a_finished_search_runs_nothing_and_more_trials_go_on_from_it(tmp_path: Path) -> None:
    found = look_for(tmp_path, Attacker())
    again, more = Attacker(), Attacker()
    assert look_for(tmp_path, again) == found
    assert again.ran == []
    longer = look_for(tmp_path, more, trials=16)
    assert [number for number, _ in more.ran] == [14, 15]
    assert longer["trials"][:14] == found["trials"]
    assert look_for(tmp_path / "new", Attacker(), trials=16) == longer


def test_attacks_that_fall_behind_are_stopped_but_never_the_first(tmp_path: Path) -> None:
    found = look_for(tmp_path, Attacker(), trials=30)
    states = [row["state"] for row in found["trials"]]
    assert "pruned" in states
    assert "pruned" not in states[:5]
    for row in found["trials"]:
        if row["state"] == "pruned":
            assert row["steps"] < STEPS
            assert row["area"] is None
        assert row["curve"] == sorted(row["curve"])


def test_an_attack_that_breaks_down_recovers_nothing(tmp_path: Path) -> None:
    found = look_for(tmp_path, Attacker(), trials=40, pruner="none")
    broken = [row for row in found["trials"] if row["state"] == "broken"]
    assert broken
    assert all(row["error"] == "the loss is nan" and row["area"] is None for row in broken)
    assert found["worst"]["state"] == "complete"


def test_a_search_in_which_everything_breaks_down_is_told(tmp_path: Path) -> None:
    def attempt(number: int, how: Attack, pictures: int, watch: Watch) -> dict[str, Any]:
        raise NonFiniteError("the loss is nan")

    with pytest.raises(GiftError, match="no attack of the search ran to its end: the loss is nan"):
        search(SearchConfig(trials=3), make_attack("lora"), attempt, tmp_path / "x.db", pictures=MANY, seed=0)


def test_the_database_of_another_search_is_refused(tmp_path: Path) -> None:
    look_for(tmp_path, Attacker(), trials=2)
    for changes in ({"seed": 1}, {"decades": 2.0}, {"first": make_attack("full", {"steps": STEPS})}):
        with pytest.raises(GiftError, match="other settings"):
            look_for(tmp_path, Attacker(), trials=2, **changes)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("not a database, but long enough to be read as one" * 10)
    with pytest.raises(GiftError, match="can't hold the search"):
        look_for(tmp_path, Attacker(), trials=2)


def test_attacks_that_leave_no_model_do_not_count(tmp_path: Path) -> None:
    """Most is brought back at three times the default rate; what leaves 0.75 of the safe accuracy ends at 1.2 times."""
    found = look_for(tmp_path, Attacker(mild=1.0), trials=40, least_safe=0.75)
    rows = found["trials"]
    whole = [row for row in rows if row["state"] == "complete"]
    assert {row["counts"] for row in whole} == {True, False}
    for row in rows:
        if row["state"] != "complete":
            assert row["state"] == "broken", "none is stopped for falling behind attacks that don't count"
            assert (row["safe_left"], row["counts"]) == (None, False)
            continue
        left = 0.9 * make_attack(row["attack"]).rate / row["arguments"]["rate"]
        assert row["safe_left"] == pytest.approx(left)
        assert row["counts"] is (row["safe_left"] >= 0.75)
    counting = [row["area"] for row in whole if row["counts"]]
    assert found["worst"]["area"] == max(counting) < max(row["area"] for row in whole)
    assert found["worst"]["area"] > 0.85 * 1.2 / BEST / 2, "it comes near the border"
    assert found["best_last"] == max(row["last"] for row in whole if row["counts"])


def test_what_leaves_nothing_is_proposed_less_often(tmp_path: Path) -> None:
    def share(found: dict[str, Any]) -> float:
        late = found["trials"][20:]
        return sum(make_attack(row["attack"]).rate < 0.8 * row["arguments"]["rate"] for row in late) / len(late)

    free = look_for(tmp_path / "free", Attacker(mild=1.0), trials=60, pruner="none")
    bound = look_for(tmp_path / "bound", Attacker(mild=1.0), trials=60, least_safe=0.75)
    assert share(bound) < share(free)


def test_a_search_in_which_no_attack_leaves_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(GiftError, match="no attack of the search left 75% of the safe accuracy; lower least_safe, or try more"):
        look_for(tmp_path, Attacker(mild=1e-3), trials=4, least_safe=0.75)


def test_a_bounded_search_that_is_killed_goes_on_to_the_same_end(tmp_path: Path) -> None:
    expected = look_for(tmp_path / "whole", Attacker(mild=1.0), least_safe=0.75)
    with pytest.raises(KeyboardInterrupt):
        look_for(tmp_path / "cut", Attacker((7, 2), mild=1.0), least_safe=0.75)
    assert look_for(tmp_path / "cut", Attacker(mild=1.0), least_safe=0.75) == expected
