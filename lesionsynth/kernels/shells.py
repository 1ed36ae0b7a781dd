"""Fast marching for devices that do one thing to many voxels at a time.

The heap of :mod:`lesionsynth.kernels.inpaint` takes voxel after voxel. Here the arrival times come from
sweeps over the box, and the region is filled in shells half a voxel edge deep: all voxels of a shell at
once, from what was known before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth.backend import modules_of

# Floor of the directional weight, so that voxels sideways of the front still count a little.
MIN_DIRECTION = 0.01
# Depth of a shell in smallest voxel edges. Half of it comes closer to the heap in twice the time.
_DEPTH = 0.5
# Voxels extrapolated at a time, to bound the memory.
_CHUNK = 8192


def filled_by_shells(
    crop: Any,
    inside: Any,
    around: Any,
    offsets: NDArray[np.int64],
    edge: Sequence[float] | NDArray[np.float64],
    radius: float,
) -> Any:
    """Values (C, n) of the voxels of `inside`, by the weights of fast marching.

    Parameters
    ----------
    crop : array of float32, shape (C, i, j, k)
        What it holds outside `around` is not read.
    inside, around : array of bool, shape (i, j, k)
        Voxels to fill, and their sources; every voxel of `inside` is reachable.
    offsets : ndarray of int, shape (n, 3)
        Voxels of the ball around a voxel, on the host.
    edge : sequence of 3 float
        Voxel edges, the smallest of them 1.
    radius : float
        How far from the region sources are used.
    """
    xp, _ = modules_of(crop, inside, around)
    edge = [float(e) for e in edge]
    margin = [int(m) + 1 for m in abs(offsets).max(axis=0)]
    border = [(m, m) for m in margin]
    inside, around = xp.pad(inside, border), xp.pad(around, border)
    time = _level_set(inside, around, edge, radius).ravel()
    shape, region = inside.shape, inside.ravel()
    strides = (shape[1] * shape[2], shape[2], 1)
    usable = xp.isfinite(time)
    known = usable & ~region
    values = xp.where(known, xp.pad(crop, [(0, 0), *border]).reshape(crop.shape[0], -1), 0).astype(xp.float64)
    bad = int((~xp.isfinite(values)).sum())
    if bad:
        raise ValueError(f"{bad} values of the sources near the region are not finite")
    near = values[:, known & (time >= -radius)]
    limits = near.min(axis=1)[:, None], near.max(axis=1)[:, None]

    jump = xp.asarray(offsets @ strides)
    arm = xp.asarray(-offsets * edge)
    normal = _slopes(xp.where(usable, time, 0.0)[None], usable, edge, strides)[:, 0]
    waiting = xp.flatnonzero(region)
    while len(waiting):
        first = time[waiting] < time[waiting].min() + _DEPTH
        shell, waiting = waiting[first], waiting[~first]
        slopes = _slopes(values, known, edge, strides)
        done = []
        for start in range(0, len(shell), _CHUNK):
            part = shell[start : start + _CHUNK]
            value, seen = _extrapolated(part, values, slopes, known, time, normal, jump, arm)
            value = xp.minimum(xp.maximum(value, limits[0]), limits[1])
            values[:, part[seen]] = value[:, seen]
            done.append(part[seen])
            # A barrier can hide all that is known: the voxel comes with the next shell.
            waiting = xp.concatenate([waiting, part[~seen]])
        for part in done:
            known[part] = True
    sweeps = int(xp.ceil(time[region].max()))
    return _relaxed(values, region, usable, edge, strides, sweeps)[:, region].astype(crop.dtype)


def _level_set(inside: Any, around: Any, edge: Sequence[float], radius: float) -> Any:
    """Arrival time in the region, minus the depth in the sources up to `radius`, infinite elsewhere."""
    xp, ndimage = modules_of(inside, around)
    rim = around & ndimage.binary_dilation(inside)
    depth = _arrival(rim, around, edge, radius)
    return xp.where(inside, _arrival(rim, inside, edge, float("inf")), -depth)


def _arrival(start: Any, domain: Any, edge: Sequence[float], limit: float) -> Any:
    """Arrival times of the front that leaves `start` at 0 and runs through `domain` up to `limit`.

    The upwind scheme of the heap, swept over the whole box until nothing changes: the same times.
    """
    xp, _ = modules_of(start, domain)
    weight = xp.asarray([1.0 / e**2 for e in edge])
    time = xp.where(start, 0.0, float("inf"))
    while True:
        reached = xp.where(time <= limit, time, float("inf"))
        first = xp.stack([xp.minimum(xp.roll(reached, 1, a), xp.roll(reached, -1, a)) for a in range(3)])
        by_time = xp.argsort(first, axis=0)
        first, squared = xp.take_along_axis(first, by_time, axis=0), weight[by_time]
        arrival = xp.full(time.shape, float("inf"))
        s = st = stt = xp.zeros(time.shape)
        for t, w in zip(first, squared, strict=True):
            used = xp.isfinite(t) & (t < arrival)
            t, w = xp.where(used, t, 0.0), xp.where(used, w, 0.0)
            s, st, stt = s + w, st + w * t, stt + w * t * t
            root = xp.sqrt(xp.maximum(st * st - s * (stt - 1.0), 0.0))
            arrival = xp.where(used, (st + root) / xp.where(used, s, 1.0), arrival)
        earlier = domain & (arrival < time)
        if not earlier.any():
            return time
        time = xp.where(earlier, arrival, time)


def _slopes(values: Any, known: Any, edge: Sequence[float], strides: Sequence[int]) -> Any:
    """Differences (3, C, n) of `values` (C, n) between the known neighbours, per voxel edge."""
    xp, _ = modules_of(values, known)
    slopes = xp.zeros((3, *values.shape))
    for axis, stride in enumerate(strides):
        low, high = xp.roll(known, stride), xp.roll(known, -stride)
        rise = xp.where(high, xp.roll(values, -stride, axis=-1), values)
        rise = rise - xp.where(low, xp.roll(values, stride, axis=-1), values)
        span = edge[axis] * (low.astype(xp.float64) + high)
        slopes[axis] = xp.where(span > 0, rise / xp.where(span > 0, span, 1.0), 0.0)
    return slopes


def _extrapolated(
    points: Any, values: Any, slopes: Any, known: Any, time: Any, normal: Any, jump: Any, arm: Any
) -> tuple[Any, Any]:
    """Values (C, n) at `points` from all that is known in the ball, and where anything is."""
    xp, _ = modules_of(points, values)
    ball = points[:, None] + jump
    seen = known[ball]
    length = xp.sqrt((arm**2).sum(axis=1))
    front = normal[:, points]
    steepness = xp.sqrt((front**2).sum(axis=0))[:, None]
    direction = xp.maximum(abs(front.T @ arm.T) / (length * steepness + 1e-12), MIN_DIRECTION)
    level = xp.where(seen, abs(time[ball] - time[points][:, None]), 0.0)
    weight = xp.where(seen, direction / (length**3 * (1.0 + level)), 0.0)
    total = weight.sum(axis=1)
    weight = weight / xp.where(total > 0, total, 1.0)[:, None]
    value = (weight * values[:, ball]).sum(axis=2)
    step = agreement = square = xp.zeros_like(value)
    for axis in range(3):
        slope = weight * slopes[axis][:, ball]
        step = step + (slope * arm[:, axis]).sum(axis=2)
        agreement = agreement + slope.sum(axis=2) ** 2
        square = square + (slope * slopes[axis][:, ball]).sum(axis=2)
    damping = xp.where(square > 0, agreement / xp.where(square > 0, square, 1.0), 0.0)
    return value + damping * step, total > 0


def _relaxed(
    values: Any, region: Any, usable: Any, edge: Sequence[float], strides: Sequence[int], sweeps: int
) -> Any:
    """`values` (C, n) with the region's voxels replaced by the mean of their neighbours, `sweeps` times."""
    xp, _ = modules_of(values, region, usable)
    total = xp.zeros(region.shape)
    for e, stride in zip(edge, strides, strict=True):
        total += (xp.roll(usable, stride).astype(xp.float64) + xp.roll(usable, -stride)) / e**2
    total = xp.maximum(total, 1e-12)
    for _ in range(sweeps):
        mean = xp.zeros_like(values)
        for e, stride in zip(edge, strides, strict=True):
            mean += (xp.roll(values, stride, axis=1) + xp.roll(values, -stride, axis=1)) / e**2
        values = xp.where(region, mean / total, values)
    return values
