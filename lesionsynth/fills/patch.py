"""Blocks of clean tissue that continue the surroundings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lesionsynth.backend import modules_of
from lesionsynth.domain.grid import bounding_box, origin_of, shifted
from lesionsynth.kernels.exemplar import clean_blocks, exemplar_fill
from lesionsynth.kernels.trend import trend_fill
from lesionsynth.plugins.contracts import FillSpec, Surroundings, Texture
from lesionsynth.plugins.registry import register


@register("fills")
class Patch(FillSpec):
    """Copy blocks of clean tissue that continue what is there, in all channels (exemplar-based)."""

    kind: Literal["patch"] = "patch"
    method: ClassVar[str] = (
        "Their places were filled with blocks of clean tissue, after Criminisi et al. [@criminisi2004], in "
        "three dimensions."
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
        """Blocks of the whole case, near ones first; of the crop's sources where `around` is None.

        The trend of the surroundings, as kind `trend`, where clean tissue is too scarce for any block.
        """
        xp, _ = modules_of(image, region, source)
        tight = bounding_box(region)
        if tight is None:
            return image.copy()
        if around is None:
            found = clean_blocks(image, source, tight, spacing_mm)
        else:
            place = shifted(tight, origin_of(around.box))
            found = clean_blocks(around.image, around.clean, place, spacing_mm)
        if around is not None:
            way = "trend" if found is None else "patch"
            around.used[way] = around.used.get(way, 0) + int(region.sum())
        if found is None:
            return trend_fill(image, region, source, spacing_mm)
        blocks, reach = found
        if around is not None:  # only the blocks travel to the device, not the whole case
            blocks = xp.asarray(blocks)
        return exemplar_fill(image, region, source, spacing_mm, blocks, reach)
