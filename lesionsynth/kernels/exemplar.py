"""Filling of a region block by block with copies of clean tissue that continue what is there.

The place with the most known voxels around it is always the next. The clean block that goes best with
these, in all channels, gives the unknown ones: by its correlation with them and by its strength, since the
smallest difference would always choose the smoothest. Where blocks and sources meet, the copies are joined
by their gradients, so that no step is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lesionsynth.backend import modules_of, on_cpu
from lesionsynth.domain.grid import Box, bounding_box, grown, origin_of

# Half the width of a block, in smallest voxel edges; smaller ones are tried where clean tissue is scarce.
_REACHES = (3, 2, 1)
# Blocks that are compared, and the fewest that give a choice.
_MOST_BLOCKS = 512
_FEWEST_BLOCKS = 32
# Blocks are looked for this far around the region, in voxels, then everywhere.
_NEARBY_VOX = 24
# What one e-fold of the variance counts beside a correlation of one.
_STRENGTH = np.float32(0.5)
_TINY = np.float32(1e-6)
_TOLERANCE = 1e-3
_STEPS_PER_LOOK = 8


def clean_blocks(
    image: NDArray[np.float32], clean: NDArray[np.bool_], near: Box, spacing_mm: Sequence[float]
) -> tuple[NDArray[np.float32], list[int]] | None:
    """Take blocks of clean tissue for :func:`exemplar_fill`.

    Parameters
    ----------
    image : ndarray of float32, shape (C, i, j, k)
        The whole volume, or all there is.
    clean : ndarray of bool, shape (i, j, k)
        Voxels that blocks may hold.
    near : tuple of 3 slice
        Where the region lies. Blocks come from within 24 voxels of it if there are 32 of them, else from
        all of the volume, at most 512 in even steps. Blocks are 7 smallest voxel edges wide, and smaller
        where clean tissue is scarce.
    spacing_mm : sequence of 3 float
        Voxel edges in mm.

    Returns
    -------
    blocks : ndarray of float32, shape (voxels, C, n)
    reach : list of int
        Half their width in voxels along each axis; 0 along an axis of one or two voxels.

    None where not a single block of three voxels' width is clean.
    """
    xp, ndimage = modules_of(image, clean)
    everywhere = (slice(0, clean.shape[0]), slice(0, clean.shape[1]), slice(0, clean.shape[2]))
    for size in _REACHES:
        reach = [
            min(max(1, round(size * min(spacing_mm) / edge)), (n - 1) // 2)
            for edge, n in zip(spacing_mm, clean.shape, strict=True)
        ]
        fewest = 1 if size == _REACHES[-1] else _FEWEST_BLOCKS
        for box in (grown(near, (_NEARBY_VOX,) * 3, clean.shape), everywhere):
            width = [2 * r + 1 for r in reach]
            whole = ndimage.minimum_filter(clean[box].astype(xp.uint8), size=width, mode="constant", cval=0)
            centres = xp.stack(xp.nonzero(whole), axis=1)
            if len(centres) < fewest:
                continue
            centres = centres[:: -(-len(centres) // _MOST_BLOCKS)]
            spans = [xp.arange(-r, r + 1) for r in reach]
            offsets = xp.stack(xp.meshgrid(*spans, indexing="ij"), axis=-1).reshape(-1, 1, 3)
            at = offsets + centres[None] + xp.asarray(origin_of(box))
            values = image[:, at[..., 0], at[..., 1], at[..., 2]]
            return xp.ascontiguousarray(values.transpose(1, 0, 2)), reach
    return None


def exemplar_fill(
    image: NDArray[np.float32],
    region: NDArray[np.bool_],
    source: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    blocks: NDArray[np.float32],
    reach: Sequence[int],
) -> NDArray[np.float32]:
    """Fill `region` with blocks of clean tissue.

    Parameters
    ----------
    image : ndarray of float32, shape (C, i, j, k)
        Channels on one grid, NumPy or CuPy. Pass a crop: the whole array is copied.
    region : ndarray of bool, shape (i, j, k)
        Voxels to fill. What `image` holds there is not read.
    source : ndarray of bool, shape (i, j, k)
        Voxels whose values are continued; disjoint from `region`. Face neighbours inside the region join
        all of it to a source (:func:`~lesionsynth.kernels.inpaint.reachable`).
    spacing_mm : sequence of 3 float
        Voxel edges in mm.
    blocks, reach
        From :func:`clean_blocks`; of the library of `image`.

    Returns
    -------
    ndarray, shape and dtype of `image`
        A new array, bit-equal to `image` outside `region`, and in each channel within the range of the
        blocks and of the sources.

    References
    ----------
    Criminisi A, Perez P, Toyama K, Region filling and object removal by exemplar-based image inpainting,
    IEEE Transactions on Image Processing 13(9), 2004, doi:10.1109/TIP.2004.833105. Perez P, Gangnet M,
    Blake A, Poisson image editing, ACM Transactions on Graphics 22(3), 2003, doi:10.1145/882262.882269.
    """
    xp, _ = modules_of(image, region, source, blocks)
    filled = image.copy()
    tight = bounding_box(region)
    if tight is None:
        return filled
    box = grown(tight, [r + 1 for r in reach], region.shape)
    border = [(max(r, 1),) * 2 for r in reach]
    inside, known = xp.pad(region[box], border), xp.pad(source[box], border)
    crop = xp.pad(xp.where(source[box], image[(slice(None), *box)], 0), [(0, 0), *border])
    # Levels of the channels must not decide which of them counts.
    centre, scale = blocks.mean(axis=(0, 2)), blocks.std(axis=(0, 2))
    scale = xp.where(scale > 0, scale, 1)
    blocks = (blocks - centre[None, :, None]) / scale[None, :, None]
    crop = xp.where(known, (crop - centre[:, None, None, None]) / scale[:, None, None, None], 0)

    layout = _Layout(inside.shape, reach)
    flat = crop.reshape(crop.shape[0], -1)
    grow = _grown_compiled if on_cpu(image) else _grown_generic
    voxels = xp.flatnonzero(inside.ravel())
    chosen, position = grow(flat, known.ravel().copy(), voxels, blocks, layout)
    joined = _joined(flat, known.ravel(), voxels, blocks, chosen, position, layout, spacing_mm)
    rim = flat[:, known.ravel()]
    low = xp.minimum(blocks.min(axis=(0, 2)), rim.min(axis=1))
    high = xp.maximum(blocks.max(axis=(0, 2)), rim.max(axis=1))
    joined = xp.minimum(xp.maximum(joined, low[:, None]), high[:, None])
    filled[(slice(None), *box)][:, region[box]] = joined * scale[:, None] + centre[:, None]
    return filled


class _Layout:
    """Offsets of the voxels of a block, and of those it gives, in flat indices of a padded box."""

    def __init__(self, shape: Sequence[int], reach: Sequence[int]) -> None:
        self.strides = np.array([shape[1] * shape[2], shape[2], 1], dtype=np.int64)
        spans = [np.arange(-r, r + 1) for r in reach]
        offsets = np.stack(np.meshgrid(*spans, indexing="ij"), axis=-1).reshape(-1, 3)
        self.jumps = offsets @ self.strides
        # The outermost layer is compared only, so that the neighbours of each copied voxel are known.
        given = (np.abs(offsets) <= np.maximum(np.array(reach) - 1, 0)).all(axis=1)
        self.given = np.flatnonzero(given)
        steps = np.array([s for r in reach for s in ((-1, 1) if r > 0 else (0, 0))])
        across = [(2 * reach[1] + 1) * (2 * reach[2] + 1), 2 * reach[2] + 1, 1]
        # Rows of a block that are the face neighbours of a row; the row itself where a block is flat.
        self.beside = steps * np.repeat(across, 2)


def _grown_compiled(flat: Any, known: Any, voxels: Any, blocks: Any, layout: _Layout) -> tuple[Any, Any]:
    """Block and row of it (n,) that each voxel of the region is given."""
    number = np.full(known.size, -1, dtype=np.int64)
    number[voxels] = np.arange(voxels.size)
    return _grow(flat.copy(), known, voxels, number, blocks, layout.jumps, layout.given)


@njit(cache=True, nogil=True, error_model="numpy")
def _grow(flat, known, voxels, number, blocks, jumps, given):  # type: ignore[no-untyped-def]
    n, n_blocks, n_channels = voxels.size, blocks.shape[2], flat.shape[0]
    chosen = np.full(n, -1, np.int64)
    position = np.zeros(n, np.int64)
    count = np.zeros(n, np.int16)  # -1 once the voxel is filled
    for v in range(n):
        for jump in jumps:
            count[v] += known[voxels[v] + jump]
    total = np.empty(n_blocks, np.float32)
    square = np.empty(n_blocks, np.float32)
    product = np.empty(n_blocks, np.float32)
    score = np.empty(n_blocks, np.float32)
    while True:
        most = -1
        for v in range(n):
            if count[v] > most:
                most = count[v]
        if most < 0:
            return chosen, position
        target = 0
        while count[target] != most:
            target += 1
        centre = voxels[target]
        score[:] = 0.0
        n_known = np.float32(max(most, 1))
        for c in range(n_channels):
            total[:] = 0.0
            square[:] = 0.0
            product[:] = 0.0
            own = own_square = np.float32(0.0)
            for b in range(jumps.size):
                if known[centre + jumps[b]]:
                    value = flat[c, centre + jumps[b]]
                    own += value
                    own_square += value * value
                    for k in range(n_blocks):
                        total[k] += blocks[b, c, k]
                        square[k] += blocks[b, c, k] * blocks[b, c, k]
                        product[k] += blocks[b, c, k] * value
            own_variance = max(own_square - own * own / n_known, _TINY)
            for k in range(n_blocks):
                variance = max(square[k] - total[k] * total[k] / n_known, _TINY)
                covariance = product[k] - total[k] * own / n_known
                score[k] += abs(np.log(variance / own_variance)) * _STRENGTH - covariance / np.sqrt(
                    variance * own_variance
                )
        best = np.argmin(score)
        # Levels of the copy follow what is known, so that the next block is compared with like.
        for c in range(n_channels):
            shift = np.float32(0.0)
            for b in range(jumps.size):
                if known[centre + jumps[b]]:
                    shift += flat[c, centre + jumps[b]] - blocks[b, c, best]
            shift /= n_known
            for b in given:
                at = centre + jumps[b]
                if number[at] >= 0 and not known[at]:
                    flat[c, at] = blocks[b, c, best] + shift
        for b in given:
            at = centre + jumps[b]
            if number[at] >= 0 and not known[at]:
                known[at] = True
                chosen[number[at]] = best
                position[number[at]] = b
                count[number[at]] = -1
                for jump in jumps:
                    if number[at - jump] >= 0 and chosen[number[at - jump]] < 0:
                        count[number[at - jump]] += 1


def _grown_generic(flat: Any, known: Any, voxels: Any, blocks: Any, layout: _Layout) -> tuple[Any, Any]:
    """The same by matrix products over all blocks: for a GPU, and as reference."""
    xp, _ = modules_of(flat, known, voxels, blocks)
    flat = flat.copy()
    jumps, given = xp.asarray(layout.jumps), xp.asarray(layout.given)
    inside = xp.zeros(known.shape, dtype=bool)
    inside[voxels] = True
    chosen = xp.full(known.shape, -1)
    position = xp.zeros(known.shape, dtype=jumps.dtype)
    count = known[voxels[:, None] + jumps].sum(axis=1)
    number = xp.zeros(known.shape, dtype=jumps.dtype)
    number[voxels] = xp.arange(voxels.size)
    squares = blocks * blocks
    waiting = int(voxels.size)
    while waiting:
        target = xp.argmax(xp.where(chosen[voxels] < 0, count, -1))
        around = voxels[target] + jumps
        mask = known[around].astype(flat.dtype)
        values = flat[:, around] * mask
        n = xp.maximum(mask.sum(), 1)
        own, total = values.sum(axis=1), xp.einsum("bck,b->ck", blocks, mask)
        own_variance = xp.maximum((values * values).sum(axis=1) - own * own / n, _TINY)[:, None]
        variance = xp.maximum(xp.einsum("bck,b->ck", squares, mask) - total * total / n, _TINY)
        covariance = xp.einsum("bck,cb->ck", blocks, values) - total * own[:, None] / n
        score = _STRENGTH * xp.abs(xp.log(variance / own_variance))
        best = xp.argmin((score - covariance / xp.sqrt(variance * own_variance)).sum(axis=0))
        shift = (own - total[:, best]) / n
        at = around[given]
        taken = inside[at] & ~known[at]
        at, rows = at[taken], given[taken]
        flat[:, at] = blocks[rows, :, best].T + shift[:, None]
        known[at] = True
        chosen[at] = best
        position[at] = rows
        touched = (at[:, None] - jumps).ravel()
        touched = number[touched[inside[touched]]]
        count += xp.bincount(touched, minlength=int(voxels.size))
        waiting -= int(at.size)
    return chosen[voxels], position[voxels]


def _joined(
    flat: Any,
    known: Any,
    voxels: Any,
    blocks: Any,
    chosen: Any,
    position: Any,
    layout: _Layout,
    spacing_mm: Sequence[float],
) -> Any:
    """Values (C, n) whose gradients are nearest to those of the copies, and that meet the sources.

    Conjugate gradients on the list of neighbours, from the copies: only steps between blocks are to be evened
    out, for which a coarse tolerance is enough.
    """
    xp, _ = modules_of(flat, known, voxels, blocks, chosen)
    n = int(voxels.size)
    number = xp.full(known.shape, n, dtype=xp.int64)
    number[voxels] = xp.arange(n)
    copied = blocks[position, :, chosen].T
    right = xp.zeros_like(copied)
    degree = xp.zeros(n, dtype=flat.dtype)
    neighbour, weights = [], []
    own_steps = []
    for side in range(6):
        weight = (min(spacing_mm) / spacing_mm[side // 2]) ** 2
        sign = 1 if side % 2 else -1
        at = voxels + sign * int(layout.strides[side // 2])
        own_steps.append(blocks[position + int(layout.beside[side]), :, chosen].T - copied)
        neighbour.append(number[at])
        weights.append((known[at] | (number[at] < n)).astype(flat.dtype) * weight)
    for side in range(6):
        at = voxels + (1 if side % 2 else -1) * int(layout.strides[side // 2])
        # Of two blocks that meet, one gives the step; the mean of both would be too smooth.
        other = xp.minimum(neighbour[side], n - 1)
        both = neighbour[side] < n
        step = (
            own_steps[side] if side % 2 else xp.where(both, -own_steps[side ^ 1][:, other], own_steps[side])
        )
        right += weights[side] * (xp.where(known[at], flat[:, at], 0) - step)
        degree += weights[side]

    def applied(x: Any) -> Any:
        out = degree * x
        padded = xp.pad(x, [(0, 0), (0, 1)])
        for index, weight in zip(neighbour, weights, strict=True):
            out -= weight * padded[:, index]
        return out

    x = copied
    residual = right - applied(x)
    step = residual
    square = (residual * residual).sum(axis=1, keepdims=True)
    enough = xp.maximum(square * _TOLERANCE**2, 1e-20)
    for done in range(4 * n + 16):
        if done % _STEPS_PER_LOOK == 0 and not bool((square > enough).any()):
            break
        image = applied(step)
        curvature = (step * image).sum(axis=1, keepdims=True)
        length = xp.where(square > enough, square / xp.where(curvature > 0, curvature, 1), 0)
        x = x + length * step
        residual = residual - length * image
        before, square = square, (residual * residual).sum(axis=1, keepdims=True)
        step = residual + square / xp.where(before > 0, before, 1) * step
    return x
