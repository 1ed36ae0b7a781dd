"""Joining two images by their gradients, with a soft mask on a box.

Lengths count relative to the smallest voxel edge, so that voxels of any shape are right. Differences
between neighbours live on the faces between voxels, which makes the equations exact for the discrete images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from lesionsynth.backend import modules_of, on_cpu
from lesionsynth.kernels.alpha import composite

# Up to this many voxels along an axis a matrix product is the fastest sine transform on a CPU, and beyond
# it as well where the length has large prime factors.
_MAX_PRODUCT = 96
_LARGEST_PRIME = 11


def soft_poisson(
    host: NDArray[np.float32],
    lesion: NDArray[np.float32],
    alpha: NDArray[np.float32],
    k: float,
    spacing_mm: Sequence[float],
) -> NDArray[np.float32]:
    """Soft Poisson blend: the image whose gradients are nearest to a mixture of both images' gradients.

    With a = `alpha`, B = `host`, L = `lesion` it minimises, over the box, the square of
    ``grad f - [a grad L + (1 - a) grad B + k (L - B) grad a]`` with f = B one voxel outside the box, and is

        f = a L + (1 - a) B - (1 - k) h,   laplace h = div((L - B) grad a),   h = 0 one voxel outside the box.

    The box need not end where alpha does: where it meets the border of the volume, alpha goes on beyond
    it. On the face between two voxels L - B and a are the means of both; but where a is 0 on one side,
    L - B is that of the other side and the gradient of L has no weight, so that the lesion image is not
    read where alpha is 0.

    Parameters
    ----------
    host, lesion : ndarray, (C, i, j, k), float32 (or float64, for a result of that accuracy)
    alpha : ndarray, (i, j, k), of the same type
        Weight of the lesion image, in [0, 1].
    k : float
        0: the gradients of the mixture alone decide, and the level of the lesion is lost; 1: the composite
        weighed by alpha.
    spacing_mm : sequence of 3 float

    Returns
    -------
    ndarray, as `host`
        Differs from the host everywhere in the box, most where alpha changes; may go beyond both images
        there. The host itself where both images are equal or alpha is 0 everywhere.

    References
    ----------
    Huo J, Ourselin S, Sparks R, arXiv:2406.14826 (soft Poisson blending); Perez P, Gangnet M, Blake A,
    Poisson image editing, ACM Transactions on Graphics 22(3), 2003, doi:10.1145/882262.882269.
    """
    mixed = composite(host, lesion, alpha)
    if k == 1:
        return mixed
    correction = solve_box(_source(host, lesion, alpha, face_weights(spacing_mm)), spacing_mm)
    correction *= host.dtype.type(1 - k)
    mixed -= correction
    return mixed


def _source(
    host: NDArray[np.float32],
    lesion: NDArray[np.float32],
    alpha: NDArray[np.float32],
    weights: tuple[float, float, float],
) -> NDArray[np.float32]:
    """``div((L - B) grad a)`` of :func:`soft_poisson`, per squared smallest voxel edge."""
    xp, _ = modules_of(host, lesion, alpha)
    known = (alpha > 0).astype(alpha.dtype)
    step = (lesion - host) * known
    source: NDArray[np.float32] = xp.zeros_like(step)
    for axis, weight in enumerate(weights):
        low, high = sides(axis)
        slope = weight * (alpha[high] - alpha[low]) / xp.clip(known[low] + known[high], 1, 2)
        flux = (step[low] + step[high]) * slope
        source[low] += flux
        source[high] -= flux
    return source


def solve_box(source: NDArray[np.floating], spacing_mm: Sequence[float]) -> NDArray[np.floating]:
    """Solve ``laplace h = source`` on a box, h = 0 one voxel outside it, by sine transforms.

    Parameters
    ----------
    source : ndarray, (..., i, j, k), float32 or float64
        In units per squared smallest voxel edge. Leading axes are separate problems.
    spacing_mm : sequence of 3 float

    Returns
    -------
    ndarray, as `source`

    Notes
    -----
    The sine transform of type I is its own inverse and diagonalises the Laplacian. As a product with the
    orthonormal sine matrix it beats the fast transform on boxes of lesion size.
    """
    xp, _ = modules_of(source)
    i, j, k = (
        xp.asarray(_eigenvalues(n, weight, source.dtype.name))
        for n, weight in zip(source.shape[-3:], face_weights(spacing_mm), strict=True)
    )
    # In C order whatever the source's order is: the transform looks at its work space as planes.
    first, second = (xp.empty(source.shape, dtype=source.dtype) for _ in range(2))
    spectrum, spare = _sine_transform(source, first, second)
    spectrum /= i[:, None, None] + j[:, None] + k
    return _sine_transform(spectrum, spare, spectrum)[0]


def face_weights(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    """Weight of the faces along each axis: the squared ratio of the smallest voxel edge to that axis'."""
    least = min(spacing_mm)
    i, j, k = (float((least / s) ** 2) for s in spacing_mm)
    return (i, j, k)


def sides(axis: int) -> tuple[Any, Any]:
    """Index of the voxels before and behind all inner faces across an axis of the last three."""
    low = [slice(None)] * 3
    high = [slice(None)] * 3
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    return (..., *low), (..., *high)


@lru_cache(maxsize=256)
def _sine_matrix(n: int, dtype: str) -> NDArray[np.floating]:
    """Orthonormal sine matrix (n, n): symmetric, and its own inverse."""
    index = np.arange(1, n + 1)
    matrix = np.sqrt(2 / (n + 1)) * np.sin(np.pi / (n + 1) * (np.outer(index, index) % (2 * (n + 1))))
    return matrix.astype(dtype)


@lru_cache(maxsize=1024)
def _eigenvalues(n: int, weight: float, dtype: str) -> NDArray[np.floating]:
    """Eigenvalues (n,) of the second difference times `weight`."""
    return (-4 * weight * np.sin(np.pi * np.arange(1, n + 1) / (2 * (n + 1))) ** 2).astype(dtype)


def _sine_transform(
    values: NDArray[np.floating], first: NDArray[np.floating], second: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Orthonormal sine transform of type I along the last three axes, and a spare array of its shape.

    Works in `first` and `second` in turn, both in C order; `second` may be `values`, which is lost then.
    """
    xp, _ = modules_of(values)
    *lead, i, j, k = values.shape
    fast = [
        axis - 3
        for axis, n in enumerate((i, j, k))
        if on_cpu(values) and n > _MAX_PRODUCT and _largest_prime(n + 1) <= _LARGEST_PRIME
    ]
    if fast:
        values = fft.dstn(values, type=1, axes=fast, norm="ortho")
    matrices = (xp.asarray(_sine_matrix(n, values.dtype.name)) for n in (i, j, k))
    for axis, matrix in enumerate(matrices):
        if axis - 3 in fast:
            continue
        if axis == 0:
            plane = (*lead, i, j * k)
            xp.matmul(matrix, values.reshape(plane), out=first.reshape(plane))
        elif axis == 1:
            xp.matmul(matrix, values, out=first)
        else:
            xp.matmul(values, matrix, out=first)
        values, first, second = first, second, first
    return values, first


def _largest_prime(n: int) -> int:
    """Largest prime factor."""
    largest, factor = 1, 2
    while factor * factor <= n:
        while n % factor == 0:
            n //= factor
            largest = factor
        factor += 1
    return max(largest, n)
