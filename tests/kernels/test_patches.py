from __future__ import annotations

import numpy as np
import pytest

from lesionsynth.kernels.patches import Way, clean_places, draw_ways

STRAIGHT = np.ones(3, dtype=np.int64)
POINTS = np.array([[1, 1, 1], [2, 1, 1]])
RING = np.array([[0, 1, 1], [3, 1, 1], [1, 0, 1], [1, 2, 1]])


def places(offsets, clean, sign=STRAIGHT, spare=0, wanted=10):
    offsets = np.array(offsets)
    used = np.zeros(len(offsets), bool)
    return clean_places(POINTS, RING, np.asarray(sign), offsets, used, clean, spare, wanted).tolist()


def test_a_place_is_clean_or_it_is_not():
    clean = np.zeros((12, 3, 3), bool)
    clean[4:8] = True
    assert places([[3, 0, 0], [4, 0, 0], [5, 0, 0]], clean) == [1]


def test_the_volume_is_not_left():
    clean = np.ones((6, 3, 3), bool)
    assert places([[-1, 0, 0], [0, 0, 0], [2, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, -2]], clean) == [1, 2]


def test_a_mirrored_place():
    """Voxel 0 to 3 become 11 to 8."""
    clean = np.zeros((12, 3, 3), bool)
    clean[8:] = True
    assert places([[11, 0, 0]], clean, sign=[-1, 1, 1]) == [0]
    clean[8, 1, 1] = False
    assert places([[11, 0, 0]], clean, sign=[-1, 1, 1]) == []


def test_the_ring_may_miss_some_voxels_the_patch_none():
    clean = np.ones((6, 3, 3), bool)
    clean[3, 1, 1] = False  # in the ring of the first place, in the patch of the second
    assert places([[0, 0, 0], [1, 0, 0]], clean, spare=1) == [0]
    clean[1, 2, 1] = False
    assert places([[0, 0, 0]], clean, spare=1) == []
    assert places([[0, 0, 0]], clean, spare=2) == [0]


def test_the_search_stops_after_enough_places():
    assert places([[0, 0, 0]] * 5, np.ones((6, 3, 3), bool), wanted=3) == [0, 1, 2]


def test_used_places_are_taken_again_only_where_there_are_no_others():
    clean = np.ones((6, 3, 3), bool)
    offsets = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0], [2, 0, 0], [9, 0, 0]])
    way = Way("shift", STRAIGHT, offsets, np.zeros(5, bool))
    assert way.find(POINTS, RING, clean, 0, 10).tolist() == [0, 1, 2, 3]
    way.use(2)
    assert way.find(POINTS, RING, clean, 0, 10).tolist() == [1, 3]
    way.use(1)
    way.use(3)
    assert way.find(POINTS, RING, clean, 0, 10).tolist() == [0, 1, 2, 3]


def test_places_near_by_are_preferred():
    clean = np.ones((40, 40, 40), bool)
    (way,) = draw_ways(clean, np.array([1.0, 1.0, 4.0]), np.random.default_rng(0), None)
    length_mm = np.linalg.norm(way.offsets * [1.0, 1.0, 4.0], axis=1)
    assert way.name == "shift"
    np.testing.assert_array_equal(way.sign, 1)
    assert np.median(length_mm) < 15
    assert length_mm.max() > 60


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrored_places_lie_around_the_mirror_image_across_the_centre_of_mass(axis):
    clean = np.zeros((30, 30, 30), bool)
    np.moveaxis(clean, axis, 0)[4:21] = True
    mirrored, straight = draw_ways(clean, np.ones(3), np.random.default_rng(0), axis)
    assert (mirrored.name, straight.name) == ("mirror", "shift")
    assert mirrored.sign.tolist() == [-1 if a == axis else 1 for a in range(3)]
    expected = [24 if a == axis else 0 for a in range(3)]
    np.testing.assert_allclose(mirrored.offsets.mean(axis=0), expected, atol=1)
    assert np.linalg.norm(mirrored.offsets - expected, axis=1).max() <= 13
