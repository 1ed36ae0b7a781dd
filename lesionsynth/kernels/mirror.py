"""The plane between the two sides of a brain, and tissue of the other side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import Box, grown, origin_of, shape_of

# Voxels around what is sampled, in which a cubic spline forgets its border.
_MARGIN_VOX = 8
# Points at which both sides are compared, and how far the images are smoothed first: so wide that a plane
# some degrees off still finds its way.
_N_POINTS = 20_000
_SMOOTH_MM = 4.0
# Correlation of the two sides below which there is no symmetry.
_LEAST_ALIKE = 0.5
# Share of the places whose mirror place lies inside as well.
_LEAST_MET = 0.8


def reflection(
    image: NDArray[np.float32], inside: NDArray[np.bool_], spacing_mm: Sequence[float], axis: int
) -> NDArray[np.float64] | None:
    """Reflection through the plane across which an image is most like itself.

    Parameters
    ----------
    image : ndarray of float32, shape (i, j, k)
    inside : ndarray of bool, shape (i, j, k)
        Where it is compared.
    spacing_mm : sequence of 3 float
        Voxel edges in mm.
    axis : int
        Axis that runs roughly from side to side. The search starts across the centre of mass of `inside`.

    Returns
    -------
    ndarray of float64, shape (4, 4), or None
        From voxels to the voxels of the mirrored places. None where no plane makes the two sides alike
        (a correlation of 0.5) and covers them by each other: half an organ, a flat image, nothing inside.
    """
    if not inside.any():
        return None
    edge = np.asarray(spacing_mm, dtype=np.float64)
    smooth = ndimage.gaussian_filter(np.where(inside, image, np.float32(0)), _SMOOTH_MM / edge)
    points = np.argwhere(inside)
    points = points[:: max(1, len(points) // _N_POINTS)]
    here = smooth[tuple(points.T)].astype(np.float64)
    centre = points.mean(axis=0)
    turned = [a for a in range(3) if a != axis]

    def matrix(found: NDArray[np.float64]) -> NDArray[np.float64]:
        normal = np.zeros(3)
        normal[axis], normal[turned] = 1.0, found[:2]
        normal /= np.linalg.norm(normal)
        turn = np.eye(3) - 2.0 * np.outer(normal, normal)
        whole = np.eye(4)
        whole[:3, :3] = turn * edge / edge[:, None]
        whole[:3, 3] = centre - whole[:3, :3] @ centre + 2.0 * found[2] * normal / edge
        return whole

    def unlike(found: NDArray[np.float64]) -> float:
        whole = matrix(found)
        there = whole[:3, :3] @ points.T + whole[:3, 3:]
        return float(((ndimage.map_coordinates(smooth, there, order=1) - here) ** 2).mean())

    from scipy import optimize  # a fifth of a second, for this alone

    # Steps of about six degrees and four millimetres.
    simplex = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 4.0]])
    best = optimize.minimize(
        unlike,
        np.zeros(3),
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 1e-3, "maxiter": 200},
    )
    whole = matrix(best.x)
    there = np.rint(whole[:3, :3] @ points.T + whole[:3, 3:])
    met = ndimage.map_coordinates(inside.astype(np.uint8), there, order=0).mean()
    alike = best.fun < 2.0 * (1.0 - _LEAST_ALIKE) * here.var()
    return whole if alike and met >= _LEAST_MET else None


def mirrored(
    image: NDArray[np.float32], clean: NDArray[np.bool_], matrix: NDArray[np.float64], box: Box
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Sample the contralateral place of a box, by cubic splines.

    Parameters
    ----------
    image : ndarray of float32, shape (C, i, j, k)
        The whole volume.
    clean : ndarray of bool, shape (i, j, k)
        Voxels that may be used.
    matrix : ndarray of float64, shape (4, 4)
        From voxels to the voxels of the contralateral place.
    box : tuple of 3 slice
        Where the place lies.

    Returns
    -------
    values : ndarray of float32, shape (C, shape of `box`)
        Zero where they are not to be used.
    usable : ndarray of bool, shape of `box`
        Where all voxels around the contralateral place (up to eight) are clean.
    """
    shape = shape_of(box)
    index = np.indices(shape).reshape(3, -1) + np.array(origin_of(box))[:, None]
    there = matrix[:3, :3] @ index + matrix[:3, 3:]
    low = np.floor(there.min(axis=1)).astype(int)
    high = np.ceil(there.max(axis=1)).astype(int) + 1
    touched = [
        slice(min(max(a, 0), n), max(min(b, n), 0)) for a, b, n in zip(low, high, clean.shape, strict=True)
    ]
    if any(s.stop <= s.start for s in touched):
        return np.zeros((image.shape[0], *shape), dtype=np.float32), np.zeros(shape, dtype=bool)
    near = grown((touched[0], touched[1], touched[2]), (_MARGIN_VOX,) * 3, clean.shape)
    local = there - np.array(origin_of(near))[:, None]
    # Linear weights of the surrounding voxels sum to one only where all of them are clean.
    share = ndimage.map_coordinates(clean[near].astype(np.float32), local, order=1, mode="constant")
    usable = (share > 1 - 1e-4).reshape(shape)
    values = np.zeros((image.shape[0], *shape), dtype=np.float32)
    at = local[:, usable.ravel()]
    for channel, whole in zip(values, image, strict=True):
        channel[usable] = ndimage.map_coordinates(whole[near], at, order=3, mode="nearest")
    return values, usable
