"""Poisson's equation on a region of any shape, by conjugate gradients that a multigrid cycle guides.

The unknowns are voxels. Each is pulled towards its face neighbours in the region, and tied to values that
are given outside it; where neither is, nothing flows. A voxel of the next coarser grid stands for up to
2 x 2 x 2 voxels of the finer one, so that what goes slowly from voxel to voxel goes fast on coarse grids: a
dozen rounds are enough, whatever the size of the region.

Compiled, for the CPU: the voxels of all grids are listed one after the other, with their neighbours, since
lesions are far from filling a box. On each grid the voxels come in two colours, like the fields of a
chessboard, and neighbours are of the other colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Axes along which the voxels of a grid pull less than this share of the strongest stay as they are on the
# next grid: along them there is little to even out until the others are as coarse.
_WEAK = 0.3
# Bound of the rounds; regions of voxels of any shape take about a dozen.
_MOST_ROUNDS = 500


class Grids(NamedTuple):
    """A region and its coarser grids.

    Parameters
    ----------
    places : ndarray, (n,), int64
        Where the region's voxels lie in the array that they come from, in C order.
    ties : ndarray, (n,), float32
        Weight with which each is tied to given values.
    near : ndarray, (N, 6), uint32
        Neighbours of the voxels of all grids, the finest first; N where there is none.
    pull : ndarray, (1 + N - n, 6), float32
        Weights of those neighbours: first those of all voxels of the finest grid, then the others' own.
    faces : ndarray, (N,), float64
        Weight of all pulls and ties together. In double precision: what were lost in a sum would tie the
        voxel to 0.
    inverse : ndarray, (N,), float32
        One by it, 0 for 0.
    parent : ndarray, (N,), uint32
        Voxel of the next coarser grid that a voxel belongs to.
    ends : ndarray, (grids, 3), int64
        Where each grid begins in the list, its second colour begins, and it ends.
    """

    places: NDArray[np.int64]
    ties: NDArray[np.float32]
    near: NDArray[np.uint32]
    pull: NDArray[np.float32]
    faces: NDArray[np.float64]
    inverse: NDArray[np.float32]
    parent: NDArray[np.uint32]
    ends: NDArray[np.int64]


def grids_of(inside: NDArray[np.bool_], around: NDArray[np.bool_], weights: Sequence[float]) -> Grids:
    """List a region with its coarser grids.

    Parameters
    ----------
    inside : ndarray, (i, j, k), bool
        The region, not empty.
    around : ndarray, (i, j, k), bool
        Voxels whose values are given, disjoint from `inside`.
    weights : sequence of 3 float
        Of the faces across each axis.
    """
    return Grids(*_listed(inside, around, np.array(weights, dtype=np.float32)))


def solve(grids: Grids, right: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Solve ``faces x - pulls x = right`` in the region.

    Parameters
    ----------
    grids : Grids
    right : ndarray, (n,), float64
        In the order of ``grids.places``.
    tolerance : float
        Of the residual, relative to the right side, both measured by the cycle; so that it is about that
        of the error.

    Returns
    -------
    ndarray, (n,), float64
        In parts of the region that nothing ties, where the right side must sum to 0, voxels have mean 0
        by their faces.

    References
    ----------
    Braess D, Towards algebraic multigrid for elliptic problems of second order, Computing 55, 1995,
    doi:10.1007/BF02238488 (voxels lumped together, the coarse grids' pulls halved). Hestenes MR, Stiefel E,
    Methods of conjugate gradients for solving linear systems, Journal of Research of the NBS 49(6), 1952,
    doi:10.6028/jres.049.044.
    """
    _, ties, near, pull, faces, inverse, parent, ends = grids
    # Near 1, which single precision holds whatever the unit.
    scale = float(np.abs(right).max()) or 1.0
    change = scale * _descend(right / scale, near, pull, faces, inverse, parent, ends, tolerance)
    _centre_untied(change, ties, near, faces)
    return np.asarray(change)


@njit(cache=True, nogil=True)
def _numbered(inside):  # type: ignore[no-untyped-def]
    """Numbers of the voxels in their box (-1 outside), how many there are, and of the first colour."""
    ni, nj, nk = inside.shape
    first, count = 0, 0
    for i in range(ni):
        for j in range(nj):
            row = inside[i, j]
            for k in range(nk):
                count += row[k]
                first += row[k] & (i + j + k + 1) & 1
    number = np.full(inside.shape, -1, np.int32)
    one, other = 0, first
    for i in range(ni):
        for j in range(nj):
            row, numbers = inside[i, j], number[i, j]
            for k in range(nk):
                if not row[k]:
                    continue
                if (i + j + k) & 1:
                    numbers[k] = other
                    other += 1
                else:
                    numbers[k] = one
                    one += 1
    return number, count, first


@njit(cache=True, nogil=True)
def _listed(inside, around, weights):  # type: ignore[no-untyped-def]
    """Fields of :class:`Grids`."""
    number, count, first = _numbered(inside)
    numbers, halvings = [number], [np.zeros(3, np.int64)]
    ends = [np.array([0, first, count])]
    edges = weights.copy()
    while True:
        halved = np.zeros(3, np.int64)
        strongest = 0.0
        for a in range(3):
            if number.shape[a] > 1:
                strongest = max(strongest, edges[a])
        for a in range(3):
            if number.shape[a] > 1 and edges[a] >= _WEAK * strongest:
                halved[a] = 1
                edges[a] /= 4
        if not halved.any():
            break
        hi, hj, hk = halved
        ni, nj, nk = number.shape
        coarse = np.zeros(((ni + hi) >> hi, (nj + hj) >> hj, (nk + hk) >> hk), np.bool_)
        for i in range(ni):
            for j in range(nj):
                row, above = number[i, j], coarse[i >> hi, j >> hj]
                for k in range(nk):
                    if row[k] >= 0:
                        above[k >> hk] = True
        number, count, first = _numbered(coarse)
        numbers.append(number)
        halvings.append(halved)
        start = ends[-1][2]
        ends.append(np.array([start, start + first, start + count]))

    n, total = ends[0][2], ends[-1][2]
    near, pull = np.full((total, 6), total, np.uint32), np.zeros((1 + total - n, 6), np.float32)
    ties, parent = np.zeros(total, np.float32), np.full(total, total, np.uint32)
    places = np.empty(n, np.int64)
    _fill_finest(around, weights, numbers[0], places, near, pull[0], ties)
    for g in range(1, len(numbers)):
        _fill_coarser(numbers[g - 1], numbers[g], halvings[g], ends[g - 1], ends[g], near, pull, ties, parent)
    faces, inverse = ties.astype(np.float64), np.zeros(total, np.float32)
    for p in range(total):
        for f in range(6):
            if near[p, f] < total:
                faces[p] += pull[max(0, p - n + 1), f]
        if faces[p] > 0:
            inverse[p] = 1 / faces[p]
    table = np.empty((len(ends), 3), np.int64)
    for g in range(len(ends)):
        table[g] = ends[g]
    return places, ties[:n].copy(), near, pull, faces, inverse, parent, table


@njit(cache=True, nogil=True)
def _fill_finest(around, weights, number, places, near, pull, ties):  # type: ignore[no-untyped-def]
    """Enter places, neighbours, pulls and ties of the region's voxels."""
    ni, nj, nk = number.shape
    for f in range(6):
        pull[f] = weights[f // 2]
    steps = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
    for i in range(ni):
        for j in range(nj):
            for k in range(nk):
                p = number[i, j, k]
                if p < 0:
                    continue
                places[p] = (i * nj + j) * nk + k
                for f in range(6):
                    u, v, w = i + steps[f][0], j + steps[f][1], k + steps[f][2]
                    if not (0 <= u < ni and 0 <= v < nj and 0 <= w < nk):
                        continue
                    if number[u, v, w] >= 0:
                        near[p, f] = number[u, v, w]
                    elif around[u, v, w]:
                        ties[p] += weights[f // 2]


@njit(cache=True, nogil=True)
def _fill_coarser(fine, coarse, halved, fine_ends, ends, near, pull, ties, parent):  # type: ignore[no-untyped-def]
    """Enter parents, and neighbours, pulls and ties of the coarser grid: sums over its voxels' own.

    Across an axis whose edges are doubled pulls are halved: the way is twice as long.
    """
    hi, hj, hk = halved
    for i in range(fine.shape[0]):
        for j in range(fine.shape[1]):
            row, above = fine[i, j], coarse[i >> hi, j >> hj]
            for k in range(fine.shape[2]):
                if row[k] >= 0:
                    parent[fine_ends[0] + row[k]] = ends[0] + above[k >> hk]
    total, beyond = near.shape[0], near.shape[0] - pull.shape[0]
    for p in range(fine_ends[0], fine_ends[2]):
        own, row = parent[p], max(0, p - beyond)
        ties[own] += ties[p]
        for f in range(6):
            if near[p, f] < total:
                other = parent[near[p, f]]
                if other != own:
                    near[own, f] = other
                    pull[own - beyond, f] += pull[row, f] / (1 + halved[f // 2])


@njit(cache=True, nogil=True)
def _pulled(near, pull, x, p):  # type: ignore[no-untyped-def]
    """Sum of a voxel's neighbours by their pulls, which a grid may have one row of for all its voxels."""
    own = min(p, pull.shape[0] - 1)
    return (
        (pull[own, 0] * x[near[p, 0]] + pull[own, 1] * x[near[p, 1]])
        + (pull[own, 2] * x[near[p, 2]] + pull[own, 3] * x[near[p, 3]])
        + (pull[own, 4] * x[near[p, 4]] + pull[own, 5] * x[near[p, 5]])
    )


@njit(cache=True, nogil=True)
def _rows(pull, n, start, end):  # type: ignore[no-untyped-def]
    """Pulls of the voxels from `start` to `end`, which are of one grid; `n` are of the finest."""
    return pull[:1] if start < n else pull[start - n + 1 : end - n + 1]


@njit(cache=True, nogil=True)
def _meet(x, right, near, pull, inverse, ends, start, end):  # type: ignore[no-untyped-def]
    """Solve the equations of the voxels from `start` to `end`, which are of one colour."""
    rows, others = _rows(pull, ends[0, 2], start, end), near[start:end]
    # Views begin at 0, which spares the compiled loop the question whether an index is negative.
    own, wanted, share = x[start:end], right[start:end], inverse[start:end]
    for p in range(end - start):
        own[p] = share[p] * (wanted[p] + _pulled(others, rows, x, p))


@njit(cache=True, nogil=True)
def cycle(x, right, near, pull, inverse, parent, ends):  # type: ignore[no-untyped-def]
    """Write an approximate solution for the right side of the finest grid to `x`.

    Down, each grid is solved one colour after the other, from 0, and hands what is left to the next: that of
    the first colour, the second being met. Up, the correction is added (to the first colour: the second is
    solved anew from it) and the colours go in reverse, which keeps the cycle symmetric.
    """
    last = ends.shape[0] - 1
    for g in range(last + 1):
        start, middle, end = ends[g]
        x[start:middle] = inverse[start:middle] * right[start:middle]
        _meet(x, right, near, pull, inverse, ends, middle, end)
        if g < last:
            right[end : ends[g + 1, 2]] = 0
            rows, others = _rows(pull, ends[0, 2], start, middle), near[start:middle]
            above = parent[start:middle]
            for p in range(middle - start):
                right[above[p]] += _pulled(others, rows, x, p)
    for g in range(last, -1, -1):
        start, middle, end = ends[g]
        if g < last:
            own, above = x[start:middle], parent[start:middle]
            for p in range(middle - start):
                own[p] += x[above[p]]
        _meet(x, right, near, pull, inverse, ends, middle, end)
        _meet(x, right, near, pull, inverse, ends, start, middle)


@njit(cache=True, nogil=True)
def _dot(a, b, n):  # type: ignore[no-untyped-def]
    """Sum of products in an order of its own, four at a time."""
    s, t, u, v = 0.0, 0.0, 0.0, 0.0
    for p in range(0, n - 3, 4):
        s += a[p] * b[p]
        t += a[p + 1] * b[p + 1]
        u += a[p + 2] * b[p + 2]
        v += a[p + 3] * b[p + 3]
    for p in range(n - n % 4, n):
        s += a[p] * b[p]
    return (s + t) + (u + v)


@njit(cache=True, nogil=True)
def _descend(residual, near, pull, faces, inverse, parent, ends, tolerance):  # type: ignore[no-untyped-def]
    """Conjugate gradients from 0 in double precision; single is enough for the cycle that guides them."""
    n, total = residual.size, faces.size
    # The place after the last voxel is no voxel, and stays 0.
    guess, right = np.zeros(total + 1, np.float32), np.zeros(total, np.float32)
    change, direction, image = np.zeros(n), np.zeros(total + 1, np.float32), np.empty(n)
    double = pull[:1].astype(np.float64)
    square, goal = 0.0, 0.0
    for number in range(_MOST_ROUNDS):
        right[:n] = residual
        cycle(guess, right, near, pull, inverse, parent, ends)
        before, square = square, _dot(residual, guess, n)
        if number == 0:
            goal = tolerance * tolerance * square
        if square <= goal:
            break
        share = square / before if number > 0 else 0.0
        for p in range(n):
            direction[p] = guess[p] + share * direction[p]
        for p in range(n):
            image[p] = faces[p] * direction[p] - _pulled(near, double, direction, p)
        steepness = _dot(direction, image, n)
        if steepness <= 0.0:
            break
        length = square / steepness
        for p in range(n):
            change[p] += length * direction[p]
            residual[p] -= length * image[p]
    return change


@njit(cache=True, nogil=True)
def _centre_untied(change, ties, near, faces):  # type: ignore[no-untyped-def]
    """Take the mean by faces off each part that no tie holds."""
    n, held = change.size, True
    for p in range(n):
        held &= near[p, 4] < n or ties[p] > 0
    if held:  # every row of voxels along the last axis begins at a tie: the common case
        return
    order, seen = np.empty(n, np.uint32), np.zeros(n, np.bool_)
    end = 0
    for p in range(n):
        if ties[p] > 0:
            seen[p] = True
            order[end] = p
            end += 1
    end = _spread(order, seen, near, 0, end)
    for p in range(n):
        if seen[p]:
            continue
        seen[p] = True
        start, order[end] = end, p
        end = _spread(order, seen, near, start, end + 1)
        total, weight = 0.0, 0.0
        for q in order[start:end]:
            total += faces[q] * change[q]
            weight += faces[q]
        for q in order[start:end]:
            change[q] -= total / max(weight, 1e-30)


@njit(cache=True, nogil=True)
def _spread(order, seen, near, start, end):  # type: ignore[no-untyped-def]
    """Append all that can be reached from the voxels at `start` to `end` of `order`; the new end."""
    while start < end:
        for q in near[order[start]]:
            if q < seen.size and not seen[q]:
                seen[q] = True
                order[end] = q
                end += 1
        start += 1
    return end
