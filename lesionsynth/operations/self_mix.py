"""SelfMix: the host's own lesions elsewhere in it, mixed with the tissue there by depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from lesionsynth.backend import modules_of
from lesionsynth.domain.lesion import Lesion
from lesionsynth.editing.canvas import Canvas
from lesionsynth.editing.pasting import PasteSpec, draw_own
from lesionsynth.plugins.contracts import BlendSpec, Draw, StepContext
from lesionsynth.plugins.registry import register
from lesionsynth.spec import Range


class DepthWeighted(BlendSpec):
    """Weight of a lesion that grows with the depth in it: from above `edge` at its edge to 1 at its deepest.

    A part of :class:`SelfMix`, not a blend that recipes may name.
    """

    kind: Literal["depth_weighted"] = "depth_weighted"
    edge: float = Field(ge=0.5, le=1.0)
    """Weight that the lesion tends to at its edge."""

    def alpha(
        self, label: NDArray[np.bool_], allowed: NDArray[np.bool_], spacing_mm: Sequence[float]
    ) -> NDArray[np.float32]:
        """``edge + (1 - edge) * depth / greatest depth`` on the label, 0 elsewhere."""
        xp, ndimage = modules_of(label, allowed)
        padded = xp.pad(label, 1)
        depth = ndimage.distance_transform_edt(padded, sampling=list(spacing_mm))[1:-1, 1:-1, 1:-1]
        deepest = float(depth.max())
        share = depth / deepest if deepest > 0 else depth
        weight = xp.where(label, self.edge + (1.0 - self.edge) * share, 0.0)
        weighted: NDArray[np.float32] = weight.astype(xp.float32)
        return weighted


@register("operations")
class SelfMix(PasteSpec):
    """Put the host's own lesions elsewhere in it, mixed with the tissue there by their depth (SelfMix).

    The lesion's weight is ``w + (1 - w) d / max d``, with d the depth of a voxel and w drawn from `weight`
    for each lesion. The authors' code finds d in each slice by itself; here it is the depth in 3-D, in mm.
    Weights below one half would label what is mostly not lesion, and are refused.

    References
    ----------
    Zhu et al., SelfMix: a self-adaptive data augmentation method for lesion segmentation, MICCAI 2022.
    """

    kind: Literal["self_mix"] = "self_mix"
    method: ClassVar[str] = (
        "The host's own lesions were copied elsewhere in it. The weight of a lesion grew with the depth in "
        "it, from a value drawn from {weight} at its edge to 1 at its deepest (SelfMix [@zhu2022])."
    )
    weight: Range = (0.7, 1.0)
    """Weight of the lesion at its edge; 0.5 to 1."""

    @field_validator("weight")
    @classmethod
    def _mostly_lesion(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0.5 <= value[0] <= value[1] <= 1.0:
            raise ValueError(f"should lie within [0.5, 1], got [{value[0]:g}, {value[1]:g}]")
        return value

    def choose(
        self, canvas: Canvas, context: StepContext, used: list[Draw], rng: np.random.Generator
    ) -> Draw | None:
        """One of the host's lesions, all equally likely."""
        return draw_own(canvas, context, used, rng)

    def lesion(self, donor: Draw, context: StepContext) -> Lesion:
        """Read the lesion from the bank."""
        return context.donors.bank.read(donor["lesion"])

    def draw_more(self, rng: np.random.Generator) -> Draw:
        """Draw the weight at the edge."""
        return {"blend": {"edge": float(rng.uniform(*self.weight))}}

    def blend_of(self, draw: Draw) -> BlendSpec:
        """The blend with the drawn weight."""
        return DepthWeighted(edge=draw["blend"]["edge"])
