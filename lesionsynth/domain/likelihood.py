"""The likelihood map: where lesion centres are to be expected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesionsynth.domain.grid import Grid


@dataclass(frozen=True, eq=False)
class LikelihoodMap:
    """Sampling density of lesion centres.

    Parameters
    ----------
    density : ndarray, (i, j, k), float32
        Not negative, sums to 1.
    grid : Grid
        Where it lies; for the kind "organ" the normalised box, with axes in RAS+ order.
    kind : str
        "grid", "organ", "affine" or "map".
    fitted_on : tuple of str
        Subjects it was learned from, sorted.
    """

    density: NDArray[np.float32]
    grid: Grid
    kind: str
    fitted_on: tuple[str, ...]

    def __post_init__(self) -> None:
        total = float(self.density.sum(dtype=np.float64))
        if not (np.isfinite(total) and self.density.min() >= 0 and abs(total - 1) < 1e-3):
            raise ValueError(f"a likelihood map is not negative and sums to 1, this one sums to {total:g}")
