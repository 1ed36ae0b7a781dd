"""Fast marching from the border inwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesionsynth.kernels.inpaint import fast_marching_fill
from lesionsynth.plugins.contracts import FillSpec, Surroundings
from lesionsynth.plugins.registry import register


@register("fills")
class FastMarching(FillSpec):
    """March from the border inwards in three dimensions (Telea 2004)."""

    kind: Literal["fast_marching"] = "fast_marching"
    method: ClassVar[str] = "Their places were filled by fast marching [@telea2004] in three dimensions."
    radius_vox: float = Field(default=3.0, ge=1.0, le=8.0)
    """Radius of the neighbourhood a voxel is extrapolated from, in smallest voxel edges."""

    def fill(
        self,
        image: NDArray[np.float32],
        region: NDArray[np.bool_],
        source: NDArray[np.bool_],
        spacing_mm: Sequence[float],
        around: Surroundings | None = None,
    ) -> NDArray[np.float32]:
        """All channels in one march."""
        return fast_marching_fill(image, region, source, spacing_mm, self.radius_vox)
