"""The harmonic function through the surroundings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lesionsynth.kernels.diffusion import harmonic_fill
from lesionsynth.plugins.contracts import FillSpec, Surroundings
from lesionsynth.plugins.registry import register


@register("fills")
class Harmonic(FillSpec):
    """Span a soap film between the voxels around (Laplace's equation)."""

    kind: Literal["harmonic"] = "harmonic"
    method: ClassVar[str] = (
        "Their places were filled by harmonic functions (Laplace's equation) in three dimensions."
    )

    def fill(
        self,
        image: NDArray[np.float32],
        region: NDArray[np.bool_],
        source: NDArray[np.bool_],
        spacing_mm: Sequence[float],
        around: Surroundings | None = None,
    ) -> NDArray[np.float32]:
        """One solve, channel by channel."""
        return harmonic_fill(image, region, source, spacing_mm)
