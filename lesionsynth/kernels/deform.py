"""Move a lesion from the donor's grid to the host's in one resampling.

A lesion is turned, flipped, scaled and bent about its centre in world millimetres; all of it, and the
change of grid, is one map from host voxels to donor voxels, so that intensities are interpolated once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lesionsynth.backend import modules_of, on_cpu
from lesionsynth.domain.grid import Box
from lesionsynth.kernels.gather import HALF, TIE, gather_image, gather_label

_EXACT = 1e-4
MIN_JACOBIAN = 0.1
"""Least determinant of a displacement's derivative: below it space is nearly folded."""
_SMOOTHED_FROM = 1.3
_FWHM_TO_SIGMA = 0.42466
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
    displacement_vox : ndarray, (3, i, j, k), float32, or None
        Elastic displacement in host voxels, of the library of the arrays that are warped.
    """

    matrix: NDArray[np.float64]
    centre: NDArray[np.float64]
    lower: tuple[int, int, int]
    shape: tuple[int, int, int]
    displacement_vox: NDArray[np.float32] | None = None

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

    @property
    def offset(self) -> NDArray[np.float64]:
        """Donor voxel that the first corner of the host box looks at, before the elastic displacement."""
        return np.asarray(self.centre + self.matrix @ self.lower)

    @property
    def shrinking(self) -> NDArray[np.float64]:
        """Donor voxels per host voxel along each donor axis, (3,); below 1 where the lesion grows."""
        return np.asarray(np.linalg.norm(self.matrix, axis=1))

    def coordinates(self, xp: Any = np) -> Any:
        """Donor voxel coordinates of every voxel of the host box, (3, i, j, k) float64 of module `xp`."""
        u = [xp.arange(n, dtype=xp.float64) for n in self.shape]
        u = [u[0][:, None, None], u[1][None, :, None], u[2][None, None, :]]
        if self.displacement_vox is not None:
            u = [axis + moved for axis, moved in zip(u, self.displacement_vox, strict=True)]
        rows = zip(self.offset.tolist(), self.matrix.tolist(), strict=True)
        return xp.stack([start + m[0] * u[0] + m[1] * u[1] + m[2] * u[2] for start, m in rows])


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
        Elastic displacement at control points, in millimetres along the host's axes; NumPy's, or of the
        GPU library where the arrays to be warped are there.
    control_spacing_mm : float
        Distance of the control points.

    Returns
    -------
    Warp
        Its box holds every host voxel whose centre the deformed body reaches, and the margin.
    """
    forward = np.linalg.inv(host_axes) @ world @ donor_axes
    centre = np.asarray(centre_vox, dtype=np.float64)
    middle = forward @ ([(b.start + b.stop - 1) / 2 for b in body] - centre)
    half = np.abs(forward) @ [(b.stop - b.start) / 2 for b in body]
    lower = np.ceil(middle - half - _EXACT).astype(int) - margin_vox
    upper = np.floor(middle + half + _EXACT).astype(int) + margin_vox
    shape = (int(upper[0] - lower[0]) + 1, int(upper[1] - lower[1]) + 1, int(upper[2] - lower[2]) + 1)
    displacement = None
    if control_mm is not None:
        spacing = np.asarray(np.linalg.norm(host_axes, axis=0), dtype=np.float64)
        xp, _ = modules_of(control_mm)
        control_vox = xp.stack([part / s for part, s in zip(control_mm, spacing.tolist(), strict=True)])
        steps = [control_spacing_mm / s for s in spacing.tolist()]
        displacement = upsample(control_vox.astype(xp.float32), shape, steps)
    start = (int(lower[0]), int(lower[1]), int(lower[2]))
    return Warp(np.asarray(np.linalg.inv(forward), dtype=np.float64), centre, start, shape, displacement)


def warp_image(image: NDArray[np.float32], warp: Warp, order: Literal[1, 3] = 3) -> NDArray[np.float32]:
    """Resample channels (C, i, j, k) into the host box; beyond the crop its edge is repeated.

    Without any interpolation where the warp is exact, else by splines of `order` (1: linear, 3: cubic).
    Where the lesion shrinks by more than 1.3 along a donor axis, it is first smoothed along it so that its
    point spread becomes that of the host, or details finer than a host voxel would turn into noise.

    Parameters
    ----------
    image : ndarray, (C, i, j, k), float32
        NumPy's, or of the GPU library, as the warp's displacement is.
    warp : Warp
    order : int

    Returns
    -------
    ndarray, (C, *warp.shape), float32

    References
    ----------
    Cardoso et al., "Scale factor point spread function matching: beyond aliasing in image resampling",
    MICCAI 2015, doi:10.1007/978-3-319-24571-3_81.
    """
    if warp.is_exact:
        at, _ = _picked(image, warp)
        return np.asarray(image[(slice(None), *at)]) if on_cpu(image) else image[(slice(None), *at)]
    image = _smoothed(image, warp.shrinking)
    if on_cpu(*_arrays(image, warp)):
        return gather_image(image, warp.matrix, warp.offset, warp.shape, warp.displacement_vox, order)
    return warp_image_generic(image, warp, order)


def warp_image_generic(image: Any, warp: Warp, order: int) -> Any:
    """:func:`warp_image` of a warp that is not exact, without smoothing, on any device."""
    xp, ndimage = modules_of(*_arrays(image, warp))
    where = warp.coordinates(xp)
    for axis, n in enumerate(image.shape[1:]):
        where[axis] = xp.clip(where[axis], 0.0, n - 1.0)
    return xp.stack([ndimage.map_coordinates(c, where, order=order, mode="nearest") for c in image])


def warp_label(label: NDArray[np.uint16], warp: Warp) -> NDArray[np.uint16]:
    """Resample a label crop, each class by linear interpolation; nothing lies beyond the crop.

    A voxel is labelled where all classes together reach one half, with the strongest of them (the lowest
    value where two are equal). Takes and returns (i, j, k) of any unsigned type.
    """
    if warp.is_exact:
        at, inside = _picked(label, warp)
        return np.asarray(label[at] * inside) if on_cpu(label) else label[at] * inside
    if on_cpu(*_arrays(label, warp)):
        return gather_label(label, warp.matrix, warp.offset, warp.shape, warp.displacement_vox)
    return warp_label_generic(label, warp)


def warp_label_generic(label: Any, warp: Warp) -> Any:
    """:func:`warp_label` of a warp that is not exact, on any device."""
    xp, ndimage = modules_of(*_arrays(label, warp))
    where = warp.coordinates(xp)
    classes = [int(value) for value in xp.unique(label) if value > 0]
    if not classes:
        return xp.zeros(warp.shape, dtype=label.dtype)
    weights = xp.stack(
        [
            ndimage.map_coordinates((label == value).astype(xp.float64), where, order=1, mode="grid-constant")
            for value in classes
        ]
    )
    strongest = xp.argmax(weights >= weights.max(axis=0) - TIE, axis=0)
    winner = xp.asarray(classes)[strongest].astype(label.dtype)
    return xp.where(weights.sum(axis=0) >= HALF, winner, xp.zeros_like(winner))


def warp_mask(mask: NDArray[np.bool_], warp: Warp) -> NDArray[np.bool_]:
    """Resample a mask linearly; false beyond the crop."""
    return warp_label(mask.view(np.uint8), warp).view(np.bool_)


def _arrays(array: Any, warp: Warp) -> list[Any]:
    return [array] if warp.displacement_vox is None else [array, warp.displacement_vox]


def _smoothed(image: Any, shrinking: NDArray[np.float64]) -> Any:
    """`image` with the point spread of the coarser grid that it is going to be sampled on."""
    _, ndimage = modules_of(image)
    for axis, ratio in enumerate(shrinking.tolist(), start=1):
        if ratio > _SMOOTHED_FROM:
            sigma = _FWHM_TO_SIGMA * float(np.sqrt(ratio**2 - 1))
            image = ndimage.gaussian_filter1d(image, sigma, axis=axis, mode="nearest")
    return image


def _picked(array: Any, warp: Warp) -> tuple[tuple[Any, ...], Any]:
    """Donor voxel of each host voxel of an exact warp, an open grid of indices; whether it is in the crop."""
    xp, _ = modules_of(array)
    turn, start = np.rint(warp.matrix).astype(int), np.rint(warp.offset).astype(int)
    at, inside = [], xp.ones((1, 1, 1), dtype=bool)
    for axis, n in enumerate(array.shape[-3:]):
        along = int(np.flatnonzero(turn[axis])[0])
        shape = [1, 1, 1]
        shape[along] = warp.shape[along]
        index = (int(start[axis]) + int(turn[axis, along]) * xp.arange(shape[along])).reshape(shape)
        inside = inside & (index >= 0) & (index < n)
        at.append(xp.clip(index, 0, n - 1))
    return tuple(at), inside


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
        if least_jacobian(upsample(control / step_mm, shape, [_SAMPLES_PER_CONTROL] * 3)) > MIN_JACOBIAN:
            return control
        control = control / 2.0
    return np.zeros_like(control)


@njit(cache=True, nogil=True)
def least_jacobian(field: NDArray[np.floating]) -> float:  # pragma: no cover
    """Smallest determinant of the derivative of ``x -> x + field(x)``, or 1; `field` (3, i, j, k) in voxels.

    By central differences, one-sided at the faces. Where it is above 0 everywhere, nothing folds.
    """
    _, n_i, n_j, n_k = field.shape
    least = 1.0
    d = np.zeros((3, 3))
    for i in range(n_i):
        for j in range(n_j):
            for k in range(n_k):
                i0, i1 = max(i - 1, 0), min(i + 1, n_i - 1)
                j0, j1 = max(j - 1, 0), min(j + 1, n_j - 1)
                k0, k1 = max(k - 1, 0), min(k + 1, n_k - 1)
                for a in range(3):
                    d[a, 0] = (field[a, i1, j, k] - field[a, i0, j, k]) / max(i1 - i0, 1)
                    d[a, 1] = (field[a, i, j1, k] - field[a, i, j0, k]) / max(j1 - j0, 1)
                    d[a, 2] = (field[a, i, j, k1] - field[a, i, j, k0]) / max(k1 - k0, 1)
                    d[a, a] += 1.0
                determinant = (
                    d[0, 0] * (d[1, 1] * d[2, 2] - d[1, 2] * d[2, 1])
                    - d[0, 1] * (d[1, 0] * d[2, 2] - d[1, 2] * d[2, 0])
                    + d[0, 2] * (d[1, 0] * d[2, 1] - d[1, 1] * d[2, 0])
                )
                least = min(least, determinant)
    return least


def upsample(control: Any, shape: Sequence[int], step_vox: Sequence[float]) -> Any:
    """Cubic B-spline field (D, i, j, k) from control points (D, a, b, c), by one matrix product an axis.

    The control points stand `step_vox` voxels apart, centred on the box; beyond the last the field is 0.
    The field has the library and the dtype of the control points.
    """
    xp, _ = modules_of(control)
    i, j, k = (
        xp.asarray(_spline_matrix(n, count, step), dtype=control.dtype)
        for n, count, step in zip(shape, control.shape[1:], step_vox, strict=True)
    )
    parts, a, b, c = control.shape
    field = xp.matmul(i, control.reshape(parts, a, b * c)).reshape(parts, len(i), b, c)
    field = xp.matmul(j, field)
    return xp.matmul(field.reshape(parts * len(i) * len(j), c), k.T).reshape(parts, len(i), len(j), len(k))


def _spline_matrix(n: int, count: int, step: float) -> NDArray[np.float64]:
    """Weight of each of `count` control points at each of `n` voxels, (n, count)."""
    position = (np.arange(n) - (n - 1) / 2) / step + (count - 1) / 2
    distance = np.abs(position[:, None] - np.arange(count))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0.0) ** 3 / 6
    return np.asarray(np.where(distance < 1, near, far))
