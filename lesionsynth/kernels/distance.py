"""Euclidean distances in millimetres, computed on boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth.backend import modules_of, on_cpu
from lesionsynth.domain.grid import bounding_box, grown
from lesionsynth.kernels.edt import exact_distance_mm
from lesionsynth.units import mm_to_vox


def distance_to_mm(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> NDArray[np.float32]:
    """Distance of every voxel from the nearest true voxel (centre to centre), in mm.

    Infinite everywhere where `mask` is empty. NumPy or CuPy, compiled for NumPy.
    """
    if on_cpu(mask):
        return exact_distance_mm(mask, spacing_mm)
    return distance_to_mm_generic(mask, spacing_mm)


def distance_to_mm_generic(mask: Any, spacing_mm: Sequence[float]) -> Any:
    """:func:`distance_to_mm` by the ``ndimage`` of the array's library."""
    xp, ndimage = modules_of(mask)
    if not mask.any():
        return xp.full(mask.shape, np.inf, dtype=xp.float32)
    exact = ndimage.distance_transform_edt(~mask, sampling=[float(s) for s in spacing_mm])
    return exact.astype(xp.float32)


def nearby_distance_mm(
    mask: NDArray[np.bool_], spacing_mm: Sequence[float], reach_mm: float
) -> NDArray[np.float32]:
    """As :func:`distance_to_mm` up to `reach_mm` from the mask; beyond, exact or infinite."""
    if not on_cpu(mask):
        return distance_to_mm(mask, spacing_mm)
    distance = np.full(mask.shape, np.inf, dtype=np.float32)
    box = bounding_box(mask)
    if box is not None:
        near = grown(box, mm_to_vox(reach_mm, spacing_mm), mask.shape)
        distance[near] = distance_to_mm(mask[near], spacing_mm)
    return distance


def voxel_scale(spacing_mm: Sequence[float]) -> float:
    """Factor by which widths that were measured on 1 mm images grow on coarser ones.

    A partial-volume rim is a property of the voxel: at 2 mm in-plane it is twice as wide.
    """
    return max(1.0, float(min(spacing_mm)))
