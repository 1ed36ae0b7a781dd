"""Where the two sides of a brain correspond: its affine registration to its own mirror image."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.domain.grid import Grid
from lesionsynth.errors import InputError
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.tissue import OUTSIDE
from lesionsynth.likelihood.affine import register

# Voxels are left out until they are as coarse as this: a head is registered as well, in a second.
_COARSE_MM = 3.0
# Mirrored twice, a place must come back to within this: else the registration has found no symmetry.
_TOLERANCE_MM = 6.0

# One a host, for as long as it is in memory.
_FOUND: WeakKeyDictionary[LoadedCase, NDArray[np.float64] | None] = WeakKeyDictionary()


def mirror_matrix(host: LoadedCase) -> NDArray[np.float64] | None:
    """Matrix from the voxels of a brain to the voxels of the contralateral places.

    Parameters
    ----------
    host : LoadedCase
        Registered once, by its first channel.

    Returns
    -------
    ndarray, (4, 4), float64, or None
        None where the tissue has no classes, so that it is no brain as far as is known; where there is
        little to register; or where the registration does not lead back to the same place.
    """
    if not host.has_tissue_classes:
        return None
    if host not in _FOUND:
        _FOUND[host] = _register(host)
    return _FOUND[host]


def _register(host: LoadedCase) -> NDArray[np.float64] | None:
    grid = host.grid
    axis = grid.axis_towards(0)
    step = [max(1, int(_COARSE_MM / edge)) for edge in grid.spacing_mm]
    coarse_vox = np.diag([*step, 1]).astype(np.float64)
    brain = host.tissue != OUTSIDE
    every = tuple(slice(None, None, s) for s in step)
    values = np.where(brain, host.images[0].values(), 0)[every].astype(np.float32)
    if min(values.shape) < 8:
        return None
    coarse = Grid((values.shape[0], values.shape[1], values.shape[2]), grid.affine @ coarse_vox)
    try:
        world = register(nifti.new(coarse, np.flip(values, axis).copy()), nifti.new(coarse, values))
    except InputError:
        return None
    flip = np.eye(4)
    flip[axis, axis], flip[axis, 3] = -1.0, values.shape[axis] - 1
    there = coarse_vox @ flip @ np.linalg.inv(coarse.affine) @ world @ grid.affine
    index = np.argwhere(brain[every]) * step
    if not len(index):
        return None
    points = np.column_stack([index, np.ones(len(index))])
    off_mm = ((points @ (there @ there - np.eye(4)).T) @ grid.affine.T)[:, :3]
    if np.linalg.norm(off_mm, axis=1).max() > _TOLERANCE_MM or np.linalg.det(there[:3, :3]) > 0:
        return None
    return np.asarray(there)
