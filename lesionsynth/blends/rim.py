"""The published blend of LesionMix: the outermost layer is mixed 2:1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesionsynth.backend import modules_of
from lesionsynth.plugins.contracts import BlendSpec
from lesionsynth.plugins.registry import register


@register("blends")
class Rim(BlendSpec):
    """Mix the outermost voxel layer of the label 2:1 with the host, as LesionMix was published."""

    kind: Literal["rim"] = "rim"
    method: ClassVar[str] = (
        "The outermost voxel layer of each lesion was mixed with the host, with weight {weight} "
        "[@basaran2023]."
    )
    weight: float = Field(default=2 / 3, ge=0.5, le=1.0)
    """Weight of the lesion in the layer; the host has the rest."""

    def alpha(
        self, label: NDArray[np.bool_], allowed: NDArray[np.bool_], spacing_mm: Sequence[float]
    ) -> NDArray[np.float32]:
        """1 inside the label, `weight` in its outermost layer."""
        xp, ndimage = modules_of(label)
        inner = ndimage.binary_erosion(xp.pad(label, 1))[1:-1, 1:-1, 1:-1]
        weight: NDArray[np.float32] = xp.where(inner, 1.0, xp.where(label, self.weight, 0.0))
        return weight.astype(np.float32)
