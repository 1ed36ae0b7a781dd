"""Carve lesions out with a margin: voxels whose signed distance to them is below a limit.

The distance is negative inside. It is exact although it is found in a small box around each lesion: the
voxel outside that is nearest to one inside lies at most one voxel beyond the lesion's bounding box.

References
----------
Zhang et al., CarveMix: a simple data augmentation method for brain lesion segmentation, MICCAI 2021,
doi:10.1007/978-3-030-87193-2_19; NeuroImage 271, 2023, doi:10.1016/j.neuroimage.2023.120041.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lesionsynth.backend import modules_of, on_cpu
from lesionsynth.domain.grid import Box, bounding_box, grown
from lesionsynth.kernels.components import components
from lesionsynth.units import mm_to_vox

_ONE_VOXEL = (1, 1, 1)
_FIRST_REACH_VOX = 4


def deepest_mm(lesion: NDArray[np.bool_], spacing_mm: Sequence[float]) -> float:
    """Greatest distance of a lesion's voxel from the nearest voxel outside, centre to centre.

    Parameters
    ----------
    lesion : ndarray, (i, j, k), bool
        With at least one voxel around the lesion wherever the volume goes on.
    spacing_mm : sequence of float

    Returns
    -------
    float
        In mm; 0 where there is no lesion, or nothing outside.
    """
    if not lesion.any() or lesion.all():
        return 0.0
    reach_mm = _FIRST_REACH_VOX * min(spacing_mm)
    while True:
        deepest = float(distance_within(~lesion, reach_mm, spacing_mm).max())
        if deepest <= reach_mm:
            return deepest
        reach_mm *= 2


def carved(
    lesion: NDArray[np.bool_],
    limit_mm: float,
    spacing_mm: Sequence[float],
    near: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Voxels whose signed distance to a lesion is below `limit_mm`.

    Parameters
    ----------
    lesion : ndarray, (i, j, k), bool
        With a margin of `limit_mm` wherever the volume goes on, and of one voxel at least.
    limit_mm : float
        Negative limits shrink the lesion, positive ones add its surroundings.
    spacing_mm : sequence of float
    near : ndarray, (i, j, k), bool, optional
        Voxels that distances outside are measured to, if not to the whole lesion.

    Returns
    -------
    ndarray, (i, j, k), bool
        The lesion itself for 0, and where nothing lies outside of it.
    """
    if limit_mm < 0 and not lesion.all():
        inside: NDArray[np.bool_] = distance_within(~lesion, -limit_mm, spacing_mm) > -limit_mm
        return inside
    near = lesion if near is None else near
    if limit_mm > 0 and near.any():
        around: NDArray[np.bool_] = lesion | (distance_within(near, limit_mm, spacing_mm) < limit_mm)
        return around
    return lesion.copy()


def distance_within(
    mask: NDArray[np.bool_], reach_mm: float, spacing_mm: Sequence[float]
) -> NDArray[np.float64]:
    """Distance from the nearest true voxel, where it is not above `reach_mm`.

    Parameters
    ----------
    mask : ndarray, (i, j, k), bool
        With a true voxel somewhere.
    reach_mm : float
    spacing_mm : sequence of float

    Returns
    -------
    ndarray, (i, j, k), float64
        In mm, rounded as SciPy's transform does. Beyond `reach_mm` anything above it, or infinite.
    """
    if on_cpu(mask):
        steps = [float(s) for s in spacing_mm]
        reach = [min(m, n) for m, n in zip(mm_to_vox(reach_mm, steps), mask.shape, strict=True)]
        squared = _squared_within(
            np.ascontiguousarray(mask.T), steps[0], steps[1], steps[2], reach[0], reach[1], reach[2]
        )
        return np.sqrt(squared, out=squared).T
    return distance_generic(mask, spacing_mm)


def distance_generic(mask: Any, spacing_mm: Sequence[float]) -> Any:
    """:func:`distance_within` without a limit, on any device."""
    _, ndimage = modules_of(mask)
    return ndimage.distance_transform_edt(~mask, sampling=list(spacing_mm))


@njit(cache=True, nogil=True)
def _squared_within(
    mask: NDArray[np.bool_], step_i: float, step_j: float, step_k: float, w_i: int, w_j: int, w_k: int
) -> NDArray[np.float64]:
    """Squared distances of a mask (k, j, i), of true voxels at most (w_i, w_j, w_k) voxels away.

    Squares are added in the order i, j, k, so that the sums are rounded as those of other transforms.
    """
    n_k, n_j, n_i = mask.shape
    first = np.full((n_k, n_j, n_i), np.inf)
    found = np.zeros((n_k, n_j), np.bool_)
    for k in range(n_k):
        for j in range(n_j):
            for i in range(n_i):
                if mask[k, j, i]:
                    found[k, j] = True
                    break
            if found[k, j]:
                _along_line(mask[k, j], first[k, j], step_i, w_i)
    second = np.full((n_k, n_j, n_i), np.inf)
    reached = np.zeros((n_k, n_j), np.bool_)
    for k in range(n_k):
        for j in range(n_j):
            for other in range(max(0, j - w_j), min(n_j, j + w_j + 1)):
                if found[k, other]:
                    reached[k, j] = True
                    _lower(second[k, j], first[k, other], ((other - j) * step_j) * ((other - j) * step_j))
    first[:] = np.inf
    for k in range(n_k):
        for other in range(max(0, k - w_k), min(n_k, k + w_k + 1)):
            away = ((other - k) * step_k) * ((other - k) * step_k)
            for j in range(n_j):
                if reached[other, j]:
                    _lower(first[k, j], second[other, j], away)
    return first


@njit(cache=True, nogil=True)
def _along_line(mask: NDArray[np.bool_], squared: NDArray[np.float64], step: float, reach: int) -> None:
    """Squared distance of each voxel from the nearest true one on its line."""
    gap = reach + 1
    for i in range(mask.size):
        gap = 0 if mask[i] else gap + 1
        if gap <= reach:
            squared[i] = (gap * step) * (gap * step)
    gap = reach + 1
    for i in range(mask.size - 1, -1, -1):
        gap = 0 if mask[i] else gap + 1
        if gap <= reach:
            squared[i] = min(squared[i], (gap * step) * (gap * step))


@njit(cache=True, nogil=True)
def _lower(squared: NDArray[np.float64], other: NDArray[np.float64], away: float) -> None:
    """Take over what is nearer by way of the line beside."""
    for i in range(squared.size):
        through = other[i] + away
        if through < squared[i]:
            squared[i] = through


def carving_box(box: Box, limit_mm: float, spacing_mm: Sequence[float], shape: Sequence[int]) -> Box:
    """Box in which :func:`carved` is right for a lesion that fills `box`."""
    margin = mm_to_vox(max(0.0, limit_mm), spacing_mm)
    return grown(box, [max(m, 1) for m in margin], shape)


def deepest_of_all_mm(label: NDArray[np.uint16], spacing_mm: Sequence[float]) -> float:
    """Depth of the deepest labelled voxel of a case, (i, j, k) NumPy, in mm; see :func:`deepest_mm`."""
    _, pieces, boxes = _pieces(label)
    return max(
        (
            deepest_mm(pieces[grown(box, _ONE_VOXEL, pieces.shape)] == number, spacing_mm)
            for number, box in enumerate(boxes, start=1)
        ),
        default=0.0,
    )


def carved_of_all(
    label: NDArray[np.uint16], limit_mm: float, spacing_mm: Sequence[float]
) -> tuple[Box, NDArray[np.bool_]]:
    """Region of all labelled voxels as the published script finds it.

    Inside, every label counts; outside, distances are measured to the voxels of label 1 alone.

    Parameters
    ----------
    label : ndarray, (i, j, k), uint16
        NumPy.
    limit_mm : float
        At most the depth of the deepest voxel.
    spacing_mm : sequence of float

    Returns
    -------
    box : Box
        That the region lies in; empty where there are no labels.
    region : ndarray, (i, j, k), bool
        Within the box.
    """
    whole, pieces, boxes = _pieces(label, max(0.0, limit_mm), spacing_mm)
    region = np.zeros(pieces.shape, dtype=bool)
    first = label[whole] == 1
    for number, box in enumerate(boxes, start=1):
        wide = carving_box(box, limit_mm, spacing_mm, pieces.shape)
        # Between two pieces there is always an unlabelled voxel that is nearer than the other piece.
        piece = pieces[wide] == number
        region[wide] |= carved(piece, limit_mm, spacing_mm, piece & first[wide])
    return whole, region


def _pieces(
    label: NDArray[np.uint16], margin_mm: float = 0.0, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> tuple[Box, NDArray[np.int32], list[Box]]:
    """Connected pieces of all labelled voxels together, with a margin of one voxel at least.

    Returns the box around all of them, their numbers within it, and the box of each within it.
    """
    labelled = label > 0
    box = bounding_box(labelled)
    if box is None:
        nothing = (slice(0, 0),) * 3
        return nothing, np.zeros((0, 0, 0), dtype=np.int32), []
    box = carving_box(box, margin_mm, spacing_mm, label.shape)
    return box, *components(labelled[box])
