"""Texture for a filled region, cloned from clean tissue of the same image.

A filled region is too smooth, and that alone tells it from untouched tissue. What the fill leaves
out is taken from elsewhere: a clean patch of the same shape is filled in the same way, and the
difference between the patch and its own fill is added to the region.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import Box, bounding_box, grown, origin_of, shape_of, shifted
from lesionsynth.kernels.inpaint import reachable
from lesionsynth.kernels.intensity import robust_spread
from lesionsynth.kernels.patches import Way, draw_ways

Fill = Callable[[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]], NDArray[np.float32]]

# Layers of clean tissue around a patch from which its fill is made, and the share of their voxels
# that may be something else; those are left out.
_RING_VOX = 3
_SPARE_RING = 0.2
# Neighbouring pieces of a split region overlap by so many layers, in which they are cross-faded.
_OVERLAP_VOX = 2
# A piece this small is not split further.
_MIN_PIECE_VOX = 60
# Bounds of the factor that fits the patch's texture to the region's surroundings, and how far from
# one the ratio of the two must be: smaller differences are chance and anatomy.
_SCALE_LIMITS = (0.7, 1.4)
_SCALE_FROM = 1.25
# Clean places that are compared.
_N_COMPARED = 6
# How far clean tissue is looked for that says what the texture around a component is like.
_NEARBY_VOX = (4, 8, 16)
# Fewer pairs of neighbours than this say nothing about the texture.
_MIN_PAIRS = 30
# Mean absolute difference of two independent draws from N(0, 1).
_MEAN_DIFFERENCE = 2.0 / np.sqrt(np.pi)


@dataclass(frozen=True)
class _Surroundings:
    """The volume that patches are taken from, and the ways to look for them."""

    image: NDArray[np.float32]
    clean: NDArray[np.bool_]
    spacing_mm: NDArray[np.float64]
    fill: Fill
    rng: np.random.Generator
    ways: list[Way]


def clone_texture(
    image: NDArray[np.float32],
    filled: NDArray[np.float32],
    region: NDArray[np.bool_],
    clean: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    fill: Fill,
    rng: np.random.Generator,
    mirror_axis: int | None = None,
    box: Box | None = None,
) -> tuple[NDArray[np.float32], dict[str, int]]:
    """Add to the filled region what the fill of a clean patch of the same shape leaves out.

    For each connected component of the region, ``filled + patch - fill(patch)``. The patch is the
    component moved by whole voxels, mirrored first if `mirror_axis` is given. All its voxels are
    clean, and four fifths at least of the ring from which it is filled; of a few such places the
    one is taken whose texture is most like that around the region. The difference is made free of
    its mean next to the ring and, where the roughness around the region clearly differs from that
    around the patch, scaled by their ratio (0.7 to 1.4).

    A component without a place as a whole is halved across its longest axis until every piece has
    one. Pieces overlap, and are cross-faded such that the variance, not the amplitude, stays the
    same. A small piece that still has no place gets Gaussian noise as rough as the clean tissue
    nearby.

    Parameters
    ----------
    image : ndarray of float32, shape (C, i, j, k)
        The whole volume, where the patches are taken. What it holds in the region is not read.
    filled : ndarray of float32, shape (C, i, j, k), or the shape of `box`
        The image with its region filled, best by the same `fill`.
    region : ndarray of bool, shape (i, j, k), or the shape of `box`
        The filled voxels.
    clean : ndarray of bool, shape (i, j, k)
        Voxels of the tissue to imitate, free of lesions; disjoint from the region.
    spacing_mm : sequence of 3 float
        Voxel edges in mm.
    fill : callable
        ``fill(image, region, source) -> filled`` on crops. A smooth one, such as
        :func:`~lesionsynth.kernels.trend.trend_fill`, is best: noise that a fill carries into the
        region comes on top of that of the patch.
    rng : numpy.random.Generator
        Draws the places, and the noise of the last resort.
    mirror_axis : int, optional
        Axis that runs from left to right. Places around the mirrored one are then tried first; the
        mid-plane is the centre of mass of `clean` along that axis.
    box : tuple of 3 slice, optional
        Where `filled` and `region` lie in the volume, if they are crops.

    Returns
    -------
    textured : ndarray, shape and dtype of `filled`
        Bit-equal to `filled` outside the region.
    pieces : dict of str to int
        How many pieces were textured in which way: `mirror`, `shift`, `noise`, and `none` (no
        place, and no clean tissue within 16 voxels either: left as they were).

    Raises
    ------
    ValueError
        If a voxel of the region is marked as clean.
    """
    place = box or (slice(0, clean.shape[0]), slice(0, clean.shape[1]), slice(0, clean.shape[2]))
    if clean[place][region].any():
        raise ValueError(f"{int(clean[place][region].sum())} voxels of the region are marked as clean")
    pieces = dict.fromkeys(("mirror", "shift", "noise", "none"), 0)
    textured = filled.copy()
    tight = bounding_box(region)
    if tight is None:
        return textured, pieces
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    ways = draw_ways(clean, spacing, rng, mirror_axis)
    around = _Surroundings(image, clean, spacing, fill, rng, ways)
    labels, _ = ndimage.label(region[tight], structure=np.ones((3, 3, 3)))
    for label, inner in enumerate(ndimage.find_objects(labels), start=1):
        component = labels[inner] == label
        local = shifted(inner, origin_of(tight))
        detail = _detail(component, shifted(local, origin_of(place)), around, pieces)
        textured[(slice(None), *local)][:, component] += detail[:, component]
    return textured, pieces


def _detail(
    component: NDArray[np.bool_], place: Box, around: _Surroundings, pieces: dict[str, int]
) -> NDArray[np.float32]:
    """Texture (C, shape of `component`) for one component that lies at `place`."""
    box = grown(place, (_RING_VOX,) * 3, around.clean.shape)
    inner = _within(place, box)
    region = np.zeros(shape_of(box), dtype=bool)
    region[inner] = component
    usable = around.clean[box] | region
    total = np.zeros((around.image.shape[0], *region.shape), dtype=np.float32)
    weight2 = np.zeros(region.shape, dtype=np.float32)
    spread, roughness = _nearby(region, box, around)
    stack = [(inner, component)]
    while stack:
        tight, core = stack.pop()
        window = grown(tight, (_RING_VOX + _OVERLAP_VOX,) * 3, region.shape)
        weight = np.zeros(shape_of(window), dtype=np.float32)
        weight[_within(tight, window)] = core
        _fade(weight, region[window])
        ring = ndimage.binary_dilation(weight > 0, iterations=_RING_VOX) & usable[window] & (weight == 0)
        # Voxels walled in by other tissue cannot be filled in the patch either.
        weight[~reachable(weight > 0, ring)] = 0.0
        found = _cloned(weight > 0, ring, shifted(window, origin_of(box)), spread, around)
        if found is None and np.count_nonzero(core) > _MIN_PIECE_VOX:
            stack.extend(_halves(tight, core, around.spacing_mm))
            continue
        if found is None:
            weight[...] = 0.0
            weight[_within(tight, window)] = core
            found = _noise(weight.shape, roughness, around)
        way, detail = found
        pieces[way] += 1
        total[(slice(None), *window)] += weight * detail
        weight2[window] += weight**2
    total /= np.sqrt(np.where(weight2 > 0, weight2, 1.0))
    return total[(slice(None), *inner)]


def _within(box: Box, outer: Box) -> Box:
    """`box` relative to the first corner of `outer`."""
    return shifted(box, [-o for o in origin_of(outer)])


def _fade(weight: NDArray[np.float32], region: NDArray[np.bool_]) -> None:
    """Let the weight of a piece, one in its core, fall over the layers of the region around it."""
    core = weight > 0
    for layer in range(1, _OVERLAP_VOX + 1):
        larger = ndimage.binary_dilation(core, mask=region)
        weight[larger & ~core] = 1.0 - layer / (_OVERLAP_VOX + 1)
        core = larger


def _halves(
    tight: Box, core: NDArray[np.bool_], spacing_mm: NDArray[np.float64]
) -> list[tuple[Box, NDArray[np.bool_]]]:
    """Cut the mask of a piece, which fills its box, in two at the median of its longest axis."""
    axis = int(np.argmax((np.array(core.shape) - 1) * spacing_mm))
    profile = core.sum(axis=tuple(a for a in range(3) if a != axis))
    cut = min(max(int(np.searchsorted(np.cumsum(profile), 0.5 * profile.sum())), 1), core.shape[axis] - 1)
    halves = []
    for part in (slice(0, cut), slice(cut, None)):
        cropped = core[tuple(part if a == axis else slice(None) for a in range(3))]
        inner = bounding_box(cropped)
        assert inner is not None
        start = [cut if a == axis and part.stop is None else 0 for a in range(3)]
        place = shifted(shifted(inner, start), origin_of(tight))
        halves.append((place, cropped[inner]))
    return halves


def _cloned(
    piece: NDArray[np.bool_],
    ring: NDArray[np.bool_],
    window: Box,
    spread: NDArray[np.float64],
    around: _Surroundings,
) -> tuple[str, NDArray[np.float32]] | None:
    """Way and texture of the best clean patch for `piece`, or None where there is none.

    Best is the patch that is as rough as the tissue around the piece, and whose values do not spread
    more than `spread` (C,), which is what they do around the component.
    """
    if not piece.any():
        return None
    start = origin_of(window)
    inner, outer = np.argwhere(piece) + start, np.argwhere(ring) + start
    # In random order an unclean voxel of a place is found after a few looks.
    shuffled = around.rng.permutation(inner, axis=0)
    spare = int(_SPARE_RING * len(outer))
    own = around.image[(slice(None), *window)]
    rim = ring & around.clean[window]
    for way in around.ways:
        found, score, best = None, np.inf, 0
        for row in way.find(shuffled, outer, around.clean, spare, _N_COMPARED):
            move = way.offsets[row]
            known = np.zeros_like(ring)
            known[ring] = around.clean[tuple((outer * way.sign + move).T)]
            if not reachable(piece, known)[piece].all():
                continue
            patch = np.zeros((own.shape[0], *ring.shape), dtype=own.dtype)
            patch[:, piece] = around.image[(slice(None), *(inner * way.sign + move).T)]
            patch[:, ring] = around.image[(slice(None), *(outer * way.sign + move).T)]
            pairs = _pairs(rim & known)
            ratio = _ratio(_roughness(own, pairs), _roughness(patch, pairs))
            unlike = float(np.abs(np.log(ratio)).sum())
            # Structure that the surroundings do not have would look pasted.
            excess = _ratio(patch[:, piece].std(axis=1, dtype=np.float64), spread)
            unlike += float(np.log(np.maximum(excess, 1.0)).max())
            if unlike < score:
                found, score, best = (patch, known, ratio), unlike, row
        if found is not None:
            way.use(best)
            return way.name, _residual(piece, *found, around.fill)
    return None


def _residual(
    piece: NDArray[np.bool_],
    patch: NDArray[np.float32],
    known: NDArray[np.bool_],
    ratio: NDArray[np.float64],
    fill: Fill,
) -> NDArray[np.float32]:
    """What the fill of a patch from its ring `known` leaves out, without mean there, and scaled."""
    detail = patch - fill(patch, piece, known)
    detail -= detail[:, piece & ndimage.binary_dilation(known)].mean(axis=1)[:, None, None, None]
    differs = np.abs(np.log(ratio)) > np.log(_SCALE_FROM)
    scale = np.where(differs, np.clip(ratio, *_SCALE_LIMITS), 1.0)
    return np.asarray(detail * scale[:, None, None, None], dtype=np.float32)


def _nearby(
    region: NDArray[np.bool_], box: Box, around: _Surroundings
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Spread (C,) and roughness (C,) of the nearest clean tissue around a component."""
    for reach in _NEARBY_VOX:
        larger = grown(box, (reach,) * 3, around.clean.shape)
        near = np.zeros(shape_of(larger), dtype=bool)
        near[_within(box, larger)] = region
        near = ndimage.binary_dilation(near, iterations=reach) & around.clean[larger]
        values = around.image[(slice(None), *larger)]
        roughness = _roughness(values, _pairs(near))
        if roughness is not None:
            break
    return np.array([robust_spread(channel[near]) for channel in values]), roughness


def _noise(
    shape: tuple[int, ...], roughness: NDArray[np.float64] | None, around: _Surroundings
) -> tuple[str, NDArray[np.float32]]:
    """Way and texture of the last resort, for a piece of the given shape."""
    if roughness is None:
        return "none", np.zeros((around.image.shape[0], *shape), dtype=np.float32)
    white = around.rng.standard_normal((roughness.size, *shape), dtype=np.float32)
    return "noise", white * (roughness / _MEAN_DIFFERENCE).astype(np.float32)[:, None, None, None]


def _pairs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Flat indices of the voxels of all pairs of face neighbours inside `mask`."""
    flat = np.arange(mask.size).reshape(mask.shape)
    lows, highs = [], []
    for axis in range(3):
        cut, at = np.moveaxis(mask, axis, 0), np.moveaxis(flat, axis, 0)
        both = cut[:-1] & cut[1:]
        lows.append(at[:-1][both])
        highs.append(at[1:][both])
    return np.concatenate(lows), np.concatenate(highs)


def _roughness(
    values: NDArray[np.float32], pairs: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[np.float64] | None:
    """Mean absolute difference (C,) of the pairs of voxels, or None for too few of them.

    Unlike the spread of a high-pass it needs no voxels outside the mask.
    """
    low, high = pairs
    if low.size < _MIN_PAIRS:
        return None
    flat = values.reshape(values.shape[0], -1)
    return np.asarray(np.abs(flat[:, high] - flat[:, low]).mean(axis=1), dtype=np.float64)


def _ratio(wanted: NDArray[np.float64] | None, found: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Factors (C,) from the one measure to the other; one where either says nothing."""
    if wanted is None or found is None:
        return np.ones(1)
    known = (wanted > 0) & (found > 0)
    return np.asarray(np.divide(wanted, found, out=np.ones_like(wanted), where=known))
