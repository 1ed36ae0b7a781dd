"""Soft Poisson blending: a soft mask mixes gradients, and the level of the lesion is kept in part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from lesionsynth.blends.edges import SoftBlend
from lesionsynth.domain.grid import bounding_box, grown
from lesionsynth.kernels.distance import voxel_scale
from lesionsynth.kernels.poisson import soft_poisson
from lesionsynth.plugins.contracts import Draw
from lesionsynth.plugins.registry import register
from lesionsynth.spec import Range
from lesionsynth.units import mm_to_vox


@register("blends")
class SoftPoisson(SoftBlend):
    """Mix the gradients of lesion and host by a soft mask, so that no seam is left (Huo et al.)."""

    kind: Literal["soft_poisson"] = "soft_poisson"
    k: Range = (0.5, 1.0)
    """Range of the share of the mask's own gradient that is kept. 1 is the weighted mean of `alpha`; towards
    0 differences on the rim are spread further, and a lesion whose rim stands out as well disappears."""
    margin_mm: float = Field(default=3.0, ge=0)
    """Distance beyond the edge within which differences on the rim are spread, on voxels up to 1 mm; the
    change has come down to 0 there. The box around all of it is solved exactly."""

    method: ClassVar[str] = (
        "Each lesion was joined to the host by soft Poisson blending [@huo2024] with k from {k}, on a mask "
        "with a {edge} edge of {width_mm} mm."
    )
    spreads: ClassVar[bool] = True

    @field_validator("k")
    @classmethod
    def _is_share(cls, k: tuple[float, float]) -> tuple[float, float]:
        if k[0] < 0 or k[1] > 1:
            raise ValueError(f"should lie within 0 and 1, got [{k[0]:g}, {k[1]:g}]")
        return k

    def draw(self, rng: np.random.Generator) -> Draw:
        """Draw k, evenly from its range."""
        return {"k": float(rng.uniform(*self.k))}

    def reach_mm(self, spacing_mm: Sequence[float]) -> float:
        """Edge and margin, in whole voxels."""
        margin = max(n * s for n, s in zip(self._margin_vox(spacing_mm), spacing_mm, strict=True))
        return super().reach_mm(spacing_mm) + margin

    def compose(
        self,
        host: NDArray[np.float32],
        lesion: NDArray[np.float32],
        alpha: NDArray[np.float32],
        allowed: NDArray[np.bool_],
        draw: Draw,
        spacing_mm: Sequence[float],
    ) -> NDArray[np.float32]:
        """Solve the box that the margin makes around the voxels with a weight; the rest is the host's."""
        blended = host.copy()
        weighed = bounding_box(alpha > 0)
        if weighed is not None:
            box = grown(weighed, self._margin_vox(spacing_mm), alpha.shape)
            inner = (slice(None), *box)
            blended[inner] = soft_poisson(host[inner], lesion[inner], alpha[box], draw["k"], spacing_mm)
        return blended

    def _margin_vox(self, spacing_mm: Sequence[float]) -> tuple[int, ...]:
        return mm_to_vox(self.margin_mm * voxel_scale(spacing_mm), spacing_mm)
