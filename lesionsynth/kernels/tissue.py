"""Tissue classes from intensities, for data that come without a tissue map."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import FLAT_VOX, Box, bounding_box
from lesionsynth.kernels.components import components, dilated, largest_component
from lesionsynth.kernels.distance import voxel_scale
from lesionsynth.kernels.edt import exact_distance_mm
from lesionsynth.units import voxel_volume_mm3

OUTSIDE, FLUID, GREY, WHITE, VENTRICLE = 0, 1, 2, 3, 4
"""Codes of a tissue map. Where only one tissue is known, all of it is WHITE."""

NEAR_VENTRICLE, NEAR_EDGE = 1, 2
"""Bits of a map of zones: voxels by which a lesion is periventricular, or juxtacortical (at the edge)."""

PLACES = ("periventricular", "juxtacortical", "deep", "edge", "inside")
"""Classes of sites: the first three where fluid and grey matter are known, else the last two."""

_MIN_BACKGROUND = 0.1
_SPECK_MM3 = 100.0
_MIN_CLASS_SHARE = 0.03
_AIR_FRACTION = 0.1
_AIR_HU, _MOST_HU = -1024.0, 4096.0
_LARGEST_BRAIN_MM3 = 2.4e6
_SAMPLE = 10000
_MIN_SAMPLE = 300
_MAX_ITERATIONS = 60
_ROUNDING = 1 + 1e-4
"""Distances of whole voxels (float32) meet limits in mm (float64): two voxels of 1.2 mm are 2.4 mm."""

# Order of the classes from dark to bright, by the kind of channel.
_CONTRASTS = {
    "t1": (FLUID, GREY, WHITE),
    "t1post": (FLUID, GREY, WHITE),
    "t2": (WHITE, GREY, FLUID),
    # FLAIR alone does not tell grey from white matter: its classes are fluid, partial volume, the rest.
    "flair": (FLUID, WHITE, WHITE),
}


def is_solid(tissue: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether codes are tissue that may be changed: grey or white matter."""
    return (tissue == GREY) | (tissue == WHITE)


def contrast_of(channel_name: str) -> str | None:
    """Kind of MR contrast that a channel's name tells, or None."""
    name = re.sub(r"[^a-z0-9+]+", " ", channel_name.lower())
    if re.search(r"flair|\bt2f\b", name):
        return "flair"
    if re.search(r"t1w?(c|ce)\b|t1.*(post|gd|gad|\+c| ce?\b)", name):
        return "t1post"
    if re.search(r"t1|mprage|spgr", name):
        return "t1"
    return "t2" if "t2" in name else None


def tissue_channels(channel_names: Sequence[str]) -> list[int]:
    """Indices of the channels that separate tissue best, the leading one first.

    T1 with T2 where there is one; else the first of T1, T1 with contrast agent, T2, FLAIR alone. (With
    FLAIR at its side, T1 was seen to lose the grey matter to a class of partial volume.)
    """
    kinds = [contrast_of(name) for name in channel_names]
    lead = next((kind for kind in ("t1", "t1post", "t2", "flair") if kind in kinds), None)
    if lead is None:
        return []
    chosen = (lead, "t2") if lead in ("t1", "t1post") and "t2" in kinds else (lead,)
    return [kinds.index(kind) for kind in chosen]


def stripped_brain(image: NDArray[np.float32], spacing_mm: Sequence[float]) -> NDArray[np.bool_] | None:
    """Brain mask of a skull-stripped image, or None where it is not one.

    Parameters
    ----------
    image : ndarray, (C, i, j, k), float32
    spacing_mm : sequence of float

    Returns
    -------
    ndarray, (i, j, k), bool, or None
        None unless an exactly constant background (at least a tenth of the volume) surrounds one
        object that touches at most one face of the volume and is no larger than a brain: a whole head
        in zeroed air is not stripped.
    """
    inside = np.zeros(image.shape[1:], dtype=bool)
    for channel in image:
        inside |= channel != channel[0, 0, 0]
    if inside.mean() > 1 - _MIN_BACKGROUND or not inside.any():
        return None
    brain = largest_component(inside)
    if brain.sum() < 0.95 * inside.sum():
        return None
    faces = [brain.take(end, axis=axis) for axis in range(3) for end in (0, -1)]
    if sum(bool(face.mean() > 0.01) for face in faces) > 1:
        return None
    filled = _filled(brain)
    return None if filled.sum() * voxel_volume_mm3(spacing_mm) > _LARGEST_BRAIN_MM3 else filled


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`mask` with its holes: what cannot be reached from the border of the volume by faces."""
    box = bounding_box(mask)
    filled = mask.copy()
    if box is not None:
        labels, _ = ndimage.label(~np.pad(mask[box], 1))
        filled[box] = (labels != labels[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return filled


def without_padding(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """CT whose padding outside the field of view, such as -3024, is air; other images as they are.

    Below -1024 there is nothing in Hounsfield units, and nothing is far above 3071 in them.
    """
    if not values.min() < _AIR_HU or np.percentile(values[::2, ::2, ::2], 98) > _MOST_HU:
        return values
    return np.maximum(values, np.float32(_AIR_HU))


def body(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Everything that is not air: above a tenth of the 98th percentile in the first channel.

    Holes are filled and loose specks dropped. All true where the threshold separates nothing.
    """
    first = ndimage.gaussian_filter(without_padding(image[0]), 0.7)
    low, high = np.percentile(first[::2, ::2, ::2], (1, 98))
    mask = first > low + _AIR_FRACTION * (high - low)
    if not mask.any():
        return np.ones(mask.shape, dtype=bool)
    labels, _ = components(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = sizes >= 0.01 * sizes.max()
    return _filled(kept[labels])


def three_classes(
    image: NDArray[np.float32],
    brain: NDArray[np.bool_],
    lesions: NDArray[np.bool_],
    contrast: str,
) -> NDArray[np.uint8] | None:
    """Fluid, grey and white matter by a mixture of three Gaussians.

    Parameters
    ----------
    image : ndarray, (C, i, j, k), float32
        The channels of :func:`tissue_channels`.
    brain, lesions : ndarray, (i, j, k), bool
        Lesions take no part in the fit and count as white matter afterwards, so that a site is judged
        by what it was before.
    contrast : str
        Kind of the first channel, which gives the classes their order.

    Returns
    -------
    ndarray, (i, j, k), uint8, or None
        Tissue codes, without GREY where FLAIR is all there is; None where the intensities have no three
        classes. A fallback for data without a tissue map; a map from a segmentation tool is better.
    """
    box = bounding_box(brain)
    if box is None:
        return None
    inside, around, reached = brain[box], dilated(lesions[box], 1), dilated(lesions[box], 2)
    smooth = np.stack([ndimage.gaussian_filter(channel[box], 0.6)[inside] for channel in image])
    fitted = smooth[:, ~reached[inside]].astype(np.float64)
    fitted = fitted[:, :: max(1, fitted.shape[1] // _SAMPLE)]
    if fitted.shape[1] < _MIN_SAMPLE:
        return None
    low, high = np.percentile(fitted, (0.5, 99.5), axis=1)[:, :, None]
    if not (high > low).all():
        return None
    scaled = np.clip((smooth - low) / (high - low), -0.2, 1.2)
    mixture = _fit(np.clip((fitted - low) / (high - low), -0.2, 1.2))
    if mixture is None:
        return None
    order = np.array(_CONTRASTS[contrast], dtype=np.uint8)
    classes = np.zeros(inside.shape, dtype=np.uint8)
    classes[inside] = order[_log_density(scaled, *mixture).argmax(axis=0)]
    classes[around & inside & (classes != FLUID)] = WHITE
    tissue = np.zeros(brain.shape, dtype=np.uint8)
    tissue[box] = classes
    tissue[lesions] = WHITE
    return tissue


def _log_density(
    x: NDArray[np.float64],
    weight: NDArray[np.float64],
    mean: NDArray[np.float64],
    covariance: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Log of weight times density of each class, (3, N), for x (channels, N)."""
    rows = []
    for w, m, c in zip(weight, mean, covariance, strict=True):
        root = np.linalg.cholesky(c)
        log = np.full(x.shape[1], np.log(w) - np.log(np.diag(root)).sum())
        z: list[NDArray[np.float64]] = []
        for channel in range(len(x)):  # forward substitution: LAPACK knows nothing of triangles, and copies
            away = x[channel] - m[channel]
            for before, value in enumerate(z):
                away -= root[channel, before] * value
            away /= root[channel, channel]
            log -= 0.5 * away * away
            z.append(away)
        rows.append(log)
    return np.stack(rows)


def _fit(
    x: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
    """Expectation maximisation; weights (3,), means (3, C), covariances, dark to bright in channel 0."""
    first = np.quantile(x[0], (0.15, 0.6))
    share = np.eye(3)[np.searchsorted(first, x[0])].T * 0.9 + 0.1 / 3
    share /= share.sum(axis=0)
    weight = mean = covariance = np.zeros(0)
    for _ in range(_MAX_ITERATIONS):
        total = share.sum(axis=1)
        weight = total / total.sum()
        if weight.min() < _MIN_CLASS_SHARE:
            return None
        # einsum: quicker here than BLAS, whose sums depend on its number of threads
        mean = np.einsum("kn,cn->kc", share, x) / total[:, None]
        away = x - mean[:, :, None]
        covariance = np.einsum("kn,kan,kbn->kab", share, away, away) / total[:, None, None]
        covariance += 1e-4 * np.eye(len(x))
        log = _log_density(x, weight, mean, covariance)
        updated = np.exp(log - log.max(axis=0))
        updated /= updated.sum(axis=0)
        change = np.abs(updated - share).max()
        share = updated
        if change < 1e-3:
            break
    order = np.argsort(mean[:, 0])
    return weight[order], mean[order], covariance[order]


def mark_ventricles(tissue: NDArray[np.uint8], spacing_mm: Sequence[float]) -> None:
    """Turn FLUID deep inside the brain into VENTRICLE, in place.

    Deep means beyond a third of the brain's greatest depth; components under 200 mm3, or under a tenth
    of the largest, are left as sulci.
    """
    box = bounding_box(tissue != OUTSIDE)
    if box is None:
        return
    inner = tissue[box]
    rims, core = _rims(tissue)
    depth = exact_distance_mm(np.pad(inner, rims) == OUTSIDE, spacing_mm)[core]
    labels, _ = components((inner == FLUID) & (depth > depth.max() / 3))
    sizes = np.bincount(labels.ravel()) * voxel_volume_mm3(spacing_mm)
    sizes[0] = 0.0
    inner[(sizes > max(200.0, 0.1 * sizes.max()))[labels]] = VENTRICLE


def _rims(tissue: NDArray[np.uint8]) -> tuple[list[tuple[int, int]], Box]:
    """Voxels of OUTSIDE to put around a part of a volume along each axis, and what lies within them.

    Beyond a few slices nobody knows what lies: it is not outside.
    """
    rims = [(0, 0) if n <= FLAT_VOX else (1, 1) for n in tissue.shape]
    i, j, k = (slice(before, -after or None) for before, after in rims)
    return rims, (i, j, k)


def site_distances_mm(
    tissue: NDArray[np.uint8], spacing_mm: Sequence[float]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Distances that tell what kind of place a voxel is.

    Parameters
    ----------
    tissue : ndarray, (i, j, k), uint8
    spacing_mm : sequence of float

    Returns
    -------
    edge_mm : ndarray, (i, j, k), float32
        From the cortex or the outside (specks of other tissue under 100 mm3 do not count, nor do the
        ventricles); 0 there.
    fluid_mm : ndarray, (i, j, k), float32, or None
        From the ventricles; None where there are none.
    """
    voxel_mm3 = voxel_volume_mm3(spacing_mm)
    box = bounding_box(tissue != OUTSIDE)
    edge = np.zeros_like(tissue, dtype=np.float32)
    if box is None:
        return edge, None
    rims, core = _rims(tissue)
    inner = np.pad(tissue[box], rims)
    other = (inner == GREY) | (inner == FLUID)
    labels, _ = components(other)
    small = np.bincount(labels.ravel()) * voxel_mm3 < _SPECK_MM3
    small[0] = False
    outer = (other & ~small[labels]) | (inner == OUTSIDE)
    edge[box] = exact_distance_mm(outer, spacing_mm)[core]
    ventricle = inner == VENTRICLE
    if not ventricle.any():
        return edge, None
    fluid = np.full_like(tissue, np.inf, dtype=np.float32)
    fluid[box] = exact_distance_mm(ventricle, spacing_mm)[core]
    return edge, fluid


def site_zones(
    edge_mm: NDArray[np.float32],
    fluid_mm: NDArray[np.float32] | None,
    has_classes: bool,
    spacing_mm: Sequence[float],
) -> NDArray[np.uint8]:
    """Where a lesion is near the ventricles or the edge.

    Parameters
    ----------
    edge_mm, fluid_mm : ndarray, (i, j, k), float32
        See :func:`site_distances_mm`.
    has_classes : bool
        Whether fluid and grey matter are known; the ventricles count only then.
    spacing_mm : sequence of float

    Returns
    -------
    ndarray, (i, j, k), uint8
        NEAR_VENTRICLE within 3 mm of the ventricles, and NEAR_EDGE within 2 mm of the cortex, or within 3 mm
        of the outside where one tissue only is known. All three are wider on voxels above 1 mm.
    """
    reach = voxel_scale(spacing_mm) * _ROUNDING
    zones = (edge_mm <= (2.0 if has_classes else 3.0) * reach) * np.uint8(NEAR_EDGE)
    if has_classes and fluid_mm is not None:
        zones |= (fluid_mm <= 3.0 * reach) * np.uint8(NEAR_VENTRICLE)
    return zones


def place_of(zones: NDArray[np.uint8], has_classes: bool) -> str:
    """Class of a site from the zones of the voxels of a lesion; the ventricles come before the cortex."""
    near = int(np.bitwise_or.reduce(zones, axis=None))
    if not has_classes:
        return "edge" if near & NEAR_EDGE else "inside"
    if near & NEAR_VENTRICLE:
        return "periventricular"
    return "juxtacortical" if near & NEAR_EDGE else "deep"
