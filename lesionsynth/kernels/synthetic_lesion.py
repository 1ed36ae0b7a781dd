"""Shapes, textures and intensity profiles of lesions that no image holds.

Everything is in millimetres on a grid of the lesion's own, and runs on NumPy or CuPy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lesionsynth.backend import modules_of
from lesionsynth.kernels.deform import draw_control_mm, upsample
from lesionsynth.kernels.distance import distance_to_mm

Profile = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Signed distances from an edge in mm (K,), and the value of every channel there (C, K)."""

# Knots of a measured profile are this far apart; a bin with fewer voxels than this says too little and
# is joined with the next.
_KNOT_MM = 1.0
_MIN_BIN_VOXELS = 8
# Grid points of the elastic field per mean radius: bulges and dents as large as a third of the lesion.
_BULGES = 0.7


def ellipsoid_level(
    shape: Sequence[int],
    spacing_mm: float,
    radii_mm: Sequence[float],
    bending: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Level function of a turned and bent ellipsoid: below 1 inside, 1 on its surface, above outside.

    Parameters
    ----------
    shape : sequence of int
        Voxels of the grid; the ellipsoid lies in its middle.
    spacing_mm : float
        Edge of a voxel.
    radii_mm : sequence of float
        Half axes.
    bending : float
        Standard deviation of the elastic displacement, as a share of the mean radius; halved where space
        would fold, so that the shape stays in one piece.
    rng : numpy.random.Generator
        Draws the turn and the displacement.

    Returns
    -------
    ndarray, (i, j, k), float32

    References
    ----------
    Hu et al., Label-Free Liver Tumor Segmentation, CVPR 2023, arXiv:2303.14869.
    """
    from scipy.spatial.transform import Rotation  # slow to import, for this alone

    turn = Rotation.random(random_state=rng).as_matrix()
    radius = float(np.cbrt(np.prod(radii_mm)))
    control_step_mm = _BULGES * radius
    control = draw_control_mm(rng, [2.0 * max(radii_mm)] * 3, control_step_mm, bending * radius)
    field = upsample(control, shape, [control_step_mm / spacing_mm] * 3)
    axes = [(np.arange(n) - (n - 1) / 2) * spacing_mm for n in shape]
    at = np.stack(np.meshgrid(*axes, indexing="ij")) + field
    scaled = np.tensordot(turn / np.asarray(radii_mm)[:, None], at, axes=1)
    return np.asarray(np.sqrt((scaled**2).sum(axis=0)), dtype=np.float32)


def lowest(level: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    """The `count` voxels of lowest level, one at least: a shape of exactly that volume."""
    xp, _ = modules_of(level)
    mask = xp.zeros(level.size, dtype=bool)
    mask[xp.argpartition(level.ravel(), count - 1)[:count]] = True
    return mask.reshape(level.shape)


def signed_distance_mm(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> NDArray[np.float32]:
    """Distance from the edge of `mask` in mm, negative inside; the edge lies between two voxels.

    All infinite where the mask is empty; where it is full, the volume's border counts as its edge.
    """
    xp, _ = modules_of(mask)
    half = 0.5 * min(spacing_mm)
    inside = distance_to_mm(~xp.pad(mask, 1), spacing_mm)[1:-1, 1:-1, 1:-1]
    return xp.where(mask, half - inside, distance_to_mm(mask, spacing_mm) - half).astype(np.float32)


def blurred_noise(white: NDArray[np.float32], sigma_vox: Sequence[float]) -> NDArray[np.float32]:
    """White noise (i, j, k) after a Gaussian blur, brought back to mean 0 and standard deviation 1."""
    xp, ndimage = modules_of(white)
    noise = ndimage.gaussian_filter(white, sigma_vox, mode="wrap")
    noise -= noise.mean()
    return noise / xp.maximum(noise.std(), 1e-6)


def bump(mask: NDArray[np.bool_], sigma_vox: Sequence[float]) -> NDArray[np.float32]:
    """A smooth hill on a mask: its Gaussian blur, 1 at the top. The mask must not be empty."""
    _, ndimage = modules_of(mask)
    hill = ndimage.gaussian_filter(mask.astype(np.float32), sigma_vox, mode="constant")
    return hill / hill.max()


def profile_of(
    values: NDArray[np.float32],
    distance_mm: NDArray[np.float32],
    where: NDArray[np.bool_],
    reach_mm: float,
) -> Profile:
    """Mean of every channel at each depth inside and each distance outside an edge.

    Parameters
    ----------
    values : ndarray, (C, i, j, k), float32
    distance_mm : ndarray, (i, j, k), float32
        From :func:`signed_distance_mm`.
    where : ndarray, (i, j, k), bool
        Voxels that count; outside the edge they should be tissue.
    reach_mm : float
        How far outside the profile reaches. There it ends with 0.

    Returns
    -------
    knots_mm : ndarray, (K,), float64
        Rising.
    profile : ndarray, (C, K), float64
        Bins of too few voxels are joined with the next away from the edge. Without any voxel inside the
        profile is 0 everywhere.
    """
    inside = _bins(values, -distance_mm, where & (distance_mm < 0))[::-1]
    if not inside:
        return np.zeros(1), np.zeros((len(values), 1))
    outside = _bins(values, distance_mm, where & (distance_mm >= 0) & (distance_mm < reach_mm))
    knots = [-depth for depth, _ in inside] + [away for away, _ in outside] + [reach_mm]
    means = [mean for _, mean in (*inside, *outside)] + [[0.0] * len(values)]
    return np.array(knots), np.array(means).T


def _bins(
    values: NDArray[np.float32], away_mm: NDArray[np.float32], where: NDArray[np.bool_]
) -> list[tuple[float, list[float]]]:
    """Mean distance from the edge and mean of every channel, bin by bin away from the edge.

    The first bin is there twice, so that its value holds up to the edge and the step there stays one.
    """
    away, inner = away_mm[where], values[:, where]
    bins: list[tuple[float, list[float]]] = []
    furthest = float(away.max()) if away.size else 0.0
    start = stop = 0.0
    while stop <= furthest and away.size:
        stop += _KNOT_MM
        chosen = (away >= start) & (away < stop)
        count = int(chosen.sum())
        # What is left behind the last bin counts for itself only where there is no other.
        if count >= _MIN_BIN_VOXELS or (count and not bins and stop > furthest):
            mean = [float(m) for m in inner[:, chosen].mean(axis=1)]
            if not bins and float(away[chosen].min()) < float(away[chosen].mean()):
                bins.append((float(away[chosen].min()), mean))
            bins.append((float(away[chosen].mean()), mean))
            start = stop
    return bins


def texture_beyond(
    values: NDArray[np.float32], smooth: NDArray[np.float32], where: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Mixing matrix (C, C) of the variation that a lesion has beyond that of tissue.

    Both images (C, i, j, k) are in units of the tissue's spread, so that the tissue itself, which a lesion
    on its host keeps, accounts for a variance of one in each direction. ``matrix @ noise`` with independent
    unit noise a channel has the rest. 0 where `where` has too few voxels to tell.
    """
    rest = (values - smooth)[:, where].astype(np.float64)
    count = rest.shape[1]
    if count < _MIN_BIN_VOXELS:
        return np.zeros((len(values), len(values)))
    rest = rest - rest.mean(axis=1)[:, None]
    products = rest @ rest.T / count
    spread = np.array([[float(v) for v in row] for row in products])
    variance, directions = np.linalg.eigh(spread)
    return np.asarray(directions * np.sqrt(np.maximum(variance - 1.0, 0.0)))


def along_profile(distance_mm: NDArray[np.float32], profile: Profile) -> NDArray[np.float32]:
    """Values (C, i, j, k) at the given distances from an edge: linear between knots, constant beyond them."""
    xp, _ = modules_of(distance_mm)
    knots, rows = profile
    places = xp.asarray(knots)
    flat = distance_mm.ravel().astype(np.float64)
    channels = [xp.interp(flat, places, xp.asarray(row)).reshape(distance_mm.shape) for row in rows]
    return xp.stack(channels).astype(np.float32)
