"""Poisson image editing: the lesion's gradients, with the host's values around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesionsynth.kernels.alpha import outside_mm
from lesionsynth.kernels.distance import voxel_scale
from lesionsynth.kernels.masked_poisson import hard_poisson
from lesionsynth.plugins.contracts import BlendSpec, Draw
from lesionsynth.plugins.registry import register


@register("blends")
class Poisson(BlendSpec):
    """Clone the lesion's gradients into a mask, with the host's values around it (Perez et al.)."""

    kind: Literal["poisson"] = "poisson"
    method: ClassVar[str] = (
        "Each lesion was joined to the host by Poisson image editing [@perez2003] in three dimensions, with "
        "{gradients} gradients and {rim_mm} mm of the donor's own rim."
    )
    gradients: Literal["plain", "mixed"] = "plain"
    """plain: of the lesion image; mixed: of whichever image has the steeper one, so that strong structures
    of the host show through."""
    rim_mm: float = Field(default=1.0, ge=0)
    """Width of the donor's own rim that belongs to the mask, on voxels up to 1 mm. 0: the label alone, which
    takes as much contrast from the lesion as there is in the voxels next to it."""

    def reach_mm(self, spacing_mm: Sequence[float]) -> float:
        """The rim, and the half voxel from a label voxel's centre to the label's edge."""
        return self._width_mm(spacing_mm) + 0.5 * min(spacing_mm)

    def alpha(
        self, label: NDArray[np.bool_], allowed: NDArray[np.bool_], spacing_mm: Sequence[float]
    ) -> NDArray[np.float32]:
        """1 on the mask: the label, and what may change of its rim."""
        width = self._width_mm(spacing_mm)
        mask = label | (allowed & (outside_mm(label, spacing_mm, width) < width))
        return mask.astype(np.float32)

    def compose(
        self,
        host: NDArray[np.float32],
        lesion: NDArray[np.float32],
        alpha: NDArray[np.float32],
        allowed: NDArray[np.bool_],
        draw: Draw,
        spacing_mm: Sequence[float],
    ) -> NDArray[np.float32]:
        """Match the mask with what is allowed around it; at other tissue its border is free."""
        return hard_poisson(host, lesion, alpha > 0, allowed, spacing_mm, mixed=self.gradients == "mixed")

    def _width_mm(self, spacing_mm: Sequence[float]) -> float:
        return self.rim_mm * voxel_scale(spacing_mm)
