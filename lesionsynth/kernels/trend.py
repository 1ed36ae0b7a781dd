"""Smooth filling of a region by the trend of its surroundings.

Made for the clone of texture (see :mod:`lesionsynth.kernels.texture`), where a fill that carries
the noise of its sources into the region doubles that noise and gives the place away.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import bounding_box, grown

# Sources this far from the region are used, in smallest voxel edges. Face neighbours always are.
_REACH = 3.0
# Length over which the trend forgets, in smallest voxel edges. Deep in a large region it goes back to
# the mean of the surroundings instead of carrying their slopes on.
_RANGE = 15.0
# Variance of the texture over the slope of the trend's variogram, in smallest voxel edges: 3 to 6
# on the FLAIR, T1 and T2 images it was measured on. Half and double of it make no difference.
_NUGGET = 4.0
# Beyond the face neighbours, sources are averaged in cells of this many smallest voxel edges.
_CELL = 2.0
# The cells grow until there are no more of them than this, or than the region's volume to the power
# of 2/3, which grows like its surface. Bounds of the number of equations.
_MAX_CELLS = (300, 1200)
# Voxels evaluated at a time, to bound the memory.
_CHUNK = 4096


def trend_fill(
    image: NDArray[np.float32],
    region: NDArray[np.bool_],
    source: NDArray[np.bool_],
    spacing_mm: Sequence[float],
) -> NDArray[np.float32]:
    """Fill `region` with the smooth trend of the sources around it, without their texture.

    Ordinary kriging with an exponential variogram and a nugget: the sources are taken as trend plus
    noise, and only the trend is carried on, within the range of the averaged sources of each
    channel. All channels share one system of equations. Sources beyond the face neighbours of
    the region are averaged in cells, and the number of cells is bounded (300 to 1200, by the size
    of the region), so the trend gets coarse around very large regions.

    Parameters
    ----------
    image : ndarray of float32, shape (C, i, j, k)
        Channels on one grid. Pass a crop: the whole array is copied.
    region : ndarray of bool, shape (i, j, k)
        Voxels to fill. What `image` holds there is not read.
    source : ndarray of bool, shape (i, j, k)
        Voxels whose values may be used; disjoint from `region`.
    spacing_mm : sequence of 3 float
        Voxel edges in mm.

    Returns
    -------
    ndarray, shape and dtype of `image`
        A new array, bit-equal to `image` outside `region`; a plain copy if `region` is empty.

    Raises
    ------
    ValueError
        If `region` and `source` overlap near the region, if no source lies around the region, or
        if one that does is not finite.

    References
    ----------
    Matheron G, The intrinsic random functions and their applications, Advances in Applied
    Probability 5(3), 1973, doi:10.1017/S0001867800039379.
    """
    tight = bounding_box(region)
    if tight is None:
        return image.copy()
    edge = np.asarray(spacing_mm, dtype=np.float64)
    edge = edge / edge.min()
    box = grown(tight, [max(1, int(_REACH / e)) for e in edge], region.shape)
    inside, around = region[box], source[box]
    if (inside & around).any():
        raise ValueError(f"{int((inside & around).sum())} voxels are both to be filled and a source")
    face = ndimage.binary_dilation(inside) & around
    near = (ndimage.distance_transform_edt(~inside, sampling=edge) <= _REACH + 1e-9) & around & ~face
    if not (face.any() or near.any()):
        raise ValueError(f"no source lies around the {int(inside.sum())} voxels to fill")

    crop = image[(slice(None), *box)]
    most = float(np.clip(np.count_nonzero(inside) ** (2 / 3), *_MAX_CELLS))
    place, level, count = _cells(crop, face, near, edge, most)
    if not np.isfinite(level).all():
        raise ValueError("some sources near the region are not finite")
    n = count.size
    # The last row and column make the weights of every voxel sum to one.
    matrix = np.ones((n + 1, n + 1))
    matrix[:n, :n] = _covariance(place, place)
    matrix[np.arange(n), np.arange(n)] += _NUGGET / count
    matrix[n, n] = 0.0
    weights = np.linalg.solve(matrix, np.vstack([level, np.zeros((1, level.shape[1]))]))

    filled = image.copy()
    at = np.argwhere(inside) * edge
    values = np.empty((image.shape[0], at.shape[0]), dtype=image.dtype)
    for start in range(0, at.shape[0], _CHUNK):
        part = slice(start, start + _CHUNK)
        values[:, part] = (weights[n] + _covariance(at[part], place) @ weights[:n]).T
    np.clip(values, level.min(axis=0)[:, None], level.max(axis=0)[:, None], out=values)
    filled[(slice(None), *box)][:, inside] = values
    return filled


def _cells(
    crop: NDArray[np.float32],
    face: NDArray[np.bool_],
    near: NDArray[np.bool_],
    edge: NDArray[np.float64],
    most: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Places (n, 3), mean values (n, C) and voxel counts (n,) of the cells of the sources."""
    growth = 1.0
    while True:
        parts = [_averaged(crop, face, edge, growth), _averaged(crop, near, edge, _CELL * growth)]
        place, level, count = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        if count.size <= most:
            return place, level, count
        growth *= 1.25


def _averaged(
    crop: NDArray[np.float32], mask: NDArray[np.bool_], edge: NDArray[np.float64], cell: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean place and mean values of the true voxels in each cell of a lattice."""
    at = np.argwhere(mask) * edge
    key = np.floor(at / cell + 1e-9).astype(np.int64)
    size = key.max(axis=0, initial=0) + 1
    _, member = np.unique((key[:, 0] * size[1] + key[:, 1]) * size[2] + key[:, 2], return_inverse=True)
    count = np.bincount(member).astype(np.float64)
    columns = np.vstack([at.T, crop[:, mask]])
    mean = np.array([np.bincount(member, column) for column in columns]).T / count[:, None]
    return mean[:, :3], mean[:, 3:], count


def _covariance(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance (n, m) of the trend at two sets of points, for a variogram of slope one at zero."""
    square = np.zeros((a.shape[0], b.shape[0]))
    for axis in range(3):
        square += np.subtract.outer(a[:, axis], b[:, axis]) ** 2
    return _RANGE * np.exp(np.sqrt(square) / -_RANGE)
