"""Target loads as a recipe gives them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from lesionsynth.domain.load import LOAD_KINDS, LesionLoad, LoadTarget, draw_load_ml
from lesionsynth.spec import Range, Spec, words_of

MAX_SHARE_QUANTILE = 0.95
_FEWEST_LOADS = 3


class LoadSpec(Spec):
    """Target lesion load: a name (high), a number of mL (12.5), a range of mL ([5, 10]) or all fields."""

    kind: Literal["low", "medium", "high", "uniform", "gaussian", "real", "fixed", "range", "log_range"]
    """Named ones are drawn from the training subjects' loads: low q5 to q33, medium q33 to q67, high q67
    to q95, uniform q5 to q95, gaussian their mean and deviation, real one of them with 10 % jitter."""
    ml: float | None = Field(default=None, ge=0)
    """Load for kind fixed."""
    range_ml: Range | None = None
    """Bounds for kinds range and log_range. range draws evenly between them, log_range evenly in the
    logarithm, so that small loads come as often as large ones: loads span orders of magnitude."""
    tolerance: float = Field(default=0.05, gt=0, le=0.5)
    """Relative error at which the target counts as met."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": value}
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"kind": "fixed", "ml": value}
        if isinstance(value, list | tuple):
            return {"kind": "range", "range_ml": value}
        return value

    @model_validator(mode="after")
    def _complete(self) -> LoadSpec:
        if self.kind == "fixed" and self.ml is None:
            raise ValueError("kind fixed needs `ml`")
        if self.kind == "range" and (self.range_ml is None or self.range_ml[0] < 0):
            raise ValueError("kind range needs `range_ml`, [low, high] in mL, not negative")
        if self.kind == "log_range" and (self.range_ml is None or self.range_ml[0] <= 0):
            raise ValueError("kind log_range needs `range_ml`, [low, high] in mL, above 0")
        return self

    def methods(self) -> Iterator[str]:
        """How the target was drawn."""
        if self.kind == "fixed":
            drawn = f"was {self.ml or 0:g} mL"
        elif self.kind == "range":
            drawn = f"was drawn evenly from the range {words_of(self.range_ml)} mL"
        elif self.kind == "log_range":
            drawn = f"was drawn from {words_of(self.range_ml)} mL, evenly in its logarithm"
        else:
            drawn = f"was drawn from the loads of the cases learned from (distribution {self.kind})"
        yield f"The target load of each copy {drawn}, with a tolerance of {100 * self.tolerance:g} %."

    def draw(self, loads: Sequence[LesionLoad], host: LesionLoad, rng: np.random.Generator) -> LoadTarget:
        """Draw a target for a host.

        Where there are fewer than three training loads, their range says little, and is widened to half the
        least and one and a half times the largest. A named target is kept within the share of the tissue
        (95th percentile) that lesions take in the training cases: small fields of view cannot hold the
        loads of large ones.
        """
        if self.kind in LOAD_KINDS:
            drawn = draw_load_ml(self.kind, _spread([load.ml for load in loads]), rng)
            shares = _spread([load.ml / load.tissue_ml for load in loads if load.tissue_ml > 0])
            most = host.tissue_ml * float(np.quantile(shares, MAX_SHARE_QUANTILE)) if shares else drawn
            return LoadTarget(min(drawn, most), drawn, self.tolerance)
        if self.kind == "fixed":
            exact = float(self.ml or 0.0)
        else:
            low, high = self.range_ml or (0.0, 0.0)
            share = float(rng.uniform())
            exact = low + share * (high - low) if self.kind == "range" else low * (high / low) ** share
        return LoadTarget(exact, exact, self.tolerance)


def _spread(values: list[float]) -> list[float]:
    """`values`, and something below and above them where they are too few to have a range."""
    few = 0 < len(values) < _FEWEST_LOADS
    return [0.5 * min(values), *values, 1.5 * max(values)] if few else values
