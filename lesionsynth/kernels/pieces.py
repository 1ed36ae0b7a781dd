"""Pieces of a region that is given texture: their overlap and ring, and what patches would make of them."""

from __future__ import annotations

import numpy as np
from numba import njit

BEYOND, OTHER, USABLE, REGION = np.uint8(0), np.uint8(1), np.uint8(2), np.uint8(3)
"""What the voxels of a component's padded box are."""


@njit(cache=True, nogil=True)
def lay_out(core, kind, stamp, first, strides, overlap, ring):  # type: ignore[no-untyped-def]
    """Voxels of a piece with their weights, and of the ring that it is filled from.

    All voxels are flat indices into the padded box of a component.

    Parameters
    ----------
    core : ndarray of int64, shape (n,)
        The piece without its overlap.
    kind : ndarray of uint8, flat
        `BEYOND` the volume, and as padding; `OTHER`; `USABLE` for a ring; `REGION`, the component.
    stamp : ndarray of int64, flat
        Scratch, with values below `first`; is left with values below ``first + overlap + ring + 3``.
    first : int
    strides : ndarray of int64, shape (3,)
    overlap, ring : int
        Layers by face neighbours: of the component around the core, in which the weight falls, and of
        the ring around these.

    Returns
    -------
    inner : ndarray of int64, shape (n,)
        The piece: what a path of face neighbours inside it joins to the ring.
    weight : ndarray of float32, shape (n,)
        One in the core.
    outer : ndarray of int64, shape (m,)
        The voxels of the ring that are usable or of the component.
    """
    layers = [core]
    for p in core:
        stamp[p] = first
    start = np.concatenate((core, core[:0]))
    inside = core
    for layer in range(1, overlap + ring + 1):
        if layer == overlap + 1:
            start = inside
        held = 0
        found = np.empty(6 * start.size, np.int64)
        for p in start:
            for a in range(3):
                for q in (p - strides[a], p + strides[a]):
                    free = kind[q] == REGION if layer <= overlap else kind[q] != BEYOND
                    if free and stamp[q] < first:
                        stamp[q] = first + layer
                        found[held] = q
                        held += 1
        start = found[:held].copy()
        layers.append(start)
        if layer <= overlap:
            inside = np.concatenate((inside, start))
    outer = np.empty(0, np.int64)
    for layer in range(overlap + 1, overlap + ring + 1):
        outer = np.concatenate((outer, layers[layer]))
    outer = outer[kind[outer] >= USABLE]
    # Voxels walled in by other tissue cannot be filled in the patch either.
    done = first + overlap + ring + 2
    path = np.empty(inside.size, np.int64)
    weight = np.empty(inside.size, np.float32)
    held = 0
    for n in range(outer.size + inside.size):
        if n >= outer.size + held:
            break
        p = outer[n] if n < outer.size else path[n - outer.size]
        for a in range(3):
            for q in (p - strides[a], p + strides[a]):
                if first <= stamp[q] <= first + overlap:
                    weight[held] = 1.0 - (stamp[q] - first) / (overlap + 1.0)
                    path[held] = q
                    stamp[q] = done
                    held += 1
    return path[:held], weight[:held], outer


@njit(cache=True, nogil=True)
def neighbours(points, slot, strides):  # type: ignore[no-untyped-def]
    """Rows (n, 2) of `points`, flat indices, that are face neighbours.

    `slot` is scratch as large as the box, zero before and after.
    """
    for n in range(points.size):
        slot[points[n]] = n + 1
    pairs = np.empty((3 * points.size, 2), np.int64)
    held = 0
    for n in range(points.size):
        for a in range(3):
            other = slot[points[n] + strides[a]]
            if other > 0:
                pairs[held, 0], pairs[held, 1] = n, other - 1
                held += 1
    for p in points:
        slot[p] = 0
    return pairs[:held]


@njit(cache=True, nogil=True, error_model="numpy")
def compare(image, clean, inner, outer, pairs, sign, moves, spread, least):  # type: ignore[no-untyped-def]
    """How unlike its surroundings a piece would look with the patches of some places.

    Parameters
    ----------
    image : ndarray of float32, shape (C, i, j, k)
    clean : ndarray of bool, shape (i, j, k)
    inner, outer : ndarray of int64, shape (n, 3)
        Voxels of the piece and of its ring.
    pairs : ndarray of int64, shape (p, 2)
        Rows of `outer` that are neighbours.
    sign, moves : ndarray of int64, shapes (3,) and (m, 3)
        The places, as in :class:`~lesionsynth.kernels.patches.Way`.
    spread : ndarray of float64, shape (C,)
        Of the values around the component: a patch whose values spread more would look pasted.
    least : int
        Fewer pairs than this say nothing.

    Returns
    -------
    unlike : ndarray of float64, shape (m,)
        Zero for the same roughness and no more spread.
    ratio : ndarray of float64, shape (m, C)
        Roughness around the piece over that around the patch.
    """
    n_channels = image.shape[0]
    unlike = np.zeros(moves.shape[0])
    ratio = np.ones((moves.shape[0], n_channels))
    there = np.empty_like(outer)
    known = np.zeros(outer.shape[0], np.bool_)
    for m in range(moves.shape[0]):
        for n in range(outer.shape[0]):
            for a in range(3):
                there[n, a] = sign[a] * outer[n, a] + moves[m, a]
            known[n] = _is_clean(clean, there[n]) and _is_clean(clean, outer[n])
        worst = 0.0
        for c in range(n_channels):
            channel = image[c]
            own = patch = 0.0
            count = 0
            for low, high in pairs:
                if known[low] and known[high]:
                    count += 1
                    own += abs(_at(channel, outer[low]) - _at(channel, outer[high]))
                    patch += abs(_at(channel, there[low]) - _at(channel, there[high]))
            if count >= least and own > 0 and patch > 0:
                ratio[m, c] = own / patch
                unlike[m] += abs(np.log(own / patch))
            mean = square = 0.0
            for p in inner:
                i, j, k = (
                    sign[0] * p[0] + moves[m, 0],
                    sign[1] * p[1] + moves[m, 1],
                    sign[2] * p[2] + moves[m, 2],
                )
                mean += channel[i, j, k]
            mean /= inner.shape[0]
            for p in inner:
                i, j, k = (
                    sign[0] * p[0] + moves[m, 0],
                    sign[1] * p[1] + moves[m, 1],
                    sign[2] * p[2] + moves[m, 2],
                )
                square += (channel[i, j, k] - mean) ** 2
            deviation = np.sqrt(square / inner.shape[0])
            if spread[c] > 0 and deviation > spread[c]:
                worst = max(worst, np.log(deviation / spread[c]))
        unlike[m] += worst
    return unlike, ratio


@njit(cache=True, nogil=True)
def _at(channel, point):  # type: ignore[no-untyped-def]
    return channel[point[0], point[1], point[2]]


@njit(cache=True, nogil=True)
def _is_clean(clean, point):  # type: ignore[no-untyped-def]
    """Whether a point lies in the volume and on clean tissue."""
    for a in range(3):
        if point[a] < 0 or point[a] >= clean.shape[a]:
            return False
    return clean[point[0], point[1], point[2]]


@njit(cache=True, nogil=True, error_model="numpy")
def off_plane(image, clean, inner, outer, sign, move, edge_mm):  # type: ignore[no-untyped-def]
    """What a patch holds beyond the plane (a mean and three slopes) through the clean voxels of its ring.

    Parameters
    ----------
    image : ndarray of float32, shape (C, i, j, k)
    clean : ndarray of bool, shape (i, j, k)
    inner, outer : ndarray of int64, shape (n, 3) and (m, 3)
        Voxels of the piece and of its ring.
    sign, move : ndarray of int64, shape (3,)
        The place; at least one voxel of the ring is clean there.
    edge_mm : ndarray of float64, shape (3,)

    Returns
    -------
    ndarray of float32, shape (C, n)
    """
    n_channels = image.shape[0]
    there = np.empty(3, np.int64)
    centre = np.zeros(3)
    known = np.zeros(outer.shape[0], np.bool_)
    count = 0
    for n in range(outer.shape[0]):
        there[:] = sign * outer[n] + move
        known[n] = _is_clean(clean, there)
        if known[n]:
            count += 1
            centre += there * edge_mm
    centre /= count
    matrix = np.zeros((4, 4))
    right = np.zeros((4, n_channels))
    basis = np.ones(4)
    for n in range(outer.shape[0]):
        if known[n]:
            there[:] = sign * outer[n] + move
            basis[1:] = there * edge_mm - centre
            for a in range(4):
                for b in range(4):
                    matrix[a, b] += basis[a] * basis[b]
                for c in range(n_channels):
                    right[a, c] += basis[a] * _at(image[c], there)
    for a in range(3):  # a ring within one plane of voxels has no slope across it
        matrix[a + 1, a + 1] += 0.01 * count * edge_mm[a] ** 2
    plane = np.linalg.solve(matrix, right)
    detail = np.empty((n_channels, inner.shape[0]), np.float32)
    for n in range(inner.shape[0]):
        there[:] = sign * inner[n] + move
        basis[1:] = there * edge_mm - centre
        for c in range(n_channels):
            level = 0.0
            for a in range(4):
                level += plane[a, c] * basis[a]
            detail[c, n] = _at(image[c], there) - level
    return detail


@njit(cache=True, nogil=True, error_model="numpy")
def roughness(image, mask, least):  # type: ignore[no-untyped-def]
    """Mean absolute difference of face neighbours inside `mask`, for each channel of `image` (C, i, j, k).

    Unlike the spread of a high-pass it needs no voxels outside the mask. Negative for fewer than `least`
    pairs.
    """
    total = np.zeros(image.shape[0])
    count = 0
    shape = mask.shape
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                if not mask[i, j, k]:
                    continue
                for a in range(3):
                    u, v, w = i + (a == 0), j + (a == 1), k + (a == 2)
                    if u < shape[0] and v < shape[1] and w < shape[2] and mask[u, v, w]:
                        count += 1
                        for c in range(image.shape[0]):
                            total[c] += abs(image[c, u, v, w] - image[c, i, j, k])
    return total / count if count >= least else np.full(image.shape[0], -1.0)
