"""Soft masks, and the composite that they weigh."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lesionsynth.backend import modules_of
from lesionsynth.kernels.distance import nearby_distance_mm

GAUSSIAN_REACH = 3.0
"""Standard deviations after which a Gaussian edge ends: it has come down to 0.1 % there."""


def composite(
    host: NDArray[np.float32], lesion: NDArray[np.float32], alpha: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Weigh the lesion image, (C, i, j, k), by `alpha`, (i, j, k), and the host by the rest.

    Exactly the host where alpha is 0 and the lesion where it is 1, and never beyond the two.
    """
    xp, _ = modules_of(host, lesion, alpha)
    step = lesion - host
    mixed: NDArray[np.float32] = xp.where(alpha < 0.5, host + alpha * step, lesion - (1 - alpha) * step)
    return mixed


def outside_mm(mask: NDArray[np.bool_], spacing_mm: Sequence[float], reach_mm: float) -> NDArray[np.float32]:
    """Distance of every voxel from the edge of `mask`, in mm; negative half a voxel on `mask` itself.

    Exact up to `reach_mm`, exact or infinite beyond. The edge lies half the smallest voxel edge outside the
    centres of the mask's voxels.
    """
    half_mm = 0.5 * min(spacing_mm)
    return nearby_distance_mm(mask, spacing_mm, reach_mm + half_mm) - half_mm


def grown_edge(label: NDArray[np.bool_], spacing_mm: Sequence[float], width_mm: float) -> NDArray[np.float32]:
    """1 on the label, falling linearly to 0 at `width_mm` outside its edge.

    Parameters
    ----------
    label : ndarray, (i, j, k), bool
        Beyond the array there is no label.
    spacing_mm : sequence of 3 float
    width_mm : float

    Returns
    -------
    ndarray, (i, j, k), float32
    """
    xp, _ = modules_of(label)
    reach_mm = width_mm + 0.5 * min(spacing_mm)
    fading: NDArray[np.float32] = xp.clip(1.0 - outside_mm(label, spacing_mm, reach_mm) / width_mm, 0.0, 1.0)
    return fading


def centred_edge(
    label: NDArray[np.bool_], spacing_mm: Sequence[float], width_mm: float
) -> NDArray[np.float32]:
    """Linear ramp over `width_mm`, one half on the label's edge; above one half on all of the label.

    Parameters and result as for :func:`grown_edge`.
    """
    xp, _ = modules_of(label)
    reach_mm = 0.5 * (width_mm + min(spacing_mm))
    outer = outside_mm(label, spacing_mm, reach_mm)
    inner = outside_mm(xp.pad(~label, 1, constant_values=True), spacing_mm, reach_mm)[1:-1, 1:-1, 1:-1]
    signed = xp.where(label, -inner, outer)
    ramp: NDArray[np.float32] = xp.clip(0.5 - signed / width_mm, 0.0, 1.0).astype(np.float32)
    return ramp


def gaussian_edge(
    label: NDArray[np.bool_], spacing_mm: Sequence[float], sigma_mm: float
) -> NDArray[np.float32]:
    """The label under a Gaussian that ends three standard deviations outside the label's edge.

    Raised to one half on label voxels, which thin parts of a label would not reach.
    Parameters and result as for :func:`grown_edge`.
    """
    xp, ndimage = modules_of(label)
    blurred = ndimage.gaussian_filter(
        label.astype(np.float32),
        [sigma_mm / s for s in spacing_mm],
        mode="constant",
        truncate=GAUSSIAN_REACH,
    )
    within = outside_mm(label, spacing_mm, GAUSSIAN_REACH * sigma_mm) <= GAUSSIAN_REACH * sigma_mm
    alpha = xp.clip(xp.where(within, blurred, 0.0), xp.where(label, 0.5, 0.0), 1.0)
    soft: NDArray[np.float32] = alpha.astype(np.float32)
    return soft
