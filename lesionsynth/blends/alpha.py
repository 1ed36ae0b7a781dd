"""The donor's own rim comes along and fades out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesionsynth.kernels.distance import nearby_distance_mm, voxel_scale
from lesionsynth.plugins.contracts import BlendSpec
from lesionsynth.plugins.registry import register


@register("blends")
class Alpha(BlendSpec):
    """Keep the lesion whole and fade out over the donor's own rim, outside the label."""

    kind: Literal["alpha"] = "alpha"
    width_mm: float = Field(default=2.0, gt=0)
    """Width of the fading rim, from the label's edge, on voxels up to 1 mm; as much wider as the voxels are
    on coarser grids, since a partial-volume rim is a property of the voxel. Wider rims drag other tissue
    along."""

    def reach_mm(self, spacing_mm: Sequence[float]) -> float:
        """The width on these voxels, and the half voxel from a label voxel's centre to the label's edge."""
        return self.width_mm * voxel_scale(spacing_mm) + 0.5 * min(spacing_mm)

    def alpha(
        self, label: NDArray[np.bool_], allowed: NDArray[np.bool_], spacing_mm: Sequence[float]
    ) -> NDArray[np.float32]:
        """1 on the label, falling linearly to 0 at the width, 0 where nothing may change."""
        to_centre = nearby_distance_mm(label, spacing_mm, self.reach_mm(spacing_mm))
        from_edge = to_centre - 0.5 * min(spacing_mm)
        fading = np.clip(1.0 - from_edge / (self.width_mm * voxel_scale(spacing_mm)), 0.0, 1.0)
        return np.where(allowed, fading, 0.0).astype(np.float32)
