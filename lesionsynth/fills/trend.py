"""The smooth trend of the surroundings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lesionsynth.kernels.trend import trend_fill
from lesionsynth.plugins.contracts import FillSpec, Surroundings
from lesionsynth.plugins.registry import register


@register("fills")
class Trend(FillSpec):
    """Carry on the smooth trend of the surroundings, without their noise (kriging)."""

    kind: Literal["trend"] = "trend"
    method: ClassVar[str] = (
        "Their places were filled by the smooth trend of their surroundings, by kriging [@matheron1973]."
    )

    def fill(
        self,
        image: NDArray[np.float32],
        region: NDArray[np.bool_],
        source: NDArray[np.bool_],
        spacing_mm: Sequence[float],
        around: Surroundings | None = None,
    ) -> NDArray[np.float32]:
        """All channels by one system of equations."""
        return trend_fill(image, region, source, spacing_mm)
