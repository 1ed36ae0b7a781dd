"""Whether a lesion fits where it is put: many places, one compiled pass over its voxels for each."""

from __future__ import annotations

from numba import njit

from lesionsynth.kernels.tissue import GREY, NEAR_EDGE, NEAR_VENTRICLE, PLACES, WHITE

_PERIVENTRICULAR, _JUXTACORTICAL, _DEEP, _EDGE, _INSIDE = range(len(PLACES))
ANYWHERE = -1


@njit(cache=True, nogil=True)
def first_fit(  # type: ignore[no-untyped-def]
    centres,
    body,
    halo,
    tissue,
    untouchable,
    source,
    instances,
    zones,
    barred,
    least_inside,
    most_clipped,
    has_classes,
    place,
):
    """Find the first centre around which a lesion fits.

    Parameters
    ----------
    centres : ndarray of int64, shape (n, 3)
    body, halo : ndarray of int64, shapes (m, 3)
        Voxels of the lesion, and those that no other lesion may have, relative to its centre.
    tissue, untouchable, source, instances, zones : ndarray, shape (i, j, k)
        Tissue codes, protected voxels, the source map, the lesions that are there, zones of places.
    barred : int
        Value of the source map that the body may not touch.
    least_inside, most_clipped : float
        Voxels of the body that must lie in white matter at least; that may fall on something else than
        tissue, or outside, at most.
    has_classes : bool
        See :func:`lesionsynth.kernels.tissue.place_of`, which this repeats.
    place : int
        Index in :data:`~lesionsynth.kernels.tissue.PLACES` that the lesion must have, or ANYWHERE.

    Returns
    -------
    int
        Row of `centres`, or -1.
    """
    for n in range(centres.shape[0]):
        white = kept = near = 0
        fits = True
        for m in range(body.shape[0]):
            i, j, k = centres[n, 0] + body[m, 0], centres[n, 1] + body[m, 1], centres[n, 2] + body[m, 2]
            if 0 <= i < tissue.shape[0] and 0 <= j < tissue.shape[1] and 0 <= k < tissue.shape[2]:
                if source[i, j, k] == barred:
                    fits = False
                    break
                code = tissue[i, j, k]
                if code == WHITE:
                    white += 1
                if code in (GREY, WHITE) and not untouchable[i, j, k]:
                    kept += 1
                    near |= zones[i, j, k]
            if m + 1 - kept > most_clipped:
                fits = False
                break
        if not fits or kept == 0 or white < least_inside:
            continue
        if place != ANYWHERE and place != _place(near, has_classes):
            continue
        for m in range(halo.shape[0]):
            i, j, k = centres[n, 0] + halo[m, 0], centres[n, 1] + halo[m, 1], centres[n, 2] + halo[m, 2]
            if (
                0 <= i < tissue.shape[0]
                and 0 <= j < tissue.shape[1]
                and 0 <= k < tissue.shape[2]
                and instances[i, j, k] > 0
            ):
                fits = False
                break
        if fits:
            return n
    return -1


@njit(cache=True, nogil=True)
def _place(near, has_classes):  # type: ignore[no-untyped-def]
    if not has_classes:
        return _EDGE if near & NEAR_EDGE else _INSIDE
    if near & NEAR_VENTRICLE:
        return _PERIVENTRICULAR
    return _JUXTACORTICAL if near & NEAR_EDGE else _DEEP
