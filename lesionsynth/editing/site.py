"""Find a place for a lesion: likely, in the right tissue, and like the place it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from lesionsynth.domain.lesion import Site
from lesionsynth.editing.canvas import DISPLACED, Canvas
from lesionsynth.kernels.placement import ANYWHERE, first_fit
from lesionsynth.kernels.tissue import PLACES
from lesionsynth.likelihood.over_host import CentreDensity
from lesionsynth.spec import Probability, Spec


class SiteSpec(Spec):
    """Where a lesion may be put."""

    inside: Probability = 0.6
    """Least share of the lesion that must lie in its tissue. A strict rule forbids many real places."""
    clipped: Probability = 0.15
    """Largest share that may fall on fluid, on protected labels or outside, and is cut off."""
    like_donor: bool = True
    """Only places of the donor's class (periventricular, juxtacortical, deep; edge, inside), if the host has
    such, and only if the lesion stays in its size class or comes into the next."""
    overlap: Literal["avoid", "merge", "overwrite"] = "avoid"
    """What to do with lesions that are there: keep a gap; join them and leave their voxels; replace them."""
    gap_vox: int = Field(default=1, ge=0, le=20)
    """Voxels between lesions for overlap avoid."""
    candidates: int = Field(default=64, ge=1, le=10000)
    """Places tried for one donor before another is drawn."""

    def methods(self) -> Iterator[str]:
        """What a place had to be."""
        alike = ", in the same class of places as it came from" if self.like_donor else ""
        yield f"At least {100 * self.inside:g} % of a lesion had to lie in the tissue of lesions{alike}."


class SiteFinder:
    """Draws places on one canvas.

    Parameters
    ----------
    canvas : Canvas
    spec : SiteSpec
    centres : CentreDensity
        Where the lesions' centres are likely to be.
    """

    def __init__(self, canvas: Canvas, spec: SiteSpec, centres: CentreDensity) -> None:
        self.canvas, self.spec, self.centres = canvas, spec, centres

    def find(
        self,
        label: NDArray[np.uint16],
        lower: tuple[int, int, int],
        site: Site | None,
        rng: np.random.Generator,
    ) -> tuple[int, int, int] | None:
        """Centre for a lesion, or None where none of the candidates fits.

        Parameters
        ----------
        label : ndarray, (i, j, k), uint16
            The warped lesion; its box begins at `lower` relative to the centre.
        site : Site or None
            Where it comes from.
        rng : numpy.random.Generator
        """
        mask = label > 0
        spec, host, canvas = self.spec, self.canvas.host, self.canvas
        body = np.argwhere(mask) + lower
        halo = np.empty((0, 3), dtype=np.int64)
        if spec.overlap == "avoid":
            # Over edges and corners too: lesions that touch there are one for whoever counts components.
            grown = ndimage.maximum_filter(np.pad(mask, spec.gap_vox), 2 * spec.gap_vox + 1)
            halo = np.argwhere(grown) + np.subtract(lower, spec.gap_vox)
        # Where tissues are told apart in one of two cases alone, their places cannot be compared.
        known = PLACES[:3] if host.has_tissue_classes else PLACES[3:]
        alike = spec.like_donor and site is not None and site.place in known
        place = PLACES.index(site.place) if alike and site is not None else ANYWHERE
        centres = self.centres.draw(rng, spec.candidates)
        found = first_fit(
            centres,
            body,
            halo,
            host.tissue,
            host.untouchable,
            canvas.source,
            canvas.instances,
            host.zones,
            DISPLACED,
            spec.inside * len(body),
            spec.clipped * len(body),
            host.has_tissue_classes,
            place,
        )
        if found < 0:
            return None
        i, j, k = (int(c) for c in centres[found])
        return (i, j, k)
