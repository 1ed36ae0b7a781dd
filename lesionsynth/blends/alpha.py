"""The donor's own rim comes along and fades out."""

from __future__ import annotations

from typing import ClassVar, Literal

from lesionsynth.blends.edges import SoftBlend
from lesionsynth.plugins.registry import register


@register("blends")
class Alpha(SoftBlend):
    """Keep the lesion whole and fade out over the donor's own rim, outside the label."""

    kind: Literal["alpha"] = "alpha"
    method: ClassVar[str] = (
        "Each lesion was joined to the host by a weighted mean ({edge} edge), whose weight fell off over "
        "{width_mm} mm."
    )
