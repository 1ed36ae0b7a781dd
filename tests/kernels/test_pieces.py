from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lesionsynth.kernels.pieces import (
    BEYOND,
    OTHER,
    REGION,
    USABLE,
    lay_out,
    neighbours,
    off_plane,
    roughness,
)

SHAPE = (14, 12, 12)
STRIDES = np.array([144, 12, 1])


def box(region, usable):
    kind = np.where(region, REGION, np.where(usable, USABLE, OTHER))
    edge = np.ones(SHAPE, bool)
    edge[1:-1, 1:-1, 1:-1] = False
    kind[edge] = BEYOND
    return kind.ravel()


def test_layers_of_a_piece_are_dilations():
    region = np.zeros(SHAPE, bool)
    region[3:10, 4:8, 4:8] = True
    core = region.copy()
    core[6:] = False
    kind = box(region, np.indices(SHAPE)[1] < 9)
    stamp = np.zeros(kind.size, np.int64)
    inner, weight, outer = lay_out(np.flatnonzero(core), kind, stamp, 1, STRIDES, 2, 1)
    found = np.zeros(kind.size, np.float32)
    found[inner] = weight
    expected = core.astype(np.float32)
    expected[6][region[6]], expected[7][region[7]] = 2 / 3, 1 / 3
    np.testing.assert_allclose(found.reshape(SHAPE), expected, rtol=1e-6)
    ring = ndimage.binary_dilation(expected > 0) & (expected == 0) & (kind.reshape(SHAPE) >= USABLE)
    np.testing.assert_array_equal(np.sort(outer), np.flatnonzero(ring))
    again = lay_out(np.flatnonzero(core), kind, stamp, 7, STRIDES, 2, 1)
    assert all(np.array_equal(a, b) for a, b in zip((inner, weight, outer), again, strict=True))


def test_what_the_ring_does_not_reach_is_left_out():
    region = np.zeros(SHAPE, bool)
    region[4, 4, 4] = region[9, 6, 6] = True
    kind = box(region, np.indices(SHAPE)[0] < 7)
    stamp = np.zeros(kind.size, np.int64)
    inner, _, _ = lay_out(np.flatnonzero(region), kind, stamp, 1, STRIDES, 0, 1)
    assert inner.tolist() == [4 * 144 + 4 * 12 + 4]


def test_pairs_are_face_neighbours():
    slot = np.zeros(300, np.int32)
    pairs = neighbours(np.array([100, 88, 101, 150]), slot, np.array([144, 12, 1]))
    assert sorted(map(tuple, pairs.tolist())) == [(0, 2), (1, 0)]
    assert not slot.any()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_plane_leaves_nothing_and_a_bump_itself(sign):
    index = np.indices((20, 20, 20)).astype(np.float32)
    image = np.stack([100 + 2 * index[0] - index[1], 3 * index[2]])
    image[0, 10, 10, 10] += 7
    turn, move = np.array([sign, 1, 1]), np.array([0 if sign > 0 else 19, 0, 0])
    centre = np.array([10 if sign > 0 else 9, 10, 10])
    inner = centre + np.array([[0, 0, 0], [0, 1, 0]])
    outer = np.argwhere(np.abs(np.moveaxis(np.indices((20, 20, 20)), 0, -1) - centre).max(axis=-1) == 2)
    clean = np.ones((20, 20, 20), bool)
    detail = off_plane(image, clean, inner, outer, turn, move, np.ones(3))
    np.testing.assert_allclose(detail, [[7, 0], [0, 0]], atol=0.03)


def test_roughness_is_the_mean_step_inside_the_mask():
    image = np.zeros((1, 3, 1, 1), np.float32)
    image[0, :, 0, 0] = 0, 4, 10
    mask = np.ones((3, 1, 1), bool)
    assert roughness(image, mask, 2).tolist() == [5.0]
    assert roughness(image, mask, 3).tolist() == [-1.0]
    mask[2] = False
    assert roughness(image, mask, 1).tolist() == [4.0]
