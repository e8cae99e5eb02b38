"""From names and options to objects: methods, chains of methods, attacks; with errors that name the option."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeGuard, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from gift.attacks import ATTACKS, Attack
from gift.errors import GiftError, one_of
from gift.immunizers import IMMUNIZERS, Immunizer

Options = dict[str, Any]
LARGEST = 2**31 - 1
"""Of steps, pictures, ranks and the like (choice): beyond it libraries overflow rather than run out of memory."""
T = TypeVar("T", bound=BaseModel)


def validated(kind: type[T], options: Options, what: str) -> T:
    """Builds `kind` from options.

    Raises:
        GiftError: an option is unknown or its value can't be used; the first such is named.
    """
    if truth := _no_number(kind, options):
        raise GiftError(f"{what}: {truth[0]}: give a number (given {str(truth[1]).lower()})")
    try:
        built = kind(**options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise one_of(f"option of {what}", where, _names(kind)) from error
        message = first["msg"].removeprefix("Value error, ")
        raise GiftError(
            f"{what}: {where + ': ' if where else ''}{message[0].lower() + message[1:]} (given {first['input']!r})"
        ) from error
    if huge := _huge(built):
        raise GiftError(f"{what}: {huge[0]}: at most {LARGEST} can be used (given {huge[1]})")
    return built


def _no_number(kind: type[BaseModel], options: Options, where: str = "") -> tuple[str, bool] | None:
    """The first number's option that is true or false, which would pass for 1 or 0, by name, and which of the two."""
    for name, value in options.items():
        field, path = kind.model_fields.get(name), f"{where}{name}"
        if field is None:
            continue
        if isinstance(value, bool) and _takes(field.annotation, int, float) and not _takes(field.annotation, bool, Any):
            return path, value
        if isinstance(value, dict) and _is_group(field.annotation) and (inner := _no_number(field.annotation, value, f"{path}.")):
            return inner
    return None


def _takes(annotation: Any, *kinds: Any) -> bool:
    """Whether an option's values may be of one of some kinds."""
    return annotation in kinds or any(_takes(part, *kinds) for part in get_args(annotation))


def _huge(value: Any, where: str = "") -> tuple[str, int] | None:
    """The first number of a count's kind that is beyond `LARGEST`, and where it stands."""
    if isinstance(value, int):
        return (where, value) if abs(value) > LARGEST else None
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, BaseModel | dict):
        parts = value if isinstance(value, BaseModel) else value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    found = (_huge(inner, f"{where}.{key}" if where else str(key)) for key, inner in parts)
    return next((one for one in found if one), None)


def _is_group(annotation: Any) -> TypeGuard[type[BaseModel]]:
    """Whether an option has parts of its own."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _names(kind: type[BaseModel]) -> list[str]:
    names = []
    for name, field in kind.model_fields.items():
        inner = field.annotation
        names.append(name)
        if _is_group(inner):
            names += [f"{name}.{part}" for part in _names(inner)]
    return names


def make_immunizers(chain: str, options: Options | None = None) -> list[Immunizer]:
    """The methods of a chain such as 'gift' or 'esd+gift'.

    Args:
        chain: names of methods, joined by '+'.
        options: hyperparameters of the last method, and under the name of any method of the chain its own:
            {"steps": 60, "esd": {"steps": 20}}.

    Raises:
        GiftError: an unknown method or option, or one that is given twice.
    """
    if not isinstance(chain, str):
        raise GiftError(f"the method is {chain!r}; give one name, or several joined by '+', such as 'esd+gift'")
    names = [name.strip() for name in chain.split("+")]
    for name in names:
        if name not in IMMUNIZERS:
            raise one_of("method", name, list(IMMUNIZERS))
    each = _by_method(names, options or {})
    return [validated(IMMUNIZERS[name], given, f"method '{name}'") for name, given in zip(names, each, strict=True)]


def _by_method(names: list[str], options: Options) -> list[Options]:
    """The options of each method of a chain."""
    last, fields = names[-1], IMMUNIZERS[names[-1]].model_fields
    named = {key: value for key, value in options.items() if isinstance(value, dict) and key not in fields}
    for name in named:
        if name not in names:
            groups = [option for option, field in fields.items() if _is_group(field.annotation)]
            what = f"method of the chain '{'+'.join(names)}'" + (" or option with parts" if groups else "")
            raise one_of(what, name, [*dict.fromkeys(names), *groups])
    own, plain = named.get(last, {}), {key: value for key, value in options.items() if key not in named}
    twice = next((key for key in own if key in plain), None)
    if twice is not None:
        raise GiftError(f"'{last}.{twice}' and '{twice}' are one option; give it once")
    return [*(named.get(name, {}) for name in names[:-1]), {**own, **plain}]


def make_attack(name: str, options: Options | None = None) -> Attack:
    """The attack of that name.

    Raises:
        GiftError: an unknown attack or option.
    """
    if name not in ATTACKS:
        raise one_of("attack", name, list(ATTACKS))
    return validated(ATTACKS[name], options or {}, f"attack '{name}'")


def parse_options(pairs: list[str]) -> Options:
    """Reads 'key=value' and 'outer.key=value'; values are YAML, so numbers such as 1e-4 and lists work.

    Raises:
        GiftError: a pair without '=', or a value that is not YAML.
    """
    options: Options = {}
    for pair in pairs:
        key, equals, raw = pair.partition("=")
        if not equals or not key.strip():
            raise GiftError(f"'{pair}' is not an option; write --set key=value")
        target = options
        *outer, last = key.strip().split(".")
        for part in outer:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise GiftError(f"'{pair}': '{part}' already has a value; give either it or its parts")
        if isinstance(target.get(last), dict):
            raise GiftError(f"'{pair}': parts of '{last}' already have values; give either it or its parts")
        target[last] = _value(raw, pair)
    return options


def _value(raw: str, pair: str) -> Any:
    for number in (int, float):
        try:
            return number(raw)  # YAML 1.1 takes 1e-4 for a word
        except ValueError:
            continue
    try:
        return yaml.safe_load(raw)
    except Exception as error:  # PyYAML also lets ValueError, KeyError and AttributeError through from dates and tags
        raise GiftError(f"'{pair}': {raw!r} can't be read; write a number, a word or a [list]") from error
