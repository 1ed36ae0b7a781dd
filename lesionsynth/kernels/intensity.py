"""Robust intensity statistics in and around a lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.kernels.components import NEIGHBOURS_6
from lesionsynth.kernels.distance import nearby_distance_mm, voxel_scale

SHELL_MM = (1.5, 4.0)
"""Shell around a lesion that its contrast is measured against, on 1 mm voxels."""

MIN_SHELL_VOXELS = 12
MAD_TO_SD = 1.4826
_DETAIL_SIGMA_MM = 1.0


def robust_spread(values: NDArray[np.float32]) -> float:
    """Median absolute deviation times 1.4826; 0 where there are no values."""
    if values.size == 0:
        return 0.0
    return float(MAD_TO_SD * np.median(np.abs(values - np.median(values))))


def shell_mask(
    lesion: NDArray[np.bool_], tissue: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> NDArray[np.bool_]:
    """Voxels of `tissue` 1.5 to 4 mm outside `lesion` (wider on coarser voxels), all (i, j, k) bool."""
    scale = voxel_scale(spacing_mm)
    low, high = SHELL_MM[0] * scale, SHELL_MM[1] * scale
    distance = nearby_distance_mm(lesion, spacing_mm, high)
    return (distance >= low) & (distance <= high) & tissue


@dataclass(frozen=True, eq=False)
class Measures:
    """What is measured of a lesion, each an array over channels, in the image's units."""

    mean: NDArray[np.float64]
    edge: NDArray[np.float64]
    detail: NDArray[np.float64]


def measure(
    image: NDArray[np.float32],
    lesion: NDArray[np.bool_],
    rim: NDArray[np.bool_],
    spacing_mm: Sequence[float],
) -> Measures:
    """Measure the mean, the steepness of the border and the texture of a lesion.

    Parameters
    ----------
    image : ndarray, (C, i, j, k), float32
        Lesion with at least two voxels of margin (less at the border of the volume).
    lesion : ndarray, (i, j, k), bool
        Not empty.
    rim : ndarray, (i, j, k), bool
        Tissue of the lesion's surroundings; border voxels outside it do not count.
    spacing_mm : sequence of float

    Returns
    -------
    Measures
        `edge` is the mean gradient magnitude per mm over the layers on both sides of the border,
        `detail` the standard deviation of the image minus its Gaussian (1 mm) within the lesion.
    """
    inner = lesion & ~ndimage.binary_erosion(lesion, NEIGHBOURS_6)
    border = inner | (ndimage.binary_dilation(lesion, NEIGHBOURS_6) & ~lesion & rim)
    sigma = [_DETAIL_SIGMA_MM * voxel_scale(spacing_mm) / s for s in spacing_mm]
    mean, edge, detail = [], [], []
    for channel in image:
        squared = np.zeros(border.sum(), dtype=np.float64)
        for axis, step in enumerate(spacing_mm):
            if channel.shape[axis] > 1:
                squared += np.gradient(channel, step, axis=axis)[border].astype(np.float64) ** 2
        edge.append(np.sqrt(squared).mean())
        high = channel - ndimage.gaussian_filter(channel, sigma, mode="nearest")
        detail.append(high[lesion].std(dtype=np.float64))
        mean.append(channel[lesion].mean(dtype=np.float64))
    return Measures(np.array(mean), np.array(edge), np.array(detail))
