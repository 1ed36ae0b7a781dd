"""Real lesions, strongly bent: the baseline that generated lesions have to beat."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from lesionsynth.domain.lesion import Lesion
from lesionsynth.editing.geometry import ElasticSpec, GeometrySpec, RotateSpec
from lesionsynth.plugins.contracts import Donors, Draw, Wanted
from lesionsynth.plugins.registry import register
from lesionsynth.sources.lesion_bank import LesionChoice


@register("sources")
class LesionWarp(LesionChoice):
    """Real lesions under a strong elastic deformation of their own.

    Warped real lesions equalled image translation networks for stroke: Platscher, Zopes, Federau,
    arXiv:2010.02745.
    """

    kind: Literal["lesion_warp"] = "lesion_warp"
    method: ClassVar[str] = "Donors were real lesions ({choice} choice), strongly bent [@platscher2020]."
    geometry: GeometrySpec = GeometrySpec(
        rotate=RotateSpec(p=1.0),
        elastic=ElasticSpec(p=1.0, spacing_mm=8.0, magnitude_mm=(1.5, 3.0)),
    )
    """How they are turned, scaled and bent, in place of the step's geometry."""

    @property
    def own_geometry(self) -> GeometrySpec:
        """The source's geometry."""
        return self.geometry

    def draw(self, rng: np.random.Generator, donors: Donors, wanted: Wanted) -> Draw | None:
        """Choose a lesion of the bank; how it is bent is part of the pose, which the step draws."""
        chosen = self.choose(rng, donors, wanted)
        return None if chosen is None else {"lesion": chosen.lesion}

    def lesion(self, draw: Draw, donors: Donors) -> Lesion:
        """Read the lesion from the bank."""
        return donors.bank.read(draw["lesion"])
