"""Texture for a filled region: cloned from clean tissue of the same image, or noise like it.

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
from lesionsynth.kernels.noise import gaussian_noise, spectrum_noise
from lesionsynth.kernels.patches import Way, draw_ways
from lesionsynth.kernels.pieces import (
    BEYOND,
    OTHER,
    REGION,
    USABLE,
    compare,
    lay_out,
    neighbours,
    off_plane,
    roughness,
)

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


def add_texture(
    kind: str,
    image: NDArray[np.float32],
    filled: NDArray[np.float32],
    region: NDArray[np.bool_],
    clean: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    fill: Fill,
    rng: np.random.Generator,
    mirror_axis: int | None,
    box: Box,
) -> tuple[NDArray[np.float32], dict[str, int]]:
    """Texture of the kind `clone`, `spectrum`, `noise` or `none`; see :func:`clone_texture` for the rest.

    Returns
    -------
    textured : ndarray, shape and dtype of `filled`
        Bit-equal to `filled` outside the region; `filled` itself for `none`.
    pieces : dict of str to int
        How many pieces were textured in which way; empty for `none`.
    """
    if kind == "clone":
        return clone_texture(image, filled, region, clean, spacing_mm, fill, rng, mirror_axis, box)
    if kind == "none":
        return filled, {}
    noise = spectrum_noise if kind == "spectrum" else gaussian_noise
    detail = noise(image, region, clean, rng, box)
    if detail is None:
        return filled, {"none": 1}
    textured = filled.copy()
    textured[:, region] += detail
    return textured, {kind: 1}


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
    one. Of the patch of a piece, what a plane through its ring leaves out is taken. Pieces overlap,
    and are cross-faded such that the variance, not the amplitude, stays the same. A small piece that
    still has no place gets Gaussian noise as rough as the clean tissue nearby.

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


@dataclass(frozen=True)
class _Piece:
    """Voxels of a piece, its overlap included, with their weights, and of its ring; places in the volume."""

    inner: NDArray[np.int64]
    weight: NDArray[np.float32]
    outer: NDArray[np.int64]
    pairs: NDArray[np.int64]


class _Component:
    """One component of the region in a box of its own, padded by a voxel, whose voxels have flat indices."""

    def __init__(self, component: NDArray[np.bool_], place: Box, clean: NDArray[np.bool_]) -> None:
        self.box = grown(place, (_RING_VOX,) * 3, clean.shape)
        kind = np.full([n + 2 for n in shape_of(self.box)], BEYOND, dtype=np.uint8)
        core = kind[1:-1, 1:-1, 1:-1]
        core[...] = np.where(clean[self.box], USABLE, OTHER)
        core[_within(place, self.box)][component] = REGION
        self.shape, self.kind = kind.shape, kind.ravel()
        self.strides = np.array([kind.shape[1] * kind.shape[2], kind.shape[2], 1], dtype=np.int64)
        self.origin = np.array(origin_of(self.box)) - 1
        self.stamp = np.zeros(kind.size, dtype=np.int64)
        self.slot = np.zeros(kind.size, dtype=np.int32)
        self.first = 1

    def points(self, flat: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places in the volume (n, 3)."""
        return np.stack(np.unravel_index(flat, self.shape), axis=1) + self.origin

    def flat(self, points: NDArray[np.int64]) -> NDArray[np.int64]:
        """Flat indices (n,) of places in the volume."""
        return np.asarray((points - self.origin) @ self.strides)

    def piece(self, core: NDArray[np.int64]) -> _Piece:
        """The piece around a core, given by its places."""
        inner, weight, outer = lay_out(
            self.flat(core), self.kind, self.stamp, self.first, self.strides, _OVERLAP_VOX, _RING_VOX
        )
        self.first += _OVERLAP_VOX + _RING_VOX + 3
        pairs = neighbours(outer, self.slot, self.strides)
        return _Piece(self.points(inner), weight, self.points(outer), pairs)


def _detail(
    component: NDArray[np.bool_], place: Box, around: _Surroundings, pieces: dict[str, int]
) -> NDArray[np.float32]:
    """Texture (C, shape of `component`) for one component that lies at `place`."""
    whole = _Component(component, place, around.clean)
    spread, rough = _nearby(component, place, around)
    total = np.zeros((around.image.shape[0], whole.kind.size), dtype=np.float32)
    weight2 = np.zeros(whole.kind.size, dtype=np.float32)
    start = np.argwhere(component) + origin_of(place)
    stack = [start]
    while stack:
        core = stack.pop()
        piece = whole.piece(core)
        found = _cloned(piece, spread, around, whole.box if core is start else None)
        if found is None and len(core) > _MIN_PIECE_VOX:
            stack.extend(_halves(core, around.spacing_mm))
            continue
        at, weight = whole.flat(piece.inner), piece.weight
        if found is None:
            at, weight = whole.flat(core), np.ones(len(core), dtype=np.float32)
            found = _noise(len(core), rough, around)
        way, detail = found
        pieces[way] += 1
        total[:, at] += weight * detail
        weight2[at] += weight**2
    total /= np.sqrt(np.where(weight2 > 0, weight2, 1.0))
    shaped = total.reshape(-1, *whole.shape)[:, 1:-1, 1:-1, 1:-1]
    return shaped[(slice(None), *_within(place, whole.box))]


def _within(box: Box, outer: Box) -> Box:
    """`box` relative to the first corner of `outer`."""
    return shifted(box, [-o for o in origin_of(outer)])


def _halves(core: NDArray[np.int64], spacing_mm: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Cut the voxels (n, 3) of a piece in two at the median of its longest axis."""
    low = core.min(axis=0)
    extent = core.max(axis=0) - low
    axis = int(np.argmax(extent * spacing_mm))
    profile = np.bincount(core[:, axis] - low[axis])
    cut = min(max(int(np.searchsorted(np.cumsum(profile), 0.5 * len(core))), 1), int(extent[axis]))
    first = core[:, axis] - low[axis] < cut
    return [core[first], core[~first]]


def _cloned(
    piece: _Piece, spread: NDArray[np.float64], around: _Surroundings, whole: Box | None
) -> tuple[str, NDArray[np.float32]] | None:
    """Way and texture (C, n) of the best clean patch for `piece`, or None where there is none.

    Best is the patch that is as rough as the tissue around the piece, and whose values do not spread
    more than `spread` (C,), which is what they do around the component. `whole` is the box of the
    component where the piece is all of it.
    """
    if not len(piece.inner):
        return None
    # In random order an unclean voxel of a place is found after a few looks.
    shuffled = around.rng.permutation(piece.inner, axis=0)
    spare = int(_SPARE_RING * len(piece.outer))
    for way in around.ways:
        rows = way.find(shuffled, piece.outer, around.clean, spare, _N_COMPARED)
        moves = way.offsets[rows]
        unlike, ratio = compare(
            around.image,
            around.clean,
            piece.inner,
            piece.outer,
            piece.pairs,
            way.sign,
            moves,
            spread,
            _MIN_PAIRS,
        )
        for n in np.argsort(unlike, kind="stable"):
            if whole is None:
                detail = off_plane(
                    around.image,
                    around.clean,
                    piece.inner,
                    piece.outer,
                    way.sign,
                    moves[n],
                    around.spacing_mm,
                )
            else:
                found = _off_fill(piece, whole, way.sign, moves[n], around)
                if found is None:
                    continue
                detail = found
            way.use(int(rows[n]))
            differs = np.abs(np.log(ratio[n])) > np.log(_SCALE_FROM)
            scale = np.where(differs, np.clip(ratio[n], *_SCALE_LIMITS), 1.0)
            return way.name, np.asarray(detail * scale[:, None], dtype=np.float32)
    return None


def _off_fill(
    piece: _Piece, box: Box, sign: NDArray[np.int64], move: NDArray[np.int64], around: _Surroundings
) -> NDArray[np.float32] | None:
    """What the fill of a patch from its clean ring leaves out (C, n), without mean next to the ring.

    None where the ring does not reach all of the patch.
    """
    inner, outer = (tuple((points - origin_of(box)).T) for points in (piece.inner, piece.outer))
    hole = np.zeros(shape_of(box), dtype=bool)
    hole[inner] = True
    there = tuple((piece.outer * sign + move).T)
    inside = np.all([(t >= 0) & (t < n) for t, n in zip(there, around.clean.shape, strict=True)], axis=0)
    kept = tuple(t[inside] for t in there)
    clean = around.clean[kept]
    known = np.zeros(hole.shape, dtype=bool)
    known[tuple(o[inside][clean] for o in outer)] = True
    if not reachable(hole, known)[hole].all():
        return None
    patch = np.zeros((around.image.shape[0], *hole.shape), dtype=np.float32)
    patch[(slice(None), *inner)] = around.image[(slice(None), *(piece.inner * sign + move).T)]
    patch[:, known] = 0.0
    patch[(slice(None), *(o[inside][clean] for o in outer))] = around.image[
        (slice(None), *(k[clean] for k in kept))
    ]
    detail = patch - around.fill(patch, hole, known)
    detail -= detail[:, hole & ndimage.binary_dilation(known)].mean(axis=1)[:, None, None, None]
    return np.asarray(detail[(slice(None), *inner)])


def _nearby(
    component: NDArray[np.bool_], place: Box, around: _Surroundings
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Spread (C,) and roughness (C,) of the nearest clean tissue around a component."""
    for reach in _NEARBY_VOX:
        larger = grown(place, (reach,) * 3, around.clean.shape)
        near = np.zeros(shape_of(larger), dtype=bool)
        near[_within(place, larger)] = component
        near = ndimage.binary_dilation(near, iterations=reach) & around.clean[larger]
        values = around.image[(slice(None), *larger)]
        rough = roughness(values, near, _MIN_PAIRS)
        if rough[0] >= 0:
            break
    spread = np.array([robust_spread(channel[near]) for channel in values])
    return spread, rough if rough[0] >= 0 else None


def _noise(
    n: int, rough: NDArray[np.float64] | None, around: _Surroundings
) -> tuple[str, NDArray[np.float32]]:
    """Way and texture (C, n) of the last resort."""
    if rough is None:
        return "none", np.zeros((around.image.shape[0], n), dtype=np.float32)
    white = around.rng.standard_normal((rough.size, n), dtype=np.float32)
    return "noise", white * (rough / _MEAN_DIFFERENCE).astype(np.float32)[:, None]
