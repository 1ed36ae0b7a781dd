"""How far and in what shape a soft blend reaches over the label's edge: shared by the soft blends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesionsynth.backend import modules_of
from lesionsynth.kernels.alpha import GAUSSIAN_REACH, centred_edge, gaussian_edge, grown_edge
from lesionsynth.kernels.distance import voxel_scale
from lesionsynth.plugins.contracts import BlendSpec


class SoftBlend(BlendSpec):
    """A blend whose weight falls off over an edge."""

    edge: Literal["grown", "label", "gaussian"] = "grown"
    """grown: the whole label has weight 1, and the donor's own rim outside fades out; label: a ramp with
    one half on the label's edge, which dims the lesion; gaussian: the label under a Gaussian of half the
    width, no less than one half on the label."""
    width_mm: float = Field(default=2.0, gt=0)
    """Width of the edge, on voxels up to 1 mm; as much wider as the voxels are on coarser grids, since a
    partial-volume rim is a property of the voxel. Wider rims drag other tissue along."""

    def reach_mm(self, spacing_mm: Sequence[float]) -> float:
        """The edge's part outside, and the half voxel from a label voxel's centre to the label's edge."""
        outside = {"grown": 1.0, "label": 0.5, "gaussian": 0.5 * GAUSSIAN_REACH}[self.edge]
        return outside * self._width_mm(spacing_mm) + 0.5 * min(spacing_mm)

    def alpha(
        self, label: NDArray[np.bool_], allowed: NDArray[np.bool_], spacing_mm: Sequence[float]
    ) -> NDArray[np.float32]:
        """The edge as chosen, 0 where nothing may change."""
        xp, _ = modules_of(label, allowed)
        width = self._width_mm(spacing_mm)
        if self.edge == "gaussian":
            soft = gaussian_edge(label, spacing_mm, 0.5 * width)
        else:
            soft = (grown_edge if self.edge == "grown" else centred_edge)(label, spacing_mm, width)
        weight: NDArray[np.float32] = xp.where(allowed, soft, np.float32(0.0))
        return weight

    def _width_mm(self, spacing_mm: Sequence[float]) -> float:
        return self.width_mm * voxel_scale(spacing_mm)
