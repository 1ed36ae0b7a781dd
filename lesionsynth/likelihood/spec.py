"""What a recipe says of the likelihood map."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from lesionsynth.spec import Probability, Spec

Weighting = Literal["voxels", "lesions", "distance"]


class LikelihoodSpec(Spec):
    """Where lesions are likely; fitted on the same subjects that donors come from."""

    kind: Literal["auto", "grid", "organ", "affine", "map"] = "auto"
    """grid: cases share one grid; organ: position in the box of the organ (or of the tissue); affine: cases
    are registered to a reference image; map: a NIfTI you give; auto: grid where it is shared, else organ."""
    weighting: Weighting = "lesions"
    """voxels: every lesion voxel counts (as published); lesions: every lesion counts once; distance: every
    lesion counts once, its depth more than its border."""
    smoothing_mm: float = Field(default=5.0, ge=0)
    """Standard deviation of the Gaussian that spreads what few lesions show."""
    floor: Probability = 0.05
    """Share of the density that is spread evenly over the tissue, so that no place is impossible."""
    map: str | None = None
    """Path of the map for kind map, relative to the input."""
    reference: str | None = None
    """Reference image for kind affine, relative to the input; the block's first case where not given."""
    channel: str | None = None
    """Channel that is registered for kind affine; the first where not given."""

    def methods(self) -> Iterator[str]:
        """How the map was learned, and how it was laid over a host."""
        each = {
            "voxels": "every lesion voxel alike",
            "lesions": "every lesion alike",
            "distance": "every lesion alike, its depth more than its border",
        }[self.weighting]
        laid = {
            "auto": "by the common grid, or by the position in the box of the tissue where there was none",
            "grid": "by the common grid",
            "organ": "by the position in the box of the tissue",
            "affine": "by affine registration with mutual information [@mattes2003]",
        }
        if self.kind == "map":
            yield "Places were drawn from a likelihood map that was given."
            return
        smoothed = f", smoothed by a Gaussian of {self.smoothing_mm:g} mm" if self.smoothing_mm > 0 else ""
        yield (
            f"Places were drawn from a likelihood map of lesion centres, learned from {each}{smoothed}, and "
            f"laid over the host {laid[self.kind]}."
        )

    @model_validator(mode="after")
    def _paths(self) -> LikelihoodSpec:
        if self.kind == "map" and self.map is None:
            raise ValueError("kind map needs `map`, the path of a NIfTI file")
        return self
