from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesionsynth.domain.grid import Grid, bounding_box, grown, origin_of, shape_of, shifted

masks = arrays(bool, st.tuples(*[st.integers(1, 5)] * 3), elements=st.booleans())


def rotated(degrees, spacing_mm=(1.0, 2.0, 3.0)):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(spacing_mm)
    affine[:3, 3] = (5, 6, 7)
    return affine


@given(masks)
def test_the_bounding_box_is_tight(mask):
    box = bounding_box(mask)
    if box is None:
        assert not mask.any()
        return
    where = np.argwhere(mask)
    assert origin_of(box) == tuple(where.min(axis=0))
    assert shape_of(box) == tuple(np.ptp(where, axis=0) + 1)


def test_boxes_grow_up_to_the_border():
    box = (slice(1, 3), slice(0, 2), slice(4, 5))
    assert grown(box, (2, 1, 0), (10, 3, 5)) == (slice(0, 5), slice(0, 3), slice(4, 5))
    assert grown(box, (99, 99, 99), (10, 3, 5)) == (slice(0, 10), slice(0, 3), slice(0, 5))


def test_boxes_move_with_their_origin():
    box = (slice(1, 3), slice(0, 2), slice(4, 5))
    assert shifted(box, (10, -0, 3)) == (slice(11, 13), slice(0, 2), slice(7, 8))
    assert shifted(shifted(box, (4, 5, 6)), (-4, -5, -6)) == box


def test_spacing_and_volume():
    grid = Grid((4, 5, 6), rotated(30))
    assert grid.spacing_mm == pytest.approx((1, 2, 3))
    assert grid.voxel_volume_mm3 == pytest.approx(6.0)
    assert Grid((4, 5, 6), np.diag([-1.0, -2.0, 3.0, 1.0])).voxel_volume_mm3 == 6.0
    sheared = np.eye(4)
    sheared[0, 1] = 1.0
    assert Grid((2, 2, 2), sheared).voxel_volume_mm3 == 1.0


@pytest.mark.parametrize("size", [0.1, 0.7, 2.0, 3.0])
def test_the_volume_of_a_plain_voxel_is_exact(size):
    # A limit of 8 mm3 must not refuse a voxel of 2x2x2 mm.
    assert Grid((1, 1, 1), np.diag([size, size, size, 1])).voxel_volume_mm3 == pytest.approx(
        size**3, rel=1e-15
    )
    assert Grid((1, 1, 1), np.diag([2.0, 2, 2, 1])).voxel_volume_mm3 == 8.0


def test_corners_are_voxel_centres():
    corners = Grid((3, 1, 2), np.diag([2.0, 2.0, 5.0, 1.0])).corners_mm()
    assert {tuple(c) for c in corners} == {(x, 0.0, z) for x in (0.0, 4.0) for z in (0.0, 5.0)}


def test_grids_are_the_same_within_a_twentieth_of_the_finest_voxel():
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    grid = Grid((10, 10, 10), affine)

    def moved(by, axis=0):
        other = affine.copy()
        other[axis, 3] += by
        return Grid((10, 10, 10), other)

    assert grid.same_as(moved(0.049))
    assert not grid.same_as(moved(0.051))
    assert not grid.same_as(moved(0.06, 2))
    assert grid.same_as(moved(0.2), tolerance=0.25)
    assert not grid.same_as(Grid((10, 10, 11), affine))
    stretched = affine.copy()
    stretched[0, 0] = 1.01  # 0.09 mm at the far corner
    assert not grid.same_as(Grid((10, 10, 10), stretched))


@pytest.mark.parametrize(
    ("degrees", "axes"), [(0, (0, 1, 2)), (30, (0, 1, 2)), (80, (1, 0, 2)), (180, (0, 1, 2))]
)
def test_the_voxel_axis_most_parallel_to_a_world_axis(degrees, axes):
    grid = Grid((4, 4, 4), rotated(degrees))
    assert tuple(grid.axis_towards(w) for w in range(3)) == axes


def test_a_grid_describes_itself():
    assert Grid((4, 5, 6), rotated(30)).describe() == "4x5x6 at 1x2x3 mm"
