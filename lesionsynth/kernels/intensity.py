"""Robust intensity statistics in and around a lesion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import bounding_box, grown
from lesionsynth.kernels.components import NEIGHBOURS_6
from lesionsynth.kernels.distance import nearby_distance_mm, voxel_scale

SHELL_MM = (1.5, 4.0)
"""Shell around a lesion that its contrast is measured against, on 1 mm voxels."""

MIN_SHELL_VOXELS = 12
MAD_TO_SD = 1.4826
_DETAIL_SIGMA_MM = 1.0
_ROUNDING = 1e-5


def robust_spread(values: NDArray[np.float32]) -> float:
    """Median absolute deviation times 1.4826; 0 where there are no values."""
    if values.size == 0:
        return 0.0
    return float(MAD_TO_SD * np.median(np.abs(values - np.median(values))))


def in_spreads(image: NDArray[np.float32], levels: Iterable[tuple[float, float]]) -> NDArray[np.float32]:
    """Channels (C, i, j, k) as differences from a level, in units of a spread.

    `levels` are level and spread of each channel; one without spread says nothing, and becomes 0.
    """
    made = [
        (channel - level) / (spread if spread > 0 else np.inf)
        for channel, (level, spread) in zip(image, levels, strict=True)
    ]
    return np.stack(made).astype(np.float32)


def shell_mask(
    lesion: NDArray[np.bool_], tissue: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> NDArray[np.bool_]:
    """Voxels of `tissue` 1.5 to 4 mm outside `lesion` (wider on coarser voxels), all (i, j, k) bool."""
    scale = voxel_scale(spacing_mm)
    # Distances of whole voxels, in float32, meet limits that are multiples of them.
    low, high = SHELL_MM[0] * scale * (1 - _ROUNDING), SHELL_MM[1] * scale * (1 + _ROUNDING)
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
    sigma = [_DETAIL_SIGMA_MM * voxel_scale(spacing_mm) / s for s in spacing_mm]
    own = bounding_box(lesion)
    assert own is not None
    # As far as the Gaussian reaches: what lies beyond cannot matter.
    box = grown(own, [int(4.0 * s + 0.5) + 1 for s in sigma], lesion.shape)
    lesion, rim, image = lesion[box], rim[box], image[(slice(None), *box)]
    inner = lesion & ~ndimage.binary_erosion(lesion, NEIGHBOURS_6)
    border = inner | (ndimage.binary_dilation(lesion, NEIGHBOURS_6) & ~lesion & rim)
    edge = np.sqrt(_squared_gradient(image, border, spacing_mm)).mean(axis=1)
    smooth = ndimage.gaussian_filter(image, [0.0, *sigma], mode="nearest")
    return Measures(
        image[:, lesion].mean(axis=1, dtype=np.float64),
        edge,
        (image[:, lesion] - smooth[:, lesion]).std(axis=1, dtype=np.float64),
    )


def _squared_gradient(
    image: NDArray[np.float32], where: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> NDArray[np.float64]:
    """Squared gradient magnitude per mm, (C, N), at the true voxels; one-sided at the faces of the crop."""
    at = np.nonzero(where)
    squared = np.zeros((len(image), at[0].size))
    for axis, step_mm in enumerate(spacing_mm):
        low: list[Any] = [slice(None), *at]
        high = low.copy()
        low[axis + 1] = np.maximum(at[axis] - 1, 0)
        high[axis + 1] = np.minimum(at[axis] + 1, where.shape[axis] - 1)
        steps = np.maximum(high[axis + 1] - low[axis + 1], 1)
        difference = image[tuple(high)].astype(np.float64) - image[tuple(low)]
        squared += (difference / (steps * step_mm)) ** 2
    return squared
