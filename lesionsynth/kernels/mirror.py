"""Tissue of the other side of a brain, carried over to a place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import Box, grown, origin_of, shape_of

# Voxels around what is sampled, in which a cubic spline forgets its border.
_MARGIN_VOX = 8


def mirrored(
    image: NDArray[np.float32], clean: NDArray[np.bool_], matrix: NDArray[np.float64], box: Box
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Sample the contralateral place of a box, by cubic splines.

    Parameters
    ----------
    image : ndarray of float32, shape (C, i, j, k)
        The whole volume.
    clean : ndarray of bool, shape (i, j, k)
        Voxels that may be used.
    matrix : ndarray of float64, shape (4, 4)
        From voxels to the voxels of the contralateral place.
    box : tuple of 3 slice
        Where the place lies.

    Returns
    -------
    values : ndarray of float32, shape (C, shape of `box`)
        Zero where they are not to be used.
    usable : ndarray of bool, shape of `box`
        Where all voxels around the contralateral place (up to eight) are clean.
    """
    shape = shape_of(box)
    index = np.indices(shape).reshape(3, -1) + np.array(origin_of(box))[:, None]
    there = matrix[:3, :3] @ index + matrix[:3, 3:]
    low = np.floor(there.min(axis=1)).astype(int)
    high = np.ceil(there.max(axis=1)).astype(int) + 1
    touched = [
        slice(min(max(a, 0), n), max(min(b, n), 0)) for a, b, n in zip(low, high, clean.shape, strict=True)
    ]
    if any(s.stop <= s.start for s in touched):
        return np.zeros((image.shape[0], *shape), dtype=np.float32), np.zeros(shape, dtype=bool)
    near = grown((touched[0], touched[1], touched[2]), (_MARGIN_VOX,) * 3, clean.shape)
    local = there - np.array(origin_of(near))[:, None]
    # Linear weights of the surrounding voxels sum to one only where all of them are clean.
    share = ndimage.map_coordinates(clean[near].astype(np.float32), local, order=1, mode="constant")
    usable = (share > 1 - 1e-4).reshape(shape)
    values = np.zeros((image.shape[0], *shape), dtype=np.float32)
    at = local[:, usable.ravel()]
    for channel, whole in zip(values, image, strict=True):
        channel[usable] = ndimage.map_coordinates(whole[near], at, order=3, mode="nearest")
    return values, usable
