"""Base of every model that a recipe is made of."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from textwrap import dedent
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

LEAST_MM, MOST_MM = 0.001, 200.0
"""Lengths of a recipe: what is beyond would take all memory or be lost in rounding, and no body has it."""


class Spec(BaseModel):
    """A frozen part of a recipe; unknown keys are errors. The string under a field describes it.

    A field in millimetres, or a pair, is 0 or from `LEAST_MM` to `MOST_MM` in size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: ClassVar[str] = ""
    """What the methods section of a paper says of it, in the past tense: {field} stands for a field's value,
    [@key] cites an entry of qc/report/references.bib."""

    def methods(self) -> Iterator[str]:
        """Sentences of the methods section on it and its parts, as far as they are used."""
        if self.method:
            values = {name: words_of(getattr(self, name)) for name in type(self).model_fields}
            yield self.method.format_map(values)
        yield from self.methods_of_parts()

    def methods_of_parts(self, *but: str) -> Iterator[str]:
        """Sentences on the parts, but for some fields."""
        for name in type(self).model_fields:
            part = getattr(self, name)
            if isinstance(part, Spec) and name not in but:
                yield from part.methods()

    @field_validator("*")
    @classmethod
    def _fits_a_body(cls, value: Any, info: ValidationInfo) -> Any:
        for length in value if isinstance(value, tuple) else (value,):
            if not (info.field_name or "").endswith("_mm") or not isinstance(length, int | float):
                break
            if length != 0 and not LEAST_MM <= abs(length) <= MOST_MM:
                raise ValueError(f"should be 0 or from {LEAST_MM:g} to {MOST_MM:g}, got {length:g}")
        return value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The JSON Schema, with the descriptions of the fields."""
        schema = handler(core_schema)
        for name, text in field_docs(cls).items():
            handler.resolve_ref_schema(schema)["properties"][name]["description"] = text
        return schema


def words_of(value: Any) -> str:
    """A field's value in a sentence."""
    if isinstance(value, tuple) and len(value) == 2:
        low, high = (words_of(part) for part in value)
        return low if low == high else f"{low} to {high}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _single(value: Any) -> Any:
    """Let one number stand for a pair of it."""
    return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"should be [low, high] with low <= high, got [{value[0]:g}, {value[1]:g}]")
    return value


_PAIR_OR_NUMBER = {
    "anyOf": [
        {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
        {"type": "number"},
    ]
}
Range = Annotated[
    tuple[float, float],
    BeforeValidator(_single),
    AfterValidator(_ordered),
    WithJsonSchema(_PAIR_OR_NUMBER, mode="validation"),
]
"""A pair [low, high]; one number stands for both."""


def _growth(value: tuple[float, float]) -> tuple[float, float]:
    if not (value[0] >= 0.1 and value[1] <= 10):
        raise ValueError(f"should be from 0.1 to 10, got [{value[0]:g}, {value[1]:g}]")
    return value


Growth = Annotated[Range, AfterValidator(_growth)]
"""A pair of factors on a length."""

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """The strings under the fields of a model and its bases; none where there is no source to read.

    They are read when a reference or a schema is written: pydantic's own `use_attribute_docstrings` reads
    them whenever the models are imported, which takes 0.25 s of the start of every worker.
    """
    found = {}
    for part in reversed(model.__mro__):
        if issubclass(part, Spec) and part is not Spec:
            found.update(strings_under_fields(part))
    return {name: text for name, text in found.items() if name in model.model_fields}


def strings_under_fields(model: type[Any]) -> dict[str, str]:
    """The strings under the fields of one class, without its bases; none where there is no source to read."""
    try:
        body = ast.parse(dedent(inspect.getsource(model))).body
    except OSError:
        return {}
    found = {}
    for field, below in pairwise(body[0].body if isinstance(body[0], ast.ClassDef) else []):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found


def summary_of(model: type[Any]) -> str:
    """First line of a model's docstring, for lists and generated references."""
    return (model.__doc__ or "").strip().splitlines()[0].rstrip(".")
