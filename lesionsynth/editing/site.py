"""Find a place for a lesion: likely, in the right tissue, and like the place it comes from."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesionsynth.domain.lesion import Site
from lesionsynth.editing.canvas import DISPLACED, Canvas
from lesionsynth.kernels.components import dilated
from lesionsynth.kernels.tissue import GREY, WHITE, place_of
from lesionsynth.spec import Probability, Spec

_BATCH = 256


class SiteSpec(Spec):
    """Where a lesion may be put."""

    inside: Probability = 0.6
    """Least share of the lesion that must lie in its tissue. A strict rule forbids many real places."""
    clipped: Probability = 0.15
    """Largest share that may fall on fluid, on protected labels or outside, and is cut off."""
    like_donor: bool = True
    """Only places of the donor's class (periventricular, juxtacortical, deep; edge, inside), and only if the
    lesion stays in its size class or comes into the next."""
    overlap: Literal["avoid", "merge", "overwrite"] = "avoid"
    """What to do with lesions that are there: keep a gap; join them and leave their voxels; replace them."""
    gap_vox: int = Field(default=1, ge=0)
    """Voxels between lesions for overlap avoid."""
    candidates: int = Field(default=64, ge=1, le=10000)
    """Places tried for one donor before another is drawn."""


class SiteFinder:
    """Draws places on one canvas.

    Parameters
    ----------
    canvas : Canvas
    spec : SiteSpec
    voxels, cumulated : ndarray
        The likelihood map over the host, see :func:`lesionsynth.likelihood.over_host.density_over`.
    """

    def __init__(
        self, canvas: Canvas, spec: SiteSpec, voxels: NDArray[np.int64], cumulated: NDArray[np.float64]
    ) -> None:
        self.canvas, self.spec = canvas, spec
        self.voxels, self.cumulated = voxels, cumulated

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
        body = np.argwhere(label > 0) + lower
        grown = np.argwhere(dilated(np.pad(label > 0, self.spec.gap_vox), self.spec.gap_vox))
        halo = grown + np.subtract(lower, self.spec.gap_vox)
        shape = np.array(self.canvas.grid.shape)
        for _ in range(0, self.spec.candidates, _BATCH):
            count = min(_BATCH, self.spec.candidates)
            picks = np.minimum(np.searchsorted(self.cumulated, rng.random(count)), self.voxels.size - 1)
            centres = np.stack(np.unravel_index(self.voxels[picks], tuple(shape)), axis=1)
            for centre in centres:
                if self._fits(body + centre, halo + centre, shape, site):
                    return (int(centre[0]), int(centre[1]), int(centre[2]))
        return None

    def _fits(
        self, body: NDArray[np.int64], halo: NDArray[np.int64], shape: NDArray[np.int64], site: Site | None
    ) -> bool:
        host = self.canvas.host
        within = ((body >= 0) & (body < shape)).all(axis=1)
        if 1.0 - within.mean() > self.spec.clipped:
            return False
        at = tuple(body[within].T)
        if (self.canvas.source[at] == DISPLACED).any():
            return False  # tissue that was pushed aside is no longer where the host's map has it
        tissue = host.tissue[at]
        if np.count_nonzero(tissue == WHITE) < self.spec.inside * len(body):
            return False
        bad = host.untouchable[at]
        kept = np.isin(tissue, (GREY, WHITE)) & ~bad
        if len(body) - np.count_nonzero(kept) > self.spec.clipped * len(body) or not kept.any():
            return False
        if self.spec.overlap == "avoid":
            near = halo[((halo >= 0) & (halo < shape)).all(axis=1)]
            if (self.canvas.instances[tuple(near.T)] > 0).any():
                return False
        if self.spec.like_donor and site is not None:
            return place_of(host.zones[at][kept], host.has_tissue_classes) == site.place
        return True
