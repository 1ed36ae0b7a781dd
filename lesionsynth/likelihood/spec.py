"""What a recipe says of the likelihood map."""

from __future__ import annotations

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

    @model_validator(mode="after")
    def _paths(self) -> LikelihoodSpec:
        if self.kind == "map" and self.map is None:
            raise ValueError("kind map needs `map`, the path of a NIfTI file")
        return self
