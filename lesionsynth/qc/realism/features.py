"""What a lesion, or a place, looks like: arrays in, named numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.kernels.distance import voxel_scale
from lesionsynth.kernels.edt import exact_distance_mm
from lesionsynth.units import mm_to_vox, voxel_volume_mm3

LESION_RINGS_MM = (-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
"""Rings about a lesion. None lies deeper inside than a voxel: small lesions have none there, which would
tell the size."""
PLACE_RINGS_MM = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0)
"""Rings about a filled place."""

_SHELL_MM = (3.0, 7.0)
_BANDS = ((0.0, 0.7), (0.7, 1.4), (1.4, 2.8))
_BEYOND = ("+3 mm", "+4 mm", "+5 mm", "alike around")

# Weights of the 3 + 6 + 4 directions between neighbouring voxels: shares of the sphere of directions that are
# nearest to each (Legland et al. 2007).
_DIRECTION_WEIGHTS = {1: 0.04577789120476 * 2, 2: 0.03698062787608 * 2, 3: 0.03519563978232 * 2}


def margin_vox(spacing_mm: Sequence[float]) -> tuple[int, ...]:
    """Voxels around a place that :func:`looks` looks at."""
    return tuple(n + 2 for n in mm_to_vox(_SHELL_MM[1] * voxel_scale(spacing_mm), spacing_mm))


def is_beyond(name: str) -> bool:
    """Whether a feature tells the surroundings, where no blend of usual width changes a voxel."""
    return name.endswith(_BEYOND)


def looks(
    values: NDArray[np.float32],
    mask: NDArray[np.bool_],
    tissue: NDArray[np.bool_],
    scale: Sequence[float],
    spacing_mm: Sequence[float],
    inner_mm: float = 2.0,
    rings_mm: Sequence[float] = PLACE_RINGS_MM,
    around: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """What a place looks like in each channel: contrast, radial profile, texture, edge; and across channels.

    Names begin with the number of the channel, or of two. Millimetres are those of voxels up to 1 mm; on
    coarser grids all widths grow by the smallest voxel edge, as partial-volume rims do.

    Parameters
    ----------
    values : ndarray, (C, i, j, k), float32
        The place with :func:`margin_vox` around it, less at the border of the volume.
    mask : ndarray, (i, j, k), bool
        The lesion that is, was, or is said to have been here; not empty.
    tissue : ndarray, (i, j, k), bool
        White and grey matter without other lesions: only there anything is looked at.
    scale : sequence of float
        Spread of the clean tissue, per channel.
    spacing_mm : sequence of float
    inner_mm : float
        The place reaches so far beyond the mask, and its edge a millimetre to either side of that.
    rings_mm : sequence of float
        Distances from the mask's edge at which rings of 1 mm begin, negative inside.
    around : ndarray, (i, j, k), bool, optional
        What the surroundings that level and texture are compared with are taken from; all of `tissue` by
        default.

    Returns
    -------
    dict of str to float
        Finite. What there is no voxel for is 0, or 1 where it is a ratio. `seam` is the boundary-gradient
        ratio: mean gradient at the edge over that of the millimetres on both sides of it. About 1: no seam;
        real lesions have a gradient at their edge too, so that it is compared with theirs.
    """
    distance = _signed_distance(mask, spacing_mm)
    shell = (distance > _SHELL_MM[0]) & (distance <= _SHELL_MM[1])
    shell &= tissue if around is None else around
    inner = (distance <= inner_mm) & tissue
    edge = (np.abs(distance - inner_mm) <= 1.0) & (distance > inner_mm - 1.0) & tissue
    beside = ~edge & (np.abs(distance - inner_mm) <= 3.0) & tissue
    rings = {low: (distance > low) & (distance <= low + 1.0) & tissue for low in rings_mm}
    found: dict[str, float] = {}
    fine = []
    for number, (channel, spread) in enumerate(zip(values.astype(np.float64), scale, strict=True)):
        level = np.median(channel[shell]) if shell.any() else 0.0
        unit = (channel - level) / (spread if spread > 0 else 1.0)
        fine.append(unit - ndimage.gaussian_filter(unit, 1.4))
        gradient = _gradient(unit, spacing_mm)
        local_mean = ndimage.uniform_filter(unit, 3)
        rough = np.sqrt(np.maximum(ndimage.uniform_filter(unit**2, 3) - local_mean**2, 0))
        own: dict[str, float] = {}
        own |= {f"level {low:+.0f} mm": _mean(unit, ring) for low, ring in rings.items()}
        for name, image in (("roughness", rough), ("gradient", gradient)):
            usual = _mean(image, shell)
            own |= {f"{name} {low:+.0f} mm": _ratio(_mean(image, ring), usual) for low, ring in rings.items()}
        own |= {"level": _mean(unit, inner), "spread": _spread(unit, inner)}
        own["spread ratio"] = _ratio(_spread(unit, inner), _spread(unit, shell))
        own |= {
            f"level p{q}": float(np.percentile(unit[inner], q)) if inner.any() else 0.0 for q in (5, 50, 95)
        }
        own["gradient edge/inside"] = _ratio(_mean(gradient, edge), _mean(gradient, inner))
        own["seam"] = _ratio(_mean(gradient, edge), _mean(gradient, beside))
        for low, high in _BANDS:
            band = (ndimage.gaussian_filter(unit, low) if low else unit) - ndimage.gaussian_filter(unit, high)
            own[f"band {low:g} inside"] = _ratio(_spread(band, inner), _spread(band, shell))
            own[f"band {low:g} edge"] = _ratio(_spread(band, edge), _spread(band, shell))
        for axis in range(3):
            step = np.abs(np.diff(unit, axis=axis))
            for name, where in (("inside", inner), ("edge", edge)):
                pair = np.take(where, range(1, where.shape[axis]), axis) & np.take(
                    where, range(where.shape[axis] - 1), axis
                )
                own[f"step {axis} {name}"] = _mean(step, pair)
        found |= {f"{number} {name}": value for name, value in own.items()}
    for a in range(len(fine)):
        for b in range(a):
            found[f"{b}{a} alike inside"] = _alike(fine[a], fine[b], inner)
            found[f"{b}{a} alike around"] = _alike(fine[a], fine[b], shell)
    return found


def shape(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> dict[str, float]:
    """Size and shape of a lesion.

    Parameters
    ----------
    mask : ndarray, (i, j, k), bool
        Not empty.
    spacing_mm : sequence of float

    Returns
    -------
    dict of str to float
        `volume_mm3`. `sphericity`: surface of a ball of the same volume over its own; 1 is a ball, inexact
        for lesions of a few voxels. `elongation` and `flatness`: second and third principal axis over the
        first. `length_mm`: of an ellipsoid with the same first axis.

    References
    ----------
    The surface is counted along 13 directions: Legland, Kieu, Devaux 2007, doi:10.5566/ias.v26.p83-92.
    """
    volume = float(np.count_nonzero(mask)) * voxel_volume_mm3(spacing_mm)
    places = np.argwhere(mask) * np.asarray(spacing_mm)
    # A voxel is no point: by its own spread a lesion of one has axes, too.
    spread = np.cov(places.T, bias=True) if len(places) > 1 else np.zeros((3, 3))
    axes = np.sqrt(np.linalg.eigvalsh(spread + np.diag(np.square(spacing_mm)) / 12.0))
    return {
        "volume_mm3": volume,
        "length_mm": float(2.0 * np.sqrt(5.0) * axes[2]),
        "sphericity": float(np.pi ** (1 / 3) * (6.0 * volume) ** (2 / 3) / _surface_mm2(mask, spacing_mm)),
        "elongation": float(axes[1] / axes[2]),
        "flatness": float(axes[0] / axes[2]),
    }


def _surface_mm2(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> float:
    """Crofton's formula: crossings of lines in every direction, each line standing for its share of area."""
    padded = np.pad(mask, 1)
    area = 0.0
    for step in product((-1, 0, 1), repeat=3):
        if step <= (0, 0, 0):
            continue  # one of two opposite directions
        moved = np.roll(padded, step, axis=(0, 1, 2))  # what rolls around is padding
        length_mm = float(np.linalg.norm(np.multiply(step, spacing_mm)))
        crossings = np.count_nonzero(moved != padded)
        area += _DIRECTION_WEIGHTS[int(np.abs(step).sum())] * crossings / length_mm
    return 2.0 * area * voxel_volume_mm3(spacing_mm)


def _signed_distance(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Distance from the mask, in mm of 1 mm voxels; inside 0 in the outermost layer and negative below."""
    scale = voxel_scale(spacing_mm)
    step = float(min(spacing_mm)) / scale
    outside = exact_distance_mm(mask, spacing_mm) / scale
    if mask.all():
        return np.full(mask.shape, -np.inf)
    inside = step - exact_distance_mm(~mask, spacing_mm) / scale
    # Whole voxels meet limits that are multiples of them.
    return np.asarray(np.round(np.where(mask, inside, outside), 4), dtype=np.float64)


def _gradient(image: NDArray[np.float64], spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Magnitude per mm; 0 along an axis of a single voxel."""
    steps = [
        np.gradient(image, spacing_mm[axis], axis=axis) ** 2 for axis in range(3) if image.shape[axis] > 1
    ]
    return np.asarray(np.sqrt(sum(steps, np.zeros(image.shape))))


def _mean(values: NDArray[np.float64], where: NDArray[np.bool_]) -> float:
    return float(values[where].mean()) if where.any() else 0.0


def _spread(values: NDArray[np.float64], where: NDArray[np.bool_]) -> float:
    return float(values[where].std()) if where.any() else 0.0


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b > 0 else 1.0


def _alike(a: NDArray[np.float64], b: NDArray[np.float64], where: NDArray[np.bool_]) -> float:
    """Correlation of the fine detail of two channels."""
    one, other = a[where], b[where]
    if one.size <= 3 or one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])
