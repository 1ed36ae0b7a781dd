"""A recipe with one of its parts off: what the part is worth is what the recipe loses without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lesionsynth.recipe.model import Recipe, resolved

_RAW = dict[str, Any]


def _steps_with(raw: _RAW, part: str) -> Iterator[_RAW]:
    return (step for step in raw["steps"].values() if part in step)


def _without_source(raw: _RAW) -> None:
    """Real lesions of the bank instead of what the sources make."""
    used = {step["source"] for step in _steps_with(raw, "source")}
    for name in used & raw["sources"].keys():
        raw["sources"][name] = {"kind": "lesion_bank"}


def _without_blend(raw: _RAW) -> None:
    """Lesions cut in at the edge of their label."""
    for step in _steps_with(raw, "blend"):
        step["blend"] = {"kind": "hard"}


def _without_contrast(raw: _RAW) -> None:
    """Intensities as they are in the donor."""
    for step in _steps_with(raw, "contrast"):
        step["contrast"] = "absolute" if isinstance(step["contrast"], str) else {"kind": "absolute"}


def _without_geometry(raw: _RAW) -> None:
    """Lesions as they are, neither turned nor scaled nor bent."""
    off = {"rotate": {"p": 0.0}, "scale": {"p": 0.0}, "elastic": {"p": 0.0}}
    for step in _steps_with(raw, "geometry"):
        step["geometry"] = {"flip": 0.0, **off}


def _without_map(raw: _RAW) -> None:
    """Places anywhere in the tissue, all as likely."""
    raw["likelihood"]["floor"] = 1.0


PARTS: dict[str, Callable[[_RAW], None]] = {
    "source": _without_source,
    "blend": _without_blend,
    "contrast": _without_contrast,
    "geometry": _without_geometry,
    "map": _without_map,
}
"""What can be turned off, each by a change of the recipe's JSON."""


def ablated(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """The recipe with each part off in turn, by the name of the part; left out where it has none."""
    for part, turn_off in PARTS.items():
        raw = resolved(recipe)
        turn_off(raw)
        changed = Recipe.model_validate(raw)
        uses_map = any(step.uses_map for step in changed.steps.values())
        if changed != recipe and (part != "map" or uses_map):
            yield part, changed
