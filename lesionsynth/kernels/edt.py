"""Exact Euclidean distances of a whole volume, compiled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def _first_axis(far: NDArray[np.bool_], squared: NDArray[np.float32], step: float) -> None:
    """Squared distances along the last (contiguous) axis: one scan there, one back."""
    n_i, n_j, n_k = far.shape
    for i in range(n_i):
        for j in range(n_j):
            gap = np.inf
            for k in range(n_k):
                gap = gap + step if far[i, j, k] else 0.0
                squared[i, j, k] = gap * gap
            gap = np.inf
            for k in range(n_k - 1, -1, -1):
                gap = gap + step if far[i, j, k] else 0.0
                if gap * gap < squared[i, j, k]:
                    squared[i, j, k] = gap * gap


@njit(cache=True, nogil=True)
def _envelope(
    line: NDArray[np.float64],
    step: float,
    roots: NDArray[np.int64],
    borders: NDArray[np.float64],
) -> int:
    """Lower envelope of the parabolas that stand on a line; how many there are of them."""
    count = 0
    square = step * step
    for place in range(line.size):
        height = line[place]
        if height == np.inf:
            continue
        border = -np.inf
        while count > 0:
            root = roots[count - 1]
            border = 0.5 * ((height - line[root]) / (square * (place - root)) + place + root)
            if border > borders[count - 1]:
                break
            count -= 1
            border = -np.inf
        roots[count], borders[count] = place, border
        count += 1
    return count


@njit(cache=True, nogil=True)
def _further_axis(squared: NDArray[np.float32], step: float) -> None:
    """Add an axis to the squared distances, the middle one of (outer, line, inner)."""
    n_outer, n_line, n_inner = squared.shape
    line = np.empty(n_line)
    roots, borders = np.empty(n_line, np.int64), np.empty(n_line)
    for a in range(n_outer):
        for b in range(n_inner):
            all_zero = True
            for place in range(n_line):
                line[place] = squared[a, place, b]
                all_zero &= line[place] == 0.0
            if all_zero:
                continue
            count = _envelope(line, step, roots, borders)
            if count == 0:
                continue
            at = 0
            for place in range(n_line):
                while at + 1 < count and borders[at + 1] < place:
                    at += 1
                away = step * (place - roots[at])
                squared[a, place, b] = line[roots[at]] + away * away


def exact_distance_mm(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> NDArray[np.float32]:
    """Distance of every voxel from the nearest true voxel, centre to centre.

    Lower envelopes of parabolas, axis by axis: Felzenszwalb and Huttenlocher, Distance Transforms of Sampled
    Functions, doi:10.4086/toc.2012.v008a019.

    Parameters
    ----------
    mask : ndarray, (i, j, k), bool
    spacing_mm : sequence of float

    Returns
    -------
    ndarray, (i, j, k), float32
        In mm, 0 on the mask; infinite everywhere where it is empty. In the memory layout of `mask`.
    """
    turned = mask.flags.f_contiguous and not mask.flags.c_contiguous
    far = np.ascontiguousarray(~(mask.T if turned else mask))
    steps = spacing_mm[::-1] if turned else spacing_mm
    squared = np.empty(far.shape, dtype=np.float32)
    _first_axis(far, squared, float(steps[2]))
    _further_axis(squared, float(steps[1]))
    flat = (1, far.shape[0], far.shape[1] * far.shape[2])
    _further_axis(squared.reshape(flat), float(steps[0]))
    distance = np.sqrt(squared, out=squared)
    return distance.T if turned else distance
