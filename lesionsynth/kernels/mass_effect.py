"""How a growing lesion pushes tissue aside: a displacement that is known in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lesionsynth.domain.grid import Box
from lesionsynth.kernels.deform import MIN_JACOBIAN, least_jacobian

MAX_STRENGTH = 0.6
"""Largest share of a lesion's volume that may be pushed aside: at 3/4 space would fold inside it."""

_MAX_ASPECT = 2.0
_MAX_HALVINGS = 6


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """An ellipsoid with the volume, the centre and the directions of a lesion.

    Parameters
    ----------
    centre_mm : ndarray, (3,), float64
        Voxel indices times the spacing.
    shape : ndarray, (3, 3), float64
        Symmetric, with determinant 1: ``|shape @ (x - centre)|`` is `radius_mm` on the surface.
    radius_mm : float
        Radius of the sphere of the same volume.
    """

    centre_mm: NDArray[np.float64]
    shape: NDArray[np.float64]
    radius_mm: float


def ellipsoid_of(
    mask: NDArray[np.bool_], spacing_mm: Sequence[float], corner: Sequence[int] = (0, 0, 0)
) -> Ellipsoid:
    """Ellipsoid of a lesion from its second moments; its axes differ by a factor of 2 at most.

    Parameters
    ----------
    mask : ndarray, (i, j, k), bool
        Not empty.
    spacing_mm : sequence of float
    corner : sequence of int
        Index of the first voxel of `mask` in the volume.
    """
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    points = (np.argwhere(mask) + np.asarray(corner)) * spacing
    centre = points.mean(axis=0)
    # A voxel is a box and not a point: so that thin lesions have a thickness.
    moments = (points - centre).T @ (points - centre) / len(points) + np.diag(spacing**2 / 12)
    squared, directions = np.linalg.eigh(moments)
    lengths = np.sqrt(squared)
    lengths = np.maximum(lengths, lengths.max() / _MAX_ASPECT)
    scales = np.cbrt(lengths.prod()) / lengths
    radius = float(np.cbrt(0.75 * len(points) * spacing.prod() / np.pi))
    return Ellipsoid(centre, directions @ np.diag(scales) @ directions.T, radius)


def reach_box(body: Ellipsoid, reach_mm: float, spacing_mm: Sequence[float], shape: Sequence[int]) -> Box:
    """Part of a volume of `shape` in which anything moves."""
    half = (body.radius_mm + reach_mm) * np.sqrt(np.diag(np.linalg.inv(body.shape @ body.shape)))
    low = np.maximum(np.floor((body.centre_mm - half) / spacing_mm), 0).astype(int)
    high = np.minimum(np.ceil((body.centre_mm + half) / spacing_mm) + 1, shape).astype(int)
    i, j, k = (slice(int(a), max(int(a), int(b))) for a, b in zip(low, high, strict=True))
    return i, j, k


def push_apart(
    body: Ellipsoid,
    strength: float,
    reach_mm: float,
    box: Box,
    spacing_mm: Sequence[float],
    anchored_mm: NDArray[np.float32],
) -> tuple[NDArray[np.float32], float]:
    """Where each voxel's tissue comes from when `strength` of the lesion's volume is pushed aside.

    With s the volume inside the ellipsoid through a point and V that of the lesion, tissue now at s was at
    ``s - strength * V * p(s)``. The share p rises smoothly from 0 at the centre to 1 at the lesion's surface
    (what is within spreads out; the lesion will cover it) and falls smoothly to 0 at the reach (what is
    outside is squeezed). The map's Jacobian determinant is the derivative of that expression, at least
    ``1 - 4/3 * strength``: nothing folds, and exactly the volume strength * V is pushed over the surface.

    Towards what is anchored the displacement fades to nothing, so that less is pushed aside and nothing is
    taken from there. For that no closed form is at hand, so the Jacobian is measured, and the strength
    halved until it is above 0.1 everywhere.

    Parameters
    ----------
    body : Ellipsoid
    strength : float
        In [0, MAX_STRENGTH].
    reach_mm : float
        How far beyond the lesion's surface tissue moves, along its mean radius.
    box : Box
        Where the field is wanted (see :func:`reach_box`).
    spacing_mm : sequence of float
    anchored_mm : ndarray, (i, j, k) of the box, float32
        Distance from what must not move; infinite where there is nothing of the kind.

    Returns
    -------
    displacement_vox : ndarray, (3, i, j, k), float32
        A voxel takes what lies at its index plus this; 0 wherever nothing moves.
    strength : float
        As it was used.

    References
    ----------
    Radial displacement in shells, as in the lesion growth model of Bach Cuadra et al., "Atlas-based
    segmentation of pathological MR brain images using a model of lesion growth", IEEE Transactions on
    Medical Imaging 23(10), 2004. That the displaced volume is prescribed and taken up within a reach is
    ours.
    """
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    corner = np.array([b.start for b in box], dtype=np.float64) * spacing - body.centre_mm
    end_mm = body.radius_mm + reach_mm
    for _ in range(_MAX_HALVINGS):
        # A fade this long leaves every displacement shorter than the distance from what is anchored.
        fade_mm = max(0.5 * reach_mm, 1.5 * _longest_mm(body, strength))
        still = anchored_mm / np.float32(fade_mm)
        field = _field(body.shape, corner, spacing, body.radius_mm, end_mm, strength, still)
        if least_jacobian(field) > MIN_JACOBIAN:
            return field, strength
        strength /= 2.0
    return np.zeros_like(field), 0.0


def _longest_mm(body: Ellipsoid, strength: float) -> float:
    """A length that no displacement exceeds, whatever its direction."""
    radius = np.linspace(0.0, 1.0, 101)
    source = radius * np.cbrt(1.0 - strength * (1.0 + radius**3 - radius**6))
    stretch = 1.0 / float(np.linalg.eigvalsh(body.shape).min())
    return body.radius_mm * stretch * float((radius - source).max()) * 1.01


@njit(cache=True, nogil=True)
def _smooth_step(t: float) -> float:  # pragma: no cover
    return t * t * (3.0 - 2.0 * t)


@njit(cache=True, nogil=True)
def _field(
    shape: NDArray[np.float64],
    corner_mm: NDArray[np.float64],
    spacing_mm: NDArray[np.float64],
    radius_mm: float,
    end_mm: float,
    strength: float,
    still: NDArray[np.float32],
) -> NDArray[np.float32]:  # pragma: no cover
    """The displacement in voxels; `still` is the distance from what is anchored, 1 where tissue is free."""
    lesion, end = radius_mm**3, end_mm**3
    field = np.zeros((3, *still.shape), dtype=np.float32)
    for i in range(still.shape[0]):
        for j in range(still.shape[1]):
            for k in range(still.shape[2]):
                x = corner_mm[0] + i * spacing_mm[0]
                y = corner_mm[1] + j * spacing_mm[1]
                z = corner_mm[2] + k * spacing_mm[2]
                squared = 0.0
                for row in range(3):
                    squared += (shape[row, 0] * x + shape[row, 1] * y + shape[row, 2] * z) ** 2
                volume = squared * np.sqrt(squared)
                if volume == 0.0 or volume >= end or still[i, j, k] == 0:
                    continue
                within = min(volume / lesion, 1.0)
                share = within * (1.0 + within - within**2)
                share *= 1.0 - _smooth_step(max(0.0, (volume - lesion) / (end - lesion)))
                shrinking = np.cbrt(1.0 - strength * lesion * share / volume) - 1.0
                shrinking *= _smooth_step(min(1.0, float(still[i, j, k])))
                field[0, i, j, k] = shrinking * x / spacing_mm[0]
                field[1, i, j, k] = shrinking * y / spacing_mm[1]
                field[2, i, j, k] = shrinking * z / spacing_mm[2]
    return field
