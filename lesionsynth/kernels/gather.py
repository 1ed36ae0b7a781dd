"""Compiled resampling of NumPy arrays: the coordinates of each voxel are found as it is made.

Voxel (i, j, k) of the output looks at ``offset + matrix @ ((i, j, k) + displacement[:, i, j, k])`` of
the input. No array of coordinates is made, and all channels share the weights of a voxel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

HALF = 0.5 - 1e-5
"""One half, whatever the rounding: between two voxels of the donor ties are the rule."""
TIE = 1e-5
"""Weights of classes that differ by less are equal."""

_POLE = np.float32(np.sqrt(3.0) - 2.0)
_GAIN = np.float32(6.0)
_STILL: NDArray[np.float32] = np.empty((3, 0, 0, 0), dtype=np.float32)


def gather_image(
    image: NDArray[np.float32],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    shape: tuple[int, int, int],
    displacement: NDArray[np.float32] | None,
    order: int,
) -> NDArray[np.float32]:
    """Resample channels (C, i, j, k) by linear (`order` 1) or cubic B-spline interpolation (3).

    Beyond the input its edge is repeated, for the spline too.

    Parameters
    ----------
    image : ndarray, (C, i, j, k), float32
    matrix, offset : ndarray, (3, 3) and (3,), float64
    shape : tuple of int
        Of the output.
    displacement : ndarray, (3, *shape), float32, or None
    order : int

    Returns
    -------
    ndarray, (C, *shape), float32

    References
    ----------
    Unser, "Splines: a perfect fit for signal and image processing", IEEE Signal Processing Magazine
    16(6), 1999, doi:10.1109/79.799930.
    """
    out = np.empty((len(image), *shape), dtype=np.float32)
    where = (matrix, offset, _STILL if displacement is None else displacement)
    if order == 3:
        _cubic(_coefficients(np.ascontiguousarray(image)), *where, out)
    else:
        _linear(np.ascontiguousarray(image), *where, out)
    return out


def gather_label(
    label: NDArray[Any],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    shape: tuple[int, int, int],
    displacement: NDArray[np.float32] | None,
) -> NDArray[Any]:
    """Resample a label: the strongest class (linear weights) where all classes together reach one half.

    The lowest value wins where two are equal; nothing lies beyond the input. Parameters are those of
    :func:`gather_image`, `label` (i, j, k) of any unsigned type, which the result has too.
    """
    out = np.zeros(shape, dtype=label.dtype)
    padded = np.pad(label, 1)
    _classes(padded, matrix, offset, _STILL if displacement is None else displacement, out)
    return out


@njit(cache=True, nogil=True)
def _coefficients(image: NDArray[np.float32]) -> NDArray[np.float32]:  # pragma: no cover
    """B-spline coefficients of an image whose edge goes on for ever: one before each axis, two after it."""
    n_channels, n_i, n_j, n_k = image.shape
    out = np.empty((n_channels, n_i + 3, n_j + 3, n_k + 3), dtype=np.float32)
    turned = np.empty((n_k + 3, n_j), dtype=np.float32)
    for c in range(n_channels):
        for i in range(n_i):
            plane = out[c, i + 1]
            for j in range(n_j):
                for k in range(n_k):
                    turned[k + 1, j] = image[c, i, j, k]
            _filter(turned)
            for j in range(n_j):
                for k in range(n_k + 3):
                    plane[j + 1, k] = turned[k, j]
            _filter(plane)
        _filter(out[c].reshape(n_i + 3, (n_j + 3) * (n_k + 3)))
    return out


@njit(cache=True, nogil=True)
def _filter(lines: NDArray[np.float32]) -> None:  # pragma: no cover
    """Recursive filter down the columns of `lines`, in place; the outer rows (1 and 2) are filled.

    Where a signal is constant for ever, the filter's state and response are geometric series.
    """
    n, z, one = lines.shape[0] - 3, _POLE, np.float32(1.0)
    first, last = lines[1].copy(), lines[n].copy()
    lines[1] = first * (_GAIN / (one - z))
    for row in range(2, n + 1):
        here, before = lines[row], lines[row - 1]
        for m in range(here.size):
            here[m] = _GAIN * here[m] + z * before[m]
    for m in range(last.size):
        settled = last[m] * (_GAIN / (one - z))
        lines[n, m] = -z * (settled / (one - z) + (lines[n, m] - settled) / (one - z * z))
    for row in range(n - 1, 0, -1):
        here, after = lines[row], lines[row + 1]
        for m in range(here.size):
            here[m] = z * (after[m] - here[m])
    for m in range(last.size):
        lines[0, m] = first[m] + z * (lines[1, m] - first[m])
        lines[n + 1, m] = last[m] + z * (lines[n, m] - last[m])
        lines[n + 2, m] = last[m] + z * (lines[n + 1, m] - last[m])


@njit(cache=True, nogil=True)
def _weights(t: np.float32) -> Any:  # pragma: no cover
    """Cubic B-spline at distances 1 + t, t, 1 - t, 2 - t."""
    s = np.float32(1.0) - t
    sixth = np.float32(1.0 / 6.0)
    two_thirds, half = np.float32(2.0 / 3.0), np.float32(0.5)
    return (
        s * s * s * sixth,
        two_thirds + t * t * (half * t - np.float32(1.0)),
        two_thirds + s * s * (half * s - np.float32(1.0)),
        t * t * t * sixth,
    )


@njit(cache=True, nogil=True)
def _map(matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> Any:  # pragma: no cover
    """The map as numbers, which stay in registers."""
    return (
        (offset[0], matrix[0, 0], matrix[0, 1], matrix[0, 2]),
        (offset[1], matrix[1, 0], matrix[1, 1], matrix[1, 2]),
        (offset[2], matrix[2, 0], matrix[2, 1], matrix[2, 2]),
    )


@njit(cache=True, nogil=True)
def _look(rows: Any, moved: NDArray[np.float32], i: int, j: int, k: int) -> Any:  # pragma: no cover
    """Where an output voxel looks."""
    a, b, c = float(i), float(j), float(k)
    if moved.size > 0:
        a += moved[0, i, j, k]
        b += moved[1, i, j, k]
        c += moved[2, i, j, k]
    x, y, z = rows
    return (
        x[0] + x[1] * a + x[2] * b + x[3] * c,
        y[0] + y[1] * a + y[2] * b + y[3] * c,
        z[0] + z[1] * a + z[2] * b + z[3] * c,
    )


# Inputs are read as one line of numbers by unsigned index: Numba looks at the sign of any other index.


@njit(cache=True, nogil=True)
def _cubic(
    spline: NDArray[np.float32],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    displacement: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:  # pragma: no cover
    flat, rows = spline.ravel(), _map(matrix, offset)
    high_x, high_y, high_z = spline.shape[1] - 4.0, spline.shape[2] - 4.0, spline.shape[3] - 4.0
    step_y = np.uintp(spline.shape[3])
    step_x = np.uintp(spline.shape[2]) * step_y
    step_c = np.uintp(spline.shape[1]) * step_x
    n_channels, n_i, n_j, n_k = out.shape
    for i in range(n_i):
        for j in range(n_j):
            for k in range(n_k):
                x, y, z = _look(rows, displacement, i, j, k)
                x, y, z = min(max(x, 0.0), high_x), min(max(y, 0.0), high_y), min(max(z, 0.0), high_z)
                p, q, r = int(x), int(y), int(z)
                in_x = _weights(np.float32(x - p))
                in_y = _weights(np.float32(y - q))
                in_z = _weights(np.float32(z - r))
                first = np.uintp(p) * step_x + np.uintp(q) * step_y + np.uintp(r)
                for c in range(n_channels):
                    s0 = s1 = s2 = s3 = np.float32(0.0)
                    plane = first
                    for u in range(4):
                        at = plane
                        for v in range(4):
                            weight = in_x[u] * in_y[v]
                            s0 += weight * flat[at]
                            s1 += weight * flat[at + np.uintp(1)]
                            s2 += weight * flat[at + np.uintp(2)]
                            s3 += weight * flat[at + np.uintp(3)]
                            at += step_y
                        plane += step_x
                    out[c, i, j, k] = (s0 * in_z[0] + s1 * in_z[1]) + (s2 * in_z[2] + s3 * in_z[3])
                    first += step_c


@njit(cache=True, nogil=True)
def _linear(
    image: NDArray[np.float32],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    displacement: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:  # pragma: no cover
    flat, rows, none = image.ravel(), _map(matrix, offset), np.uintp(0)
    high_x, high_y, high_z = image.shape[1] - 1.0, image.shape[2] - 1.0, image.shape[3] - 1.0
    step_y = np.uintp(image.shape[3])
    step_x = np.uintp(image.shape[2]) * step_y
    step_c = np.uintp(image.shape[1]) * step_x
    n_channels, n_i, n_j, n_k = out.shape
    for i in range(n_i):
        for j in range(n_j):
            for k in range(n_k):
                x, y, z = _look(rows, displacement, i, j, k)
                x, y, z = min(max(x, 0.0), high_x), min(max(y, 0.0), high_y), min(max(z, 0.0), high_z)
                p, q, r = int(x), int(y), int(z)
                t, u, v = np.float32(x - p), np.float32(y - q), np.float32(z - r)
                dx = step_x if x < high_x else none
                dy = step_y if y < high_y else none
                dz = np.uintp(1) if z < high_z else none
                first = np.uintp(p) * step_x + np.uintp(q) * step_y + np.uintp(r)
                for c in range(n_channels):
                    a, b = flat[first], flat[first + dy]
                    d, e = flat[first + dx], flat[first + dx + dy]
                    a += v * (flat[first + dz] - a)
                    b += v * (flat[first + dy + dz] - b)
                    d += v * (flat[first + dx + dz] - d)
                    e += v * (flat[first + dx + dy + dz] - e)
                    a += u * (b - a)
                    d += u * (e - d)
                    out[c, i, j, k] = a + t * (d - a)
                    first += step_c


@njit(cache=True, nogil=True)
def _classes(
    padded: NDArray[Any],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    displacement: NDArray[np.float32],
    out: NDArray[Any],
) -> None:  # pragma: no cover
    flat, rows = padded.ravel(), _map(matrix, offset)
    high_x, high_y, high_z = padded.shape[0] - 2.0, padded.shape[1] - 2.0, padded.shape[2] - 2.0
    step_y = np.uintp(padded.shape[2])
    step_x = np.uintp(padded.shape[1]) * step_y
    n_i, n_j, n_k = out.shape
    values, weights = np.empty(8, padded.dtype), np.empty(8)
    for i in range(n_i):
        for j in range(n_j):
            for k in range(n_k):
                x, y, z = _look(rows, displacement, i, j, k)
                if not (-1.0 < x < high_x and -1.0 < y < high_y and -1.0 < z < high_z):
                    continue
                x, y, z = x + 1.0, y + 1.0, z + 1.0
                p, q, r = int(x), int(y), int(z)
                first = np.uintp(p) * step_x + np.uintp(q) * step_y + np.uintp(r)
                alike = True
                for n in range(8):
                    at = first + np.uintp(n & 1)
                    if n & 2:
                        at += step_y
                    if n & 4:
                        at += step_x
                    values[n] = flat[at]
                    alike &= values[n] == values[0]
                if alike:
                    out[i, j, k] = values[0]
                    continue
                t, u, v = x - p, y - q, z - r
                for n in range(8):
                    weight = v if n & 1 else 1.0 - v
                    weight *= u if n & 2 else 1.0 - u
                    weights[n] = weight * (t if n & 4 else 1.0 - t)
                out[i, j, k] = _strongest(values, weights)


@njit(cache=True, nogil=True)
def _strongest(values: NDArray[Any], weights: NDArray[np.float64]) -> Any:  # pragma: no cover
    """Class of the greatest weight, 0 where all together stay below one half."""
    total = best = 0.0
    winner, several = values[0], False
    for n in range(values.size):
        if values[n] > 0:
            several |= total > 0.0 and values[n] != winner
            total += weights[n]
            winner = values[n]
    if total < HALF:
        return 0
    if several:
        for n in range(values.size):
            weight = 0.0
            for m in range(values.size):
                if values[m] == values[n] and values[n] > 0:
                    weight += weights[m]
            if weight > best + TIE or (weight > best - TIE and values[n] < winner and values[n] > 0):
                winner = values[n]
            best = max(best, weight)
    return winner
