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

import numpy as np
from numpy.typing import NDArray

from lesionsynth.backend import modules_of
from lesionsynth.domain.grid import Box, bounding_box, grown
from lesionsynth.kernels.components import components
from lesionsynth.units import mm_to_vox

_ONE_VOXEL = (1, 1, 1)


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
    _, ndimage = modules_of(lesion)
    if not lesion.any() or lesion.all():
        return 0.0
    return float(ndimage.distance_transform_edt(lesion, sampling=list(spacing_mm)).max())


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
    near = lesion if near is None else near
    _, ndimage = modules_of(lesion, near)
    spacing = list(spacing_mm)
    if limit_mm < 0 and not lesion.all():
        inside: NDArray[np.bool_] = ndimage.distance_transform_edt(lesion, sampling=spacing) > -limit_mm
        return inside
    if limit_mm > 0 and near.any():
        around: NDArray[np.bool_] = lesion | (
            ndimage.distance_transform_edt(~near, sampling=spacing) < limit_mm
        )
        return around
    return lesion.copy()


def carving_box(box: Box, limit_mm: float, spacing_mm: Sequence[float], shape: Sequence[int]) -> Box:
    """Box in which :func:`carved` is right for a lesion that fills `box`."""
    margin = mm_to_vox(max(0.0, limit_mm), spacing_mm)
    return grown(box, [max(m, 1) for m in margin], shape)


def deepest_of_all_mm(label: NDArray[np.uint16], spacing_mm: Sequence[float]) -> float:
    """Depth of the deepest labelled voxel of a case, (i, j, k) NumPy, in mm; see :func:`deepest_mm`."""
    labelled = label > 0
    return max(
        (
            deepest_mm(labelled[grown(box, _ONE_VOXEL, label.shape)], spacing_mm)
            for box in components(labelled)[1]
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
        NumPy; holds labelled voxels.
    limit_mm : float
        At most the depth of the deepest voxel.
    spacing_mm : sequence of float

    Returns
    -------
    box : Box
        Bounding box of the region.
    region : ndarray, (i, j, k), bool
        Within the box. Empty, in an empty box, where nothing is below the limit.
    """
    labelled = label > 0
    region = np.zeros(label.shape, dtype=bool)
    for box in components(labelled)[1]:
        wide = carving_box(box, limit_mm, spacing_mm, label.shape)
        region[wide] |= carved(labelled[wide], limit_mm, spacing_mm, label[wide] == 1)
    found = bounding_box(region)
    if found is None:
        nothing = (slice(0, 0),) * 3
        return nothing, region[nothing]
    return found, region[found]
