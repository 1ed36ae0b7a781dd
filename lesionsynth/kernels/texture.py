"""Texture for a filled region, cloned from clean tissue of the same image.

A filled region is too smooth, and that alone tells it from untouched tissue. What the fill leaves
out is taken from elsewhere: a clean patch of the same shape is filled in the same way, and the
difference between the patch and its own fill is added to the region.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import Box, bounding_box, grown, origin_of, shape_of, shifted
from lesionsynth.kernels.inpaint import reachable
from lesionsynth.kernels.intensity import robust_spread

Fill = Callable[[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]], NDArray[np.float32]]

# Layers of clean tissue around a patch from which its fill is made, and the share of their voxels
# that may be something else; those are left out.
_RING_VOX = 3
_SPARE_RING = 0.2
_MAX_EXCESS = 2.5
# Neighbouring pieces of a split region overlap by so many layers, in which they are cross-faded.
_OVERLAP_VOX = 2
# A piece this small is not split further.
_MIN_PIECE_VOX = 60
# Bounds of the factor that fits the patch's texture to the region's surroundings, and how far from
# one the ratio of the two must be: smaller differences are chance and anatomy.
_SCALE_LIMITS = (0.7, 1.4)
_SCALE_FROM = 1.25
# Places tried for a patch, and the number of clean ones among them that are compared.
_N_MIRRORED = 512
_N_SHIFTED = 8192
_N_COMPARED = 6
# How far from the exactly mirrored place a patch may lie.
_MIRROR_REACH_MM = 12.0
# Fewer pairs of neighbours than this say nothing about the texture.
_MIN_PAIRS = 30
# Mean absolute difference of two independent draws from N(0, 1).
_MEAN_DIFFERENCE = 2.0 / np.sqrt(np.pi)


@dataclass(frozen=True)
class _Way:
    """Places to try: voxel x goes to ``sign * x + offset`` for each of the offsets (n, 3)."""

    name: str
    sign: NDArray[np.int64]
    offsets: NDArray[np.int64]


@dataclass(frozen=True)
class _Surroundings:
    """The volume that patches are taken from, and the ways to look for them."""

    image: NDArray[np.float32]
    clean: NDArray[np.bool_]
    spacing_mm: NDArray[np.float64]
    fill: Fill
    rng: np.random.Generator
    ways: list[_Way]


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
    component moved by whole voxels, mirrored first if `mirror_axis` is given. All its voxels, and
    the ring from which it is filled, are clean; of a few clean places the one is taken whose
    texture is most like that around the region. The difference is made free of its mean next to the
    ring and, where the roughness around the region clearly differs from that around the patch,
    scaled by their ratio (0.7 to 1.4).

    A component without a place as a whole is halved across its longest axis until every piece has
    one. Pieces overlap, and are cross-faded such that the variance, not the amplitude, stays the
    same. A small piece that still has no place gets Gaussian noise of the roughness of the clean
    tissue nearby.

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
    place = box or grown((slice(0, 0),) * 3, clean.shape, clean.shape)
    if clean[place][region].any():
        raise ValueError(f"{int(clean[place][region].sum())} voxels of the region are marked as clean")
    pieces = dict.fromkeys(("mirror", "shift", "noise", "none"), 0)
    textured = filled.copy()
    tight = bounding_box(region)
    if tight is None:
        return textured, pieces
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    # The places are drawn once: pieces that take the same shift join without a seam.
    ways = _ways(clean, spacing, rng, mirror_axis)
    around = _Surroundings(image, clean, spacing, fill, rng, ways)
    labels, _ = ndimage.label(region[tight], structure=np.ones((3, 3, 3)))
    for label, inner in enumerate(ndimage.find_objects(labels), start=1):
        component = labels[inner] == label
        local = shifted(inner, origin_of(tight))
        detail = _detail(component, shifted(local, origin_of(place)), around, pieces)
        textured[(slice(None), *local)][:, component] += detail[:, component]
    return textured, pieces


def _ways(
    clean: NDArray[np.bool_],
    spacing_mm: NDArray[np.float64],
    rng: np.random.Generator,
    mirror_axis: int | None,
) -> list[_Way]:
    """Draw the places to try, in order: around the mirrored place, then around the region."""
    straight = np.ones(3, dtype=np.int64)
    ways = []
    if mirror_axis is not None:
        # Twice the centre of mass, from a sample of about 1e5 voxels.
        step = max(1, round((clean.size / 1e5) ** (1 / 3)))
        index = np.nonzero(clean[::step, ::step, ::step])[mirror_axis]
        mirrored = straight.copy()
        mirrored[mirror_axis] = -1
        offsets = _offsets(_N_MIRRORED, _MIRROR_REACH_MM, 1, spacing_mm, rng)
        offsets[:, mirror_axis] += round(2.0 * step * float(index.mean())) if index.size else 0
        ways.append(_Way("mirror", mirrored, offsets))
    reach_mm = 0.5 * float(np.linalg.norm(spacing_mm * clean.shape))
    # The third power of a uniform number prefers near places strongly.
    ways.append(_Way("shift", straight, _offsets(_N_SHIFTED, reach_mm, 3, spacing_mm, rng)))
    return ways


def _offsets(
    n: int, reach_mm: float, power: int, spacing_mm: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw `n` offsets in voxels (n, 3), of random directions, up to `reach_mm` long."""
    direction = rng.normal(size=(n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length_mm = reach_mm * rng.random((n, 1)) ** power
    return np.rint(direction * length_mm / spacing_mm).astype(np.int64)


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
    around_it = ndimage.binary_dilation(region, iterations=_RING_VOX) & around.clean[box]
    spread = np.array([robust_spread(channel[around_it]) for channel in around.image[(slice(None), *box)]])
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
        small = np.count_nonzero(core) <= _MIN_PIECE_VOX
        found = _cloned(
            weight > 0,
            ring,
            shifted(window, origin_of(box)),
            around,
            spread,
            np.inf if small else _MAX_EXCESS,
        )
        if found is None and not small:
            stack.extend(_halves(tight, core, around.spacing_mm))
            continue
        if found is None:
            weight[...] = 0.0
            weight[_within(tight, window)] = core
            found = _noise(weight.shape, region, box, around)
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
    piece: NDArray[np.bool_], ring: NDArray[np.bool_], window: Box, around: _Surroundings, spread, most
) -> tuple[str, NDArray[np.float32]] | None:
    """Way and texture of the best clean patch for `piece`, or None where there is none."""
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
        found, score = None, np.inf
        for index in _clean_places(shuffled, outer, way.sign, way.offsets, around.clean, spare, _N_COMPARED):
            move = way.offsets[index]
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
            excess = float(_ratio(patch[:, piece].std(axis=1), spread).max())
            unlike += np.log(max(excess, 1.0))
            if excess > most:
                continue
            if unlike < score:
                found, score = (patch, known, ratio), unlike
        if found is not None:
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


def _noise(
    shape: tuple[int, ...], region: NDArray[np.bool_], box: Box, around: _Surroundings
) -> tuple[str, NDArray[np.float32]]:
    """Way and texture of the last resort: noise as rough as the clean tissue around the region."""
    for reach in (4, 8, 16):
        larger = grown(box, (reach,) * 3, around.clean.shape)
        near = np.zeros(shape_of(larger), dtype=bool)
        near[_within(box, larger)] = region
        near = ndimage.binary_dilation(near, iterations=reach) & around.clean[larger]
        natural = _roughness(around.image[(slice(None), *larger)], _pairs(near))
        if natural is not None:
            white = around.rng.standard_normal((natural.size, *shape), dtype=np.float32)
            return "noise", white * (natural / _MEAN_DIFFERENCE).astype(np.float32)[:, None, None, None]
    return "none", np.zeros((around.image.shape[0], *shape), dtype=np.float32)


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


@njit(cache=True, nogil=True)
def _clean_places(inner, outer, sign, offsets, clean, spare, wanted):  # type: ignore[no-untyped-def]
    """Index of the first `wanted` rows of `offsets` that move the points onto clean voxels.

    All `inner` points (n, 3) have to become clean, and all `outer` ones but at most `spare`; none
    may leave the volume.
    """
    found = np.empty(wanted, np.int64)
    n = 0
    for m in range(offsets.shape[0]):
        left = 0
        for p in range(inner.shape[0] + outer.shape[0]):
            point = inner[p] if p < inner.shape[0] else outer[p - inner.shape[0]]
            i = sign[0] * point[0] + offsets[m, 0]
            j = sign[1] * point[1] + offsets[m, 1]
            k = sign[2] * point[2] + offsets[m, 2]
            inside = 0 <= i < clean.shape[0] and 0 <= j < clean.shape[1] and 0 <= k < clean.shape[2]
            if inside and clean[i, j, k]:
                continue
            if inside and p >= inner.shape[0] and left < spare:
                left += 1
                continue
            left = -1
            break
        if left >= 0:
            found[n] = m
            n += 1
            if n == wanted:
                break
    return found[:n]
