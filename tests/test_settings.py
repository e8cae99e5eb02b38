"""Names and options become objects, or an error that names the option (field failures 38 and bad values of every kind)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from types import UnionType
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gift.attacks import ATTACKS, Full, Lora
from gift.bench.config import DemoConfig
from gift.bench.grid import Sizes
from gift.bench.harmless import HarmlessConfig
from gift.bench.space import SearchConfig
from gift.cli.configs import AttackConfig, EvaluateConfig, ImmunizeConfig
from gift.errors import GiftError, one_of
from gift.immunizers import IMMUNIZERS, Attacker, Esd, Gift, Immunizer, Nothing
from gift.settings import make_attack, make_immunizers, parse_options, validated
from gift.training.precision import Saving


@pytest.mark.parametrize(
    ("pairs", "options"),
    [
        ([], {}),
        (["rate=1e-5"], {"rate": 1e-5}),
        (["rate=1E-5", "steps=10"], {"rate": 1e-5, "steps": 10}),
        (["rank= 8 "], {"rank": 8}),
        (["train=cross-attention"], {"train": "cross-attention"}),
        (["train=attn2=x"], {"train": "attn2=x"}),
        (["project=false", "rescale=null"], {"project": False, "rescale": None}),
        (["optimisers=[adamw, sgd]"], {"optimisers": ["adamw", "sgd"]}),
        (["attacker.steps=4", "attacker.rank=2"], {"attacker": {"steps": 4, "rank": 2}}),
        (["attacker={steps: 4}", "attacker.rank=2"], {"attacker": {"steps": 4, "rank": 2}}),
        (["steps=1", "steps=2"], {"steps": 2}),
    ],
)
def test_options_are_read(pairs: list[str], options: dict[str, Any]) -> None:
    assert parse_options(pairs) == options


@pytest.mark.parametrize(
    "pairs",
    [
        ["steps"],
        ["=3"],
        [" =3"],
        ["a=[1"],
        ["a=1", "a.b=2"],
        ["a.b=2", "a=1"],
        ["a=2020-13-45"],
        ["a=!!bool x"],
        ["a=!!timestamp x"],
        ["a=!!python/object/apply:os.getcwd []"],
    ],
)
def test_what_is_no_option_is_told(pairs: list[str]) -> None:
    with pytest.raises(GiftError) as caught:
        parse_options(pairs)
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=12) | st.from_regex(r"[a-c](\.[a-c])?=[\[{!0-9:\-, a-z]{0,8}", fullmatch=True), max_size=3))
def test_no_text_breaks_the_reader(pairs: list[str]) -> None:
    with suppress(GiftError):
        assert isinstance(parse_options(pairs), dict)


@pytest.mark.parametrize("name", IMMUNIZERS)
def test_every_method_is_made_with_its_defaults(name: str) -> None:
    assert make_immunizers(name) == [IMMUNIZERS[name]()]


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_made_with_its_defaults(name: str) -> None:
    assert make_attack(name) == ATTACKS[name]()


def test_options_go_to_the_last_of_a_chain() -> None:
    assert make_immunizers("esd + gift", {"steps": 3, "attacker": {"steps": 2}}) == [
        Esd(),
        Gift(steps=3, attacker=Attacker(steps=2)),
    ]
    assert make_immunizers("none") == [Nothing()]
    assert make_attack("full", {"rate": 1e-5}) == Full(rate=1e-5)
    assert make_attack("lora", parse_options(["rate=1e-4", "rank=4", "optimiser=sgd"])) == Lora(rate=1e-4, rank=4, optimiser="sgd")


@pytest.mark.parametrize(
    ("chain", "pairs", "methods"),
    [
        ("esd+gift", ["esd.steps=20"], [Esd(steps=20), Gift()]),
        ("esd+gift", ["esd.steps=20", "steps=3"], [Esd(steps=20), Gift(steps=3)]),
        ("esd+gift", ["gift.steps=3", "safe_steps=2"], [Esd(), Gift(steps=3, safe_steps=2)]),
        ("esd+gift", ["gift.attacker.steps=2", "esd.variant=u"], [Esd(variant="u"), Gift(attacker=Attacker(steps=2))]),
        ("esd+gift", ["attacker.steps=2"], [Esd(), Gift(attacker=Attacker(steps=2))]),
        ("gift", ["gift.steps=3"], [Gift(steps=3)]),
        ("esd+gift+esd", ["esd.steps=2"], [Esd(steps=2), Gift(), Esd(steps=2)]),
        ("gift+esd", ["gift.steps=4", "steps=2"], [Gift(steps=4), Esd(steps=2)]),
    ],
)
def test_a_methods_name_addresses_it(chain: str, pairs: list[str], methods: list[Immunizer]) -> None:
    assert make_immunizers(chain, parse_options(pairs)) == methods


@pytest.mark.parametrize(
    ("kind", "name", "options", "words"),
    [
        ("method", "gfit", {}, "no method 'gfit'; did you mean gift"),
        ("method", "", {}, "no method ''"),
        ("method", "esd+", {}, "no method ''"),
        ("method", "gift", {"stepz": 3}, "no option of method 'gift' 'stepz'; did you mean steps"),
        ("method", "gift", {"attacker": {"stepz": 3}}, "'attacker.stepz'; did you mean attacker.steps"),
        ("method", "gift", {"steps": -1}, "steps: .*greater than or equal to 0 .*given -1"),
        ("method", "gift", {"steps": "many"}, "steps: .*integer.*given 'many'"),
        ("method", "gift", {"safe_rate": 0}, "safe_rate: .*greater than 0"),
        ("method", "gift", {"safe_rate": float("inf")}, "safe_rate: .*finite"),
        ("method", "gift", {"safe_rate": float("nan")}, "safe_rate"),
        ("method", "gift", {"bound": "cube"}, "bound: .*'identity'"),
        ("method", "gift", {"attacker": 3}, "attacker"),
        ("method", "gift", {"attacker": {"kinds": []}}, "attacker.kinds"),
        ("method", "gift", {"attacker": {"full_rates": [0, 1]}}, "attacker.full_rates"),
        ("method", "gift", {"attacker": {"lora_rates": [1e-2, 1e-3]}}, "attacker.lora_rates"),
        ("method", "gift", {"rescale": 1.0, "safe_target": "reference"}, "rescale needs safe_target='data'"),
        ("method", "none", {"steps": 1}, "steps"),
        (
            "method",
            "esd+gift",
            {"imma": {"steps": 2}},
            "no method of the chain 'esd.gift' or option with parts 'imma'; known: esd, gift",
        ),
        ("method", "esd+gift", {"edd": {"steps": 2}}, "'edd'; did you mean esd"),
        ("method", "esd+gift", {"atacker": {"steps": 2}}, "'atacker'; did you mean attacker"),
        ("method", "esd+ascent", {"gift": {"steps": 2}}, "no method of the chain 'esd.ascent' 'gift'; known: esd, ascent"),
        ("method", "esd+gift", {"esd": {"stepz": 2}}, "no option of method 'esd' 'stepz'; did you mean steps"),
        ("method", "esd+gift", {"esd": 3}, "no option of method 'gift' 'esd'"),
        ("method", "esd+gift", {"gift": {"steps": 2}, "steps": 2}, "'gift.steps' and 'steps' are one option"),
        ("method", "esd", {"variant": "y"}, "variant"),
        ("attack", "dora", {}, "no attack 'dora'; did you mean lora"),
        ("attack", "lora", {"rank": 0}, "rank"),
        ("attack", "lora", {"rank": 2.5}, "rank"),
        ("attack", "lora", {"train": "all"}, "no option of attack 'lora' 'train'"),
        ("attack", "full", {"rate": float("inf")}, "rate: .*finite"),
        ("attack", "full", {"optimiser": "adm"}, "optimiser"),
    ],
)
def test_a_bad_option_is_named(kind: str, name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(GiftError, match=words) as caught:
        make_immunizers(name, options) if kind == "method" else make_attack(name, options)
    assert "\n" not in str(caught.value)


def test_unknown_names_get_the_nearest_known_ones() -> None:
    assert str(one_of("concept", "mushrom", ["mushroom", "tree"])) == "no concept 'mushrom'; did you mean mushroom?"
    assert str(one_of("concept", "xyz", ["mushroom", "tree"])) == "no concept 'xyz'; known: mushroom, tree"
    assert str(one_of("concept", "xyz", [f"{i:04}" for i in range(20)])).endswith("0011, …")


def numeric(kind: type[BaseModel], head: str = "") -> Iterator[tuple[str, type, Any]]:
    """The numeric options of a method, an attack or a verb, with the names of their parts: (name, int or float, field)."""
    for name, field in kind.model_fields.items():
        parts = get_args(field.annotation) if isinstance(field.annotation, UnionType) else (field.annotation,)
        types = [part for part in parts if isinstance(part, type)]
        if number := next((one for one in (float, int) if one in types), None):
            yield f"{head}{name}", number, field
        for part in types:
            if issubclass(part, BaseModel):
                yield from numeric(part, f"{head}{name}.")


def nested(name: str, value: object) -> dict[str, Any]:
    """{"a": {"b": value}} of 'a.b'."""
    head, dot, rest = name.partition(".")
    return {head: nested(rest, value) if dot else value}


EVERYTHING: dict[str, type[BaseModel]] = {
    **IMMUNIZERS,
    **ATTACKS,
    **{kind.__name__: kind for kind in (DemoConfig, Sizes, SearchConfig, HarmlessConfig, Saving)},
    **{kind.__name__: kind for kind in (ImmunizeConfig, AttackConfig, EvaluateConfig)},
}
NEEDED: dict[str, dict[str, Any]] = {name: {"concept": "ant"} for name in ("ImmunizeConfig", "AttackConfig", "EvaluateConfig")}
NEEDED["gift"] = {"safe_target": "data"}  # which its rescale asks for
NUMBERS = [(what, name, number, field) for what, kind in EVERYTHING.items() for name, number, field in numeric(kind)]


def limits(field: FieldInfo) -> dict[str, float]:
    """Its bounds: gt, ge, lt, le."""
    return {key: getattr(mark, key) for mark in field.metadata for key in ("gt", "ge", "lt", "le") if hasattr(mark, key)}


@pytest.mark.parametrize(("what", "name", "number", "field"), NUMBERS, ids=[f"{what}.{name}" for what, name, *_ in NUMBERS])
def test_every_numeric_option_takes_numbers_as_people_write_them_and_nothing_else(
    what: str, name: str, number: type, field: FieldInfo
) -> None:
    kind, needed, bounds = EVERYTHING[what], NEEDED.get(what, {}), limits(field)

    def read(text: str) -> Any:
        made: Any = validated(kind, {**needed, **parse_options([f"{name}={text}"])}, what)
        for part in name.split("."):
            made = getattr(made, part)
        return made

    low = bounds.get("ge", bounds.get("gt", 0))
    for text in ("1e-5", "1E-5", ".00001", "0.00001") if number is float and low <= 0 else ():
        assert read(text) == 1e-5
    whole = int(min(max(low + 1, 2), bounds.get("le", math.inf)))
    for text in (f"{whole}", f" {whole} ", f"{whole}.0", f"{whole}e0") if number is int else ():
        found = read(text)
        assert found == whole
        assert type(found) is int
    wrong = ["many", "1e-5x", "1,5", "[1]", "{a: 1}", "2020-01-01", "nan", "inf", "-inf", "-1e30", "1e400", "yes", "true", "off"]
    for text in [*wrong, *(["2.5", "1e-5", f"1{'0' * 30}"] if number is int else [])]:
        with pytest.raises(GiftError, match=name.rpartition(".")[2]) as caught:
            read(text)
        assert "\n" not in str(caught.value), text
