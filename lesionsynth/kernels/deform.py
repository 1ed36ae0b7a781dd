"""Move a lesion from the donor's grid to the host's in one resampling.

A lesion is turned, flipped, scaled and bent about its centre in world millimetres; all of it, and the
change of grid, is one map from host voxels to donor voxels, so that intensities are interpolated once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import Box

_EXACT = 1e-4
_HALF = 0.5 - 1e-5
"""One half, whatever the rounding: between two voxels of the donor ties are the rule."""
_MIN_JACOBIAN = 0.1
_SAMPLES_PER_CONTROL = 4
_MAX_HALVINGS = 6


@dataclass(frozen=True, eq=False)
class Warp:
    """Map from host voxels, relative to the new centre, to donor voxels.

    Parameters
    ----------
    matrix : ndarray, (3, 3), float64
        ``donor voxel = centre + matrix @ (u + displacement(u))``, u relative to the new centre.
    centre : ndarray, (3,), float64
        Donor voxel that lands on the new centre.
    lower : tuple of int
        First corner of the host box, relative to the new centre.
    shape : tuple of int
        Voxels of the host box.
    displacement_vox : ndarray, (3, i, j, k), float64, or None
        Elastic displacement in host voxels.
    """

    matrix: NDArray[np.float64]
    centre: NDArray[np.float64]
    lower: tuple[int, int, int]
    shape: tuple[int, int, int]
    displacement_vox: NDArray[np.float64] | None = None

    @property
    def is_exact(self) -> bool:
        """Whether only flips, turns by 90 degrees and whole-voxel shifts are left: no interpolation."""
        turn, shift = np.rint(self.matrix), np.rint(self.centre)
        return (
            self.displacement_vox is None
            and bool(np.abs(self.matrix - turn).max() < _EXACT)
            and bool(np.abs(self.centre - shift).max() < _EXACT)
            and bool((np.abs(turn).sum(axis=0) == 1).all() and (np.abs(turn).sum(axis=1) == 1).all())
        )

    @cached_property
    def coordinates(self) -> NDArray[np.float64]:
        """Donor voxel coordinates of every voxel of the host box, (3, i, j, k)."""
        u = np.stack(
            np.meshgrid(
                *[np.arange(n) + o for n, o in zip(self.shape, self.lower, strict=True)], indexing="ij"
            )
        ).astype(np.float64)
        if self.displacement_vox is not None:
            u += self.displacement_vox
        return np.asarray(np.tensordot(self.matrix, u, axes=1) + self.centre[:, None, None, None])


def world_matrix(
    flips: Sequence[bool], rotation_deg: Sequence[float], scale: Sequence[float]
) -> NDArray[np.float64]:
    """Matrix that scales, flips, then rotates about the x, y and z world axes (RAS+), in that order.

    Positive angles turn by the right-hand rule.
    """
    matrix = np.diag([-s if f else s for s, f in zip(scale, flips, strict=True)]).astype(np.float64)
    for axis, degrees in enumerate(rotation_deg):
        if degrees:
            c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
            turn = np.eye(3)
            a, b = (axis + 1) % 3, (axis + 2) % 3
            turn[a, a] = turn[b, b] = c
            turn[a, b], turn[b, a] = -s, s
            matrix = turn @ matrix
    return matrix


def warp_onto(
    donor_axes: NDArray[np.float64],
    host_axes: NDArray[np.float64],
    world: NDArray[np.float64],
    centre_vox: Sequence[float],
    body: Box,
    margin_vox: Sequence[int],
    control_mm: NDArray[np.float64] | None = None,
    control_spacing_mm: float = 1.0,
) -> Warp:
    """Build the warp of a donor crop onto a host grid.

    Parameters
    ----------
    donor_axes, host_axes : ndarray, (3, 3), float64
        3x3 parts of the affines.
    world : ndarray, (3, 3), float64
        Deformation in world millimetres, donor to host (see :func:`world_matrix`).
    centre_vox : sequence of float
        Voxel of the crop that lands on the new centre.
    body : Box
        The part of the crop that has to be moved.
    margin_vox : sequence of int
        Host voxels around it that are moved along; with `control_mm`, no less than its greatest displacement.
    control_mm : ndarray, (3, a, b, c), float64, optional
        Elastic displacement at control points, in millimetres along the host's axes.
    control_spacing_mm : float
        Distance of the control points.

    Returns
    -------
    Warp
        Its box holds every host voxel whose centre the deformed body reaches, and the margin.
    """
    forward = np.linalg.inv(host_axes) @ world @ donor_axes
    centre = np.asarray(centre_vox, dtype=np.float64)
    faces = [(b.start - 0.5, b.stop - 0.5) for b in body]
    corners = np.array(np.meshgrid(*faces, indexing="ij")).reshape(3, -1)
    reached = forward @ (corners - centre[:, None])
    lower = np.ceil(reached.min(axis=1) - _EXACT).astype(int) - margin_vox
    upper = np.floor(reached.max(axis=1) + _EXACT).astype(int) + margin_vox
    shape = (int(upper[0] - lower[0]) + 1, int(upper[1] - lower[1]) + 1, int(upper[2] - lower[2]) + 1)
    displacement = None
    if control_mm is not None:
        spacing = np.asarray(np.linalg.norm(host_axes, axis=0), dtype=np.float64)
        field = upsample(control_mm, shape, [control_spacing_mm / s for s in spacing])
        displacement = field / spacing[:, None, None, None]
    start = (int(lower[0]), int(lower[1]), int(lower[2]))
    return Warp(np.asarray(np.linalg.inv(forward), dtype=np.float64), centre, start, shape, displacement)


def warp_image(image: NDArray[np.float32], warp: Warp, order: int = 3) -> NDArray[np.float32]:
    """Resample channels (C, i, j, k) into the host box; beyond the crop its edge is repeated.

    Splines of `order` (3: cubic), or no interpolation at all where the warp is exact.
    """
    where = warp.coordinates
    if warp.is_exact:
        return np.stack([ndimage.map_coordinates(c, where, order=0, mode="nearest") for c in image])
    return np.stack([ndimage.map_coordinates(c, where, order=order, mode="nearest") for c in image])


def warp_label(label: NDArray[np.uint16], warp: Warp) -> NDArray[np.uint16]:
    """Resample a label crop, each class by linear interpolation; nothing lies beyond the crop.

    A voxel is labelled where all classes together reach one half, with the strongest of them (the lowest
    value where two are equal).
    """
    where = warp.coordinates
    classes = np.unique(label[label > 0])
    order = 0 if warp.is_exact else 1
    best = np.zeros(warp.shape, dtype=np.float32)
    total = np.zeros(warp.shape, dtype=np.float32)
    winner = np.zeros(warp.shape, dtype=np.uint16)
    for value in classes:
        weight = ndimage.map_coordinates(
            (label == value).astype(np.float32), where, order=order, mode="grid-constant"
        )
        winner[weight > best] = value
        np.maximum(best, weight, out=best)
        total += weight
    winner[total < _HALF] = 0
    return winner


def warp_mask(mask: NDArray[np.bool_], warp: Warp) -> NDArray[np.bool_]:
    """Resample a mask linearly; false beyond the crop."""
    order = 0 if warp.is_exact else 1
    weight = ndimage.map_coordinates(
        mask.astype(np.float32), warp.coordinates, order=order, mode="grid-constant"
    )
    return np.asarray(weight >= _HALF)


def draw_control_mm(
    rng: np.random.Generator, extent_mm: Sequence[float], spacing_mm: float, magnitude_mm: float
) -> NDArray[np.float64]:
    """Draw elastic displacements at control points that do not fold space.

    Parameters
    ----------
    rng : numpy.random.Generator
    extent_mm : sequence of float
        Size of the box to be covered.
    spacing_mm, magnitude_mm : float
        Distance of the control points, standard deviation of their displacement.

    Returns
    -------
    ndarray, (3, a, b, c), float64
        Displacement in millimetres along the axes of the grid that is bent; halved until the Jacobian
        determinant is above 0.1 wherever the field is not 0.
    """
    counts = [int(np.ceil(e / spacing_mm)) + 4 for e in extent_mm]
    control = rng.normal(0.0, magnitude_mm, size=(3, *counts))
    shape = [(n + 3) * _SAMPLES_PER_CONTROL + 1 for n in counts]
    step_mm = spacing_mm / _SAMPLES_PER_CONTROL
    for _ in range(_MAX_HALVINGS):
        field = upsample(control, shape, [_SAMPLES_PER_CONTROL] * 3)
        jacobian = np.stack([np.stack(np.gradient(f, step_mm), axis=-1) for f in field], axis=-2) + np.eye(3)
        if np.linalg.det(jacobian).min() > _MIN_JACOBIAN:
            return control
        control = control / 2.0
    return np.zeros_like(control)


def upsample(
    control: NDArray[np.float64], shape: Sequence[int], step_vox: Sequence[float]
) -> NDArray[np.float64]:
    """Cubic B-spline field (3, i, j, k) from control points (3, a, b, c), by one matrix product an axis.

    The control points stand `step_vox` voxels apart, centred on the box; beyond the last the field is 0.
    """
    field = control
    for axis, (n, step) in enumerate(zip(shape, step_vox, strict=True), start=1):
        count = control.shape[axis]
        position = (np.arange(n) - (n - 1) / 2) / step + (count - 1) / 2
        distance = np.abs(position[:, None] - np.arange(count))
        near = 2 / 3 - distance**2 + distance**3 / 2
        far = np.maximum(2 - distance, 0.0) ** 3 / 6
        weights = np.where(distance < 1, near, far)
        field = np.moveaxis(np.tensordot(weights, field, axes=(1, axis)), 0, axis)
    return field
