"""Base of every model that a recipe is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Spec(BaseModel):
    """A frozen part of a recipe; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"should be [low, high] with low <= high, got [{value[0]:g}, {value[1]:g}]")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""A pair [low, high]."""

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


def summary_of(model: type[Any]) -> str:
    """First line of a model's docstring, for lists and generated references."""
    return (model.__doc__ or "").strip().splitlines()[0].rstrip(".")
