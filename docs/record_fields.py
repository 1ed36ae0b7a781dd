"""Fields of what a run writes, read from the classes that describe it, and values held against them.

A class is a TypedDict, whose fields have strings under them, or a dataclass that is written as it is, whose
fields stand under "Parameters" of its docstring.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from types import NoneType
from typing import Any, Literal, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

from lesionsynth.spec import strings_under_fields

SIMPLE = {str: "text", int: "whole number", float: "number", bool: "yes or no"}


def model_named(name: str) -> type[Any]:
    """The class of a dotted name."""
    module, _, cls = name.rpartition(".")
    found: type[Any] = getattr(import_module(module), cls)
    return found


def is_model(hint: Any) -> bool:
    """Whether a type is described by its fields."""
    return is_typeddict(hint) or (isinstance(hint, type) and is_dataclass(hint))


def hints_of(model: type[Any]) -> dict[str, Any]:
    """Type of each field; an underscore at the end of a name is dropped."""
    return {name.rstrip("_"): hint for name, hint in get_type_hints(model).items()}


def required_of(model: type[Any]) -> set[str]:
    """Fields that are always there."""
    if not getattr(model, "__total__", True):
        return set()
    hints = get_type_hints(model, include_extras=True)  # __required_keys__ does not know annotations as text
    return {name.rstrip("_") for name, hint in hints.items() if get_origin(hint) is not NotRequired}


def texts_of(model: type[Any]) -> dict[str, str]:
    """What is said of each field.

    Raises
    ------
    TypeError
        If nothing is said of one.
    """
    if is_typeddict(model):
        found = {name.rstrip("_"): text for name, text in strings_under_fields(model).items()}
    else:
        found = _parameters(inspect.getdoc(model) or "")
    missing = [name for name in hints_of(model) if not found.get(name)]
    if missing:
        raise TypeError(f"nothing is said of {', '.join(missing)} in {model.__module__}.{model.__name__}")
    return {name: " ".join(found[name].split()) for name in hints_of(model)}


def _parameters(docstring: str) -> dict[str, str]:
    """Texts of the section Parameters of a numpydoc docstring; names on one line share theirs."""
    section = re.search(r"^Parameters\n-+\n((?:(?:\w.* : .*|[ ]+.*)\n?)+)", docstring, re.MULTILINE)
    found: dict[str, str] = {}
    for names, text in re.findall(
        r"^(\w.*) : .*\n((?:[ ]+.*\n?)+)", section[1] if section else "", re.MULTILINE
    ):
        found |= dict.fromkeys(names.split(", "), text)
    return found


def models_in(hint: Any) -> Iterator[tuple[str, type[Any]]]:
    """Classes that a type leads to, with the signs of the way: [] for a list, .* for any name."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_model(hint):
        yield "", hint
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from ((".*" + way, model) for way, model in models_in(arguments[1]))
    elif isinstance(origin, type) and issubclass(origin, Sequence):
        yield from (("[]" + way, model) for way, model in models_in(arguments[0]))
    else:
        for argument in arguments if origin is not Literal else ():
            yield from models_in(argument)


def rows(model: type[Any], elsewhere: set[type[Any]], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, value and text of each field, those of its parts below it unless they are `elsewhere`."""
    texts = texts_of(model)
    for name, hint in hints_of(model).items():
        yield prefix + name, type_text(hint), texts[name]
        for way, part in models_in(hint):
            if part not in elsewhere:
                yield from rows(part, elsewhere, f"{prefix}{name}{way}.")


def type_text(hint: Any) -> str:
    """A type as a reader of JSON knows it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_model(hint):
        return "object"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "object" if arguments[1] in (Any, object) else f"object of {_plural(arguments[1])}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return "list" if arguments[0] is Any else f"list of {_plural(arguments[0])}"
    if arguments:
        return " or ".join(dict.fromkeys("`null`" if a is NoneType else type_text(a) for a in arguments))
    return SIMPLE.get(hint, "text" if getattr(hint, "__name__", "") == "Path" else "value")


def _plural(hint: Any) -> str:
    """Of a type that a list or an object has many of."""
    if get_origin(hint) is Literal or hint is bool:
        return type_text(hint)
    first, space, rest = type_text(hint).partition(" of ")
    one, *others = first.split(" or ")
    return " or ".join([f"{one}s", *others]) + space + rest


def misfits(value: Any, hint: Any, name: str, seen: set[tuple[type[Any], str]]) -> list[str]:
    """What in a JSON value is not as its type says; the fields that were met are added to `seen`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_model(hint):
        if not isinstance(value, Mapping):
            return [f"{name} is no object"]
        hints = hints_of(hint)
        found = [f"{name}.{key} is not described" for key in value if key not in hints]
        found += [f"{name}.{key} is missing" for key in required_of(hint) if key not in value]
        for key in hints.keys() & value.keys():
            seen.add((hint, key))
            found += misfits(value[key], hints[key], f"{name}.{key}", seen)
        return found
    if isinstance(origin, type) and issubclass(origin, Mapping | Sequence):
        wanted = dict if issubclass(origin, Mapping) else list
        if not isinstance(value, wanted):
            return [f"{name} is {value!r}"]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return [m for key, v in value.items() for m in misfits(v, arguments[1], f"{name}.{key}", seen)]
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return [m for entry in value for m in misfits(entry, arguments[0], f"{name}[]", seen)]
    if origin is Literal:
        return [] if value in arguments else [f"{name} is {value!r}"]
    if arguments:  # one of several: the first that fits, else what is wrong with the nearest
        tried: list[list[str]] = []
        for argument in arguments:
            met: set[tuple[type[Any], str]] = set()
            tried.append(misfits(value, argument, name, met))
            if not tried[-1]:
                seen |= met
                return []
        return min(tried, key=len)
    kinds: dict[Any, Any] = {int: int, float: (int, float), str: str, bool: bool, NoneType: NoneType}
    return [] if hint not in kinds or isinstance(value, kinds[hint]) else [f"{name} is {value!r}"]
