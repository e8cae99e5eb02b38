"""Names and options become objects, or an error that names the option (field failures 38 and bad values of every kind)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gift.attacks import ATTACKS, Full, Lora
from gift.errors import GiftError, one_of
from gift.immunizers import IMMUNIZERS, Attacker, Esd, Gift, Immunizer, Nothing
from gift.settings import make_attack, make_immunizers, parse_options


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
