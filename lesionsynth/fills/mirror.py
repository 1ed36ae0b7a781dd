"""Contralateral tissue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lesionsynth.backend import modules_of
from lesionsynth.kernels.diffusion import harmonic_fill
from lesionsynth.kernels.inpaint import reachable
from lesionsynth.kernels.mirror import mirrored
from lesionsynth.plugins.contracts import FillSpec, Surroundings, Texture
from lesionsynth.plugins.registry import create, register


@register("fills")
class Mirror(FillSpec):
    """Copy the tissue of the other side of a brain, fitted to the surroundings without a seam.

    The mid-plane is the plane about which the case is most symmetric. Where the other side is not
    clean tissue, and where no mid-plane is known, kind `patch` fills; the record says how many voxels were
    filled in which way.
    """

    kind: Literal["mirror"] = "mirror"
    method: ClassVar[str] = (
        "Their places were filled with the tissue of the other side of the brain, fitted to the surroundings."
    )
    texture: Texture = "none"
    """As for the other fills; the copied tissue brings its own texture, so none is added."""

    def fill(
        self,
        image: NDArray[np.float32],
        region: NDArray[np.bool_],
        source: NDArray[np.bool_],
        spacing_mm: Sequence[float],
        around: Surroundings | None = None,
    ) -> NDArray[np.float32]:
        """All channels at once; kind `patch` where `around` is None."""
        xp, _ = modules_of(image, region, source)
        other: FillSpec = create("fills", "patch")
        matrix = None if around is None else around.mirror()
        if around is None or matrix is None:
            return other.fill(image, region, source, spacing_mm, around)
        values, clean = mirrored(around.image, around.clean, matrix, around.box)
        guide, usable = xp.asarray(values), xp.asarray(clean)
        anchors = source & usable
        copied = reachable(region & usable, anchors)
        # The soap film through the differences at the border takes the other side's level away.
        filled = xp.where(copied, guide + harmonic_fill(image - guide, copied, anchors, spacing_mm), image)
        around.used["mirror"] = around.used.get("mirror", 0) + int(copied.sum())
        rest = region & ~copied
        return other.fill(filled, rest, source | copied, spacing_mm, around) if bool(rest.any()) else filled
