"""Places to which a region may be moved so that it lies on clean tissue as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Places that are drawn.
_N_MIRRORED = 512
_N_SHIFTED = 8192
# How far from the exactly mirrored place one may lie.
_MIRROR_REACH_MM = 12.0


@dataclass(frozen=True)
class Way:
    """Places of one kind: voxel x goes to ``sign * x + offset``, for each of the offsets (n, 3).

    `used` (n,) marks the offsets that a patch was taken from. Pieces that overlap must not take the
    same: equal textures add up to more than independent ones.
    """

    name: str
    sign: NDArray[np.int64]
    offsets: NDArray[np.int64]
    used: NDArray[np.bool_]

    def find(
        self,
        inner: NDArray[np.int64],
        outer: NDArray[np.int64],
        clean: NDArray[np.bool_],
        spare: int,
        wanted: int,
    ) -> NDArray[np.int64]:
        """Rows of `offsets` that fit, unused ones if there are any; see :func:`clean_places`."""
        for passed_over in (self.used, np.zeros_like(self.used)):
            found = clean_places(inner, outer, self.sign, self.offsets, passed_over, clean, spare, wanted)
            if found.size or not passed_over.any():
                break
        return np.asarray(found, dtype=np.int64)

    def use(self, row: int) -> None:
        """Mark an offset, and all that equal it, as used."""
        self.used[(self.offsets == self.offsets[row]).all(axis=1)] = True


def draw_ways(
    clean: NDArray[np.bool_],
    spacing_mm: NDArray[np.float64],
    rng: np.random.Generator,
    mirror_axis: int | None,
) -> list[Way]:
    """Draw places to try: around the mirrored place (`mirror`), then around the region (`shift`).

    Parameters
    ----------
    clean : ndarray of bool, shape (i, j, k)
        Its centre of mass along `mirror_axis` is the mid-plane.
    spacing_mm : ndarray of float64, shape (3,)
        Voxel edges in mm.
    rng : numpy.random.Generator
    mirror_axis : int or None
        Axis that runs from left to right; None for no mirrored places.

    Returns
    -------
    list of Way
        In the order in which they should be tried. Many of the places lie outside the volume.
    """
    straight = np.ones(3, dtype=np.int64)
    ways = []
    if mirror_axis is not None:
        # A sample of about 1e5 voxels is enough to find the mid-plane.
        step = max(1, round((clean.size / 1e5) ** (1 / 3)))
        others = tuple(axis for axis in range(3) if axis != mirror_axis)
        profile = np.count_nonzero(clean[::step, ::step, ::step], axis=others)
        mirrored = straight.copy()
        mirrored[mirror_axis] = -1
        offsets = _offsets(_N_MIRRORED, _MIRROR_REACH_MM, 1, spacing_mm, rng)
        if profile.any():
            offsets[:, mirror_axis] += round(
                2.0 * step * float(np.average(np.arange(profile.size), weights=profile))
            )
        ways.append(Way("mirror", mirrored, offsets, np.zeros(_N_MIRRORED, dtype=bool)))
    reach_mm = 0.5 * float(np.linalg.norm(spacing_mm * clean.shape))
    # The third power of a uniform number prefers near places strongly.
    offsets = _offsets(_N_SHIFTED, reach_mm, 3, spacing_mm, rng)
    ways.append(Way("shift", straight, offsets, np.zeros(_N_SHIFTED, dtype=bool)))
    return ways


def _offsets(
    n: int, reach_mm: float, power: int, spacing_mm: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw `n` offsets in voxels (n, 3), of random directions, up to `reach_mm` long."""
    direction = rng.standard_normal((3, n), dtype=np.float32)
    length_mm = np.float32(reach_mm) * rng.random(n, dtype=np.float32) ** power
    length_mm /= np.sqrt((direction * direction).sum(axis=0))
    offsets = np.rint(direction * length_mm / spacing_mm.astype(np.float32)[:, None])
    return np.ascontiguousarray(offsets.T, dtype=np.int64)


@njit(cache=True, nogil=True)
def clean_places(inner, outer, sign, offsets, used, clean, spare, wanted):  # type: ignore[no-untyped-def]
    """Find the first places where the points come to lie on clean voxels.

    Parameters
    ----------
    inner, outer : ndarray of int64, shape (n, 3)
        Voxels of the patch, which all have to come clean, and of the ring around it, which have to
        but for `spare` of them. None may leave the volume.
    sign, offsets : ndarray of int64, shapes (3,) and (m, 3)
        The places, as in :class:`Way`.
    used : ndarray of bool, shape (m,)
        Places to be passed over.
    clean : ndarray of bool, shape (i, j, k)
    spare, wanted : int
        Unclean voxels of the ring that are let pass; number of places after which to stop.

    Returns
    -------
    ndarray of int64, shape (n,), n <= wanted
        Rows of `offsets`, in their order.
    """
    found = np.empty(wanted, np.int64)
    n = 0
    for m in range(offsets.shape[0]):
        if used[m]:
            continue
        left = 0
        for p in range(inner.shape[0] + outer.shape[0]):
            point = inner[p] if p < inner.shape[0] else outer[p - inner.shape[0]]
            i = sign[0] * point[0] + offsets[m, 0]
            j = sign[1] * point[1] + offsets[m, 1]
            k = sign[2] * point[2] + offsets[m, 2]
            inside = 0 <= i < clean.shape[0] and 0 <= j < clean.shape[1] and 0 <= k < clean.shape[2]
            if inside and clean[i, j, k]:
                continue
            if inside and p >= inner.shape[0] and left < spare:
                left += 1
                continue
            left = -1
            break
        if left >= 0:
            found[n] = m
            n += 1
            if n == wanted:
                break
    return found[:n]
