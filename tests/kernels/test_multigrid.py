"""Poisson's equation on a region: against a direct solution, for every shape of voxel and region."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from lesionsynth.kernels.multigrid import grids_of, solve

WEIGHTS = [(1.0, 1.0, 1.0), (1.0, 1.0, 0.1), (0.01, 0.3, 1.0), (1e-4, 1.0, 1.0)]


def blob(seed=0, shape=(13, 12, 11), share=0.4):
    """A region that meets the border of its box, and what it may be tied to."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 1.2)
    inside = smooth > np.quantile(smooth, 1 - share)
    return inside, ~inside & (rng.random(shape) > 0.5)


def matrix_of(inside, around, weights, places):
    """The equations in the order of the places, voxel by voxel."""
    number = np.full(inside.shape, -1)
    number.reshape(-1)[places] = np.arange(places.size)
    matrix = sparse.lil_matrix((places.size,) * 2)
    for p in zip(*np.nonzero(inside), strict=True):
        for axis, weight in enumerate(weights):
            for side in (-1, 1):
                q = tuple(c + side * (a == axis) for a, c in enumerate(p))
                if not 0 <= q[axis] < inside.shape[axis] or not (inside[q] or around[q]):
                    continue
                matrix[number[p], number[p]] += weight
                if inside[q]:
                    matrix[number[p], number[q]] -= weight
    return matrix.tocsc()


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equal_to_a_direct_solution(weights, seed):
    inside, around = blob(seed)
    labels, _ = ndimage.label(inside)
    tied = np.unique(labels[ndimage.binary_dilation(around) & inside])
    inside &= np.isin(labels, tied)
    grids = grids_of(inside, around, weights)
    right = np.random.default_rng(seed).normal(size=grids.places.size)
    given = right.copy()
    expected = spsolve(matrix_of(inside, around, weights, grids.places), right)
    found = solve(grids, right, 1e-9)
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_array_equal(right, given)
    np.testing.assert_array_equal(solve(grids, right, 1e-9), found)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("shape", [(60, 1, 1), (1, 40, 9), (17, 16, 15), (1, 1, 1)])
def test_one_tie_at_the_end_of_a_long_region_is_enough(weights, shape):
    """The weakest hold there is: what is pulled at one end has to come all the way."""
    inside, around = np.zeros((2, shape[0] + 1, *shape[1:]), bool)
    inside[1:] = True
    around[0, 0, 0] = True
    grids = grids_of(inside, around, weights)
    right = np.zeros(grids.places.size)
    right[grids.places.argmax()] = 1.0
    found = solve(grids, right, 1e-9)
    expected = spsolve(matrix_of(inside, around, weights, grids.places), right)
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected.max())


def test_parts_without_a_tie_have_mean_0_by_their_faces():
    inside, around = np.zeros((2, 12, 5, 4), bool)
    inside[1:4, 1:4] = inside[5:8, 1:4] = inside[9, 2, 2] = True
    inside[11, 4, 3] = True
    around[0] = True
    grids = grids_of(inside, around, (1.0, 1.0, 0.5))
    i = grids.places // (5 * 4)
    n = grids.places.size
    right = np.where(i < 4, 1.0, 0.0)
    first, last = (
        np.flatnonzero((i == at) & (grids.places == grids.places[i == at].min()))[0] for at in (5, 7)
    )
    right[first], right[last] = 1.0, -1.0
    found = solve(grids, right, 1e-10)
    middle = (i >= 5) & (i < 8)
    assert (grids.faces[:n] * found)[middle].sum() == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(
        matrix_of(inside, around, (1.0, 1.0, 0.5), grids.places) @ found, right, atol=1e-6
    )
    assert not found[i >= 9].any()
    assert (found[i < 4] > 0.1).all()


def test_nothing_gives_nothing():
    inside, around = blob()
    grids = grids_of(inside, around, WEIGHTS[0])
    assert not solve(grids, np.zeros(grids.places.size), 1e-7).any()


@pytest.mark.parametrize("n", [16, 48])
def test_coarse_grids_keep_the_number_of_rounds_small(n):
    """Both widths reach the tolerance within one bound of rounds, which sweeps alone would not."""
    inside = np.ones((n, n, n), bool)
    around = np.zeros_like(inside)
    inside[0], around[0] = False, True
    grids = grids_of(inside, around, WEIGHTS[0])
    sizes = grids.ends[:, 2] - grids.ends[:, 0]
    assert (sizes[1:] <= sizes[:-1] / 2).all()
    assert sizes[-1] == 1
    found = solve(grids, np.ones(grids.places.size), 1e-9)
    depth = grids.places // (n * n)
    np.testing.assert_allclose(found, depth * (n - 1) - depth * (depth - 1) / 2, rtol=1e-6)
