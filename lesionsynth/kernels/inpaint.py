"""Filling of a region from its surroundings by fast marching.

The region is walked through in the order of its distance to the sources, and every voxel is
extrapolated to first order from the voxels around it that were known before it (Telea 2004, in
three dimensions and for voxels of any shape).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lesionsynth.backend import modules_of, on_cpu
from lesionsynth.domain.grid import bounding_box, grown
from lesionsynth.kernels.shells import MIN_DIRECTION, filled_by_shells

_BLOCKED, _SOURCE, _REGION = 0, 1, 2

# Voxels equally far from the sources must not feed one another, or the fill would depend on the
# direction of the axes. Arrival times (in smallest voxel edges) closer than this count as equal.
_TIE = 1e-6


def reachable(region: NDArray[np.bool_], source: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of `region` that a path of face neighbours inside `region` joins to a source.

    Parameters
    ----------
    region, source : ndarray of bool, shape (i, j, k)
        Voxels to fill, and voxels whose values may be used.

    Returns
    -------
    ndarray of bool, shape (i, j, k)
        The part of `region` that :func:`fast_marching_fill` can fill. Empty if `region` is empty
        or no source touches it.
    """
    xp, ndimage = modules_of(region, source)
    reached = xp.zeros_like(region)
    tight = bounding_box(region)
    if tight is None:
        return reached
    box = grown(tight, (1, 1, 1), region.shape)
    labels, n = ndimage.label(region[box])
    joined = xp.zeros(n + 1, dtype=bool)
    joined[labels[ndimage.binary_dilation(source[box])]] = True
    joined[0] = False
    reached[box] = joined[labels]
    return reached


def require_reach(region: NDArray[np.bool_], source: NDArray[np.bool_]) -> None:
    """Refuse a region that cannot be filled from its sources.

    Raises
    ------
    ValueError
        If `region` and `source` overlap, or if a voxel of the region is not :func:`reachable`.
    """
    both = int((region & source).sum())
    if both:
        raise ValueError(f"{both} voxels are both to be filled and a source")
    missing = int((region & ~reachable(region, source)).sum())
    if missing:
        raise ValueError(
            f"{missing} of {int(region.sum())} voxels to fill touch no source, not even through other voxels "
            "to fill; restrict the region to reachable(region, source)"
        )


def fast_marching_fill(
    image: NDArray[np.float32],
    region: NDArray[np.bool_],
    source: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    radius_vox: float = 3.0,
) -> NDArray[np.float32]:
    """Fill `region` from `source` in the order of the distance to it.

    A voxel p is given the mean of ``I(q) + grad I(q) . (p - q)`` over the known voxels q of the
    ball around it, weighted by direction (q behind the front), distance and level set (q on the
    level line of p), as published. Four things differ from the two-dimensional original:

    - the distance weight is ``|p - q|**-3``: in three dimensions the number of voxels at a distance
      grows with one power more;
    - the gradient term is damped, in each channel, by ``|mean|^2 / (|mean|^2 + variance)`` of the
      gradients in the ball. Where they agree (a ramp) nothing changes; where they do not (noise,
      folded cortex) the fill does not run away;
    - voxels that are equally far from the sources do not see each other, so the result does not
      depend on the direction of the axes;
    - where fronts meet they leave creases. These are smoothed away by a few sweeps towards the
      solution of Laplace's equation, one for every smallest voxel edge of depth.

    All channels are filled in one march. The values never leave the range of the sources within
    the radius of the region, in each channel.

    Parameters
    ----------
    image : ndarray of float32, shape (C, i, j, k)
        Channels on one grid, NumPy or CuPy. Pass a crop: the whole array is copied. On a GPU the region
        is filled in shells (:mod:`lesionsynth.kernels.shells`): the same weights in another order, which
        gives voxels equal to 6 % of their spread (RMS) and a PSNR within half a dB.
    region : ndarray of bool, shape (i, j, k)
        Voxels to fill. What `image` holds there is not read.
    source : ndarray of bool, shape (i, j, k)
        Voxels whose values may be used; disjoint from `region`. Voxels in neither are barriers:
        not filled, not used, not marched through.
    spacing_mm : sequence of 3 float
        Voxel edges in mm.
    radius_vox : float
        Radius of the ball, in units of the smallest voxel edge. Face neighbours always belong to
        it, so the fill crosses slices that are thicker than the radius.

    Returns
    -------
    ndarray, shape and dtype of `image`
        A new array, bit-equal to `image` outside `region`; a plain copy if `region` is empty.

    Raises
    ------
    ValueError
        If `region` and `source` overlap, if a source near the region is not finite, or if some
        voxel of the region cannot be reached from a source (see :func:`reachable`).

    References
    ----------
    Telea A, An image inpainting technique based on the fast marching method, Journal of Graphics
    Tools 9(1), 2004, doi:10.1080/10867651.2004.10487596. Sethian JA, A fast marching level set
    method for monotonically advancing fronts, PNAS 93(4), 1996, doi:10.1073/pnas.93.4.1591.
    """
    filled = image.copy()
    tight = bounding_box(region)
    if tight is None:
        return filled
    edge = np.asarray(spacing_mm, dtype=np.float64)
    edge = edge / edge.min()
    offsets = _ball(edge, radius_vox)
    # The gradient looks one voxel beyond the ball.
    box = grown(tight, [int(m) + 1 for m in abs(offsets).max(axis=0)], region.shape)
    crop, inside, around = image[(slice(None), *box)], region[box], source[box]
    require_reach(inside, around)
    fill = _filled_by_heap if on_cpu(image, region, source) else filled_by_shells
    filled[(slice(None), *box)][:, inside] = fill(crop, inside, around, offsets, edge, radius_vox)
    return filled


def _filled_by_heap(
    crop: NDArray[np.float32],
    inside: NDArray[np.bool_],
    around: NDArray[np.bool_],
    offsets: NDArray[np.int64],
    edge: NDArray[np.float64],
    radius: float,
) -> NDArray[np.float32]:
    """Values (C, n) of the voxels of `inside`, one by one in the order of their arrival times."""
    # A border of barriers as wide as the margin lets the compiled loops go without bounds checks.
    border = [(m, m) for m in (abs(offsets).max(axis=0) + 1).tolist()]
    state = np.where(inside, _REGION, np.where(around, _SOURCE, _BLOCKED)).astype(np.uint8)
    state = np.pad(state, border)
    strides = np.array([state.shape[1] * state.shape[2], state.shape[2], 1], dtype=np.int64)
    values = np.pad(np.moveaxis(crop, 0, -1), [*border, (0, 0)])
    values = np.ascontiguousarray(values.reshape(-1, crop.shape[0]))
    state = state.ravel()

    time, order = _march(state, _REGION, edge, strides, np.inf)
    depth, _ = _march(state, _SOURCE, edge, strides, float(radius))
    # Sources beyond the band, or behind a barrier, have no level: they are not used.
    state[(state == _SOURCE) & np.isinf(depth)] = _BLOCKED
    time = np.where(state == _SOURCE, -depth, time)
    bad = int((~np.isfinite(values[state == _SOURCE])).sum())
    if bad:
        raise ValueError(f"{bad} values of the sources near the region are not finite")
    near = values[(state == _SOURCE) & (depth <= radius)]
    _extrapolate(values, state, time, order, offsets, edge, strides, near.min(axis=0), near.max(axis=0))
    # As many sweeps as the front went deep: enough for the creases, too few to undo the fill.
    _relax(values, state, order, edge, strides, int(np.ceil(time[order[-1]])))
    return np.asarray(values[state == _REGION].T)


def _ball(edge: NDArray[np.float64], radius: float) -> NDArray[np.int64]:
    """Offsets in voxels, shape (n, 3), within `radius` of the centre, and all face neighbours."""
    reach = np.maximum(np.floor(radius / edge + 1e-9), 1).astype(np.int64)
    grid = np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij")
    offsets = np.stack([axis.ravel() for axis in grid], axis=1)
    length = np.sqrt(((offsets * edge) ** 2).sum(axis=1))
    face = np.abs(offsets).sum(axis=1) == 1
    keep = ((length > 0) & (length <= radius + 1e-9)) | face
    return np.asarray(offsets[keep], dtype=np.int64)


@njit(cache=True, nogil=True)
def _arrival(p, time, known, edge, strides):  # type: ignore[no-untyped-def]
    """Time at which the front reaches voxel `p` from its known neighbours.

    Upwind solution of ``sum(((T - t_a) / edge_a)**2) = 1`` with the axes taken in order of their
    times, as long as they lie before the arrival.
    """
    t = np.empty(3)
    weight = np.empty(3)
    n = 0
    for a in range(3):
        first = np.inf
        for q in (p - strides[a], p + strides[a]):
            if known[q] and time[q] < first:
                first = time[q]
        if first < np.inf:
            i = n
            while i > 0 and t[i - 1] > first:
                t[i], weight[i] = t[i - 1], weight[i - 1]
                i -= 1
            t[i], weight[i] = first, 1.0 / (edge[a] * edge[a])
            n += 1
    s = st = stt = 0.0
    arrival = np.inf
    for i in range(n):
        if arrival <= t[i]:
            break
        s += weight[i]
        st += weight[i] * t[i]
        stt += weight[i] * t[i] * t[i]
        arrival = (st + np.sqrt(max(st * st - s * (stt - 1.0), 0.0))) / s
    return arrival


@njit(cache=True, nogil=True)
def _march(state, domain, edge, strides, limit):  # type: ignore[no-untyped-def]
    """Walk from the interface through the voxels of `domain`, up to the time `limit`.

    Returns the arrival times (0 at sources with a face neighbour in the region, infinite where
    the front does not come) and the voxels of `domain` in the order of arrival. The heap holds
    pairs of time and index, so equal times are taken in the order of the index.
    """
    time = np.full(state.size, np.inf)
    known = np.zeros(state.size, np.bool_)
    heap = [(0.0, np.int64(s)) for s in range(0)]
    for s in np.flatnonzero(state == _SOURCE):
        for a in range(3):
            if state[s - strides[a]] == _REGION or state[s + strides[a]] == _REGION:
                time[s] = 0.0
        if time[s] == 0.0:
            heap.append((0.0, s))
    order = np.empty(state.size, np.int64)
    n = 0
    while len(heap) > 0:
        now, p = heapq.heappop(heap)
        if known[p]:
            continue
        known[p] = True
        if state[p] == domain:
            order[n] = p
            n += 1
        if now > limit:
            continue
        for a in range(3):
            for q in (p - strides[a], p + strides[a]):
                if state[q] == domain and not known[q]:
                    arrival = _arrival(q, time, known, edge, strides)
                    if arrival < time[q]:
                        time[q] = arrival
                        heapq.heappush(heap, (arrival, q))
    return time, order[:n]


@njit(cache=True, nogil=True)
def _normal(p, state, time, edge, strides, normal):  # type: ignore[no-untyped-def]
    """Write the gradient of the arrival time at voxel `p` to `normal` and return its length."""
    total = 0.0
    for a in range(3):
        low, high = p - strides[a], p + strides[a]
        slope = 0.0
        if state[low] != _BLOCKED and state[high] != _BLOCKED:
            slope = (time[high] - time[low]) / (2.0 * edge[a])
        elif state[high] != _BLOCKED:
            slope = (time[high] - time[p]) / edge[a]
        elif state[low] != _BLOCKED:
            slope = (time[p] - time[low]) / edge[a]
        normal[a] = slope
        total += slope * slope
    return np.sqrt(total)


@njit(cache=True, nogil=True, error_model="numpy")
def _extrapolate(values, state, time, order, offsets, edge, strides, lowest, highest):  # type: ignore[no-untyped-def]
    """Fill `values` (voxels, channels) in place, voxel by voxel in `order`."""
    n_channels = values.shape[1]
    jump = np.zeros(offsets.shape[0], np.int64)
    arm = np.empty(offsets.shape)
    length = np.zeros(offsets.shape[0])
    for o in range(offsets.shape[0]):
        for a in range(3):
            jump[o] += offsets[o, a] * strides[a]
            arm[o, a] = -offsets[o, a] * edge[a]
            length[o] += arm[o, a] ** 2
        length[o] = np.sqrt(length[o])
    normal = np.empty(3)
    level = np.empty(n_channels)
    step = np.empty(n_channels)
    slope = np.empty((n_channels, 3))
    square = np.empty(n_channels)
    for p in order:
        # Known at this moment: the sources, and the region's voxels that came strictly before.
        # Barriers are never reached.
        before = time[p] - _TIE
        steepness = _normal(p, state, time, edge, strides, normal)
        level[:] = 0.0
        step[:] = 0.0
        slope[:] = 0.0
        square[:] = 0.0
        total = 0.0
        for o in range(jump.size):
            q = p + jump[o]
            if time[q] > before:
                continue
            along = arm[o, 0] * normal[0] + arm[o, 1] * normal[1] + arm[o, 2] * normal[2]
            direction = max(abs(along) / (length[o] * steepness + 1e-12), MIN_DIRECTION)
            w = direction / (length[o] ** 3 * (1.0 + abs(time[q] - time[p])))
            total += w
            for c in range(n_channels):
                level[c] += w * values[q, c]
            for a in range(3):
                low, high = q - strides[a], q + strides[a]
                span = 2.0 * edge[a]
                if time[low] > before:
                    low = q
                    span = edge[a]
                if time[high] > before:
                    if low == q:
                        continue
                    high = q
                    span = edge[a]
                for c in range(n_channels):
                    g = (values[high, c] - values[low, c]) / span
                    step[c] += w * g * arm[o, a]
                    slope[c, a] += w * g
                    square[c] += w * g * g
        for c in range(n_channels):
            agreement = 0.0
            for a in range(3):
                agreement += (slope[c, a] / total) ** 2
            # Mean square = square of the mean + variance.
            mean_square = square[c] / total
            damping = agreement / mean_square if mean_square > 0.0 else 0.0
            value = (level[c] + damping * step[c]) / total
            values[p, c] = min(max(value, lowest[c]), highest[c])


@njit(cache=True, nogil=True, error_model="numpy")
def _relax(values, state, order, edge, strides, sweeps):  # type: ignore[no-untyped-def]
    """Replace the filled voxels of `values` by the mean of their face neighbours, `sweeps` times."""
    n_channels = values.shape[1]
    updated = np.empty((order.size, n_channels), values.dtype)
    mean = np.empty(n_channels)
    for _ in range(sweeps):
        for n in range(order.size):
            mean[:] = 0.0
            total = 0.0
            for a in range(3):
                for q in (order[n] - strides[a], order[n] + strides[a]):
                    if state[q] != _BLOCKED:
                        w = 1.0 / (edge[a] * edge[a])
                        total += w
                        for c in range(n_channels):
                            mean[c] += w * values[q, c]
            for c in range(n_channels):
                updated[n, c] = mean[c] / total
        for n in range(order.size):
            for c in range(n_channels):
                values[order[n], c] = updated[n, c]
