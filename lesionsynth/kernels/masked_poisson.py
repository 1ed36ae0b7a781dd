"""Joining two images by their gradients on a mask, the host being the boundary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lesionsynth.backend import modules_of, on_cpu
from lesionsynth.domain.grid import bounding_box, grown
from lesionsynth.kernels.multigrid import grids_of, solve
from lesionsynth.kernels.poisson import face_weights, sides

_TOLERANCE = 1e-7
# Steps of conjugate gradients between two looks at the residual: on a GPU each look is a wait.
_STEPS_PER_LOOK = 16


def hard_poisson(
    host: NDArray[np.float32],
    lesion: NDArray[np.float32],
    region: NDArray[np.bool_],
    usable: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    mixed: bool = False,
) -> NDArray[np.float32]:
    """Clone the lesion image into `region` by its gradients, with the host's values around it.

    In the region, the sum over the faces of a voxel of ``f_p - f_q - v_pq`` is 0, where v is the difference
    of the lesion image across the face, and f outside the region is the host. Faces to voxels that are
    neither region nor `usable`, and those at the border of the volume, do not count: nothing is matched
    there.

    Parameters
    ----------
    host, lesion : ndarray, (C, i, j, k), float32
        The lesion image is read in the region and at the usable voxels next to it.
    region : ndarray, (i, j, k), bool
    usable : ndarray, (i, j, k), bool
        Voxels outside the region that it is to be matched with.
    spacing_mm : sequence of 3 float
    mixed : bool
        On each face, let v be the larger difference of both images', in each channel.

    Returns
    -------
    ndarray, as `host`
        Bit-equal to the host outside the region. A part of the region that touches no usable voxel has
        nothing to be matched with, and keeps the mean of the lesion image (by faces, see above); with its
        own gradients that is the lesion image.

    References
    ----------
    Perez P, Gangnet M, Blake A, Poisson image editing, ACM Transactions on Graphics 22(3), 2003,
    doi:10.1145/882262.882269. Solved by conjugate gradients to a relative residual of 1e-7, on the CPU with
    coarser grids (:mod:`lesionsynth.kernels.multigrid`).
    """
    xp, _ = modules_of(host, lesion, region, usable)
    tight = bounding_box(region)
    if tight is None:
        return host.copy()
    box = grown(tight, (1, 1, 1), region.shape)
    inner = (slice(None), *box)
    inside = region[box]
    solver = _change_compiled if on_cpu(host) else _change
    change = solver(
        host[inner], lesion[inner], inside, usable[box] & ~inside, face_weights(spacing_mm), mixed
    )
    cloned = host.copy()
    cloned[inner] = xp.where(inside, (lesion[inner] + change).astype(host.dtype), host[inner])
    return cloned


def _change(
    host: NDArray[np.float32],
    lesion: NDArray[np.float32],
    inside: NDArray[np.bool_],
    around: NDArray[np.bool_],
    weights: tuple[float, float, float],
    mixed: bool,
) -> NDArray[np.float64]:
    """Change (C, i, j, k) of the lesion image in the region: with its own gradients it is harmonic.

    `inside` is the region, and `around` what it is matched with. All channels are solved at once by
    conjugate gradients. The matrix takes the weighted number of a voxel's faces times its value minus the
    weighted sum of its neighbours' in the region. Where it is singular the right side is in its range, and
    the result has mean 0, voxels counting by their faces.
    """
    xp, _ = modules_of(host, lesion, inside, around)
    patch = lesion.astype(np.float64)
    gap = host.astype(np.float64) - patch
    faces = xp.zeros(inside.shape)
    residual = xp.zeros_like(gap)
    for axis, weight in enumerate(weights):
        low, high = sides(axis)
        for here, there in ((low, high), (high, low)):
            outer = inside[here] & around[there]
            counts = outer | (inside[here] & inside[there])
            faces[here] += weight * counts
            residual[here] += weight * outer * gap[there]
            if mixed:
                step = gap[here] - gap[there]
                own = patch[here] - patch[there]
                stronger = counts & (xp.abs(own + step) > xp.abs(own))
                residual[here] += weight * stronger * step

    def applied(p: Any) -> Any:
        result = faces * p
        for axis, weight in enumerate(weights):
            low, high = sides(axis)
            result[low] -= weight * p[high]
            result[high] -= weight * p[low]
        return result

    def dot(a: Any, b: Any) -> Any:
        return (a * b).sum(axis=(1, 2, 3), keepdims=True)

    def ratio(a: Any, b: Any) -> Any:
        return xp.where(b > 0, a / xp.where(b > 0, b, 1.0), 0.0)

    # 0 outside the region and where nothing is matched: directions are 0 there, whatever the residual is.
    inverse = ratio(1.0, faces)
    change = xp.zeros_like(gap)
    direction = inverse * residual
    square = dot(residual, direction)
    goal = _TOLERANCE**2 * square
    for step in range(_most_steps(inside.shape)):
        if step % _STEPS_PER_LOOK == 0 and not (square > goal).any():
            break
        image = applied(direction)
        length = ratio(square, dot(direction, image))
        change += length * direction
        residual -= length * image
        scaled = inverse * residual
        before, square = square, dot(residual, scaled)
        direction = scaled + ratio(square, before) * direction
    return change


def _most_steps(shape: Sequence[int]) -> int:
    """Bound of the steps, far above the few diameters of the region that are needed."""
    return 1000 + 10 * sum(shape)


def _change_compiled(
    host: NDArray[np.float32],
    lesion: NDArray[np.float32],
    inside: NDArray[np.bool_],
    around: NDArray[np.bool_],
    weights: tuple[float, float, float],
    mixed: bool,
) -> NDArray[np.float64]:
    """As :func:`_change`, by a list of the region's voxels and its coarser grids."""
    grids = grids_of(inside, around, weights)
    # In C order, which the places count in.
    change = np.zeros(host.shape)
    for theirs, own, result in zip(host, lesion, change, strict=True):
        right = _right_side(theirs, own, inside, around, grids.places, grids.ties, weights, mixed)
        result.reshape(-1)[grids.places] = solve(grids, right, _TOLERANCE)
    return change


@njit(cache=True, nogil=True)
def _right_side(host, lesion, inside, around, places, ties, weights, mixed):  # type: ignore[no-untyped-def]
    """Right side of the equations at the voxels of the region."""
    right = np.zeros(places.size)
    ni, nj, nk = inside.shape
    for n, place in enumerate(places):
        if ties[n] == 0 and not mixed:
            continue
        i, j, k = place // (nj * nk), place // nk % nj, place % nk
        for f in range(6):
            a, step = f // 2, 2 * (f % 2) - 1
            u, v, w = i + step * (a == 0), j + step * (a == 1), k + step * (a == 2)
            if not (0 <= u < ni and 0 <= v < nj and 0 <= w < nk and (inside[u, v, w] or around[u, v, w])):
                continue
            own = float(lesion[i, j, k]) - float(lesion[u, v, w])
            theirs = float(host[i, j, k]) - float(host[u, v, w])
            if around[u, v, w]:
                right[n] += weights[a] * (float(host[u, v, w]) - float(lesion[u, v, w]))
            if mixed and abs(theirs) > abs(own):
                right[n] += weights[a] * (theirs - own)
    return right
