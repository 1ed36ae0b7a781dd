"""One registry for operations, sources, blends, fills and layouts.

A kind is a frozen model with a literal ``kind`` under :func:`register`. Built-in kinds are the modules
of the packages named here; other packages add theirs through entry points of the group
``lesionsynth.<group>``, such as ``lesionsynth.blends``. A recipe names kinds and never modules.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import reduce
from importlib.metadata import entry_points
from operator import or_
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import Field

from lesionsynth.errors import LesionsynthError
from lesionsynth.spec import Spec

GROUPS = ("operations", "sources", "blends", "fills", "layouts")

_SpecType = TypeVar("_SpecType", bound=Spec)
_kinds: dict[str, dict[str, type[Spec]]] = {group: {} for group in GROUPS}
_loaded: set[str] = set()


def register(group: str) -> Callable[[type[_SpecType]], type[_SpecType]]:
    """Class decorator: make a kind known under the literal of its field ``kind``.

    Raises
    ------
    TypeError
        If ``kind`` is not a literal of one name.
    ValueError
        If another class has the kind already.
    """

    def add(model: type[_SpecType]) -> type[_SpecType]:
        annotation = model.model_fields["kind"].annotation
        if get_origin(annotation) is not Literal or len(get_args(annotation)) != 1:
            raise TypeError(f"{group}: the field `kind` of {model} must be a Literal of one name")
        (kind,) = get_args(annotation)
        known = _kinds[group].setdefault(kind, model)
        if known is not model:
            raise ValueError(f"{group}: the kind {kind!r} is registered twice, by {known} and {model}")
        return model

    return add


def kinds(group: str) -> dict[str, type[Spec]]:
    """All kinds of a group by name, sorted; loads them on first use.

    Raises
    ------
    LesionsynthError
        If a kind of another package cannot be loaded.
    """
    if group not in _loaded:
        package = importlib.import_module(f"lesionsynth.{group}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"lesionsynth.{group}.{module.name}")
        for entry in entry_points(group=f"lesionsynth.{group}"):
            try:
                entry.load()
            except Exception as error:
                raise LesionsynthError(
                    f"the plug-in {entry.value} ({group}) cannot be loaded: {error}.",
                    remedy="Repair or remove the package that brings it.",
                ) from error
        _loaded.add(group)
    return dict(sorted(_kinds[group].items()))


def union(group: str) -> Any:
    """Type of a recipe field that takes any kind of a group."""
    models = tuple(kinds(group).values())
    return Annotated[reduce(or_, models), Field(discriminator="kind")] if len(models) > 1 else models[0]


def create(group: str, kind: str) -> Any:
    """A kind with its defaults."""
    return kinds(group)[kind]()
