"""A smooth hill on the host's own intensities, in the shape of a real lesion."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from lesionsynth.domain.lesion import Lesion
from lesionsynth.editing.likeness import (
    Contrast,
    bump_on_host,
    draw_contrast_vector,
    named,
    subjects_with_images,
)
from lesionsynth.plugins.contracts import Donors, Draw, Wanted
from lesionsynth.plugins.registry import register
from lesionsynth.sources.lesion_bank import LesionChoice
from lesionsynth.spec import Range


@register("sources")
class IntensityBump(LesionChoice):
    """Shapes of real lesions as a smooth bump on the host, whose texture is kept.

    After LesionSCynth (spinal multiple sclerosis): useful to a network, though easily told from real
    lesions by their smooth edge.
    """

    kind: Literal["intensity_bump"] = "intensity_bump"
    method: ClassVar[str] = (
        "Lesions were smooth bumps (Gaussian of {smooth_mm} mm) on the host's own intensities in the "
        "shapes of real ones, after LesionSCynth [@lesionscynth]."
    )
    shapes: Literal["all", "images", "masks"] = "all"
    """Lesions whose shapes are used: of subjects with images, of those known by masks alone, or both."""
    contrast: Contrast = "auto"
    """Mean difference from the surroundings in units of the host tissue's spread: [low, high] for each
    channel; auto: all channels together as a real lesion of like size, the host's own where it has five."""
    smooth_mm: Range = (1.0, 2.0)
    """Width (standard deviation) of the Gaussian that smooths the shape."""

    def donor_subjects(self, donors: Donors) -> frozenset[str] | None:
        """Subjects of the shapes; none where auto finds no lesion to imitate."""
        shapes = super().donor_subjects(donors)
        return shapes if self.contrast != "auto" or subjects_with_images(donors) else frozenset()

    def draw(self, rng: np.random.Generator, donors: Donors, wanted: Wanted) -> Draw | None:
        """Choose a shape, its contrast and its smoothness."""
        shape = self.choose(rng, donors, wanted)
        if shape is None:
            return None
        drawn = draw_contrast_vector(self.contrast, rng, donors, wanted, shape.volume_mm3)
        if drawn is None:
            return None
        contrast, like = drawn
        return {
            "lesion": shape.lesion,
            "contrast": contrast,
            "smooth_mm": float(rng.uniform(*self.smooth_mm)),
            "from": [named(info) for info in (shape, like) if info is not None],
        }

    def lesion(self, draw: Draw, donors: Donors) -> Lesion:
        """Raise the bump on the shape."""
        return bump_on_host(donors.bank.read(draw["lesion"]), draw["contrast"], draw["smooth_mm"])

    @property
    def _with_image(self) -> bool:
        return self.shapes == "images"

    def _givers(self, donors: Donors) -> tuple[str, ...]:
        return {
            "all": donors.subjects + donors.mask_subjects,
            "images": donors.subjects,
            "masks": donors.mask_subjects,
        }[self.shapes]
