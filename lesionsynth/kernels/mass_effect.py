"""How a growing lesion pushes tissue aside: a displacement that is known in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesionsynth.domain.grid import Box

MAX_STRENGTH = 0.6
"""Largest share of a lesion's volume that may be pushed aside: at 3/4 space would fold inside it."""

_MAX_ASPECT = 2.0
_MIN_JACOBIAN = 0.1
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
    Medical Imaging 23(10), 2004, doi:10.1109/TMI.2004.834618. That the displaced volume is prescribed and
    taken up within a reach is ours.
    """
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    axes = [np.arange(b.start, b.stop) * s - c for b, s, c in zip(box, spacing, body.centre_mm, strict=True)]
    away = np.stack(np.meshgrid(*axes, indexing="ij"))
    volume = np.sqrt(np.square(np.tensordot(body.shape, away, axes=1)).sum(axis=0)) ** 3
    for _ in range(_MAX_HALVINGS):
        field = _shrinking(volume, body.radius_mm, reach_mm, strength) * away
        # A fade this long leaves every displacement shorter than the distance from what is anchored.
        fade_mm = max(0.5 * reach_mm, 1.5 * float(np.sqrt(np.square(field).sum(axis=0).max())))
        field *= _smooth_step(np.clip(anchored_mm / fade_mm, 0.0, 1.0))
        field /= spacing[:, None, None, None]
        if _least_jacobian(field) > _MIN_JACOBIAN:
            return field.astype(np.float32), strength
        strength /= 2.0
    return np.zeros((3, *volume.shape), dtype=np.float32), 0.0


def _shrinking(
    volume: NDArray[np.float64], radius_mm: float, reach_mm: float, strength: float
) -> NDArray[np.float64]:
    """Relative change of the radius, at most 0, where `volume` is the cube of the ellipsoidal radius."""
    lesion, end = radius_mm**3, (radius_mm + reach_mm) ** 3
    within = np.minimum(volume / lesion, 1.0)
    beyond = np.clip((volume - lesion) / (end - lesion), 0.0, 1.0)
    share = within * (1 + within - within**2) * (1 - _smooth_step(beyond))
    moved = strength * lesion * share
    known = volume > 0
    ratio = np.ones_like(volume)
    np.divide(volume - moved, volume, out=ratio, where=known)
    return np.asarray(np.cbrt(ratio) - 1.0)


def _smooth_step(t: NDArray[np.floating]) -> NDArray[np.floating]:
    return t * t * (3 - 2 * t)


def _least_jacobian(displacement_vox: NDArray[np.float64]) -> float:
    """Smallest determinant of the map's derivative on the grid; an axis of one voxel does not count."""
    gradients = [
        [np.gradient(part, axis=axis) if n > 1 else np.zeros_like(part) for axis, n in enumerate(part.shape)]
        for part in displacement_vox
    ]
    jacobian = np.moveaxis(np.array(gradients), (0, 1), (-2, -1)) + np.eye(3)
    return float(np.linalg.det(jacobian).min())
