"""Smooth filling of a region by the harmonic or the biharmonic function through its surroundings.

Both are solved to a relative residual of 1e-6 by conjugate gradients. A looser tolerance does not show
in the residual but in the middle of a large region, which is then wrong by whole units of intensity. On the
CPU multigrid cycles guide them, and the residual is measured by the cycles, which see the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lesionsynth.backend import modules_of, on_cpu
from lesionsynth.domain.grid import bounding_box, grown
from lesionsynth.kernels.inpaint import require_reach
from lesionsynth.kernels.multigrid import cycle, grids_of, solve

_TOLERANCE = 1e-6
# Bound of the iterations, in numbers of unknowns. Unguided, a region takes about five times its width
# (harmonic) or half the square of it (biharmonic), in voxels, far less; guided, a dozen or its width.
_MOST_ROUNDS = 20
# Iterations between two looks at the residual on a device, where a look waits for all kernels.
_LOOK_EVERY = 16
# Smallest divisor.
_TINY = 1e-300


def harmonic_fill(
    image: NDArray[np.float32],
    region: NDArray[np.bool_],
    source: NDArray[np.bool_],
    spacing_mm: Sequence[float],
) -> NDArray[np.float32]:
    """Fill `region` with the solution of Laplace's equation between the sources that touch it.

    The soap film: continuous at the sources, with a crease there, and flat far from them. Every filled
    value is the mean of its face neighbours, weighted by the inverse square of the voxel edge, so none
    leaves the range of the sources that touch the region.

    Parameters
    ----------
    image : ndarray of float32, shape (C, i, j, k)
        Channels on one grid, NumPy or CuPy. Pass a crop: the whole array is copied.
    region : ndarray of bool, shape (i, j, k)
        Voxels to fill. What `image` holds there is not read.
    source : ndarray of bool, shape (i, j, k)
        Voxels whose values may be used; disjoint from `region`. Voxels in neither are barriers: nothing
        flows through them (the natural boundary), as through the border of the volume.
    spacing_mm : sequence of 3 float
        Voxel edges in mm.

    Returns
    -------
    ndarray, shape and dtype of `image`
        A new array, bit-equal to `image` outside `region`; a plain copy if `region` is empty.

    Raises
    ------
    ValueError
        If `region` and `source` overlap near the region, if a source that is used is not finite, or if
        some voxel of the region cannot be reached from a source (see
        :func:`~lesionsynth.kernels.inpaint.reachable`).

    References
    ----------
    Perez P, Gangnet M, Blake A, Poisson image editing, ACM Transactions on Graphics 22(3), 2003,
    doi:10.1145/882262.882269 (the membrane interpolant). Hestenes MR, Stiefel E, Methods of conjugate
    gradients for solving linear systems, Journal of Research of the NBS 49(6), 1952,
    doi:10.6028/jres.049.044.
    """
    return _fill(image, region, source, spacing_mm, 1)


def biharmonic_fill(
    image: NDArray[np.float32],
    region: NDArray[np.bool_],
    source: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    most_vox: int | None = None,
) -> NDArray[np.float32]:
    """Fill `region` with the smoothest continuation of its surroundings, slopes included.

    The bent plate: minimises the sum of the squared Laplacian over the region and the sources that touch
    it, with the values of the sources within two voxels of the region given. At barriers and at the border
    of the volume the Laplacian takes in only the neighbours that are there (the natural boundary), which
    leaves the minimum unique wherever a source is reached. The values are kept within the range of the
    sources used, in each channel.

    Parameters
    ----------
    image, region, source, spacing_mm
        As in :func:`harmonic_fill`.
    most_vox : int, optional
        Components of the region (face neighbours) with more voxels are filled harmonically: the time of
        this solve grows faster than the volume (on a GPU with its power 5/3).

    Returns
    -------
    ndarray, shape and dtype of `image`
        As in :func:`harmonic_fill`.

    Raises
    ------
    ValueError
        As in :func:`harmonic_fill`.

    References
    ----------
    Damelin SB, Hoang NS, On surface completion and image inpainting by biharmonic functions: numerical
    aspects, International Journal of Mathematics and Mathematical Sciences 2018,
    doi:10.1155/2018/3950312.
    """
    if most_vox is not None and int(region.sum()) > most_vox:
        xp, ndimage = modules_of(image, region, source)
        labels, _ = ndimage.label(region)
        large = (xp.bincount(labels.ravel()) > most_vox)[labels] & region
        image, region = _fill(image, large, source, spacing_mm, 1), region & ~large
    return _fill(image, region, source, spacing_mm, 2)


def _fill(
    image: NDArray[np.float32],
    region: NDArray[np.bool_],
    source: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    order: Literal[1, 2],
) -> NDArray[np.float32]:
    """Solve on the box around the region and write the result into a copy of the image."""
    filled = image.copy()
    tight = bounding_box(region)
    if tight is None:
        return filled
    box = grown(tight, (2, 2, 2), region.shape)
    inside, around = region[box], source[box]
    require_reach(inside, around)
    xp, ndimage = modules_of(image, region, source)
    rim = ndimage.binary_dilation(inside) & around
    known = rim if order == 1 else rim | (ndimage.binary_dilation(rim) & around)
    crop = image[(slice(None), *box)]
    bad = int((~xp.isfinite(crop[:, known])).sum())
    if bad:
        raise ValueError(f"{bad} values of the sources near the region are not finite")
    weight = [(min(spacing_mm) / float(edge)) ** 2 for edge in spacing_mm]
    solve = _solved_by_list if on_cpu(image) else _solved_on_box
    filled[(slice(None), *box)][:, inside] = solve(crop, inside, rim, known, weight, order)
    return filled


def _solved_by_list(
    crop: NDArray[np.float32],
    inside: NDArray[np.bool_],
    rim: NDArray[np.bool_],
    known: NDArray[np.bool_],
    weight: Sequence[float],
    order: int,
) -> NDArray[np.float32]:
    """Values (C, n) of the region's voxels, from a list of the neighbours of each voxel.

    The list beats both a sparse matrix and sweeps over the box, which lesions are far from filling. The
    biharmonic system needs double precision, but not in what guides the solver.
    """
    # Voxels of the region come first, then the rim, then what else is known; the last place is no voxel.
    voxels = [np.flatnonzero(np.pad(mask, 1)) for mask in (inside, rim, known & ~rim)]
    n, n_rim = voxels[0].size, voxels[1].size
    places = np.concatenate(voxels)
    shape = [size + 2 for size in inside.shape]
    number = np.full(int(np.prod(shape)), places.size, dtype=np.int32)
    number[places] = np.arange(places.size, dtype=np.int32)
    rows = places[: n if order == 1 else n + n_rim]
    strides = (shape[1] * shape[2], shape[2], 1)
    neighbour = np.stack([number[rows + sign * s] for s in strides for sign in (-1, 1)], axis=1)
    weights = np.asarray(weight, dtype=np.float64)
    degree = (neighbour < places.size) @ np.repeat(weights, 2)

    values = np.pad(crop, [(0, 0), (1, 1), (1, 1), (1, 1)]).reshape(crop.shape[0], -1)[:, places[n:]]
    solved = np.empty((crop.shape[0], n), dtype=np.float32)
    grids = grids_of(inside, rim, weight)
    # Where the voxels, as the grids list them, are in the list here.
    order_of = np.searchsorted(np.flatnonzero(inside), grids.places)
    for channel, given in enumerate(values.astype(np.float64)):
        level = given.mean()
        # Near 1, which single precision holds whatever the unit.
        scale = np.abs(given - level).max() or 1.0
        x = np.zeros(places.size + 1)
        x[n:-1] = (given - level) / scale
        residual, work = np.empty(n), np.zeros(x.size)
        _operator(residual, work, x, neighbour, degree, weights, n, order)
        if order == 1:
            x[order_of] = solve(grids, -residual[order_of], _TOLERANCE)
        else:
            _bend(x, -residual, neighbour, degree, weights, order_of, *grids[2:4], *grids[5:], _TOLERANCE)
        solved[channel] = np.clip(scale * x[:n] + level, given.min(), given.max())
    return solved


@njit(cache=True, nogil=True)
def _laplacian(out, x, neighbour, degree, weight, rows):  # type: ignore[no-untyped-def]
    """Write minus the Laplacian of `x` at the first `rows` voxels to `out`."""
    for p in range(rows):
        out[p] = degree[p] * x[p] - (
            weight[0] * (x[neighbour[p, 0]] + x[neighbour[p, 1]])
            + weight[1] * (x[neighbour[p, 2]] + x[neighbour[p, 3]])
            + weight[2] * (x[neighbour[p, 4]] + x[neighbour[p, 5]])
        )


@njit(cache=True, nogil=True)
def _operator(out, work, x, neighbour, degree, weight, n, order):  # type: ignore[no-untyped-def]
    """Write the operator of the given order, applied to `x`, to `out`; `work` holds the Laplacian."""
    if order == 1:
        _laplacian(out, x, neighbour, degree, weight, n)
    else:
        _laplacian(work, x, neighbour, degree, weight, degree.size)
        _laplacian(out, work, neighbour, degree, weight, n)


@njit(cache=True, nogil=True)
def _bend(x, residual, neighbour, degree, weight, order_of, near, pull, inverse, parent, ends, tolerance):  # type: ignore[no-untyped-def]
    """Solve the biharmonic system for the region's entries of `x` in place; the others are given.

    Conjugate gradients, guided by two multigrid cycles one after the other: but for the rim, the operator is
    the Laplacian twice.
    """
    n = residual.size
    work, step, image = np.zeros(x.size), np.zeros(x.size), np.empty(n)
    guess, right = np.zeros(inverse.size + 1, np.float32), np.zeros(inverse.size, np.float32)
    square, enough = 0.0, 0.0
    # In exact arithmetic n steps are enough.
    for number in range(_MOST_ROUNDS * n):
        for m in range(n):
            right[m] = residual[order_of[m]]
        cycle(guess, right, near, pull, inverse, parent, ends)
        right[:n] = guess[:n]
        cycle(guess, right, near, pull, inverse, parent, ends)
        before, square = square, 0.0
        for m in range(n):
            square += residual[order_of[m]] * guess[m]
        if number == 0:
            enough = square * tolerance * tolerance
        if square <= enough:
            break
        share = square / before if number > 0 else 0.0
        for m in range(n):
            step[order_of[m]] = guess[m] + share * step[order_of[m]]
        _operator(image, work, step, neighbour, degree, weight, n, 2)
        curvature = 0.0
        for p in range(n):
            curvature += step[p] * image[p]
        length = square / curvature
        for p in range(n):
            x[p] += length * step[p]
            residual[p] -= length * image[p]


def _solved_on_box(crop: Any, inside: Any, rim: Any, known: Any, weight: Sequence[float], order: int) -> Any:
    """The same without a list, by shifts of the whole box: for a GPU, and as reference."""
    xp, _ = modules_of(crop, inside, rim, known)
    given = crop[:, known].astype(xp.float64)
    usable = inside | known
    degree = _summed(usable.astype(xp.float64)[None], weight)[0]
    region, rows = inside.astype(xp.float64), (inside | rim).astype(xp.float64)

    def operator(x: Any) -> Any:
        out = degree * x - _summed(x, weight)
        if order == 2:
            out = rows * out
            out = degree * out - _summed(out, weight)
        return region * out

    level = given.mean(axis=1)[:, None, None, None]
    x = xp.where(known, crop.astype(xp.float64) - level, 0.0)
    residual = -operator(x)
    step = residual
    square = (residual * residual).sum(axis=(1, 2, 3), keepdims=True)
    enough = square * _TOLERANCE**2
    for done in range(_MOST_ROUNDS * int(inside.sum())):
        if done % _LOOK_EVERY == 0 and not bool((square > enough).any()):
            break
        image = operator(step)
        curvature = (step * image).sum(axis=(1, 2, 3), keepdims=True)
        # A channel that is done stands still.
        length = xp.where(square > enough, square / xp.maximum(curvature, _TINY), 0.0)
        x = x + length * step
        residual = residual - length * image
        before, square = square, (residual * residual).sum(axis=(1, 2, 3), keepdims=True)
        step = residual + square / xp.maximum(before, _TINY) * step
    solved = (x + level)[:, inside]
    low, high = given.min(axis=1)[:, None], given.max(axis=1)[:, None]
    return xp.minimum(xp.maximum(solved, low), high).astype(crop.dtype)


def _summed(x: Any, weight: Sequence[float]) -> Any:
    """Weighted sum over the face neighbours within the box of `x` (C, i, j, k)."""
    xp, _ = modules_of(x)
    total = xp.zeros_like(x)
    for axis, w in enumerate(weight, start=1):
        low = (slice(None),) * axis + (slice(None, -1),)
        high = (slice(None),) * axis + (slice(1, None),)
        total[low] += w * x[high]
        total[high] += w * x[low]
    return total
