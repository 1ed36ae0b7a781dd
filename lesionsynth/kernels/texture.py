"""Texture for a filled region, cloned from clean tissue of the same image.

A filled region is too smooth, and that alone tells it from untouched tissue. What the fill leaves
out is taken from elsewhere: a clean patch of the same shape is filled in the same way, and the
difference between the patch and its own fill is added to the region.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from lesionsynth.domain.grid import Box, bounding_box, grown, origin_of, shifted
from lesionsynth.kernels.inpaint import reachable

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Fill = Callable[[Image, Mask, Mask], Image]

# Layers of clean tissue around a patch from which its fill is made.
RING_VOX = 3
# Neighbouring pieces of a split region overlap by so many layers, in which they are cross-faded.
OVERLAP_VOX = 2
# A piece this small is not split further.
MIN_PIECE_VOX = 150
# Bounds of the factor that fits the patch's texture to the region's surroundings.
SCALE_LIMITS = (0.7, 1.4)
# Places tried for a patch, and the number of clean ones among them that are compared.
N_MIRRORED = 512
N_SHIFTED = 8192
N_COMPARED = 6
# How far from the exactly mirrored place a patch may lie.
MIRROR_REACH_MM = 12.0
# Fewer pairs of neighbours than this say nothing about the texture.
_MIN_PAIRS = 30
# Mean absolute difference of two independent draws from N(0, 1).
_MEAN_DIFFERENCE = 2.0 / np.sqrt(np.pi)


def clone_texture(
    image: Image,
    filled: Image,
    region: Mask,
    clean: Mask,
    spacing_mm: Sequence[float],
    fill: Fill,
    rng: np.random.Generator,
    mirror_axis: int | None = None,
    box: Box | None = None,
) -> tuple[Image, dict[str, Any]]:
    """TODO."""
    if (clean if box is None else clean[box])[region].any():
        raise ValueError("some voxels of the region are marked as clean")
    place = box or (slice(0, clean.shape[0]), slice(0, clean.shape[1]), slice(0, clean.shape[2]))
    ways = {"mirror": 0, "shift": 0, "noise": 0, "plain": 0}
    result = filled.copy()
    search = _Search(clean, np.asarray(spacing_mm, dtype=np.float64), rng, mirror_axis)
    tight = bounding_box(region)
    if tight is None:
        return result, ways
    labels, n = ndimage.label(region[tight], structure=np.ones((3, 3, 3)))
    for label, inner in enumerate(ndimage.find_objects(labels), start=1):
        part = shifted(inner, origin_of(tight))
        component = labels[inner] == label
        part_global = shifted(part, origin_of(place))
        residual = _residual(
            image, filled[(slice(None), *part)], component, part_global, clean, fill, search, ways
        )
        target = result[(slice(None), *part)]
        target[:, component] += residual[:, component]
    return result, ways


class _Search:
    """Where to look for clean patches: near the mirrored place first, then around the region."""

    def __init__(self, clean, spacing, rng, mirror_axis):
        self.clean, self.spacing, self.rng, self.axis = clean, spacing, rng, mirror_axis
        self.reach = 0.5 * float(np.linalg.norm(spacing * clean.shape))
        if mirror_axis is not None:
            step = max(1, round((clean.size / 1e5) ** (1 / 3)))
            sub = clean[::step, ::step, ::step]
            profile = sub.sum(axis=tuple(a for a in range(3) if a != mirror_axis)).astype(float)
            x = np.arange(profile.size) * step
            self.twice = int(round(2 * (profile * x).sum() / max(profile.sum(), 1)))

    def shifts(self, n, reach, power):
        d = self.rng.normal(size=(n, 3))
        d /= np.linalg.norm(d, axis=1, keepdims=True)
        r = reach * self.rng.random((n, 1)) ** power
        return np.rint(d * r / self.spacing).astype(np.int64)

    def candidates(self) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64]]]:
        one = np.ones(3, dtype=np.int64)
        if self.axis is not None:
            sign = one.copy()
            sign[self.axis] = -1
            off = self.shifts(N_MIRRORED, MIRROR_REACH_MM, 1.0)
            off[:, self.axis] += self.twice
            yield "mirror", sign, off
        yield "shift", one, self.shifts(N_SHIFTED, self.reach, 3.0)


def _residual(image, filled, region, place, clean, fill, search, ways):
    n_channels = image.shape[0]
    natural = _surrounding_roughness(image, region, place, clean)
    margin = RING_VOX
    box = grown(place, (margin,) * 3, clean.shape)
    inner = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(place, box))
    mask = np.zeros(tuple(b.stop - b.start for b in box), bool)
    mask[inner] = region
    usable = clean[box] | mask
    total = np.zeros((n_channels, *mask.shape), np.float32)
    weight2 = np.zeros(mask.shape, np.float32)
    base = np.zeros_like(total)
    base[(slice(None), *inner)] = filled
    own = _roughness(base, mask)
    stack = [mask]
    while stack:
        core = stack.pop()
        tight = bounding_box(core)
        win = grown(tight, (RING_VOX + OVERLAP_VOX,) * 3, mask.shape)
        w = _fade(core[win], mask[win])
        ext = w > 0
        ring = ndimage.binary_dilation(ext, iterations=RING_VOX) & ~ext & usable[win]
        ext &= reachable(ext, ring)
        found = None
        origin = np.array([b.start + s.start for b, s in zip(box, win)])
        if ext.any():
            found = _find(image, ext, ring, origin, natural, search)
        if found is None and core.sum() > MIN_PIECE_VOX:
            stack += _halves(core, search.spacing)
            continue
        if found is None:
            if natural is None:
                ways["plain"] += 1
                continue
            ways["noise"] += 1
            ext = w > 0
            res = (
                search.rng.normal(size=(n_channels, *ext.shape))
                * (natural / _MEAN_DIFFERENCE)[:, None, None, None]
            )
        else:
            way, patch = found
            ways[way] += 1
            res = patch - fill(patch, ext, ring)
            rim = ext & ndimage.binary_dilation(ring)
            res -= res[:, rim].mean(1)[:, None, None, None]
            rr = _roughness(res, ext)
            if natural is not None and own is not None and rr is not None:
                want = np.sqrt(np.maximum(natural**2 - own**2, 0))
                s = np.clip(np.divide(want, rr, out=np.ones_like(want), where=rr > 0), *SCALE_LIMITS)
                ways.setdefault("scales", []).append(s)
                res *= s[:, None, None, None]
        w = np.where(ext, w, 0)
        total[(slice(None), *win)] += w * np.where(ext, res, 0)
        weight2[win] += w**2
    total /= np.sqrt(np.where(weight2 > 0, weight2, 1))
    return total[(slice(None), *inner)]


def _fade(core, region):
    w = core.astype(np.float32)
    now = core
    for layer in range(1, OVERLAP_VOX + 1):
        more = ndimage.binary_dilation(now) & region
        w[more & ~now] = 1 - layer / (OVERLAP_VOX + 1)
        now = more
    return w


def _halves(core, spacing):
    idx = np.argwhere(core)
    axis = int(np.argmax((np.ptp(idx, axis=0) + 1) * spacing))
    cut = max(int(np.median(idx[:, axis])), int(idx[:, axis].min()) + 1)
    a = core.copy()
    low = [slice(None)] * 3
    low[axis] = slice(cut, None)
    a[tuple(low)] = False
    return [a, core & ~a]


def _find(image, ext, ring, origin, natural, search):
    both = ext | ring
    local = np.argwhere(both)
    points = search.rng.permutation(local + origin, axis=0)
    for way, sign, offsets in search.candidates():
        hits = _clean_places(points, sign, offsets, search.clean, N_COMPARED)
        best = None
        for h in hits:
            q = (local + origin) * sign + offsets[h]
            patch = np.zeros((image.shape[0], *ext.shape), np.float32)
            patch[:, both] = image[:, q[:, 0], q[:, 1], q[:, 2]]
            score = 0.0
            if natural is not None:
                r = _roughness(patch, both)
                score = np.abs(np.log((r + 1e-12) / (natural + 1e-12))).sum()
            if best is None or score < best[0]:
                best = (score, patch)
        if best is not None:
            return way, best[1]
    return None


def _surrounding_roughness(image, region, place, clean):
    for reach in (4, 8, 16):
        box = grown(place, (reach,) * 3, clean.shape)
        inner = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(place, box))
        mask = np.zeros(tuple(b.stop - b.start for b in box), bool)
        mask[inner] = region
        near = ndimage.binary_dilation(mask, iterations=reach) & clean[box]
        r = _roughness(image[(slice(None), *box)], near)
        if r is not None:
            return r
    return None


def _roughness(values, mask):
    total = np.zeros(values.shape[0])
    n = 0
    for axis in range(3):
        low = [slice(None)] * 3
        high = [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        pair = mask[tuple(low)] & mask[tuple(high)]
        d = values[(slice(None), *high)][:, pair] - values[(slice(None), *low)][:, pair]
        total += np.abs(d).sum(1)
        n += d.shape[1]
    return total / n if n >= _MIN_PAIRS else None


@njit(cache=True, nogil=True)
def _clean_places(points, sign, offsets, clean, wanted):
    found = np.empty(wanted, np.int64)
    n = 0
    for m in range(offsets.shape[0]):
        good = True
        for p in range(points.shape[0]):
            i = sign[0] * points[p, 0] + offsets[m, 0]
            j = sign[1] * points[p, 1] + offsets[m, 1]
            k = sign[2] * points[p, 2] + offsets[m, 2]
            inside = 0 <= i < clean.shape[0] and 0 <= j < clean.shape[1] and 0 <= k < clean.shape[2]
            if not (inside and clean[i, j, k]):
                good = False
                break
        if good:
            found[n] = m
            n += 1
            if n == wanted:
                break
    return found[:n]
