"""Shapes of lesions that are known by their masks alone, with the look of real lesions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field

from lesionsynth.domain.lesion import Lesion
from lesionsynth.editing.likeness import (
    apply_look,
    bump_on_host,
    contrast_of,
    lesion_on_host,
    lesion_to_be_like,
    look_of,
    named,
    subjects_with_images,
    with_margin,
)
from lesionsynth.plugins.contracts import Donors, Draw, Wanted
from lesionsynth.plugins.registry import register
from lesionsynth.sources.lesion_bank import LesionChoice
from lesionsynth.spec import Range

_MARGIN_MM = 5.0


@register("sources")
class MaskLibrary(LesionChoice):
    """Shapes of subjects without images (input.masks), with the look of real lesions.

    Their intensities follow a lesion of like size by the distance from its edge, on the host's own texture.
    """

    kind: Literal["mask_library"] = "mask_library"
    intensities: Literal["host", "bank", "bump"] = "host"
    """host: like a lesion of the host itself, where it has five or more, else of the bank; bank: like any
    lesion of the bank; bump: a smooth bump of such a contrast."""
    texture: float = Field(default=1.0, ge=0)
    """Factor on what the real lesion varies beyond its tissue, for host and bank."""
    smooth_mm: Range = (1.0, 2.0)
    """Width (standard deviation) of the Gaussian that makes the bump."""

    def methods(self) -> Iterator[str]:
        """Whose look the shapes got."""
        whose = "of the host itself, or of the bank" if self.intensities == "host" else "of the bank"
        look = f"their intensities followed a real lesion of like size {whose}, by the distance from the edge"
        if self.intensities == "bump":
            look = "their intensities were a smooth bump of the contrast of a real lesion of like size"
        yield (
            f"Shapes came from lesion masks of subjects without images; {look}, on the host's own texture."
        )

    def donor_subjects(self, donors: Donors) -> frozenset[str] | None:
        """Subjects of the shapes; none where there is no lesion to imitate."""
        shapes = super().donor_subjects(donors)
        return shapes if subjects_with_images(donors) else frozenset()

    def draw(self, rng: np.random.Generator, donors: Donors, wanted: Wanted) -> Draw | None:
        """Choose a shape, and a lesion that it is to look like."""
        shape = self.choose(rng, donors, wanted)
        if shape is None:
            return None
        like = lesion_to_be_like(rng, donors, wanted, shape.volume_mm3, own=self.intensities != "bank")
        if like is None:
            return None
        draw: Draw = {"lesion": shape.lesion, "from": [named(shape), named(like)]}
        if self.intensities == "bump":
            return {**draw, "contrast": contrast_of(like), "smooth_mm": float(rng.uniform(*self.smooth_mm))}
        return {**draw, "like": like.lesion, "seed": int(rng.integers(2**31))}

    def lesion(self, draw: Draw, donors: Donors) -> Lesion:
        """Give the shape its look."""
        shape = donors.bank.read(draw["lesion"])
        if "like" not in draw:
            return bump_on_host(shape, draw["contrast"], draw["smooth_mm"])
        label, info = with_margin(shape, _MARGIN_MM)
        look = look_of(draw["like"], donors)
        image = apply_look(look, label, info.spacing_mm, self.texture, draw["seed"])
        return lesion_on_host(info, label, image)

    @property
    def _with_image(self) -> bool:
        return False

    def _givers(self, donors: Donors) -> tuple[str, ...]:
        return donors.mask_subjects
