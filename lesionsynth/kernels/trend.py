"""Smooth filling of a region by the trend of its surroundings.

Made for the clone of texture (see :mod:`lesionsynth.kernels.texture`), where a fill that carries
the noise of its sources into the region doubles that noise and gives the place away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth.backend import modules_of
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
        Channels on one grid, NumPy or CuPy. Pass a crop: the whole array is copied.
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
    filled = image.copy()
    tight = bounding_box(region)
    if tight is None:
        return filled
    edge = [float(e) / min(spacing_mm) for e in spacing_mm]
    box = grown(tight, [max(1, int(_REACH / e)) for e in edge], region.shape)
    inside, around, crop = region[box], source[box], image[(slice(None), *box)]
    face, near = _sources(inside, around, edge)
    most = min(max(float(inside.sum()) ** (2 / 3), _MAX_CELLS[0]), _MAX_CELLS[1])
    place, level, count = _cells(crop, face, near, edge, most)
    xp, _ = modules_of(level)
    if not xp.isfinite(level).all():
        raise ValueError("some sources near the region are not finite")
    weights = _weights(place, level, count)

    at = _places(inside, edge)
    low, high = level.min(axis=0), level.max(axis=0)
    parts = []
    for start in range(0, at.shape[0], _CHUNK):
        value = weights[-1] + _covariance(at[start : start + _CHUNK], place) @ weights[:-1]
        parts.append(xp.minimum(xp.maximum(value, low), high))
    filled[(slice(None), *box)][:, inside] = xp.concatenate(parts).T
    return filled


def _sources(inside: Any, around: Any, edge: Sequence[float]) -> tuple[Any, Any]:
    """Sources that touch the region by a face, and the others within reach."""
    _, ndimage = modules_of(inside, around)
    if (inside & around).any():
        raise ValueError(f"{int((inside & around).sum())} voxels are both to be filled and a source")
    face = ndimage.binary_dilation(inside) & around
    near = ndimage.distance_transform_edt(~inside, sampling=edge) <= _REACH + 1e-9
    near = near & around & ~face
    if not (face.any() or near.any()):
        raise ValueError(f"no source lies around the {int(inside.sum())} voxels to fill")
    return face, near


def _cells(crop: Any, face: Any, near: Any, edge: Sequence[float], most: float) -> tuple[Any, Any, Any]:
    """Places (n, 3), mean values (n, C) and voxel counts (n,) of the cells of the sources."""
    xp, _ = modules_of(crop, face, near)
    growth = 1.0
    while True:
        parts = [_averaged(crop, face, edge, growth), _averaged(crop, near, edge, _CELL * growth)]
        place, level, count = (xp.concatenate(arrays) for arrays in zip(*parts, strict=True))
        if count.size <= most:
            return place, level, count
        growth *= 1.25


def _averaged(crop: Any, mask: Any, edge: Sequence[float], cell: float) -> tuple[Any, Any, Any]:
    """Mean place and mean values of the true voxels in each cell of a lattice."""
    xp, _ = modules_of(crop, mask)
    at = _places(mask, edge)
    key = xp.floor(at / cell + 1e-9).astype(xp.int64)
    width = [int(n * e / cell) + 1 for n, e in zip(mask.shape, edge, strict=True)]
    flat = (key[:, 0] * width[1] + key[:, 1]) * width[2] + key[:, 2]
    columns = xp.concatenate([at, crop[:, mask].T], axis=1)
    if flat.size == 0:
        return columns[:, :3], columns[:, 3:], columns[:, 0]
    _, member = xp.unique(flat, return_inverse=True)
    member = member.ravel()
    count = xp.bincount(member)
    # Voxels in the rows of their cells, to be added up in their own order: a GPU's weighted bincount adds in
    # whatever order, and the same fill would not come out twice.
    order = xp.argsort(member, kind="stable")
    member = member[order]
    place = xp.arange(flat.size) - (xp.cumsum(count) - count)[member]
    rows = xp.zeros((count.size, int(count.max()), columns.shape[1]))
    rows[member, place] = columns[order]
    count = count.astype(xp.float64)
    mean = rows.sum(axis=1) / count[:, None]
    return mean[:, :3], mean[:, 3:], count


def _places(mask: Any, edge: Sequence[float]) -> Any:
    """Places (n, 3) of the true voxels, in smallest voxel edges."""
    xp, _ = modules_of(mask)
    return xp.stack([index * e for index, e in zip(xp.nonzero(mask), edge, strict=True)], axis=1)


def _weights(place: Any, level: Any, count: Any) -> Any:
    """Weights (n + 1, C) of the cells in the trend, and its mean as the last row."""
    xp, _ = modules_of(place, level, count)
    n = count.size
    # The last row and column make the weights of every voxel sum to one.
    matrix = xp.ones((n + 1, n + 1))
    matrix[:n, :n] = _covariance(place, place)
    matrix[xp.arange(n), xp.arange(n)] += _NUGGET / count
    matrix[n, n] = 0.0
    return xp.linalg.solve(matrix, xp.concatenate([level, xp.zeros((1, level.shape[1]))]))


def _covariance(a: Any, b: Any) -> Any:
    """Covariance (n, m) of the trend at two sets of points, for a variogram of slope one at zero."""
    xp, _ = modules_of(a, b)
    square = xp.zeros((a.shape[0], b.shape[0]))
    for axis in range(3):
        square += (a[:, axis, None] - b[None, :, axis]) ** 2
    return _RANGE * xp.exp(xp.sqrt(square) / -_RANGE)
