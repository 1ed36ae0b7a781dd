"""Joining two images by their gradients on a mask, the host being the boundary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lesionsynth.backend import modules_of, on_cpu
from lesionsynth.domain.grid import bounding_box, grown
from lesionsynth.kernels.poisson import face_weights, sides

_TOLERANCE = 1e-7
# The compiled form works in single precision, twice as fast, and once more on what is then left in double
# precision: alone, single precision is not enough for regions that are weakly tied to their boundary.
_ROUNDS = 2
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
    doi:10.1145/882262.882269. Solved by conjugate gradients to a relative residual of 1e-7.
    """
    xp, _ = modules_of(host, lesion, region, usable)
    tight = bounding_box(region)
    if tight is None:
        return host.copy()
    box = grown(tight, (1, 1, 1), region.shape)
    inner = (slice(None), *box)
    border = ((1, 1), (1, 1), (1, 1))
    inside = xp.pad(region[box], border)
    around = xp.pad(usable[box], border) & ~inside
    patch = xp.pad(lesion[inner].astype(np.float64), ((0, 0), *border))
    # The unknown is the change of the lesion image: with its own gradients it is harmonic.
    gap = xp.pad(host[inner].astype(np.float64), ((0, 0), *border)) - patch
    solve = _solve_compiled if on_cpu(host) else _solve
    change = solve(patch, gap, inside, around, face_weights(spacing_mm), mixed)
    cloned = host.copy()
    core = (slice(None), slice(1, -1), slice(1, -1), slice(1, -1))
    cloned[inner] = xp.where(region[box], (patch + change)[core].astype(host.dtype), host[inner])
    return cloned


def _solve(
    patch: NDArray[np.float64],
    gap: NDArray[np.float64],
    inside: NDArray[np.bool_],
    around: NDArray[np.bool_],
    weights: tuple[float, float, float],
    mixed: bool,
) -> NDArray[np.float64]:
    """Change (C, i, j, k) of the lesion image `patch` in the region.

    `gap` is the host minus the lesion image, `inside` the region and `around` what it is matched with; the
    arrays' first and last layers are in neither. All channels are solved at once by conjugate gradients.
    The matrix takes the weighted number of a voxel's faces times its value minus the weighted sum of its
    neighbours' in the region. Where it is singular the right side is in its range, and the result has
    mean 0, voxels counting by their faces.
    """
    xp, _ = modules_of(patch, gap, inside, around)
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


def _solve_compiled(
    patch: NDArray[np.float64],
    gap: NDArray[np.float64],
    inside: NDArray[np.bool_],
    around: NDArray[np.bool_],
    weights: tuple[float, float, float],
    mixed: bool,
) -> NDArray[np.float64]:
    """As :func:`_solve`, one channel after the other, each layer of the region as one stretch of voxels."""
    size = inside[0].size
    layers = inside.reshape(-1, size)
    filled = np.flatnonzero(layers.any(axis=1))
    first = layers.argmax(axis=1)
    last = size - layers[:, ::-1].argmax(axis=1)
    stretches = np.stack([filled * size + first[filled], filled * size + last[filled]], axis=1)
    # Strides to the neighbours along each axis.
    jumps = np.array([size, inside.shape[2], 1])
    state = (inside + 2 * around.astype(np.uint8)).ravel()
    edges = np.array(weights)
    # In C order, as `ravel` gives everything else, so that a channel is a view of one stretch.
    change = np.zeros(gap.shape)
    for channel, own, result in zip(gap, patch, change, strict=True):
        right, faces, inverse = _equations(
            own.ravel(), channel.ravel(), state, stretches, jumps, edges, mixed
        )
        found, left = result.reshape(-1), right
        coarse = [a.astype(np.float32) for a in (faces, inverse, edges)]
        for _ in range(_ROUNDS):
            tolerance = _TOLERANCE ** (1 / _ROUNDS)
            found += _descend(
                left.astype(np.float32), *coarse, stretches, jumps, tolerance, _most_steps(inside.shape)
            )
            left = _left(right, found, faces, inverse, stretches, jumps, edges)
    return change


@njit(cache=True, nogil=True)
def _equations(patch, gap, state, stretches, jumps, weights, mixed):  # type: ignore[no-untyped-def]
    """Right side, weighted number of faces and its inverse (0 for 0); `state` is 1 inside, 2 around."""
    residual, faces, inverse = np.zeros_like(gap), np.zeros_like(gap), np.zeros_like(gap)
    for low, high in stretches:
        for p in range(low, high):
            if state[p] != 1:
                continue
            for a in range(3):
                for q in (p - jumps[a], p + jumps[a]):
                    if state[q] == 0:
                        continue
                    faces[p] += weights[a]
                    if state[q] == 2:
                        residual[p] += weights[a] * gap[q]
                    if mixed:
                        own, step = patch[p] - patch[q], gap[p] - gap[q]
                        if abs(own + step) > abs(own):
                            residual[p] += weights[a] * step
            if faces[p] > 0:
                inverse[p] = 1 / faces[p]
    return residual, faces, inverse


@njit(cache=True, nogil=True)
def _left(right, found, faces, inverse, stretches, jumps, weights):  # type: ignore[no-untyped-def]
    """Right side minus the matrix times `found`, in the region."""
    left = np.zeros_like(right)
    for low, high in stretches:
        for p in range(low, high):
            if inverse[p] > 0:
                left[p] = right[p] - faces[p] * found[p]
                for a in range(3):
                    left[p] += weights[a] * (found[p - jumps[a]] + found[p + jumps[a]])
    return left


@njit(cache=True, nogil=True)
def _descend(residual, faces, inverse, weights, stretches, jumps, tolerance, most):  # type: ignore[no-untyped-def]
    """Conjugate gradients from 0 for one channel.

    Scaled by the diagonal, whose inverse is 0 between the region's voxels. Sums run over the layers, one for
    each place in a stretch, which the compiler can do several at a time without changing their order.
    """
    change = np.zeros_like(residual)
    direction = inverse * residual
    image = np.zeros_like(residual)
    total = np.zeros((stretches[:, 1] - stretches[:, 0]).max())
    wi, wj, wk = weights
    for low, high in stretches:
        left, own = residual[low:high], direction[low:high]
        for n in range(high - low):
            total[n] += left[n] * own[n]
    square = total.sum()
    goal = tolerance * tolerance * square
    for _ in range(most):
        if square <= goal:
            break
        total[:] = 0.0
        for low, high in stretches:
            own, steps = direction[low:high], image[low:high]
            count = faces[low:high]
            i_low = direction[low - jumps[0] : high - jumps[0]]
            i_high = direction[low + jumps[0] : high + jumps[0]]
            j_low = direction[low - jumps[1] : high - jumps[1]]
            j_high = direction[low + jumps[1] : high + jumps[1]]
            k_low, k_high = direction[low - 1 : high - 1], direction[low + 1 : high + 1]
            for n in range(high - low):
                pull = wi * (i_low[n] + i_high[n]) + wj * (j_low[n] + j_high[n]) + wk * (k_low[n] + k_high[n])
                steps[n] = count[n] * own[n] - pull
                total[n] += own[n] * steps[n]
        steepness = total.sum()
        if steepness <= 0.0:
            break
        length = residual.dtype.type(square / steepness)
        total[:] = 0.0
        for low, high in stretches:
            left, steps, weight = residual[low:high], image[low:high], inverse[low:high]
            for n in range(high - low):
                left[n] -= length * steps[n]
                total[n] += left[n] * weight[n] * left[n]
        before, square = square, total.sum()
        share = residual.dtype.type(square / before)
        for low, high in stretches:
            found, left = change[low:high], residual[low:high]
            own, weight = direction[low:high], inverse[low:high]
            for n in range(high - low):
                found[n] += length * own[n]
                own[n] = weight[n] * left[n] + share * own[n]
    return change
